//! The holder: a process that has the listening sockets, so that they outlive the agent. It accepts nothing and decides nothing.

use super::message::{receive, send};
use rustix::net::SocketFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// What an agent says to its holder, a message each; the descriptors of [`Ask::Keep`] come with it, in the same order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Ask {
    /// What is held? Answered with every descriptor.
    Look {},
    /// Hold these, and nothing else.
    Keep { addresses: Vec<SocketAddr> },
}

/// What is held now.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) addresses: Vec<SocketAddr>,
}

/// Whoever connects and says nothing keeps nobody else waiting for longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// After an error that comes back at once.
const PAUSE: Duration = Duration::from_millis(20);

/// Holds sockets until it is told to hold none. Standard input is the unix socket on which it is asked.
///
/// # Errors
/// Standard input cannot be used.
pub fn hold() -> io::Result<()> {
    let asked = io::stdin().as_fd().try_clone_to_owned()?;
    let mut held = Vec::new();
    loop {
        let Ok(connection) = rustix::net::accept_with(&asked, SocketFlags::CLOEXEC) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let told = answer(&connection, &mut held);
        if told.is_ok_and(|told| told == Told::Keep) && held.is_empty() {
            return Ok(());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Keep,
}

fn answer(connection: &OwnedFd, held: &mut Vec<(SocketAddr, OwnedFd)>) -> io::Result<Told> {
    set_socket_timeout(connection, Timeout::Recv, Some(PATIENCE))?;
    let (bytes, descriptors) = receive(connection)?;
    let told = match serde_json::from_slice(&bytes)? {
        Ask::Look {} => Told::Nothing,
        Ask::Keep { addresses } if addresses.len() == descriptors.len() => {
            *held = addresses.into_iter().zip(descriptors).collect();
            Told::Keep
        }
        Ask::Keep { .. } => return Err(io::ErrorKind::InvalidData.into()),
    };
    let answer = serde_json::to_vec(&Held { addresses: held.iter().map(|(address, _)| *address).collect() })?;
    let descriptors: Vec<_> = held.iter().filter(|_| told == Told::Nothing).map(|(_, socket)| socket.as_fd()).collect();
    send(connection, &answer, &descriptors)?;
    Ok(told)
}
