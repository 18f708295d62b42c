//! Answers `GET /metrics`, and nothing else.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once: a scraper or two, and somebody who looks.
pub(super) const CONNECTIONS: usize = 16;
/// How long a request's head may take, and a connection without a request lasts.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Answers until `until`. The text is made anew for every scrape, and for nothing else: nobody who does not ask costs anything.
pub async fn serve<M, T>(listener: TcpListener, text: M, until: impl Future<Output = ()>)
where
    M: Fn() -> T + Clone + Send + Sync + 'static,
    T: Future<Output = String> + Send,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let text = text.clone();
                    tokio::spawn(async move {
                        connection(stream, text).await;
                        drop(place);
                    });
                }
                // Out of files, or a client that left in between: neither ends it.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = until => {}
    }
}

async fn connection<M, T>(stream: TcpStream, text: M)
where
    M: Fn() -> T + Send + Sync,
    T: Future<Output = String> + Send,
{
    let service = service_fn(|request: Request<Incoming>| {
        let text = &text;
        async move {
            let answer = match (request.method(), request.uri().path()) {
                (&Method::GET, "/metrics") => (StatusCode::OK, text().await),
                _ => (StatusCode::NOT_FOUND, "/metrics is all there is\n".to_owned()),
            };
            Ok::<_, Infallible>(response(answer))
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    // A scraper that goes away is its own business.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

fn response((status, text): (StatusCode, String)) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
