//! The way between two halves that are two processes: a unix socket that one user may use.

use super::{End, pair};
use crate::text;
use baton_core::problem::{Code, Problem};
use baton_proto::frame::{self, Message};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};

/// The user the link runs as, where the package made one.
pub const USER: &str = "baton-agent-link";

pub(super) const LOST_FOR_GOOD: &str = "the other half of this agent is gone";

/// How long until it is listened again where the machine is out of descriptors.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where the host's half waits for the link.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    /// The only one who is let in.
    user: u32,
}

impl Door {
    /// Listens at a path, for one user.
    ///
    /// # Errors
    /// B0561: it cannot.
    pub fn open(path: &Path, user: u32) -> Result<Self, Problem> {
        let listener = listen(path, user).map_err(|error| {
            Problem::new(Code(561), "the socket for the half of this agent that faces the network cannot be made")
                .saw("socket", path.display().to_string())
                .saw("seen", text::io_error(&error))
                .help("it is named by `baton-agent run --link`; only root can give it to another user")
        })?;
        Ok(Self { listener, user })
    }

    /// The next time the link comes.
    pub(crate) async fn next(&self) -> UnixStream {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(PATIENCE).await;
                continue;
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == self.user => return stream,
                Ok(peer) => tracing::warn!(user = peer.uid(), "somebody else than the link was at its socket"),
                Err(_) => {}
            }
        }
    }
}

fn listen(path: &Path, user: u32) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        // As whoever else needs it first makes it: to be walked through, not to be looked around in.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(folder)?;
    }
    // The agent's lock says that whoever left this is gone.
    crate::durable::remove(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    if user != rustix::process::geteuid().as_raw() {
        std::os::unix::fs::chown(path, Some(user), None)?;
    }
    Ok(listener)
}

/// One half's end of a socket, and what carries it: it ends with the socket, or with this half.
pub(crate) fn carried<Out: Message, In: Message + Default>(
    stream: UnixStream,
) -> (End<Out, In>, impl Future<Output = io::Error>) {
    let (mine, theirs) = pair::<Out, In>();
    (mine, async move {
        let End { out: incoming, heard: mut outgoing } = theirs;
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        // Whoever is slow to take what is read makes the other half wait: nothing piles up here.
        let read = async {
            loop {
                let message = match frame::read(&mut reader).await {
                    Ok(Some(message)) => message,
                    Ok(None) => return closed(),
                    Err(error) => return error,
                };
                if incoming.send(message).await.is_err() {
                    return closed();
                }
            }
        };
        let write = async {
            while let Some(message) = outgoing.recv().await {
                if let Err(error) = frame::write(&mut writer, &message).await {
                    return error;
                }
            }
            closed()
        };
        tokio::select! {
            error = read => error,
            error = write => error,
        }
    })
}
