//! What nginx answered, counted: it has no counters of its own, and says each request in one datagram.
//!
//! nginx sends them to the port of `status`, by UDP. Not to a unix socket: of those, the kernel keeps ten datagrams by default
//! and nobody counts what is dropped, a worker must be let into every folder above it, and SELinux does not let it in at all.
//! UDP has a buffer as large as is asked for, and the kernel says how many found no room. Who sent one is looked up in the
//! kernel's table, once for each socket: only a worker of this nginx is believed, whatever user it runs as.
//!
//! What was not counted is never silent. [`Requests::begun`] changes, and with it the balancer's identity, so that whoever
//! reads the counters knows that they began anew.

use super::line::Line;
use super::processes::{Master, Worker};
use super::senders;
use crate::connections::sockets_of;
use baton_core::fleet::latency::{BUCKETS, Latency, bucket};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::net::sockopt;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Some ten thousand requests, for when this process gets no turn.
const BUFFER: usize = 8 << 20;

/// A line is some hundred bytes; one that is longer is not read, and said to be lost.
const LINE_MAX: usize = 2048;

/// Datagrams read before anybody else may look at the counters.
const BATCH: usize = 256;

/// How long a sender is believed, or not, before the kernel is asked again.
const BELIEVED_FOR: Duration = Duration::from_millis(100);

/// A worker that ended may have sent what is read only now, if the kernel was asked this lately.
const LATELY: Duration = Duration::from_millis(300);

/// Senders looked up in that time: each look goes through the sockets of every worker.
const LOOKUPS: u32 = 64;

/// One member's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) errors: u64,
    took: [u64; BUCKETS],
}

/// Counts what nginx says, in a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct Requests {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    address: SocketAddr,
    inode: u64,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    believed: Option<Believed>,
    /// Upstream and member; nothing is counted of any other.
    members: BTreeMap<(String, SocketAddr), Tally>,
    /// Requests by upstream.
    upstreams: BTreeMap<String, u64>,
    senders: BTreeMap<SocketAddr, Sender>,
    asked: Option<Instant>,
    lookups: u32,
    /// What the kernel had no room for, as it said last.
    drops: u64,
    /// Datagrams that were sent, or may have been, and are in no counter.
    lost: u64,
}

/// Whose datagrams count.
#[derive(Debug, Clone)]
struct Believed {
    master: Master,
    orphans: BTreeSet<Worker>,
    /// Workers that may have sent something before anybody listened.
    elders: BTreeSet<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Worker {
        inode: u64,
        /// Its socket is gone, and nobody has its port.
        gone: bool,
    },
    Stranger,
}

/// Where nginx sends to.
pub(super) fn address(status: SocketAddr) -> SocketAddr {
    let ip = match status.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, status.port())
}

impl Requests {
    /// # Errors
    /// The port is another program's, or the kernel does not say what it drops.
    pub(super) fn listen(status: SocketAddr) -> io::Result<Self> {
        let address = address(status);
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        // Beyond the system's limit only with CAP_NET_ADMIN, which the packaged unit has.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
        }
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        senders::table(address)?;
        let shared = Arc::new(Shared { socket, address, inode, counted: Mutex::default() });
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (to_read, until) = (Arc::clone(&shared), Arc::clone(&stop));
        let reader = thread::Builder::new().name("nginx-requests".to_owned());
        let reader = reader.spawn(move || to_read.read(&until))?;
        Ok(Self { shared, stop, reader: Some(reader) })
    }

    /// Believes the workers of this nginx from now on, and of no other.
    pub(super) fn believe(&self, master: Master, orphans: &BTreeSet<Worker>) {
        let counted = &mut *self.shared.counted();
        if counted.believed.as_ref().is_none_or(|believed| believed.master != master) {
            let elders = master.workers().into_iter().chain(orphans.iter().copied()).map(|worker| worker.pid).collect();
            counted.believed = Some(Believed { master, orphans: orphans.clone(), elders });
            counted.senders.clear();
        }
    }

    /// Counts requests to these members of these upstreams, too.
    pub(super) fn expect(&self, members: impl Iterator<Item = (String, SocketAddr)>) {
        let counted = &mut *self.shared.counted();
        for (upstream, address) in members {
            counted.members.entry((String::new(), address)).or_default();
            counted.upstreams.entry(upstream.clone()).or_default();
            counted.members.entry((upstream, address)).or_default();
        }
    }

    /// Since when is counted: another text whenever counting began anew. Read before the counters.
    pub(super) fn begun(&self) -> String {
        let drops = senders::table(self.shared.address)
            .ok()
            .and_then(|table| table.into_iter().find(|entry| entry.inode == self.shared.inode))
            .map(|entry| entry.drops);
        let counted = &mut *self.shared.counted();
        match drops {
            Some(drops) => {
                counted.lost += drops.saturating_sub(counted.drops);
                counted.drops = drops;
            }
            // Nobody knows.
            None => counted.lost += 1,
        }
        format!("{}.{}", self.shared.inode, counted.lost)
    }

    /// A member's counters; where nginx does not say the upstream, requests count in every pool that has the member.
    pub(super) fn of(&self, upstreams: [&str; 2], address: SocketAddr) -> Tally {
        let counted = &*self.shared.counted();
        let mut sum = Tally::default();
        for upstream in upstreams.into_iter().chain([""]) {
            if let Some(tally) = counted.members.get(&(upstream.to_owned(), address)) {
                sum.add(tally);
            }
        }
        sum
    }

    /// Requests that went to an upstream.
    pub(super) fn to(&self, upstream: &str) -> u64 {
        self.shared.counted().upstreams.get(upstream).copied().unwrap_or_default()
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // The port is free again once this is done.
        let told = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let (Ok(_), Some(reader)) = (told, self.reader.take()) {
            drop(reader.join());
        }
    }
}

