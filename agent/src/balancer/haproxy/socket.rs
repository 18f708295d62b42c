//! One question to a HAProxy socket, one answer, one connection.
//!
//! Never a kept connection: HAProxy has about ten slots for them, and a leaked one blocks the next caller until its own
//! timeout. Every exchange has a timeout and a bound on what it reads.

use crate::balancer::problem;
use baton_core::problem::Problem;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// For one exchange; loaded, HAProxy answers within a millisecond (p99).
const TIMEOUT: Duration = Duration::from_millis(400);

/// 600 servers are 132 kB of `show stat`; what is longer than this is not HAProxy.
const ANSWER_MAX: u64 = 16 << 20;

/// Runs commands in one connection, so that one process answers all of them: one block of text a command, in their order.
///
/// # Errors
/// Missing, refused, slow or unreadable, each its own [`Problem`].
pub(super) async fn ask<C: AsRef<str>>(path: &Path, commands: &[C]) -> Result<Vec<String>, Problem> {
    let mut line = commands.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(";");
    line.push('\n');
    let answer = match tokio::time::timeout(TIMEOUT, exchange(path, &line)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(problem)) => return Err(problem),
        Err(_) => return Err(problem::socket_slow(path, TIMEOUT.as_millis())),
    };
    let text = String::from_utf8(answer).map_err(|_| problem::socket_garbage(path, "bytes that are no text"))?;
    blocks(&text, commands.len()).ok_or_else(|| problem::socket_garbage(path, &text))
}

async fn exchange(path: &Path, line: &str) -> Result<Vec<u8>, Problem> {
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => problem::socket_denied(path, &error),
        _ => problem::socket_missing(path, &error),
    })?;
    converse(stream, line).await.map_err(|error| problem::socket_broken(path, &error))
}

async fn converse(mut stream: UnixStream, line: &str) -> io::Result<Vec<u8>> {
    stream.write_all(line.as_bytes()).await?;
    // A master socket waits for more commands until this side is done.
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Cuts an answer into its blocks: each ends with an empty line, and a command that succeeds silently is an empty block.
fn blocks(text: &str, expected: usize) -> Option<Vec<String>> {
    let mut blocks = vec![String::new()];
    for line in text.split_inclusive('\n') {
        match line {
            "\n" => blocks.push(String::new()),
            line => blocks.last_mut()?.push_str(line),
        }
    }
    let rest = blocks.pop()?;
    (rest.is_empty() && blocks.len() >= expected).then_some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_its_block_also_when_it_says_nothing() {
        let blocks = blocks("\nNo such server.\n\n\n1\n# be_id\n3 shop\n\n", 4).unwrap();
        assert_eq!(blocks, ["", "No such server.\n", "", "1\n# be_id\n3 shop\n"]);
    }

    #[test]
    fn an_answer_that_stops_in_the_middle_is_none() {
        assert_eq!(blocks("1\n# be_id\n3 sh", 1), None);
        assert_eq!(blocks("", 1), None);
        assert_eq!(blocks("admin\n\n", 2), None);
    }
}
