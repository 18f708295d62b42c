//! One request's way through the proxy.

use super::client::Client;
use super::division::Head;
use super::members::{Lease, Pool};
use super::upstream::{self, Sent};
use super::{headers, tunnel};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// An answer's body: the member's, counted, or a short one of our own.
pub(super) type AnswerBody = Either<Counted, Full<Bytes>>;

/// Forwards a request to the member whose turn it is.
///
/// Another member is tried only as long as nothing was sent. What may have been sent is never sent again: doing a POST twice
/// is worse than a 502.
pub(super) async fn forward(pool: Arc<Pool>, client: Client, mut request: Request<Incoming>) -> Response<AnswerBody> {
    if *request.method() == Method::CONNECT {
        return short(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not for a reverse proxy");
    }
    let upgrade = headers::upgrade(request.headers());
    let client_side = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let sending = pool.send(&Head { headers: request.headers(), client: client.address });
    headers::prepare(&mut request, &client, upgrade.as_ref());

    let mut tried = Vec::new();
    let mut seen = String::new();
    while let Some(lease) = pool.lease(&tried, sending) {
        lease.count_request();
        let sent_at = Instant::now();
        if !request.headers().contains_key(header::HOST) {
            let host = HeaderValue::from_str(&lease.member.address.to_string());
            request.headers_mut().extend(host.ok().map(|host| (header::HOST, host)));
        }
        let sent = tokio::select! {
            sent = upstream::send(&pool, &lease, request) => sent,
            () = lease.cut() => return short(StatusCode::SERVICE_UNAVAILABLE, "cut at the drain's deadline"),
        };
        match sent {
            Sent::Answered(response) => {
                lease.count_latency(sent_at.elapsed());
                let switch = upgrade.zip(client_side);
                return answer(lease, client, response, switch);
            }
            Sent::Broken(error) => {
                lease.count_error();
                return short(StatusCode::BAD_GATEWAY, &format!("the member broke off: {error}"));
            }
            Sent::Unsent(back, error) => {
                lease.count_error();
                tried.push(lease.member.address);
                request = *back;
                seen = error;
            }
        }
    }
    if tried.is_empty() {
        return short(StatusCode::SERVICE_UNAVAILABLE, "no member is in");
    }
    short(StatusCode::BAD_GATEWAY, &format!("no member accepts connections: {seen}"))
}

/// Passes a member's answer on; its lease lasts until the body, or the tunnel, is over.
fn answer(
    lease: Lease,
    client: Client,
    mut response: Response<Incoming>,
    switch: Option<(HeaderValue, OnUpgrade)>,
) -> Response<AnswerBody> {
    if response.status().is_server_error() {
        lease.count_error();
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some((protocol, client_side)) = switch else {
            lease.count_error();
            return short(StatusCode::BAD_GATEWAY, "the member switched protocols, and nobody had asked it to");
        };
        let member_side = hyper::upgrade::on(&mut response);
        let protocol = response.headers().get(header::UPGRADE).cloned().unwrap_or(protocol);
        headers::strip(response.headers_mut());
        headers::announce(response.headers_mut(), &protocol);
        tokio::spawn(tunnel::run(lease, client, client_side, member_side));
        return response.map(|_| Either::Right(Full::default()));
    }
    headers::strip(response.headers_mut());
    let cut = Box::pin(lease.cut());
    response.map(|body| Either::Left(Counted { body, cut, _lease: lease }))
}

/// An answer of our own. The connection stays usable: what failed was behind us.
fn short(status: StatusCode, why: &str) -> Response<AnswerBody> {
    let mut response = Response::new(Either::Right(Full::from(format!("{}: {why}\n", status.as_u16()))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A member's body, in flight until it is dropped, and broken off when the member's requests are cut.
pub(super) struct Counted {
    body: Incoming,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    _lease: Lease,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("body", &self.body).finish_non_exhaustive()
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::Error::other("cut at the drain's deadline"))));
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(io::Error::other)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
