//! The requests an instance answers, and how it says goodbye.

use super::answered::Answered;
use super::journal::Journal;
use super::{AppArgs, Shared, socket};
use http::header::{CONNECTION, LOCATION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// An order's id is short; more is a client's mistake.
const MAX_ORDER_BYTES: usize = 4096;

/// One instance.
#[derive(Debug)]
pub(super) struct App {
    pub(super) args: AppArgs,
    pub(super) journal: Journal,
    /// Requests that may fail.
    asked: AtomicU64,
    pub(super) answered: Answered,
    /// Requests and WebSockets under way.
    open: watch::Sender<usize>,
    /// Connections to sockets that were handed over, and those of them on which nothing was asked yet.
    direct: watch::Sender<usize>,
    fresh: watch::Sender<usize>,
    /// Whether it fails its health check because it was asked to.
    withdrawn: AtomicBool,
    /// Turns true once, when the stop signal came.
    leaving: watch::Sender<bool>,
    /// Turns true once, when nobody's time is left.
    parting: watch::Sender<bool>,
}

impl App {
    pub(super) fn new(args: AppArgs, journal: Journal) -> Shared {
        let (asked, answered, withdrawn) = (AtomicU64::new(0), Answered::default(), AtomicBool::new(false));
        let [open, direct, fresh] = [(); 3].map(|()| watch::Sender::new(0));
        let (leaving, parting) = (watch::Sender::new(false), watch::Sender::new(false));
        Arc::new(Self { args, journal, asked, answered, open, direct, fresh, withdrawn, leaving, parting })
    }

    /// Serves until `stop`, then finishes: no new connections, `Connection: close` on what is still answered, and the end
    /// once nothing was under way for the linger time.
    ///
    /// A balancer knows which of its connections are in use. Clients that came to a `public` socket do not know that this
    /// instance leaves, so theirs are not cut at once: who has just connected is heard, and everybody has the grace time.
    pub(super) async fn serve(
        self: Shared,
        own: TcpListener,
        public: Vec<TcpListener>,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) {
        let is_public = !public.is_empty();
        let mut accepting = JoinSet::new();
        accepting.spawn(Arc::clone(&self).accept(own, Origin::Balancer));
        for listener in public {
            accepting.spawn(Arc::clone(&self).accept(listener, Origin::Client));
        }
        stop.await;
        self.leaving.send_replace(true);
        // Closed, never shut down: others may have the same socket.
        while accepting.join_next().await.is_some() {}
        self.journal.mark("term");
        if is_public {
            let enough = Instant::now() + self.args.grace;
            let heard = async { drop(self.fresh.subscribe().wait_for(|fresh| *fresh == 0).await) };
            let _ = tokio::time::timeout(self.args.patience, heard).await;
            let _ = tokio::time::timeout_at(enough, self.left_alone()).await;
        }
        self.parting.send_replace(true);
        self.quiet().await;
        self.journal.mark("exit");
    }

    async fn accept(self: Shared, listener: TcpListener, origin: Origin) {
        let mut leaving = self.leaving.subscribe();
        loop {
            tokio::select! {
                () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let direct = (origin == Origin::Client).then(|| Direct::new(&self));
                        drop(tokio::spawn(connection(Arc::clone(&self), stream, direct)));
                    }
                    // Out of files, or a client that left in between: neither ends the service.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
        }
    }

    /// Every client is gone, and so are the sessions they left their connections for.
    async fn left_alone(&self) {
        // The senders live in self: waiting cannot fail.
        let _ = self.direct.subscribe().wait_for(|direct| *direct == 0).await;
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Whether this request fails: evenly, so that a share is a share from the first requests on.
    fn fails(&self) -> bool {
        let (share, number) = (u64::from(self.args.fail_percent), self.asked.fetch_add(1, Ordering::Relaxed));
        (number + 1).saturating_mul(share) / 100 > number.saturating_mul(share) / 100
    }

    /// Thinks for as long as this release, and what it depends on, take.
    async fn take_time(&self, path: &str) {
        if matches!(path, "/healthz" | "/metrics" | "/ws") {
            return;
        }
        let log = self.args.log.as_deref();
        let told = log.and_then(|log| std::fs::read_to_string(log.with_extension("incident")).ok());
        let longer = told.and_then(|text| text.trim().parse().ok()).map_or(Duration::ZERO, Duration::from_millis);
        let all = self.args.takes + longer;
        if !all.is_zero() {
            tokio::time::sleep(all).await;
        }
    }

    async fn quiet(&self) {
        let mut open = self.open.subscribe();
        loop {
            // The sender lives in self: waiting cannot fail.
            let _ = open.wait_for(|open| *open == 0).await;
            tokio::select! {
                () = tokio::time::sleep(self.args.linger) => if *open.borrow() == 0 { return },
                _ = open.changed() => {}
            }
        }
    }

    pub(super) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    pub(super) fn parting(&self) -> watch::Receiver<bool> {
        self.parting.subscribe()
    }

    /// Counts something as under way for as long as the guard lives.
    pub(super) fn under_way(self: &Shared, path: &str) -> UnderWay {
        self.open.send_modify(|open| *open += 1);
        UnderWay { app: Arc::clone(self), path: path.chars().take(80).collect(), began: Instant::now() }
    }
}

/// Who opens connections to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Balancer,
    Client,
}

async fn connection(app: Shared, stream: TcpStream, direct: Option<Direct>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let under_way = app.under_way(request.uri().path());
        direct.iter().for_each(Direct::asked);
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(answer(app, request, under_way).await) }
    });
    // A broken connection is the client's side of the story; it counts there.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn answer(app: Shared, request: Request<Incoming>, under_way: UnderWay) -> Response<Answer> {
    app.take_time(request.uri().path()).await;
    let is_watched = matches!(request.uri().path(), "/healthz" | "/metrics");
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => health(&app),
        (&Method::GET, "/metrics") => text(StatusCode::OK, app.answered.page()),
        (_, path) if path != "/ws" && app.fails() => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "this release has a mistake in it\n".to_owned())
        }
        (&Method::GET, "/") => text(StatusCode::OK, format!("shop {}\n", app.args.version_text)),
        (&Method::GET, "/version") => text(StatusCode::OK, format!("{}\n", app.args.version_text)),
        (&Method::GET, "/slow") => {
            let begun = Instant::now();
            tokio::time::sleep(app.args.slow).await;
            text(StatusCode::OK, format!("slept {} ms\n", begun.elapsed().as_millis()))
        }
        (&Method::POST, "/orders") => order(&app, request.into_body()).await,
        (&Method::GET, "/ws") if request.headers().contains_key(UPGRADE) => socket::upgrade(&app, request),
        _ => text(StatusCode::NOT_FOUND, "no such page\n".to_owned()),
    };
    if !is_watched {
        app.answered.count(response.status());
    }
    if let Ok(version) = HeaderValue::from_str(&app.args.version_text) {
        response.headers_mut().insert("x-version", version);
    }
    if *app.leaving.borrow() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| Answer { body, _under_way: under_way })
}

