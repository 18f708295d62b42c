//! The requests an instance answers, and how it says goodbye.

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
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

/// An order's id is short; more is a client's mistake.
const MAX_ORDER_BYTES: usize = 4096;

/// One instance.
#[derive(Debug)]
pub(super) struct App {
    pub(super) args: AppArgs,
    pub(super) journal: Journal,
    /// Requests and WebSockets under way.
    open: watch::Sender<usize>,
    /// Turns true once, when the stop signal came.
    leaving: watch::Sender<bool>,
}

impl App {
    pub(super) fn new(args: AppArgs, journal: Journal) -> Shared {
        Arc::new(Self { args, journal, open: watch::Sender::new(0), leaving: watch::Sender::new(false) })
    }

    /// Serves until `stop`, then finishes: no new connections, `Connection: close` on what is still answered, and the end
    /// once nothing was under way for the linger time.
    pub(super) async fn serve(self: Shared, listener: TcpListener, mut stop: Pin<&mut impl Future<Output = ()>>) {
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(tokio::spawn(connection(Arc::clone(&self), stream))),
                    // Out of files, or a client that left in between: neither ends the service.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
        }
        drop(listener);
        self.journal.mark("term");
        self.leaving.send_replace(true);
        self.quiet().await;
        self.journal.mark("exit");
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

    pub(super) fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// Counts something as under way for as long as the guard lives.
    pub(super) fn under_way(self: &Shared, path: &str) -> UnderWay {
        self.open.send_modify(|open| *open += 1);
        UnderWay { app: Arc::clone(self), path: path.chars().take(80).collect() }
    }
}

async fn connection(app: Shared, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(answer(app, request).await) }
    });
    // A broken connection is the client's side of the story; it counts there.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn answer(app: Shared, request: Request<Incoming>) -> Response<Answer> {
    let under_way = app.under_way(request.uri().path());
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => health(&app),
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
    if let Ok(version) = HeaderValue::from_str(&app.args.version_text) {
        response.headers_mut().insert("x-version", version);
    }
    if *app.leaving.borrow() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| Answer { body, _under_way: under_way })
}

fn health(app: &App) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(app.args.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
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
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.app.journal.end(&self.path);
        self.app.open.send_modify(|open| *open -= 1);
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
