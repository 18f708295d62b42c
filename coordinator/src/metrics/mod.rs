//! `/metrics` for Prometheus: off unless the configuration says where. Read-only, plain HTTP, for loopback or a proxy.

pub mod fleet;
#[cfg(test)]
mod tests;
mod text;

use crate::api::view;
use crate::driver::Access;
use baton_core::problem::{Code, Problem};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once: a scraper or two, and somebody who looks.
const CONNECTIONS: usize = 16;
/// How long a request's head may take, and a connection without a request lasts.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Binds the address.
///
/// # Errors
/// B1011 says why it cannot be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Problem> {
    TcpListener::bind(address).await.map_err(|error| {
        Problem::new(Code(1011), format!("the coordinator cannot listen at {address}"))
            .saw("network", error.to_string())
            .help("choose another address (`metrics` in coordinator.toml), or stop what listens there")
    })
}

/// Answers until `until`.
pub async fn serve(listener: TcpListener, access: Access, until: impl Future<Output = ()>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut until = std::pin::pin!(until);
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        tokio::select! {
            () = &mut until => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let access = access.clone();
                    tokio::spawn(async move {
                        connection(stream, access).await;
                        drop(place);
                    });
                }
                // Out of files, or a client that left in between: neither ends it.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

async fn connection(stream: TcpStream, access: Access) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &access);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    // A scraper that goes away is its own business.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

fn answer(request: &Request<Incoming>, access: &Access) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            let (picture, now) = (access.picture(), access.now());
            let view = view::fleet(&picture, &access.links().hellos(), now, None);
            (StatusCode::OK, fleet::metrics(&picture, &view, now))
        }
        _ => (StatusCode::NOT_FOUND, "/metrics is all there is\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
