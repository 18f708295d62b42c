//! One accepted connection, and who is at its other end.

use super::held::Held;
use super::pace::Pace;
use crate::identity::Identity;
use baton_core::name::ServiceName;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Until a connection that is given up is closed: what was said last may still reach the other end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Who is at the other end, for whoever decides what they may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub identity: Identity,
    /// Nothing for the local socket.
    pub remote: Option<SocketAddr>,
    /// The certificate's serial, as [`crate::identity::serial_text`] writes it: what a revocation names.
    pub serial: Option<String>,
    /// The name of who signed the certificate, in DER; empty without one.
    pub issuer: Vec<u8>,
    /// When the certificate begins and ends, in seconds since 1970.
    pub valid: (i64, i64),
    /// The services this peer may command, where its certificate names some; empty: all.
    pub services: Vec<ServiceName>,
    pub closing: Closing,
}

/// The end of one connection. It is no part of who is at its other end.
#[derive(Debug, Clone, Default)]
pub struct Closing(Arc<Notify>);

impl PartialEq for Closing {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Closing {}

/// Who sends this request: anonymous, where nothing says otherwise.
#[must_use]
pub fn peer<T>(request: &tonic::Request<T>) -> Peer {
    request.extensions().get().cloned().unwrap_or_else(Peer::anonymous)
}

/// The same for a request that tonic has not taken apart yet.
#[must_use]
pub fn peer_in(extensions: &http::Extensions) -> Peer {
    extensions.get().cloned().unwrap_or_else(Peer::anonymous)
}

impl Peer {
    fn anonymous() -> Self {
        Self::bare(Identity::Anonymous, None)
    }

    /// Somebody who showed no certificate.
    #[must_use]
    pub fn bare(identity: Identity, remote: Option<SocketAddr>) -> Self {
        let closing = Closing::default();
        Self { identity, remote, serial: None, issuer: Vec::new(), valid: (0, 0), services: Vec::new(), closing }
    }

    /// Gives this peer's connection up: it is closed, once what was said on it has gone out. Whoever dials anew shows the
    /// certificate it has now.
    pub fn close(&self) {
        self.closing.0.notify_one();
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    /// Counts as one of its peer's as long as it is there.
    _held: Option<Held>,
}

#[derive(Debug)]
enum Stream {
    /// From anybody: not more of it is read than its pace allows.
    Tls(Box<Paced>),
    Local(UnixStream),
}

struct Paced {
    stream: TlsStream<TcpStream>,
    pace: Pace,
    /// Done once the connection is given up; then nothing more is read.
    given_up: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl std::fmt::Debug for Paced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paced").field("pace", &self.pace).finish_non_exhaustive()
    }
}

impl Paced {
    fn is_given_up(&mut self, context: &mut Context<'_>) -> bool {
        if self.given_up.as_mut().is_some_and(|given_up| given_up.as_mut().poll(context).is_ready()) {
            self.given_up = None;
        }
        self.given_up.is_none()
    }
}

impl Connection {
    pub(super) fn tls(stream: TlsStream<TcpStream>, peer: Peer, held: Held) -> Self {
        let closing = peer.closing.clone();
        let given_up = Box::pin(async move {
            closing.0.notified().await;
            tokio::time::sleep(LAST_WORDS).await;
        });
        let paced = Paced { stream, pace: Pace::new(), given_up: Some(given_up) };
        Self { stream: Stream::Tls(Box::new(paced)), peer, _held: Some(held) }
    }

    pub(super) fn local(stream: UnixStream, identity: Identity) -> Self {
        Self { stream: Stream::Local(stream), peer: Peer::bare(identity, None), _held: None }
    }

    fn earn(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Stream::Tls(paced), Poll::Ready(Ok(bytes))) = (&mut self.stream, &written) {
            paced.pace.wrote(*bytes);
        }
        written
    }

    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

macro_rules! forward {
    ($self:expr, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().stream {
            Stream::Tls(paced) => {
                let $stream = Pin::new(&mut paced.stream);
                $call
            }
            Stream::Local(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tls(paced) => {
                if paced.is_given_up(context) {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                ready!(paced.pace.poll_ready(context));
                let before = into.filled().len();
                ready!(Pin::new(&mut paced.stream).poll_read(context, into))?;
                paced.pace.read(into.filled().get(before..).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Stream::Local(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = forward!(self.as_mut(), stream => stream.poll_write(context, bytes));
        self.get_mut().earn(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = forward!(self.as_mut(), stream => stream.poll_write_vectored(context, slices));
        self.get_mut().earn(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tls(paced) => paced.stream.is_write_vectored(),
            Stream::Local(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_shutdown(context))
    }
}
