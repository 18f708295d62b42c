//! What workers from before a reload still hold, and what they could still send.
//!
//! nginx counts nothing per member, so the kernel's socket table does. An old worker has connections of clients and
//! connections to members, and nobody says which belong together. A client's connection that is bound to no member's is a
//! request that may still go to any of them: a body that is being read, or, with `keepalive_min_timeout`, a kept connection
//! that may be used once more. While a worker's connections come and go, each of its clients counts as such a one; once they
//! have stood still for a moment, as streams do, the bound ones are known by their number. A worker that has not closed its
//! listeners yet may take even new ones.

use super::processes::{Master, Worker};
use crate::connections::{self, Connection};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// After so long without a change, whatever still closes a connection has done so.
const STILL: Duration = Duration::from_secs(1);

/// The old workers of one look, and since when each has stood still.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    workers: BTreeMap<Worker, Holding>,
}

#[derive(Debug)]
struct Holding {
    held: Held,
    since: Instant,
}

/// What one worker holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    /// Connections of clients.
    clients: BTreeSet<u64>,
    /// Connections to anybody who is no client.
    members: Vec<Connection>,
    /// It may have, or take, requests that cannot be seen.
    opaque: bool,
}

impl Leaving {
    /// Asks the kernel about the old workers of a master.
    ///
    /// # Errors
    /// It does not tell: then nothing is known of these workers.
    pub(super) async fn look(&mut self, old: BTreeSet<Worker>, master: Master) -> io::Result<()> {
        if old.is_empty() {
            self.workers.clear();
            return Ok(());
        }
        let found = tokio::task::spawn_blocking(move || ask(&old, master)).await.map_err(io::Error::other)??;
        self.workers.retain(|worker, _| found.contains_key(worker));
        let now = Instant::now();
        for (worker, held) in found {
            match self.workers.get_mut(&worker) {
                Some(holding) if holding.held == held => {}
                _ => drop(self.workers.insert(worker, Holding { held, since: now })),
            }
        }
        Ok(())
    }

    /// Requests at a member, those that may still come counted in.
    pub(super) fn at(&self, address: SocketAddr) -> u64 {
        self.workers.values().map(|holding| holding.held.at(address, holding.since.elapsed() >= STILL)).sum()
    }

    pub(super) fn connections_to(&self, address: SocketAddr) -> impl Iterator<Item = &Connection> {
        self.workers.values().flat_map(move |holding| holding.held.to(address))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }
}

impl Held {
    fn to(&self, address: SocketAddr) -> impl Iterator<Item = &Connection> {
        self.members.iter().filter(move |connection| plain(connection.remote) == plain(address))
    }

    fn at(&self, address: SocketAddr, still: bool) -> u64 {
        let bound = self.to(address).count();
        let elsewhere = if still { self.members.len() - bound } else { 0 };
        let unbound = self.clients.len().saturating_sub(bound + elsewhere);
        (bound + unbound) as u64 + u64::from(self.opaque)
    }
}

fn ask(old: &BTreeSet<Worker>, master: Master) -> io::Result<BTreeMap<Worker, Held>> {
    let listening = listening(&connections::sockets_of(master.pid))?;
    // Before the workers' own lists: a connection to a member that is made in between belongs to a client that is listed.
    let open = connections::open()?;
    let mut found = BTreeMap::new();
    for worker in old.iter().filter(|worker| worker.lives()) {
        let sockets = connections::sockets_of(worker.pid);
        let (clients, members): (Vec<&Connection>, Vec<&Connection>) = open
            .iter()
            .filter(|connection| sockets.contains(&connection.inode))
            .partition(|connection| listening.iter().any(|listener| is_at(*listener, connection.local)));
        let held = Held {
            clients: clients.into_iter().map(|client| client.inode).collect(),
            members: members.into_iter().cloned().collect(),
            // One whose sockets cannot be seen is here, and that is all that is known.
            opaque: sockets.is_empty() || !worker.is_leaving() && takes_ours(&sockets, &listening)?,
        };
        found.insert(*worker, held);
    }
    Ok(found)
}

/// Whether it has one of these listeners, or another one at the same address.
fn takes_ours(sockets: &BTreeSet<u64>, ours: &[SocketAddr]) -> io::Result<bool> {
    Ok(listening(sockets)?.iter().any(|address| ours.contains(address)))
}

fn listening(sockets: &BTreeSet<u64>) -> io::Result<Vec<SocketAddr>> {
    let listeners = connections::listeners(None)?.into_iter();
    Ok(listeners.filter(|listener| sockets.contains(&listener.inode)).map(|listener| listener.address).collect())
}

fn is_at(listener: SocketAddr, local: SocketAddr) -> bool {
    listener.port() == local.port() && (listener.ip().is_unspecified() || plain(listener) == plain(local))
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(clients: u64, members: &[u8]) -> Held {
        let connection = |host: &u8| {
            let at = |host, port| SocketAddr::from(([127, 0, 0, host], port));
            Connection { local: at(1, 40_000), remote: at(*host, 80), inode: u64::from(*host) }
        };
        Held { clients: (100..100 + clients).collect(), members: members.iter().map(connection).collect(), opaque: false }
    }

    fn at(held: &Held, host: u8, still: bool) -> u64 {
        held.at(SocketAddr::from(([127, 0, 0, host], 80)), still)
    }

    #[test]
    fn while_connections_come_and_go_every_client_may_be_a_request() {
        assert_eq!(at(&held(2, &[1, 1]), 1, false), 2);
        assert_eq!(at(&held(2, &[1]), 2, false), 2);
        assert_eq!(at(&held(0, &[1]), 2, false), 0);
    }

    #[test]
    fn what_stands_still_is_bound() {
        assert_eq!(at(&held(2, &[1, 1]), 2, true), 0);
        assert_eq!(at(&held(2, &[1]), 2, true), 1);
        assert_eq!(at(&held(3, &[1, 2]), 2, true), 2);
    }
}
