//! The question a balancer's host asks a member before it puts it in.
//!
//! Asked from here, because HAProxy assumes UP when a server leaves maintenance, and because the way from the balancer to
//! the member is part of what must work.

use baton_core::release::Probe;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For one question and its answer. A member that takes longer is asked again on the next pass.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(300);

/// A status line longer than this is no status line.
const STATUS_LINE_MAX: usize = 256;

/// Asks once. `Err` is the answer as people read it.
///
/// # Errors
/// What was seen instead of "ready".
pub(crate) async fn ask(address: SocketAddr, probe: &Probe) -> Result<(), String> {
    match tokio::time::timeout(TIMEOUT, answer(address, probe)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", TIMEOUT.as_millis())),
    }
}

/// The question as people read it.
pub(crate) fn question(address: SocketAddr, probe: &Probe) -> String {
    match probe {
        Probe::Http { path } => format!("GET http://{address}{path}"),
        Probe::Tcp | Probe::Exec { .. } => format!("connect to {address}"),
    }
}

async fn answer(address: SocketAddr, probe: &Probe) -> io::Result<Result<(), String>> {
    if matches!(probe, Probe::Http { path } if path.chars().any(|c| c.is_control() || c == ' ')) {
        return Ok(Err("the path holds a space or a control character".to_owned()));
    }
    let mut stream = TcpStream::connect(address).await?;
    // A command belongs to the member's own host; from here, that it listens is all there is to see.
    let Probe::Http { path } = probe else { return Ok(Ok(())) };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: baton\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let line = status_line(&mut stream).await?;
    // The rest is read so that the member does not see a reset.
    let _ = tokio::time::timeout(Duration::from_millis(20), tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
    Ok(match line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()) {
        Some(200..=299) if line.starts_with("HTTP/1.") => Ok(()),
        _ => Err(if line.is_empty() { "closed without an answer".to_owned() } else { line }),
    })
}

async fn status_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut seen = Vec::new();
    while !seen.contains(&b'\n') && seen.len() < STATUS_LINE_MAX {
        if stream.read_buf(&mut seen).await? == 0 {
            break;
        }
    }
    let line = seen.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(80).collect())
}
