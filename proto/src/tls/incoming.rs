//! The coordinator's accept loop: nobody waits for somebody else's handshake.

use super::Hot;
use super::door::Door;
use super::explain::certificate_problem;
use super::handshakes::{Handshakes, source};
use super::held::Open;
use super::knocks::Knocks;
use super::peer::{Connection, Peer};
use super::places::{Place, Places};
use crate::identity::{self, Identity};
use rustls::ServerConfig;
use rustls::server::Acceptor;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

/// How much the handshakes of others may cost.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Handshakes under way at once.
    handshakes: usize,
    /// For one handshake.
    patience: Duration,
}

/// A handshake costs some kilobytes until it is done. Ten seconds are several round trips over a bad line.
const LIMITS: Limits = Limits { handshakes: 512, patience: Duration::from_secs(10) };

/// What every peer has asked for so far, and has.
#[derive(Debug)]
struct Asked {
    handshakes: Handshakes,
    open: Arc<Open>,
}

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
        let asked = Arc::new(Asked { handshakes: Handshakes::default(), open: Open::new() });
        let (places, mut knocks, mut door) = (Places::new(limits.handshakes), Knocks::default(), Door::new(listener));
        loop {
            let (stream, remote) = tokio::select! {
                () = done.closed() => return,
                accepted = door.next() => accepted,
            };
            let (source, now) = (source(remote.ip()), Instant::now());
            if !knocks.hears(source, now) {
                door.shut(source, now);
                continue;
            }
            let Some(place) = places.enter(source) else { continue };
            let (done, config, asked) = (done.clone(), config.load_full(), Arc::clone(&asked));
            tokio::spawn(async move {
                let connection = tokio::select! {
                    () = place.given_up() => return tracing::debug!(%remote, "a handshake made place for another"),
                    connection = timeout(limits.patience, handshake(stream, remote, config, &place, &asked)) => connection,
                };
                drop(place);
                match connection {
                    Ok(Ok(connection)) => drop(done.send(Ok(connection)).await),
                    Ok(Err(error)) => refused(remote, &error),
                    Err(_) => tracing::debug!(%remote, patience = ?limits.patience, "a handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn handshake(
    stream: TcpStream,
    remote: SocketAddr,
    config: Arc<ServerConfig>,
    place: &Place,
    asked: &Asked,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    place.spoke();
    // Only from here on it costs this side something: whoever is silent takes no turn from others behind the same address.
    if !asked.handshakes.turn(remote.ip()).await {
        return Err(io::Error::other("too many handshakes of this address wait"));
    }
    let stream = hello.into_stream(config).await?;
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
    let held = asked.open.one_more(&peer).ok_or_else(|| io::Error::other("this peer has too many connections already"))?;
    Ok(Connection::tls(stream, peer, held))
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
