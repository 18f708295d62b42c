//! The local sockets: what this host says and does for whoever may log in to it, with or without a coordinator.

mod orders;
mod status;

pub use orders::go_back;
pub use status::ask;

use crate::condition::Condition;
use crate::reconciler::{Event, View};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// Serves both sockets of an agent with this state folder.
pub async fn serve(
    state: PathBuf,
    view: watch::Receiver<Arc<View>>,
    condition: Condition,
    events: mpsc::UnboundedSender<Event>,
) {
    tokio::join!(status::serve(&state, view, &condition), orders::serve(&state, events));
}

fn folder(state: &Path) -> PathBuf {
    state.join("run")
}

/// A socket of this agent. None, and a word about it, where that cannot be.
fn listen(path: &Path) -> Option<UnixListener> {
    bind(path).inspect_err(|error| tracing::warn!(%error, socket = %path.display(), "no local socket")).ok()
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // The agent's lock says that whoever left this is gone.
    crate::durable::remove(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The next one who may ask: root, or the user the agent runs as.
async fn connected(listener: &UnixListener) -> UnixStream {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid())) {
            return stream;
        }
    }
}

fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}
