//! What `baton-agent status` reads: the report of the moment, to everyone who may connect.

use super::{connected, folder, listen};
use crate::condition::Condition;
use crate::reconciler::View;
use baton_core::fleet::report::HostReport;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

const SOCKET: &str = "agent.sock";

/// Answers with the report of the moment. A host where this cannot be goes without it.
pub(super) async fn serve(state: &Path, view: watch::Receiver<Arc<View>>, condition: &Condition) {
    let Some(listener) = listen(&folder(state).join(SOCKET)) else { return std::future::pending().await };
    loop {
        let mut stream = connected(&listener).await;
        let mut report = view.borrow().report(Instant::now());
        report.problems.extend(condition.problems_here());
        let Ok(bytes) = serde_json::to_vec(&report) else { continue };
        tokio::spawn(async move {
            let _ = stream.write_all(&bytes).await;
        });
    }
}

/// Asks the agent that runs on this host.
///
/// # Errors
/// Nobody answers, or not in words this program knows.
pub async fn ask(state: &Path) -> io::Result<HostReport> {
    let mut stream = UnixStream::connect(folder(state).join(SOCKET)).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}