impl Shared {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, stop: &OwnedFd) {
        loop {
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(error) if error != rustix::io::Errno::INTR => {
                    tracing::error!(%error, "nginx's requests are not counted any more");
                    self.counted().lost += 1;
                    return;
                }
                _ if ready.get(1).is_some_and(|stop| !stop.revents().is_empty()) => return,
                _ => self.read_some(),
            }
        }
    }

    fn read_some(&self) {
        let mut counted = self.counted();
        let mut buffer = [0; LINE_MAX];
        for _ in 0..BATCH {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    if counted.is_worker(from, self.address) {
                        // A line that fills the buffer may have been longer.
                        let line = buffer.get(..length).filter(|line| line.len() < LINE_MAX).and_then(Line::parse);
                        counted.take(line.as_ref());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl Counted {
    fn take(&mut self, line: Option<&Line<'_>>) {
        let Some(line) = line else {
            self.lost += 1;
            return;
        };
        if let Some(requests) = self.upstreams.get_mut(line.upstream) {
            *requests += 1;
        }
        for one in &line.tries {
            let Some(tally) = self.members.get_mut(&(line.upstream.to_owned(), one.address)) else { continue };
            tally.requests += 1;
            tally.errors += u64::from(one.failed);
            if let Some(count) = one.took.and_then(|took| tally.took.get_mut(bucket(took))) {
                *count += 1;
            }
        }
    }

    /// Whether a datagram is a worker's. One whose sender cannot be found any more counts as lost, not as a stranger's.
    fn is_worker(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        if self.asked.is_none_or(|asked| asked.elapsed() >= BELIEVED_FOR) {
            self.look_again(to);
        }
        if let Some(sender) = self.senders.get(&from) {
            return *sender != Sender::Stranger;
        }
        self.lookups += 1;
        let table = if self.lookups > LOOKUPS { None } else { senders::table(to).ok() };
        let entry = table.into_iter().flatten().find(|entry| (entry.local, entry.remote) == (from, to));
        let (Some(entry), Some(believed)) = (entry, &self.believed) else {
            self.lost += 1;
            return false;
        };
        let owner = believed.owner(entry.inode);
        // What it sent while nobody listened failed, and the failure is told when it sends the next one, which fails with it.
        self.lost += u64::from(owner.is_some_and(|owner| believed.elders.contains(&owner)));
        let sender = if owner.is_some() { Sender::Worker { inode: entry.inode, gone: false } } else { Sender::Stranger };
        self.senders.insert(from, sender);
        owner.is_some()
    }

    /// Keeps those senders whose socket is still the same; another process may have the port of one that is gone.
    fn look_again(&mut self, to: SocketAddr) {
        let table = senders::table(to).unwrap_or_default();
        let lately = self.asked.is_some_and(|asked| asked.elapsed() < LATELY);
        let stays = |from: &SocketAddr, sender: &mut Sender| {
            let Sender::Worker { inode, gone } = sender else { return false };
            match table.iter().find(|entry| entry.local == *from) {
                Some(entry) => entry.inode == *inode,
                None => lately && !std::mem::replace(gone, true),
            }
        };
        self.senders.retain(stays);
        (self.asked, self.lookups) = (Some(Instant::now()), 0);
    }
}

impl Believed {
    /// The worker that has a socket.
    fn owner(&self, inode: u64) -> Option<u32> {
        let workers = self.master.workers().into_iter().chain(self.orphans.iter().copied());
        workers.map(|worker| worker.pid).find(|pid| sockets_of(*pid).contains(&inode))
    }
}

impl Tally {
    fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.errors += more.errors;
        self.took.iter_mut().zip(&more.took).for_each(|(count, more)| *count += more);
    }

    pub(super) fn latency(&self) -> Latency {
        Latency::new(self.took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_found_no_room_is_said() {
        let any = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = any.local_addr().unwrap();
        drop(any);
        let requests = Requests::listen(address).unwrap();
        let before = requests.begun();
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        there.connect(address).unwrap();
        {
            // The reader gets no turn, and this sender is nobody whose silence would be missed.
            let mut counted = requests.shared.counted();
            counted.senders.insert(there.local_addr().unwrap(), Sender::Stranger);
            counted.asked = Some(Instant::now() + Duration::from_secs(3600));
            for _ in 0..2 * BUFFER / 1024 {
                there.send(&[b'x'; 1024]).unwrap();
            }
        }
        let begun = requests.begun();
        assert_ne!(begun, before);
        assert_eq!(requests.begun(), begun, "nothing was lost since");
    }

    #[test]
    fn the_port_is_free_as_soon_as_nobody_counts_any_more() {
        let any = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = any.local_addr().unwrap();
        drop(any);
        for _ in 0..3 {
            drop(Requests::listen(address).unwrap());
        }
        let held = UdpSocket::bind(address).unwrap();
        assert_eq!(Requests::listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(held);
    }
}
