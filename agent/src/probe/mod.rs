//! Probes: one question, and an answer that is "ready" or says what was seen instead.

mod exec;
mod http;
mod tally;

pub use exec::Surroundings;
pub(crate) use http::page;
pub use tally::Tally;

use baton_core::release::Probe;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// What is asked of one instance.
#[derive(Debug, Clone)]
pub struct Question {
    pub probe: Probe,
    pub address: SocketAddr,
    /// For the whole exchange.
    pub timeout: Duration,
    /// What an exec probe runs in; without it, an exec probe cannot be asked.
    pub surroundings: Option<Surroundings>,
}

/// An answer that is not "ready".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    pub kind: Kind,
    /// What was seen, such as `connection refused` or `answered 500 Internal Server Error: "no database"`.
    pub seen: String,
}

/// What sort of answer it was: advice follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nobody listens there.
    Refused,
    /// Somebody may be there, and says nothing in time.
    Silent,
    /// A connection, and no HTTP.
    Broken,
    /// A status of 300 to 399.
    Redirected,
    /// Any other status than 200 to 299.
    Status,
    /// An exec probe that did not exit 0.
    Command,
    /// The right answer, from a process that is not the instance.
    Stranger,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.seen)
    }
}

impl Refusal {
    #[must_use]
    pub fn new(kind: Kind, seen: impl Into<String>) -> Self {
        Self { kind, seen: seen.into() }
    }
}

impl Question {
    /// Asks once, on a connection of its own.
    ///
    /// # Errors
    /// [`Refusal`]: what was seen instead of "ready".
    pub async fn ask(&self) -> Result<(), Refusal> {
        let asking = async {
            match &self.probe {
                Probe::Http { path } => http::get(self.address, path).await,
                Probe::Tcp => connect(self.address).await.map(drop),
                Probe::Exec { command } => exec::run(command, self.surroundings.as_ref()).await,
            }
        };
        let silent = |_| Refusal::new(Kind::Silent, format!("no answer within {}", crate::text::duration(self.timeout)));
        tokio::time::timeout(self.timeout, asking).await.map_err(silent)?
    }
}

/// The question as people would ask it: `GET http://127.0.0.1:8104/healthz`.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.probe {
            Probe::Http { path } => write!(f, "GET http://{}{path}", self.address),
            Probe::Tcp => write!(f, "connect to {}", self.address),
            Probe::Exec { command } => write!(f, "run `{}`", command.join(" ")),
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Refusal> {
    TcpStream::connect(address).await.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => Kind::Refused,
            _ => Kind::Broken,
        };
        Refusal::new(kind, crate::text::io_error(&error))
    })
}

#[cfg(test)]
mod tests;
