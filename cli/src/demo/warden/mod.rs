//! Nothing is left behind: every process of a demo descends from a warden, and a warden ends when whoever raised it does.
//!
//! Apps outlive their agents by design, so killing the processes one has started is not enough. The warden is a subreaper:
//! whatever its children start and abandon becomes its own child. Its order pipe is its life line: when the other end
//! closes, by `Ctrl-C`, a panic or `kill -9`, it kills every descendant, removes the folder and ends.

mod family;
mod orders;
mod serve;

pub use orders::Program;
pub(super) use serve::serve;

use orders::{Order, Reply};
use rustix::process::Pid;
use std::io::{BufRead as _, BufReader, Error, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The near end of a warden.
#[derive(Debug)]
pub struct Warden {
    process: Child,
    /// None once it was let go.
    orders: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Warden {
    /// Starts a warden over `folder`, which it will remove in the end.
    ///
    /// `part` are the words that start a part of the demo: this executable and `demo-part`.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn raise(part: &[String], folder: &Path) -> std::io::Result<Self> {
        let (program, words) = part.split_first().ok_or_else(|| Error::other("no program to start a warden with"))?;
        let mut process = Command::new(program)
            .args(words)
            .arg("warden")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: the terminal's Ctrl-C is for the demo, which then lets go in its own time.
            .process_group(0)
            .spawn()?;
        match (process.stdin.take(), process.stdout.take()) {
            (orders, Some(replies)) => Ok(Self { process, orders, replies: BufReader::new(replies) }),
            _ => Err(Error::other("the warden has no pipes")),
        }
    }

    /// Starts a program as a child of the warden.
    ///
    /// # Errors
    /// When it cannot be started, or the warden is gone.
    pub fn start(&mut self, program: &Program) -> std::io::Result<Pid> {
        let orders = self.orders.as_mut().ok_or_else(|| Error::other("the warden was let go"))?;
        let mut line = serde_json::to_string(&Order::Start(program.clone()))?;
        line.push('\n');
        orders.write_all(line.as_bytes())?;
        let mut reply = String::new();
        self.replies.read_line(&mut reply)?;
        match serde_json::from_str(&reply)? {
            Reply::Started { pid } => Pid::from_raw(pid).ok_or_else(|| Error::other("a process without a number")),
            Reply::Refused { why } => Err(Error::other(why)),
        }
    }

    /// The warden's own process: the ancestor of everything.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Warden {
    /// Lets go and waits until everything is gone.
    fn drop(&mut self) {
        drop(self.orders.take());
        // Whatever its end was, there is nobody left to tell.
        let _ = self.process.wait();
    }
}
