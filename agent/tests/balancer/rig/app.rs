//! An application whose life is one call: killed, it is gone with everything it had in its hands.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

/// What all lives of an application saw.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) served: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    /// How often each POST was executed.
    pub(crate) posts: Mutex<BTreeMap<String, u32>>,
    /// When requests came, and when each was answered.
    answers: Mutex<Vec<(Instant, Instant)>>,
    /// Requests that were in its hands when it was killed.
    pub(crate) killed_with: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<Log>,
    life: Option<Life>,
}

impl App {
    /// A place for an application; nothing runs there yet.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, log: Arc::default(), life: None }
    }

    pub(crate) fn start(&mut self) {
        let (address, log) = (self.address, Arc::clone(&self.log));
        let (ready, is_ready) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.spawn(listen(address, log, ready));
            runtime.block_on(ended).ok();
        });
        is_ready.recv().expect("it listens");
        self.life = Some(Life { end, thread });
    }

    /// As `kill -9`: no goodbye to anybody.
    pub(crate) fn kill(&mut self) {
        self.log.killed_with.fetch_add(self.log.in_flight.load(Ordering::SeqCst), Ordering::SeqCst);
        if let Some(life) = self.life.take() {
            life.end.send(()).expect("it lives");
            life.thread.join().expect("it ends");
        }
        self.log.in_flight.store(0, Ordering::SeqCst);
    }

    /// A life that goes on, or a new one.
    pub(crate) fn start_again(&mut self) {
        if self.life.is_none() {
            self.start();
        }
    }

    /// When it was last done with a request, of those that came before this.
    #[allow(dead_code, reason = "for the bench")]
    pub(crate) fn last_answer(&self, before: Instant) -> Option<Instant> {
        let answers = self.log.answers.lock().expect("the log");
        answers.iter().filter(|(came, _)| *came < before).map(|(_, answered)| *answered).max()
    }

    /// Forgets when it answered.
    #[allow(dead_code, reason = "for the bench")]
    pub(crate) fn forget_answers(&self) {
        self.log.answers.lock().expect("the log").clear();
    }

    /// POSTs that were executed more than once.
    #[allow(dead_code, reason = "for the bench")]
    pub(crate) fn posts_twice(&self) -> usize {
        self.log.posts.lock().expect("the log").values().filter(|times| **times > 1).count()
    }

    /// Sends requests until one of them arrives here.
    pub(crate) async fn until_served(&self, front: SocketAddr) {
        let before = self.served();
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.served() == before {
            assert!(Instant::now() < deadline, "no request arrives at {}", self.address);
            super::load::get(&mut None, front, "/", None).await.ok();
        }
    }

    /// Waits until another request arrived.
    #[allow(dead_code, reason = "for the tests")]
    pub(crate) async fn until_has_more_than(&self, served: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.served() <= served {
            assert!(Instant::now() < deadline, "no request arrives at {}", self.address);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn served(&self) -> u64 {
        self.log.served.load(Ordering::SeqCst)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Everything an application is: a thread with its runtime; when that is dropped, so are its sockets.
#[derive(Debug)]
struct Life {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

async fn listen(address: SocketAddr, log: Arc<Log>, ready: mpsc::Sender<()>) {
    let listener = port(address).await;
    ready.send(()).expect("somebody waits");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        // Else the kernel keeps the end of an answer back for up to 40 ms, and who looks says that it was given.
        stream.set_nodelay(true).expect("a socket");
        let log = Arc::clone(&log);
        let service = service_fn(move |request| serve(Arc::clone(&log), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}

struct InHand(Arc<Log>, Instant);

impl InHand {
    fn of(log: &Arc<Log>) -> Self {
        log.in_flight.fetch_add(1, Ordering::SeqCst);
        log.served.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(log), Instant::now())
    }
}

impl Log {
    fn answered(&self, came: Instant) {
        self.answers.lock().expect("the log").push((came, Instant::now()));
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.answered(self.1);
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(log: Arc<Log>, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/health" {
        return Ok(Response::new(Full::from("ready")));
    }
    if path == "/tunnel" {
        // Not counted as in hand: its end is seen only after the balancer's, and a cut one is the client's failure.
        log.served.fetch_add(1, Ordering::SeqCst);
        let upgrade = hyper::upgrade::on(&mut request);
        let (log, came) = (Arc::clone(&log), Instant::now());
        tokio::spawn(async move {
            let Ok(stream) = upgrade.await else { return };
            let mut stream = TokioIo::new(stream);
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
            log.answered(came);
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let response = response.header("connection", "upgrade").header("upgrade", "echo");
        return Ok(response.body(Full::default()).expect("a response"));
    }
    let _in_hand = InHand::of(&log);
    if path == "/slow" {
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    if path == "/broken" {
        let response = Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR);
        return Ok(response.body(Full::from("broken")).expect("a response"));
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if path == "/echo" {
        return Ok(Response::new(Full::new(body)));
    }
    if path == "/post" {
        let id = String::from_utf8_lossy(&body).into_owned();
        *log.posts.lock().expect("the log").entry(id).or_default() += 1;
    }
    Ok(Response::new(Full::from("ok")))
}

/// An application that answers, says nothing of closing, and closes the connection a moment later.
#[derive(Debug)]
pub(crate) struct Closing {
    closed: watch::Receiver<u32>,
}

impl Closing {
    /// Waits until so many connections that were used are closed.
    pub(crate) async fn connections_closed(&self, count: u32) -> u32 {
        let mut closed = self.closed.clone();
        let waited = tokio::time::timeout(Duration::from_secs(5), closed.wait_for(|closed| *closed >= count)).await;
        waited.map_or(0, |closed| closed.map_or(0, |closed| *closed))
    }
}

/// Whether a request is here with its body.
fn is_whole(seen: &[u8]) -> bool {
    let text = String::from_utf8_lossy(seen).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) => body.len() >= length,
        None => !head.contains("transfer-encoding:") || body.ends_with("0\r\n\r\n"),
    }
}

/// The application's port. A program that another test just starts has the one of before for a moment, too.
async fn port(address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "the application's port {address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn closing_idle_connections(address: SocketAddr) -> Closing {
    let listener = port(address).await;
    let (count, closed) = watch::channel(0);
    let count = Arc::new(count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                // To the end: a socket closed with bytes unread resets, and the answer is lost with it.
                let mut seen = Vec::new();
                while !is_whole(&seen) && stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {}
                let is_probe = seen.starts_with(b"GET /health");
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).await.ok();
                tokio::time::sleep(Duration::from_millis(10)).await;
                drop(stream);
                count.send_modify(|closed| *closed += u32::from(!is_probe));
            });
        }
    });
    Closing { closed }
}

/// An application that answers everything, and closes the connection without an answer where it is asked for `/leave`.
pub(crate) async fn leaving_some_unanswered(address: SocketAddr) {
    let listener = port(address).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                loop {
                    let mut seen = Vec::new();
                    while !is_whole(&seen) {
                        if !stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
                            return;
                        }
                    }
                    if seen.starts_with(b"GET /leave ") {
                        return;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok();
                }
            });
        }
    });
}
