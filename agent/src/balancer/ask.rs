//! One HTTP question to a balancer's own endpoint, over TCP or a unix socket: one answer, one connection, one deadline.

use super::problem;
use baton_core::problem::Problem;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// For one question and its answer.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(400);

/// What is longer than this is not the balancer.
const ANSWER_MAX: usize = 16 << 20;

/// A member is one header of nginx's answer.
const HEADERS_MAX: usize = 8192;

/// Where a balancer answers: `127.0.0.1:9901`, or the path of a unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Who listens on the unix socket.
    pub(crate) peer: Option<u32>,
}

/// Why nothing did.
#[derive(Debug)]
pub(crate) enum Silence {
    Nobody(io::Error),
    Denied(io::Error),
    Garbage(String),
    Slow(Duration),
}

impl Silence {
    pub(crate) fn problem(self, place: &Place) -> Problem {
        match self {
            Self::Nobody(error) => problem::nobody_answers(place, &error),
            Self::Denied(error) => problem::place_denied(place, &error),
            Self::Garbage(seen) => problem::place_garbage(place, &seen),
            Self::Slow(waited) => problem::place_slow(place, waited.as_millis()),
        }
    }
}

/// Asks for one path.
pub(crate) async fn get(place: &Place, path: &str) -> Result<Answer, Silence> {
    get_within(place, path, TIMEOUT).await
}

/// The same, where another time is due: several questions at once are answered one after the other.
pub(crate) async fn get_within(place: &Place, path: &str, timeout: Duration) -> Result<Answer, Silence> {
    let asking = async {
        match place {
            Place::Tcp(address) => exchange(TcpStream::connect(address).await.map_err(unreachable)?, path).await,
            Place::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
                let pid = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok());
                exchange(stream, path).await.map(|answer| Answer { peer: pid, ..answer })
            }
        }
    };
    tokio::time::timeout(timeout, asking).await.unwrap_or(Err(Silence::Slow(timeout)))
}

fn unreachable(error: io::Error) -> Silence {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Silence::Denied(error),
        _ => Silence::Nobody(error),
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, path: &str) -> Result<Answer, Silence> {
    let garbage = |error: &dyn fmt::Display| Silence::Garbage(error.to_string());
    let mut client = http1::Builder::new();
    let handshake = client.max_headers(HEADERS_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| garbage(&error))?;
    let request = Request::get(path).header(header::HOST, "localhost").header(header::CONNECTION, "close");
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| garbage(&error))?;
    let answering = async {
        let response = sender.send_request(request).await.map_err(|error| garbage(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| garbage(&error))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body, peer: None })
    };
    tokio::pin!(answering);
    // The connection's own errors arrive at the question too.
    tokio::select! {
        answer = &mut answering => answer,
        _ = connection => answering.await,
    }
}
