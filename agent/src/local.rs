//! The local socket: what `baton-agent status` reads, with or without a coordinator.

use crate::reconciler::View;
use baton_core::fleet::report::HostReport;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Where an agent with this state folder answers.
#[must_use]
pub fn socket(state: &Path) -> PathBuf {
    state.join("run/agent.sock")
}

/// Answers everyone who may connect with the report of the moment. A host where this cannot be goes without it.
pub async fn serve(state: PathBuf, view: watch::Receiver<Arc<View>>) {
    match listen(&socket(&state)) {
        Ok(listener) => answer(listener, view).await,
        Err(error) => {
            tracing::warn!(%error, "no local socket: `baton-agent status` will show the ledger only");
            std::future::pending::<()>().await;
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // The agent's lock says that whoever left this is gone.
    crate::durable::remove(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(listener: UnixListener, view: watch::Receiver<Arc<View>>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        if !stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid())) {
            continue;
        }
        let report = view.borrow().report(Instant::now());
        let Ok(bytes) = serde_json::to_vec(&report) else { continue };
        tokio::spawn(async move {
            let _ = stream.write_all(&bytes).await;
        });
    }
}

/// Root, and the user the agent runs as.
fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Asks the agent that runs on this host.
///
/// # Errors
/// Nobody answers, or not in words this program knows.
pub async fn ask(state: &Path) -> io::Result<HostReport> {
    let mut stream = UnixStream::connect(socket(state)).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}
