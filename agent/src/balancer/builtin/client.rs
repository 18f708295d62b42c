//! One client's connection: TLS where its pool has a certificate, HTTP/1.1 or HTTP/2.

use super::members::Pool;
use super::proxy;
use super::proxy::AnswerBody;
use super::tls::{self, Tls};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_rustls::TlsAcceptor;

/// Of one request; what is longer is answered 431.
const HEAD_MAX: u32 = 64 << 10;

/// For a request's head, idle time before it counted in: longer than clients keep idle connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// For a TLS handshake, and for the rest of a beginning that looks like HTTP/2's.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests at once in one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// An HTTP/2 connection without a sign of life for so long is asked for one, and has as long to answer.
const PING: Duration = Duration::from_secs(30);

/// How a client begins that speaks HTTP/2 without TLS (RFC 9113, 3.4); no HTTP/1.1 request begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Between two looks at a preface that arrives in pieces.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

/// A client, as far as members are told of it, and its place among those that are served.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) scheme: &'static str,
    pub(super) _place: Arc<OwnedSemaphorePermit>,
}

/// What the connections of one port have in common.
#[derive(Debug, Clone)]
pub(super) struct Reception {
    pub(super) pool: Arc<Pool>,
    /// None: in plain text.
    pub(super) tls: Option<Arc<Tls>>,
    /// True once another process has the port: each connection ends with its next answer, and none before it, because a
    /// client may just be writing.
    pub(super) leaving: watch::Receiver<bool>,
}

impl Reception {
    /// Serves a connection until it ends.
    pub(super) async fn receive(self, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
        let place = Arc::new(place);
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            let client = Client { address, scheme: "http", _place: place };
            match begins_with_h2(&stream).await {
                Ok(true) => self.speak_h2(stream, client).await,
                Ok(false) => self.speak_h1(stream, client).await,
                Err(_) => {}
            }
            return;
        };
        let client = Client { address, scheme: "https", _place: place };
        // Without a certificate nothing can be said to a client but good-bye.
        let Some(config) = tls.config() else { return };
        let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await;
        let Ok(Ok(stream)) = accepted else { return };
        match tls::is_h2(stream.get_ref().1.alpn_protocol()) {
            true => self.speak_h2(stream, client).await,
            false => self.speak_h1(stream, client).await,
        }
    }

    async fn speak_h1<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, client: Client) {
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX as usize);
        let service = service_fn(move |request| self.clone().answer(client.clone(), request));
        // A client that goes away is not an error anybody can act on.
        let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }

    async fn speak_h2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, client: Client) {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
        server.max_header_list_size(HEAD_MAX).max_concurrent_streams(STREAMS_MAX);
        let mut leaving = self.leaving.clone();
        let service = service_fn(move |request| self.clone().answer(client.clone(), request));
        let connection = server.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            _ = &mut connection => return,
            _ = leaving.wait_for(|leaving| *leaving) => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn answer(self, client: Client, request: Request<Incoming>) -> Result<Response<AnswerBody>, Infallible> {
        let is_h1 = request.version() < Version::HTTP_2;
        let mut response = proxy::forward(self.pool, client, request).await;
        if is_h1 && *self.leaving.borrow() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// Whether a client without TLS speaks HTTP/2. Nothing is taken from the connection.
async fn begins_with_h2(stream: &TcpStream) -> io::Result<bool> {
    tokio::time::timeout(HEAD_TIMEOUT, stream.readable()).await??;
    let mut beginning = [0; PREFACE.len()];
    let looking = async {
        loop {
            let seen = stream.peek(&mut beginning).await?;
            match beginning.get(..seen).filter(|seen| !seen.is_empty() && PREFACE.starts_with(seen)) {
                None => return Ok(false),
                Some(seen) if seen.len() == PREFACE.len() => return Ok(true),
                // The kernel does not wake anybody for bytes that were looked at and left.
                Some(_) => tokio::time::sleep(PREFACE_PAUSE).await,
            }
        }
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, looking).await?
}
