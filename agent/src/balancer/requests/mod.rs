//! What a balancer says of its requests, counted: nginx has no counters of its own, HAProxy none of how long answers took, and
//! both can say each request in one datagram.
//!
//! They send them by UDP. Not to a unix socket: of those, the kernel keeps ten datagrams by default and nobody counts what is
//! dropped, a worker must be let into every folder above it, and SELinux does not let it in at all. UDP has a buffer as large
//! as is asked for, and the kernel says how many found no room. Who sent one is looked up in the kernel's table, once for each
//! socket: only a worker of this balancer is believed, whatever user it runs as.
//!
//! What was not counted is never silent. [`Requests::begun`] changes, and with it the balancer's identity, so that whoever
//! reads the counters knows that they began anew.

mod senders;

use crate::connections;
use baton_core::fleet::latency::{BUCKETS, Latency, bucket};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::net::sockopt;
use senders::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Some ten thousand requests, for when this process gets no turn.
const BUFFER: usize = 8 << 20;

/// A line is some hundred bytes; of one that is longer, the rest is not read.
const LINE_MAX: usize = 2048;

/// Datagrams read before anybody else may look at the counters.
const BATCH: usize = 256;

/// How long a sender is believed, or not, before the kernel is asked again.
const BELIEVED_FOR: Duration = Duration::from_millis(100);

/// A worker that ended may have sent what is read only now, if the kernel was asked this lately.
const LATELY: Duration = Duration::from_millis(300);

/// Senders looked up in that time: each look goes through the sockets of every worker.
const LOOKUPS: u32 = 64;

/// A program that says its requests: whose datagrams count, and how one is read.
pub(crate) trait Teller: Debug + Send + 'static {
    /// What the thread is called that reads them.
    const NAME: &'static str;

    /// How a line names who was asked.
    type Member: Ord + Clone + Debug + Send;

    /// Whether it still is the same program, whatever workers it has by now.
    fn is(&self, other: &Self) -> bool;

    /// Workers whose first datagram tells that ones before it may have reached nobody.
    fn elders(&self) -> BTreeSet<u32>;

    /// The worker that has a socket.
    fn owner(&self, inode: u64) -> Option<u32>;

    /// Reads a datagram, of which the end may be missing where it is not `whole`.
    fn read(datagram: &[u8], whole: bool) -> Said<'_, Self::Member>;
}

/// What a datagram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said<'a, M> {
    Request(Line<'a, M>),
    /// Nothing of a request.
    Other,
    /// A request, perhaps, that cannot be counted.
    Unreadable,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a, M> {
    /// The upstream, or backend, it went to; empty where it is not said.
    pub(crate) upstream: &'a str,
    pub(crate) tries: Vec<Try<M>>,
}

/// One member that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Try<M> {
    pub(crate) member: M,
    pub(crate) failed: bool,
    /// Until its answer began.
    pub(crate) took: Option<Duration>,
}

/// One member's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    took: [u64; BUCKETS],
}

/// Counts what a program says, in a thread of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct Requests<T: Teller> {
    shared: Arc<Shared<T>>,
    stop: Arc<OwnedFd>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<T: Teller> {
    socket: UdpSocket,
    address: SocketAddr,
    inode: u64,
    /// Whether the kernel does not tell of one UDP socket alone.
    untold: AtomicBool,
    counted: Mutex<Counted<T>>,
}

#[derive(Debug)]
struct Counted<T: Teller> {
    believed: Option<Believed<T>>,
    /// Upstream and member; nothing is counted of any other.
    members: BTreeMap<(String, T::Member), Tally>,
    /// Requests by upstream.
    upstreams: BTreeMap<String, u64>,
    /// Datagrams that said nothing of a request.
    others: u64,
    senders: BTreeMap<SocketAddr, Sender>,
    asked: Option<Instant>,
    lookups: u32,
    /// What the kernel had no room for, as it said last.
    drops: u64,
    /// Datagrams that were sent, or may have been, and are in no counter.
    lost: u64,
}

/// Whose datagrams count.
#[derive(Debug)]
struct Believed<T> {
    teller: T,
    /// As they were when it was believed first.
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

impl<T: Teller> Requests<T> {
    /// # Errors
    /// The port is another program's, or the kernel does not say what it drops.
    pub(crate) fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        // Beyond the system's limit only with CAP_NET_ADMIN, which the packaged unit has.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
        }
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        senders::table(address)?;
        let shared = Arc::new(Shared { socket, address, inode, untold: AtomicBool::new(false), counted: Mutex::default() });
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (to_read, until) = (Arc::clone(&shared), Arc::clone(&stop));
        let reader = thread::Builder::new().name(T::NAME.to_owned());
        let reader = reader.spawn(move || to_read.read(&until))?;
        Ok(Self { shared, stop, reader: Some(reader) })
    }

    /// Believes the workers of this program from now on, and of no other.
    pub(crate) fn believe(&self, teller: T) {
        let counted = &mut *self.shared.counted();
        if counted.believed.as_ref().is_none_or(|believed| !believed.teller.is(&teller)) {
            let elders = teller.elders();
            // One that was heard all the time stays so; it may have ended before it could be looked up again.
            let stays = |inode| teller.owner(inode).is_some_and(|owner| !elders.contains(&owner));
            counted.senders.retain(|_, sender| matches!(sender, Sender::Worker { inode, .. } if stays(*inode)));
            counted.believed = Some(Believed { teller, elders });
        }
    }

    /// Counts requests to these members of these upstreams, too.
    pub(crate) fn expect(&self, members: impl Iterator<Item = (String, T::Member)>) {
        let counted = &mut *self.shared.counted();
        for (upstream, member) in members {
            counted.upstreams.entry(upstream.clone()).or_default();
            counted.members.entry((upstream, member)).or_default();
        }
    }

    /// Since when is counted: another text whenever counting began anew. Read before the counters.
    pub(crate) fn begun(&self) -> String {
        self.shared.begun()
    }

    /// The same, on a thread that may wait: there are kernels that have to look through all of their UDP sockets.
    pub(crate) async fn begun_meanwhile(&self) -> Option<String> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.begun()).await.ok()
    }

    /// A member's counters, of these upstreams together.
    pub(crate) fn of(&self, upstreams: &[&str], member: &T::Member) -> Tally {
        let counted = &*self.shared.counted();
        let mut sum = Tally::default();
        for upstream in upstreams {
            if let Some(tally) = counted.members.get(&((*upstream).to_owned(), member.clone())) {
                sum.add(tally);
            }
        }
        sum
    }

    /// Requests that went to an upstream.
    pub(crate) fn to(&self, upstream: &str) -> u64 {
        self.shared.counted().upstreams.get(upstream).copied().unwrap_or_default()
    }

    /// Datagrams of this program that said nothing of a request.
    pub(crate) fn others(&self) -> u64 {
        self.shared.counted().others
    }
}

