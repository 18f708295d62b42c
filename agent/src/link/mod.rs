//! An agent has two halves, and this is what is between them.
//!
//! The link faces the network: it dials, shows the certificate and renews it, carries what is said and brings archives. It may do
//! nothing to its host. The other half acts on the host and speaks with nobody else; it checks whatever the link tells it as if
//! a stranger had said it. What one can say to the other is a closed list, `host_link.proto`: plain messages through two bounded
//! channels where both halves are one process, and over a unix socket where they are two.

mod fetches;
mod network;
mod owner;
mod remote;
mod renewal;
mod socket;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod waits;

pub use network::{Network, run};
pub(crate) use owner::hand_over;
pub(crate) use socket::carried;
pub use socket::{Door, USER};
pub use source::Archives;
#[cfg(test)]
pub(crate) use waits::WAIT_REFUSED_MAX;

use baton_proto::v1::{HostMessage, LinkMessage};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Messages that may wait on one way: whoever says more waits itself.
const WAITING_MAX: usize = 4;

/// Where an agent's link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the same process.
    Within,
    /// In a process of its own, which comes to this socket.
    Beside(PathBuf),
}

/// What one half has of the way to the other.
#[derive(Debug)]
pub struct End<Out, In> {
    pub out: mpsc::Sender<Out>,
    pub heard: mpsc::Receiver<In>,
}

pub type HostEnd = End<HostMessage, LinkMessage>;
pub type NetworkEnd = End<LinkMessage, HostMessage>;

/// Both ends of a way.
#[must_use]
pub fn pair<Out, In>() -> (End<Out, In>, End<In, Out>) {
    let ((there, heard_there), (back, heard_back)) = (mpsc::channel(WAITING_MAX), mpsc::channel(WAITING_MAX));
    (End { out: there, heard: heard_back }, End { out: back, heard: heard_there })
}
