//! Requests that the coordinator sends by itself: plain HTTP, each on a connection of its own.

use baton_core::analysis::probes::Target;
use http::{Request, Response, header};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longer than this nobody waits for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Unreached {
    /// It is this machine that could not ask.
    Here(String),
    There(String),
}

/// An answer on the way, and what brings it: it ends with that.
pub(crate) type Exchange = (Response<Incoming>, JoinSet<()>);

/// Connects to a target.
pub(crate) async fn connect(target: &Target) -> Result<TcpStream, Unreached> {
    let here = |why: String| Unreached::Here(format!("{}: {why}", target.authority()));
    let addresses = match timeout(TIMEOUT, lookup_host(target.host_and_port())).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(here(error.to_string())),
        Err(_) => return Err(here("its name was not found in time".to_owned())),
    };
    TcpStream::connect(addresses.as_slice()).await.map_err(|error| {
        if is_own(&error) { here(error.to_string()) } else { Unreached::There(format!("no connection: {error}")) }
    })
}

/// Whether it is this machine that could not ask.
fn is_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut};
    ![ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, TimedOut].contains(&error.kind())
}

/// Asks for a path.
pub(crate) async fn get(stream: TcpStream, target: &Target, path: &str) -> Result<Exchange, String> {
    let request = Request::get(path)
        .header(header::HOST, target.authority())
        .header(header::USER_AGENT, concat!("baton-coordinator/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let mut connections = JoinSet::new();
    connections.spawn(async {
        // Its errors arrive at the request, too.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    Ok((response, connections))
}

/// What became of an answer that did not come whole.
pub(crate) fn broken(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    format!("connected, but no whole answer: {}", cause.unwrap_or_else(|| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_no_failure_of_the_service() {
        assert!(
            [io::ErrorKind::NetworkUnreachable, io::ErrorKind::AddrNotAvailable].iter().all(|kind| is_own(&(*kind).into()))
        );
        assert!([io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut].iter().all(|kind| !is_own(&(*kind).into())));
    }
}
