//! The HTTP probe: one GET, no redirects followed, no connection kept.

use super::{Kind, Refusal, connect};
use crate::text;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::task::JoinHandle;

/// How much of an answer is read: enough for its first line to be evidence.
const BODY_MAX: usize = 64 * 1024;
/// How much of it is shown.
const SHOWN: usize = 200;

pub(super) async fn get(address: SocketAddr, path: &str) -> Result<(), Refusal> {
    let (response, _connection) = ask(address, path, "*/*").await?;
    judge(response, BODY_MAX).await.map(drop)
}

/// A page of at most so many bytes, whole.
///
/// # Errors
/// [`Refusal`]: what was seen instead.
pub(crate) async fn page(address: SocketAddr, path: &str, accept: &str, most: usize) -> Result<String, Refusal> {
    let (response, _connection) = ask(address, path, accept).await?;
    let text = judge(response, most).await?;
    String::from_utf8(text.into()).map_err(|_| Refusal::new(Kind::Broken, "the page is no text"))
}

async fn ask(address: SocketAddr, path: &str, accept: &str) -> Result<(http::Response<Incoming>, AbortOnDrop), Refusal> {
    let request = request(address, path, accept)?;
    let stream = connect(address).await?;
    let broken =
        |error: hyper::Error| Refusal::new(Kind::Broken, format!("connected, but no HTTP answer: {}", cause(&error)));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection = AbortOnDrop(tokio::spawn(async {
        // Its errors arrive at the request too.
        let _ = connection.await;
    }));
    Ok((sender.send_request(request).await.map_err(broken)?, connection))
}

fn request(address: SocketAddr, path: &str, accept: &str) -> Result<Request<Empty<Bytes>>, Refusal> {
    Request::get(path)
        .header(header::ACCEPT, accept)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, concat!("baton-agent/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Refusal::new(Kind::Broken, format!("`{path}` cannot be asked for: {error}")))
}

/// The body of a good answer, of at most so many bytes.
async fn judge(response: http::Response<Incoming>, most: usize) -> Result<Bytes, Refusal> {
    let status = response.status();
    let location =
        response.headers().get(header::LOCATION).map(|to| text::line(&String::from_utf8_lossy(to.as_bytes()), SHOWN));
    // Read to its end, so that the application's own log shows no broken pipe.
    let body = Limited::new(response.into_body(), most).collect().await;
    if status.is_success() {
        return body
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| Refusal::new(Kind::Broken, format!("answered {status}, then broke off: {error}")));
    }
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        let to = location.map(|to| format!(" to {to}")).unwrap_or_default();
        return Err(Refusal::new(Kind::Redirected, format!("answered {status}{to}")));
    }
    let said = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let said =
        said.lines().find(|line| !line.trim().is_empty()).map(|line| format!(": \"{}\"", text::line(line.trim(), SHOWN)));
    Err(Refusal::new(Kind::Status, format!("answered {status}{}", said.unwrap_or_default())))
}

fn cause(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
