//! The coordinator's unix socket: the kernel says who is there.

use super::peer::Connection;
use crate::identity::Identity;
use std::io;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

/// As in the accept loop for the network: others must end first.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Accepts local connections and asks `identify` who the peer's user and group are to Baton.
///
/// The kernel took both (`SO_PEERCRED`) when the peer connected; nothing the peer sends can change them. The stream never
/// ends and holds no errors. Must be called within a Tokio runtime.
pub fn local_incoming<F>(listener: UnixListener, identify: F) -> impl Stream<Item = io::Result<Connection>> + Send + use<F>
where
    F: Fn(u32, u32) -> Identity + Send + 'static,
{
    let (done, connections) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = done.closed() => return,
                accepted = listener.accept() => accepted,
            };
            let identified = accepted.and_then(|(stream, _)| {
                let credentials = stream.peer_cred()?;
                Ok(Connection::local(stream, identify(credentials.uid(), credentials.gid())))
            });
            match identified {
                Ok(connection) => drop(done.send(Ok(connection)).await),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a local connection");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}
