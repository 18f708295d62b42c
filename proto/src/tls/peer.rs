//! One accepted connection, and who is at its other end.

use super::pace::Pace;
use crate::identity::Identity;
use baton_core::name::ServiceName;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

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
    /// The services this peer may command, where its certificate names some; empty: all.
    pub services: Vec<ServiceName>,
}

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
    const fn anonymous() -> Self {
        Self::bare(Identity::Anonymous, None)
    }

    /// Somebody who showed no certificate.
    #[must_use]
    pub const fn bare(identity: Identity, remote: Option<SocketAddr>) -> Self {
        Self { identity, remote, serial: None, issuer: Vec::new(), services: Vec::new() }
    }
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
}

#[derive(Debug)]
enum Stream {
    /// From anybody: not more of it is read than its pace allows.
    Tls(Box<Paced>),
    Local(UnixStream),
}

#[derive(Debug)]
struct Paced {
    stream: TlsStream<TcpStream>,
    pace: Pace,
}

impl Connection {
    pub(super) fn tls(stream: TlsStream<TcpStream>, peer: Peer) -> Self {
        Self { stream: Stream::Tls(Box::new(Paced { stream, pace: Pace::new() })), peer }
    }

    pub(super) const fn local(stream: UnixStream, identity: Identity) -> Self {
        Self { stream: Stream::Local(stream), peer: Peer::bare(identity, None) }
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
