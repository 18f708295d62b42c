//! Connections to members: kept while idle, looked at before they are used again.

use super::members::{Lease, Pool, lock};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Below the idle timeouts applications usually have (two seconds and more): a connection is better closed from here than
/// used in the moment the application closes it.
const IDLE_FOR: Duration = Duration::from_millis(1500);

/// Idle connections kept for one member.
const IDLE_MAX: usize = 128;

/// A member that does not even accept is not waited for: another may be tried, nothing was sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection without a request.
#[derive(Debug)]
pub(super) struct Idle {
    sender: SendRequest<Incoming>,
    /// The same socket once more, to look whether the member closed it.
    socket: std::net::TcpStream,
    since: Instant,
}

/// What came of a request at one member.
pub(super) enum Sent {
    Answered(Response<Incoming>),
    /// Some of it may have been sent: it must not be tried again.
    Broken(hyper::Error),
    /// Nothing of it was sent.
    Unsent(Box<Request<Incoming>>, String),
}

/// Sends a request to the member of a lease.
pub(super) async fn send(pool: &Arc<Pool>, lease: &Lease, mut request: Request<Incoming>) -> Sent {
    while let Some(idle) = take_idle(lease) {
        match attempt(pool, lease, idle, request).await {
            // It closed between the look and the use; the next one, or a new one, has a whole request.
            Sent::Unsent(back, _) => request = *back,
            sent => return sent,
        }
    }
    match connect(lease.member.address).await {
        Ok(fresh) => attempt(pool, lease, fresh, request).await,
        Err(error) => Sent::Unsent(Box::new(request), error.to_string()),
    }
}

async fn attempt(pool: &Arc<Pool>, lease: &Lease, mut connection: Idle, request: Request<Incoming>) -> Sent {
    match connection.sender.try_send_request(request).await {
        Ok(response) => {
            keep(Arc::clone(pool), lease, connection);
            Sent::Answered(response)
        }
        Err(mut error) => match error.take_message() {
            Some(request) => Sent::Unsent(Box::new(request), error.into_error().to_string()),
            None => Sent::Broken(error.into_error()),
        },
    }
}

/// The idle connection used last that the member has not closed.
fn take_idle(lease: &Lease) -> Option<Idle> {
    let mut idle = lock(&lease.member.idle);
    idle.retain(|connection| connection.since.elapsed() < IDLE_FOR);
    while let Some(connection) = idle.pop() {
        if connection.is_usable() {
            return Some(connection);
        }
    }
    None
}

/// Puts a connection back once its answer was read to the end.
fn keep(pool: Arc<Pool>, lease: &Lease, mut connection: Idle) {
    let member = Arc::clone(&lease.member);
    tokio::spawn(async move {
        if connection.sender.ready().await.is_ok() && pool.is_in(member.address) {
            connection.since = Instant::now();
            let mut idle = lock(&member.idle);
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
        }
    });
}

async fn connect(address: SocketAddr) -> io::Result<Idle> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let socket = stream.try_clone()?;
    let io = TokioIo::new(TcpStream::from_std(stream)?);
    let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    // Its error is also the error of the request it has, which is where it is told.
    tokio::spawn(async move { connection.with_upgrades().await.ok() });
    Ok(Idle { sender, socket, since: Instant::now() })
}

impl Idle {
    /// Asks the kernel, not the runtime: a close that arrived a microsecond ago is seen.
    fn is_usable(&self) -> bool {
        let silent = matches!(self.socket.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        silent && self.sender.is_ready()
    }
}
