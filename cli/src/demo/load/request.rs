//! One request of each kind, as a careful client without retries sends it.

use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustix::net::RecvFlags;
use serde::Serialize;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::net::{SocketAddr, TcpStream as Socket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

/// Messages echoed over one WebSocket, and the pause between them: a session lives long enough to be caught by a drain.
const ECHOES: usize = 3;
const ECHO_PAUSE: Duration = Duration::from_millis(100);
/// Answers of the demo's service are a line.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Idle connections kept for reuse.
const MAX_IDLE: usize = 64;

/// The kinds of clients a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// GET on a connection that is used again.
    KeepAlive,
    /// GET on a connection of its own.
    NewConnection,
    /// POST with an id of its own, on a connection that is used again.
    Post,
    /// POST on a connection of its own.
    PostNewConnection,
    /// A GET that takes 150 ms.
    Slow,
    /// A session of three echoed messages, then a proper goodbye.
    WebSocket,
}

/// As people read it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeepAlive => "GET",
            Self::NewConnection => "GET on a new connection",
            Self::Post => "POST",
            Self::PostNewConnection => "POST on a new connection",
            Self::Slow => "slow GET",
            Self::WebSocket => "WebSocket",
        })
    }
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::KeepAlive, Self::NewConnection, Self::Post, Self::PostNewConnection, Self::Slow, Self::WebSocket];

    /// The mix: of 20 requests 8 keep-alive, 5 new connections, 2 and 2 orders, 2 slow, 1 WebSocket.
    pub const MIX: [Self; 20] = {
        use Kind::{KeepAlive as K, NewConnection as N, Post as P, PostNewConnection as Q, Slow as S, WebSocket as W};
        [K, N, P, K, N, K, S, Q, K, N, K, W, P, K, N, Q, K, S, N, K]
    };

    pub(super) const fn is_post(self) -> bool {
        matches!(self, Self::Post | Self::PostNewConnection)
    }
}

/// Where requests go, with the connections that are open to it.
#[derive(Debug)]
pub(super) struct Target {
    address: SocketAddr,
    idle: Mutex<VecDeque<Connection>>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The same socket, to look whether the peer has closed it.
    socket: Socket,
}

/// The version that answered, or what went wrong.
pub(super) type Answer = Result<String, Refused>;

/// A request that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) text: String,
    /// The version that answered, where one did.
    pub(super) version: Option<String>,
}

impl From<String> for Refused {
    fn from(text: String) -> Self {
        Self { text, version: None }
    }
}

impl Target {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::new(VecDeque::new()) }
    }

    pub(super) async fn request(&self, kind: Kind, id: Option<&str>) -> Answer {
        let order = id.unwrap_or_default();
        match kind {
            Kind::KeepAlive => self.reused(Method::GET, "/", "").await,
            Kind::Slow => self.reused(Method::GET, "/slow", "").await,
            Kind::Post => self.reused(Method::POST, "/orders", order).await,
            Kind::NewConnection => self.alone(Method::GET, "/", "").await,
            Kind::PostNewConnection => self.alone(Method::POST, "/orders", order).await,
            Kind::WebSocket => self.echoes().await,
        }
    }

    async fn alone(&self, method: Method, path: &str, body: &str) -> Answer {
        let mut connection = self.connect().await?;
        let request = self.compose(method, path, body).header(CONNECTION, "close");
        exchange(&mut connection, request, body).await
    }

    async fn reused(&self, method: Method, path: &str, body: &str) -> Answer {
        let mut connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let request = self.compose(method, path, body);
        let version = exchange(&mut connection, request, body).await?;
        self.keep(connection);
        Ok(version)
    }

    fn compose(&self, method: Method, path: &str, _body: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path).header(HOST, self.address.to_string())
    }

    async fn open(&self) -> Result<TcpStream, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
        Ok(stream)
    }

    async fn connect(&self) -> Result<Connection, String> {
        let stream = self.open().await?.into_std().map_err(|error| format!("connect: {error}"))?;
        let socket = stream.try_clone().map_err(|error| format!("connect: {error}"))?;
        let stream = TcpStream::from_std(stream).map_err(|error| format!("connect: {error}"))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
        // Its errors reach the request that suffers from them.
        drop(tokio::spawn(connection));
        Ok(Connection { sender, socket })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop_front() {
            if connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !connection.sender.is_closed() {
            idle.push_back(connection);
        }
    }

    async fn echoes(&self) -> Answer {
        let stream = self.open().await?;
        let url = format!("ws://{}/ws", self.address);
        let (mut socket, response) =
            tokio_tungstenite::client_async(url, stream).await.map_err(|error| format!("handshake: {error}"))?;
        for number in 0..ECHOES {
            if number > 0 {
                tokio::time::sleep(ECHO_PAUSE).await;
            }
            let sent = Message::text(format!("echo {number}"));
            socket.send(sent.clone()).await.map_err(|error| format!("echo {number}: {error}"))?;
            match socket.next().await {
                Some(Ok(received)) if received == sent => {}
                Some(Ok(Message::Close(_))) => return Err(format!("echo {number}: got a goodbye instead").into()),
                Some(Ok(other)) => return Err(format!("echo {number}: got {} other bytes instead", other.len()).into()),
                Some(Err(error)) => return Err(format!("echo {number}: {error}").into()),
                None => return Err(format!("echo {number}: the connection ended").into()),
            }
        }
        // Ours is the goodbye; from here on the session has done what it was for, but it must still end in order.
        socket.close(None).await.map_err(|error| format!("goodbye: {error}"))?;
        while let Some(message) = socket.next().await {
            if let Err(error) = message {
                return Err(format!("goodbye: {error}").into());
            }
        }
        Ok(version(response.headers()))
    }
}

impl Connection {
    /// Looks before it sends, as careful clients do: a peer that has closed an idle connection has the right to.
    fn is_usable(&self) -> bool {
        let mut byte = [0u8; 1];
        let seen = rustix::net::recv(&self.socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        self.sender.is_ready() && matches!(seen, Err(rustix::io::Errno::AGAIN))
    }
}

async fn exchange(connection: &mut Connection, request: http::request::Builder, body: &str) -> Answer {
    let request = request.body(Full::from(body.to_owned())).map_err(|error| format!("request: {error}"))?;
    let response = connection.sender.send_request(request).await.map_err(|error| chain(&error))?;
    let (head, received) = response.into_parts();
    let received =
        Limited::new(received, MAX_ANSWER_BYTES).collect().await.map_err(|error| format!("inside the answer: {error}"))?;
    if head.status != StatusCode::OK {
        let text = String::from_utf8_lossy(&received.to_bytes()).chars().take(60).collect::<String>();
        let text = format!("status {}: {}", head.status.as_u16(), text.lines().next().unwrap_or_default());
        return Err(Refused { text, version: Some(version(&head.headers)) });
    }
    if !body.is_empty() && received.to_bytes() != body.as_bytes() {
        let text = "the answer is not the order's".to_owned();
        return Err(Refused { text, version: Some(version(&head.headers)) });
    }
    // The connection is usable again once hyper has noticed that the answer is over.
    let _ = connection.sender.ready().await;
    Ok(version(&head.headers))
}

fn version(headers: &HeaderMap) -> String {
    let version = headers.get("x-version").and_then(|value| value.to_str().ok());
    version.unwrap_or("?").chars().take(40).collect()
}

/// An error with its causes: hyper's own text rarely says what happened.
fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