impl<T: Teller> Drop for Requests<T> {
    fn drop(&mut self) {
        // The port is free again once this is done.
        let told = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let (Ok(_), Some(reader)) = (told, self.reader.take()) {
            drop(reader.join());
        }
    }
}

impl<T: Teller> Shared<T> {
    fn begun(&self) -> String {
        let own = |table: &[Entry]| table.iter().find(|entry| entry.inode == self.inode).map(|entry| entry.drops);
        let among_all = || senders::find(self.address, own);
        let told = (!self.untold.load(Ordering::Relaxed)).then(|| connections::dropped(self.address, self.inode)).flatten();
        // It is there: a kernel that does not tell of it tells of none.
        self.untold.store(told.is_none(), Ordering::Relaxed);
        let drops = told.or_else(among_all);
        let counted = &mut *self.counted();
        match drops {
            Some(drops) => {
                counted.lost += drops.saturating_sub(counted.drops);
                counted.drops = drops;
            }
            // Nobody knows.
            None => counted.lost += 1,
        }
        format!("{}.{}", self.inode, counted.lost)
    }

    fn counted(&self) -> MutexGuard<'_, Counted<T>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, stop: &OwnedFd) {
        loop {
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(error) if error != rustix::io::Errno::INTR => {
                    tracing::error!(%error, reader = T::NAME, "requests are not counted any more");
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
                        let line = buffer.get(..length).unwrap_or_default();
                        counted.take(T::read(line, length < LINE_MAX));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

impl<T: Teller> Default for Counted<T> {
    fn default() -> Self {
        Self {
            believed: None,
            members: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            others: 0,
            senders: BTreeMap::new(),
            asked: None,
            lookups: 0,
            drops: 0,
            lost: 0,
        }
    }
}

impl<T: Teller> Counted<T> {
    fn take(&mut self, said: Said<'_, T::Member>) {
        let line = match said {
            Said::Request(line) => line,
            Said::Other => {
                self.others += 1;
                return;
            }
            Said::Unreadable => {
                self.lost += 1;
                return;
            }
        };
        if let Some(requests) = self.upstreams.get_mut(line.upstream) {
            *requests += 1;
        }
        for one in line.tries {
            let Some(tally) = self.members.get_mut(&(line.upstream.to_owned(), one.member)) else { continue };
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
        let may_look = self.lookups <= LOOKUPS;
        let entry = may_look.then(|| senders::find(to, |table| senders::sender(table, from, to).copied())).flatten();
        let (Some(entry), Some(believed)) = (entry, &self.believed) else {
            self.lost += 1;
            return false;
        };
        let owner = believed.teller.owner(entry.inode);
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
            match senders::sender(&table, *from, to) {
                Some(entry) => entry.inode == *inode,
                None => lately && !std::mem::replace(gone, true),
            }
        };
        self.senders.retain(stays);
        (self.asked, self.lookups) = (Some(Instant::now()), 0);
    }
}

impl Tally {
    fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.errors += more.errors;
        self.took.iter_mut().zip(&more.took).for_each(|(count, more)| *count += more);
    }

    pub(crate) fn latency(&self) -> Latency {
        Latency::new(self.took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody is believed, so nothing is read.
    #[derive(Debug)]
    struct Nobody;

    impl Teller for Nobody {
        const NAME: &'static str = "nobody-requests";
        type Member = SocketAddr;

        fn is(&self, _: &Self) -> bool {
            true
        }

        fn elders(&self) -> BTreeSet<u32> {
            BTreeSet::new()
        }

        fn owner(&self, _: u64) -> Option<u32> {
            None
        }

        fn read(_: &[u8], _: bool) -> Said<'_, SocketAddr> {
            Said::Unreadable
        }
    }

    #[test]
    fn what_found_no_room_is_said() {
        let any = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = any.local_addr().unwrap();
        drop(any);
        let requests = Requests::<Nobody>::listen(address).unwrap();
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
            drop(Requests::<Nobody>::listen(address).unwrap());
        }
        let held = UdpSocket::bind(address).unwrap();
        assert_eq!(Requests::<Nobody>::listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(held);
    }
}
