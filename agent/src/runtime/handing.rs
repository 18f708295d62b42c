//! How sockets reach a program: in the way systemd hands them over, as descriptors from 3 on with `LISTEN_FDS` and `LISTEN_PID`.
//!
//! `LISTEN_PID` is the program's own process id, which nobody knows before the process exists. So the process begins as this
//! executable, which takes the descriptors from its standard input, says who it is, and becomes the program: same process, same id.
//! So begins, too, a program whose words somebody on the way would read as more than words.

use super::sockets::{receive, send};
use crate::text;
use baton_core::problem::{Code, Problem};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// The first descriptor a program is given (sd_listen_fds(3)).
const FIRST: i32 = 3;
/// For a process to become its program: both have to be read from disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// The hidden word that makes this executable begin a program.
pub const BEGIN: &str = "begin";
/// The hidden word that makes this executable a holder of sockets.
pub const HOLD: &str = "hold-sockets";

/// A word in letters that mean nothing to anybody on the way: every other byte as `=` and two hexadecimal digits.
pub(super) fn spell(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-./:_".contains(&byte);
    word.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("={byte:02x}") }).collect()
}

/// The word that was [spelled](spell); none when nobody spelled it.
fn unspell(spelled: &OsStr) -> Option<OsString> {
    let mut bytes = spelled.as_encoded_bytes().iter();
    let mut word = Vec::with_capacity(spelled.len());
    while let Some(&byte) = bytes.next() {
        let digit = |byte: &u8| u8::try_from(char::from(*byte).to_digit(16)?).ok();
        word.push(if byte == b'=' { digit(bytes.next()?)? << 4 | digit(bytes.next()?)? } else { byte });
    }
    Some(OsString::from_vec(word))
}

/// The names a program finds for its sockets: its service, once for each.
pub(super) fn names<S>(service: &str, sockets: &[S]) -> String {
    vec![service; sockets.len()].join(":")
}

/// Standard input for a process that begins with [`begin`], and what becomes of it.
pub(super) fn hand(sockets: &[Arc<OwnedFd>]) -> io::Result<(OwnedFd, Outcome)> {
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let (outcome, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut descriptors: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    descriptors.push(tell.as_fd());
    send(&near, b"sockets", &descriptors)?;
    Ok((far, Outcome(outcome)))
}

pub(super) fn unhanded(error: &io::Error) -> Problem {
    Problem::new(Code(204), format!("the public sockets could not be handed over: {}", text::io_error(error)))
}

/// Whether a process became its program.
#[derive(Debug)]
pub(super) struct Outcome(OwnedFd);

impl Outcome {
    /// Waits until it has.
    ///
    /// # Errors
    /// The kernel's answer when it could not.
    pub(super) async fn known(self) -> io::Result<()> {
        let mut pipe = Receiver::from_owned_fd(self.0)?;
        let mut number = [0; 4];
        // Becoming the program closes the other end; so does an end before that, which whoever watches the process sees.
        match tokio::time::timeout(PATIENCE, pipe.read_exact(&mut number)).await {
            Ok(Ok(_)) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number))),
            Ok(Err(_)) => Ok(()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Becomes a program, whose words are [spelled](spell), with the sockets that wait at standard input. Returns only when that failed.
///
/// # Errors
/// What kept it from becoming the program; whoever asked for it was told.
pub fn begin(program: &[OsString]) -> io::Result<()> {
    let stdin = io::stdin();
    let (_, mut descriptors) = receive(stdin.as_fd())?;
    let tell = descriptors.pop().ok_or(io::ErrorKind::InvalidData)?;
    let failed = become_program(program, &descriptors);
    let number = failed.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error());
    File::from(tell).write_all(&number.to_ne_bytes())?;
    Err(failed)
}

fn become_program(program: &[OsString], sockets: &[OwnedFd]) -> io::Error {
    let words: Option<Vec<_>> = program.iter().map(|word| unspell(word)).collect();
    let Some([path, arguments @ ..]) = words.as_deref() else { return io::ErrorKind::InvalidInput.into() };
    for (number, socket) in (FIRST..).zip(sockets) {
        if socket.as_raw_fd() != number {
            let _ = writeln!(io::stderr(), "descriptor {number} is in use: it was left open by whoever started the agent");
            return rustix::io::Errno::BUSY.into();
        }
        if let Err(error) = fcntl_setfd(socket, FdFlags::empty()) {
            return error.into();
        }
    }
    let nothing = File::open("/dev/null").and_then(|nothing| Ok(rustix::stdio::dup2_stdin(nothing)?));
    if let Err(error) = nothing {
        return error;
    }
    let mut program = Command::new(path);
    program.args(arguments);
    if !sockets.is_empty() {
        program.env("LISTEN_PID", std::process::id().to_string()).env("LISTEN_FDS", sockets.len().to_string());
    }
    program.exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_was_spelled_is_the_word() {
        for word in ["", "/usr/bin/app", "a b", "echo bye; exit 3", "$HOME ${HOME} 100% \\x41 \"'", "two\nlines\t", "é=3d="]
        {
            let spelled = spell(word);
            assert!(spelled.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./:_=".contains(&byte)), "{spelled}");
            assert_eq!(unspell(OsStr::new(&spelled)), Some(word.into()));
        }
        for wrong in ["=", "=4", "=zz", "a=+1"] {
            assert_eq!(unspell(OsStr::new(wrong)), None);
        }
    }
}
