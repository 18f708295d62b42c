//! Clients that forgive nothing: a refused connection, a reset, an end in the middle, another status than 200, five seconds of
//! silence is a failed request. No automatic retry, ever. And they do not look before they write: a kept connection that the
//! other side closed, without saying so in its last answer, costs a request.

use futures_util::future::join_all;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Request;
use hyper::body::{Bytes, Frame};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

const TIMEOUT: Duration = Duration::from_secs(5);

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: AtomicU64,
    pub(crate) failures: Mutex<Vec<String>>,
    pub(crate) posts: AtomicU64,
    stop: AtomicBool,
}

/// Load on one address until it is stopped. Its clients have a thread of their own: an agent does not share its own with its
/// service's clients, and what waits for them would look like a slow balancer.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) tally: Arc<Tally>,
    over: Option<oneshot::Receiver<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tally.stop.store(true, Ordering::SeqCst);
    }
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
        let (end, over) = oneshot::channel();
        let clients = kinds.map(|kind| client(target, kind, Arc::clone(&tally)));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(join_all(clients));
            end.send(()).ok();
        });
        Self { tally, over: Some(over) }
    }

    /// Stops.
    pub(crate) async fn end(mut self) -> Arc<Tally> {
        self.tally.stop.store(true, Ordering::SeqCst);
        self.over.take().expect("it goes on").await.expect("the clients end");
        let requests = self.tally.requests.load(Ordering::SeqCst);
        assert!(requests > 200, "only {requests} requests: no load");
        Arc::clone(&self.tally)
    }

    /// Stops, and checks that not one request failed.
    pub(crate) async fn stop(self) -> Arc<Tally> {
        let tally = self.end().await;
        let failures = tally.failures.lock().expect("the tally").clone();
        let requests = tally.requests.load(Ordering::SeqCst);
        assert!(failures.is_empty(), "{} of {requests} requests failed: {failures:#?}", failures.len());
        tally
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
                    // Of this load alone: there may be another one on the same applications.
                    let id = format!("{:p}-{}", Arc::as_ptr(&tally), tally.posts.fetch_add(1, Ordering::SeqCst));
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

/// A kept connection, when there is one.
pub(crate) type Connection = Option<TcpStream>;

/// How a request on a kept connection fails when the balancer closed it: nothing of an answer came.
pub(crate) const CLOSED_WHILE_KEPT: &str = "kept connection closed";

/// One request on a kept connection, or on a new one when there is none or the last answer said it closes.
pub(crate) async fn get(
    connection: &mut Connection,
    target: SocketAddr,
    path: &str,
    post: Option<String>,
) -> Result<(), String> {
    let kept = connection.take();
    let was_kept = kept.is_some();
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(target).await.map_err(|error| format!("{path}: connect: {error}"))?,
    };
    let method = if post.is_some() { "POST" } else { "GET" };
    let body = post.unwrap_or_default();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let closed =
        |error: String| if was_kept { format!("{CLOSED_WHILE_KEPT}: {path}: {error}") } else { format!("{path}: {error}") };
    stream.write_all(request.as_bytes()).await.map_err(|error| closed(error.to_string()))?;
    let mut seen = Vec::new();
    let (head, length) = loop {
        let read = stream.read_buf(&mut seen).await;
        match read {
            Ok(0) if seen.is_empty() => return Err(closed("end before an answer".to_owned())),
            Err(error) if seen.is_empty() => return Err(closed(error.to_string())),
            Ok(0) => return Err(format!("{path}: end inside an answer")),
            Err(error) => return Err(format!("{path}: inside an answer: {error}")),
            Ok(_) => {}
        }
        if let Some(head) = Head::of(&seen) {
            let length = head.length;
            break (head, length);
        }
    };
    while seen.len() < head.size + length {
        let read = stream.read_buf(&mut seen).await.map_err(|error| format!("{path}: body: {error}"))?;
        if read == 0 {
            return Err(format!("{path}: end inside a body"));
        }
    }
    if head.status != 200 {
        return Err(format!("{path}: {} {}", head.status, String::from_utf8_lossy(&seen[head.size..])));
    }
    if !head.closes {
        *connection = Some(stream);
    }
    Ok(())
}

struct Head {
    status: u16,
    length: usize,
    closes: bool,
    size: usize,
}

impl Head {
    fn of(seen: &[u8]) -> Option<Self> {
        let size = seen.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let text = String::from_utf8_lossy(&seen[..size]).to_ascii_lowercase();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
        Some(Self { status, length, closes: field("connection") == Some("close"), size })
    }
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