fn health(app: &App) -> Response<Full<Bytes>> {
    let status = if app.withdrawn.load(Ordering::Relaxed) { 503 } else { app.args.status };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = text(status, format!("{}\n", status.as_u16()));
    if status.is_redirection() {
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    }
    response
}

/// Executes an order: the id in the body goes to the journal, and back to the client.
async fn order(app: &App, body: Incoming) -> Response<Full<Bytes>> {
    let Ok(body) = Limited::new(body, MAX_ORDER_BYTES).collect().await else {
        return text(StatusCode::BAD_REQUEST, "the order did not arrive whole\n".to_owned());
    };
    match std::str::from_utf8(&body.to_bytes()) {
        Ok(id) if !id.is_empty() && id.chars().all(|c| c.is_ascii_graphic()) => {
            app.journal.post(id);
            text(StatusCode::OK, id.to_owned())
        }
        _ => text(StatusCode::BAD_REQUEST, "an order needs an id\n".to_owned()),
    }
}

pub(super) fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

/// Something that is under way; dropped, it is over.
#[derive(Debug)]
pub(super) struct UnderWay {
    app: Shared,
    path: String,
    began: Instant,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.app.journal.end(&self.path, self.began.elapsed());
        self.app.open.send_modify(|open| *open -= 1);
    }
}

/// A client's own connection, for as long as it is open.
#[derive(Debug)]
struct Direct {
    app: Shared,
    is_fresh: AtomicBool,
}

impl Direct {
    fn new(app: &Shared) -> Self {
        app.direct.send_modify(|direct| *direct += 1);
        app.fresh.send_modify(|fresh| *fresh += 1);
        Self { app: Arc::clone(app), is_fresh: AtomicBool::new(true) }
    }

    fn asked(&self) {
        if self.is_fresh.swap(false, Ordering::Relaxed) {
            self.app.fresh.send_modify(|fresh| *fresh -= 1);
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.asked();
        self.app.direct.send_modify(|direct| *direct -= 1);
    }
}

/// A response's body that keeps its request under way until hyper has taken the last byte.
struct Answer {
    body: Full<Bytes>,
    _under_way: UnderWay,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
