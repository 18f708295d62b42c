//! Clients that forgive nothing: a refused connection, a reset, an end in the middle, another status than 200, five seconds of
//! silence is a failed request. No automatic retry, ever.

use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Request;
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const TIMEOUT: Duration = Duration::from_secs(5);

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: AtomicU64,
    pub(crate) failures: Mutex<Vec<String>>,
    pub(crate) posts: AtomicU64,
    stop: AtomicBool,
}

/// Load on one address until it is stopped.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Kept,
    Fresh,
    Post,
    Slow,
    Tunnel,
}

impl Load {
    /// Keep-alive, a connection for each request, POST, 150 ms requests, and an upgraded stream.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let tally = Arc::new(Tally::default());
        let kinds =
            [Kind::Kept, Kind::Kept, Kind::Kept, Kind::Fresh, Kind::Post, Kind::Post, Kind::Slow, Kind::Slow, Kind::Tunnel];
        let clients = kinds.into_iter().map(|kind| tokio::spawn(client(target, kind, Arc::clone(&tally)))).collect();
        Self { tally, clients }
    }

    /// Stops, and checks that not one request failed.
    pub(crate) async fn stop(self) -> Arc<Tally> {
        self.tally.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("a client");
        }
        let failures = self.tally.failures.lock().expect("the tally").clone();
        let requests = self.tally.requests.load(Ordering::SeqCst);
        assert!(failures.is_empty(), "{} of {requests} requests failed: {failures:#?}", failures.len());
        assert!(requests > 200, "only {requests} requests: no load");
        self.tally
    }
}

async fn client(target: SocketAddr, kind: Kind, tally: Arc<Tally>) {
    let mut connection = None;
    while !tally.stop.load(Ordering::SeqCst) {
        tally.requests.fetch_add(1, Ordering::SeqCst);
        let request = async {
            match kind {
                Kind::Tunnel => tunnel(target).await,
                Kind::Fresh => get(&mut None, target, "/", None).await,
                Kind::Kept => get(&mut connection, target, "/", None).await,
                Kind::Slow => get(&mut connection, target, "/slow", None).await,
                Kind::Post => {
                    let id = tally.posts.fetch_add(1, Ordering::SeqCst).to_string();
                    get(&mut connection, target, "/post", Some(id)).await
                }
            }
        };
        let seen = tokio::time::timeout(TIMEOUT, request).await.unwrap_or_else(|_| Err("no answer in 5 s".to_owned()));
        if let Err(seen) = seen {
            connection = None;
            tally.failures.lock().expect("the tally").push(format!("{kind:?}: {seen}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) type Connection = Option<SendRequest<Full<Bytes>>>;

/// One request on a kept connection, or on a new one when there is none or the other side closed it.
pub(crate) async fn get(
    connection: &mut Connection,
    target: SocketAddr,
    path: &str,
    post: Option<String>,
) -> Result<(), String> {
    let mut sender = match connection.take().filter(SendRequest::is_ready) {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(target).await.map_err(|error| format!("connect: {error}"))?;
            let (sender, io) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            tokio::spawn(io);
            sender
        }
    };
    let method = if post.is_some() { "POST" } else { "GET" };
    let request = Request::builder().method(method).uri(path).header("host", "shop.example");
    let request = request.body(Full::from(post.unwrap_or_default())).expect("a request");
    let response = sender.send_request(request).await.map_err(|error| format!("{path}: {error:?}"))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| format!("{path}: body: {error:?}"))?.to_bytes();
    if status != 200 {
        return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&body)));
    }
    // The connection is idle again once its task saw the end of the body.
    sender.ready().await.ok();
    *connection = Some(sender);
    Ok(())
}

/// A stream that is switched to, echoes for a while, and is closed by us.
async fn tunnel(target: SocketAddr) -> Result<(), String> {
    let mut stream = open_tunnel(target).await?;
    for byte in 0..20u8 {
        stream.write_all(&[byte]).await.map_err(|error| format!("tunnel: {error}"))?;
        let mut back = [0];
        stream.read_exact(&mut back).await.map_err(|error| format!("tunnel cut: {error}"))?;
        assert_eq!(back, [byte]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

pub(crate) async fn open_tunnel(target: SocketAddr) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(target).await.map_err(|error| format!("tunnel: connect: {error}"))?;
    let request = "GET /tunnel HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("tunnel: {error}"))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.map_err(|error| format!("tunnel: head: {error}"))?;
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("HTTP/1.1 101") { Ok(stream) } else { Err(format!("tunnel: {head}")) }
}

/// Whether a body's length stands in its head.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Told,
    Untold,
}

/// What comes back of a body that `/echo` was sent.
pub(crate) async fn echo(target: SocketAddr, body: Vec<u8>, length: Length) -> Result<Vec<u8>, String> {
    let stream = TcpStream::connect(target).await.map_err(|error| error.to_string())?;
    let (mut sender, io) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(io);
    let body = match length {
        Length::Told => Full::new(Bytes::from(body)).boxed(),
        Length::Untold => {
            let pieces: Vec<_> = body.chunks(7_001).map(|piece| Ok(Frame::data(Bytes::from(piece.to_vec())))).collect();
            StreamBody::new(futures_util::stream::iter(pieces)).boxed()
        }
    };
    let request = Request::post("/echo").header("host", "shop.example").body(body).expect("a request");
    let response = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
    Ok(response.into_body().collect().await.map_err(|error| format!("{error:?}"))?.to_bytes().to_vec())
}
