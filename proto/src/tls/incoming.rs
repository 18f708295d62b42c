//! The coordinator's accept loop: nobody waits for somebody else's handshake.

use super::Hot;
use super::explain::certificate_problem;
use super::handshakes::Handshakes;
use super::peer::{Connection, Peer};
use crate::identity::{self, Identity};
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

/// How much the handshakes of others may cost.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Handshakes under way at once.
    handshakes: usize,
    /// For one handshake.
    patience: Duration,
    /// For one handshake that begins while more than half of the places are taken: those who are slow on purpose must not
    /// keep everybody else out for long.
    patience_when_crowded: Duration,
}

/// A handshake costs some kilobytes until it is done, and the kernel's backlog holds whoever finds no place. Ten seconds are
/// several round trips over a bad line.
const LIMITS: Limits =
    Limits { handshakes: 512, patience: Duration::from_secs(10), patience_when_crowded: Duration::from_secs(2) };

/// Between two accepts after one failed, for want of file descriptors above all: others must end first.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Accepts connections and does their handshakes, each with the configuration that is current when it arrives.
///
/// The stream never ends and holds no errors: a failed handshake or accept is logged, and concerns nobody else. Dropping the
/// stream closes the listener. Must be called within a Tokio runtime.
pub fn incoming(
    listener: TcpListener,
    config: Hot<ServerConfig>,
) -> impl Stream<Item = io::Result<Connection>> + Send + use<> {
    serve(listener, config, LIMITS)
}

fn serve(
    listener: TcpListener,
    config: Hot<ServerConfig>,
    limits: Limits,
) -> impl Stream<Item = io::Result<Connection>> + Send + use<> {
    let (done, connections) = mpsc::channel(16);
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(limits.handshakes));
        let handshakes = Arc::new(Handshakes::default());
        loop {
            let (stream, remote) = tokio::select! {
                () = done.closed() => return,
                accepted = accept(&listener) => accepted,
            };
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let crowded = room.available_permits() < limits.handshakes / 2;
            let patience = if crowded { limits.patience_when_crowded } else { limits.patience };
            let (done, config, handshakes) = (done.clone(), config.load_full(), Arc::clone(&handshakes));
            tokio::spawn(async move {
                let connection = timeout(patience, async {
                    handshakes.turn(remote.ip()).await;
                    handshake(stream, remote, config).await
                });
                let connection = connection.await;
                drop(place);
                match connection {
                    Ok(Ok(connection)) => drop(done.send(Ok(connection)).await),
                    Ok(Err(error)) => refused(remote, &error),
                    Err(_) => tracing::debug!(%remote, ?patience, "a handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The peer went away between its knock and our answer: the next one waits already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn handshake(stream: TcpStream, remote: SocketAddr, config: Arc<ServerConfig>) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let (_, session) = stream.get_ref();
    let peer = match session.peer_certificates().and_then(<[_]>::first) {
        None => Peer::bare(Identity::Anonymous, Some(remote)),
        Some(certificate) => {
            let subject = identity::subject(certificate).map_err(io::Error::other)?;
            Peer {
                serial: Some(subject.serial),
                issuer: subject.issuer,
                valid: (subject.not_before, subject.not_after),
                services: subject.services,
                ..Peer::bare(subject.identity, Some(remote))
            }
        }
    };
    Ok(Connection::tls(stream, peer))
}

fn refused(remote: SocketAddr, error: &io::Error) {
    match certificate_problem(error) {
        Some(problem) => tracing::info!(%remote, %problem, "refused a certificate"),
        None => tracing::debug!(%remote, %error, "a handshake failed"),
    }
}

#[cfg(test)]
#[path = "tests/slow.rs"]
mod tests;
