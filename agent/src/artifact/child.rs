//! Unpacking in a process of its own: an archive that gets the better of its reader gets a process that may do nothing else,
//! and what unpacking needed for a moment is given back whole.

use super::bounds::Bounds;
use super::{sandbox, unpack::unpack};
use baton_core::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What the child is asked, on its standard input.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    archive: PathBuf,
    into: PathBuf,
    bounds: Bounds,
}

/// Has an archive unpacked by a child: `words` start it.
///
/// The child ends with the future, and with this process.
///
/// # Errors
/// What the child found; B0610 where a limit ended it, B0604 where anything else did.
pub(super) async fn unpack_in_child(words: &[String], archive: &Path, into: &Path, bounds: &Bounds) -> Result<(), Problem> {
    let order = Order { archive: archive.to_owned(), into: into.to_owned(), bounds: *bounds };
    let output = ask(words, &order).await.map_err(|error| {
        Problem::new(Code(604), format!("unpacking the artifact could not begin: {}", crate::text::io_error(&error)))
            .help("the agent starts its own program for it: look at the agent's log and the host's memory")
    })?;
    match serde_json::from_slice(&output.stdout) {
        Ok(None) if output.status.success() => Ok(()),
        Ok(Some(problem)) => Err(problem),
        _ => Err(ended(output.status)),
    }
}

async fn ask(words: &[String], order: &Order) -> io::Result<Output> {
    let (program, words) = words.split_first().ok_or_else(|| io::Error::other("no program"))?;
    let mut child = Command::new(program)
        .args(words)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ended before it read says why with its end.
        let _ = stdin.write_all(&serde_json::to_vec(order)?).await;
    }
    child.wait_with_output().await
}

fn ended(status: ExitStatus) -> Problem {
    let limits = [rustix::process::Signal::XCPU, rustix::process::Signal::XFSZ].map(|signal| Some(signal.as_raw()));
    if limits.contains(&status.signal()) {
        return Problem::new(Code(610), "the archive is refused: unpacking it reached a limit")
            .saw("ended by", status.to_string())
            .help("pack less, or in smaller files");
    }
    Problem::new(Code(604), "unpacking the artifact ended unexpectedly")
        .saw("ended by", status.to_string())
        .help("look at the agent's log and the host's memory, then deploy again")
}

/// The child's whole life: reads what is asked, gives up what it does not need, unpacks, answers on standard output.
///
/// # Errors
/// Those of its standard input and output.
pub fn unpack_as_asked() -> io::Result<()> {
    let mut asked = Vec::new();
    io::stdin().lock().read_to_end(&mut asked)?;
    let order: Order = serde_json::from_slice(&asked)?;
    let outcome = sandbox::enter(&order.archive, &order.into, &order.bounds)
        .map_err(|error| {
            let why = crate::text::io_error(&error);
            Problem::new(Code(604), format!("unpacking the artifact could not be confined: {why}"))
        })
        .and_then(|()| unpack(&order.archive, &order.into, &order.bounds));
    let mut out = io::stdout().lock();
    out.write_all(&serde_json::to_vec(&outcome.err())?)?;
    out.flush()
}
