//! gRPC channels to a coordinator: over the network with TLS, and over its unix socket.

use super::Hot;
use super::explain::connect_problem;
use crate::problem::code;
use baton_core::problem::Problem;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// How long each step of a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For the TCP connection, or the unix socket's.
    pub(super) connect: Duration,
    /// For the TLS handshake, up to the coordinator's first words: as long as its accept loop waits.
    pub(super) handshake: Duration,
}

const LIMITS: Limits = Limits { connect: Duration::from_secs(5), handshake: Duration::from_secs(10) };

/// A quiet connection is asked whether it still lives: tonic does not do so by itself, and a cut line says nothing.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A refusal carries its evidence in the trailers: see [`crate::problem::to_status`].
const HEADERS_MAX: u32 = 64 * 1024;

/// A channel to `host:port` that connects when it is first used, and again after it broke, each time with the credentials
/// that are current then.
///
/// Why a connection failed is in the status: [`crate::problem::from_status`] finds it. Must be called within a Tokio runtime.
///
/// # Errors
/// When `endpoint` is not `host:port`.
pub fn channel(endpoint: &str, config: Hot<ClientConfig>) -> Result<Channel, Problem> {
    channel_within(endpoint, config, LIMITS)
}

pub(super) fn channel_within(endpoint: &str, config: Hot<ClientConfig>, limits: Limits) -> Result<Channel, Problem> {
    let invalid = || {
        Problem::new(code::UNREACHABLE, format!("`{endpoint}` is not an address"))
            .help("write it as HOST:PORT, such as coord.example.net:7443")
    };
    // Nothing but a host and a port: a user, a path or a scheme would silently not count.
    let authority: http::uri::Authority = endpoint.parse().map_err(|_| invalid())?;
    let port = authority.port_u16().filter(|port| *port != 0).ok_or_else(invalid)?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(invalid());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let address = endpoint.to_owned();
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|_| invalid())?;
    Ok(tuned(&endpoint).connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (host, address, config) = (host.clone(), address.clone(), TlsConnector::from(config.load_full()));
        async move {
            let connection = secure(&host, port, &config, limits).await;
            connection.map(TokioIo::new).map_err(|error| connect_problem(&address, &error))
        }
    })))
}

/// A channel to a coordinator on this machine. Must be called within a Tokio runtime.
#[must_use]
pub fn local_channel(socket: impl Into<PathBuf>) -> Channel {
    let socket: PathBuf = socket.into();
    tuned(&Endpoint::from_static("http://localhost")).connect_with_connector_lazy(service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move {
            let connection = within(LIMITS.connect, "open", UnixStream::connect(&socket)).await;
            connection.map(TokioIo::new).map_err(|error| connect_problem(&socket.display().to_string(), &error))
        }
    }))
}

fn tuned(endpoint: &Endpoint) -> Endpoint {
    endpoint
        .clone()
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADERS_MAX)
}

async fn secure(host: &str, port: u16, config: &TlsConnector, limits: Limits) -> io::Result<TlsStream<TcpStream>> {
    let stream = within(limits.connect, "connect", TcpStream::connect((host, port))).await?;
    stream.set_nodelay(true)?;
    within(limits.handshake, "TLS handshake", async {
        // Neither sent nor verified; rustls wants one.
        let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let mut stream = config.connect(name, stream).await?;
        // In TLS 1.3 the client is done before the server has looked at its certificate. HTTP/2 servers speak first, so the
        // first bytes mean "accepted", and a refusal arrives here, as what it is, instead of as a broken request later.
        match stream.fill_buf().await {
            Ok([]) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(stream),
            Err(error) => Err(error),
        }
    })
    .await
}

async fn within<T>(limit: Duration, step: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{step}: nothing for {limit:?}"));
    timeout(limit, work).await.map_err(late)?
}
