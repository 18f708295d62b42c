//! The kernel's socket table: who listens on a port, and how many connections an address has.
//!
//! Asked over netlink, where the kernel filters; hosts without that answer from `/proc/net`. It is the second witness beside
//! the probe: an answer counts only when the socket that gave it belongs to the instance.

mod netlink;
mod owner;
mod table;

pub(crate) use owner::pids;
pub use owner::{Program, descendants, owner_of, program, sockets_of, tree};

use std::io;
use std::net::{IpAddr, SocketAddr};

/// A TCP socket that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    pub address: SocketAddr,
    pub inode: u64,
}

/// Every TCP listener of this network namespace, or those on one port.
///
/// # Errors
/// Neither netlink nor `/proc/net` could be read.
pub fn listeners(port: Option<u16>) -> io::Result<Vec<Listener>> {
    netlink::listeners(port).or_else(|_| table::listeners(port)).map(once)
}

/// Those listeners that get the connections made to an address.
///
/// # Errors
/// As [`listeners`].
pub fn listeners_at(address: SocketAddr) -> io::Result<Vec<Listener>> {
    let mut found = listeners(Some(address.port()))?;
    found.retain(|listener| reaches(address.ip(), listener.address.ip()));
    Ok(found)
}

/// How many established connections an address of this host has.
///
/// # Errors
/// As [`listeners`].
pub fn established(local: SocketAddr) -> io::Result<usize> {
    let found = once(netlink::established(local.port()).or_else(|_| table::established(local.port()))?);
    let here = |ip| local.ip().is_unspecified() || plain(ip) == plain(local.ip());
    Ok(found.iter().filter(|connection| here(connection.local.ip())).count())
}

/// Over how many connections to an address of this host somebody waits for the rest of an answer, as far as the kernel can tell:
/// what came last over them came from outside, or what was sent is not all there. A connection on which several requests are under
/// way at once looks answered with the first.
///
/// # Errors
/// The kernel does not say so over netlink.
pub fn unanswered(local: SocketAddr) -> io::Result<usize> {
    let here = |ip| local.ip().is_unspecified() || plain(ip) == plain(local.ip());
    let found = once(netlink::exchanges(local.port())?);
    Ok(found.iter().filter(|(connection, waits)| *waits && here(connection.local.ip())).count())
}

/// A TCP connection that a process here has, or is making.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Connection {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) inode: u64,
}

/// Every TCP connection of this network namespace that may still carry something.
///
/// # Errors
/// As [`listeners`].
pub(crate) fn open() -> io::Result<Vec<Connection>> {
    netlink::open().or_else(|_| table::open()).map(once)
}

/// Datagrams for which the UDP socket with this inode, at this address, had no room; None: it has to be looked for among all.
pub(crate) fn dropped(address: SocketAddr, inode: u64) -> Option<u64> {
    netlink::dropped(address, inode)
}

/// The kernel tells its table page by page, and what changes in between may move an entry to the next page: it is told twice.
fn once<T: Ord>(mut found: Vec<T>) -> Vec<T> {
    found.sort();
    found.dedup();
    found
}

/// Ends a connection from outside: both sides see it reset.
///
/// # Errors
/// The kernel does not offer this, or this process may not.
pub(crate) fn end(connection: &Connection) -> io::Result<()> {
    netlink::end(connection)
}

/// Whether a connection to `target` may arrive at a listener bound to `bound`.
///
/// `::` counts for IPv4 too: that is its default, and to be told of one listener too many is the safe side.
fn reaches(target: IpAddr, bound: IpAddr) -> bool {
    target.is_unspecified() || bound.is_unspecified() || plain(target) == plain(bound)
}

/// An IPv4 address in IPv6 clothes is the IPv4 address.
fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_listener_is_found_by_port_with_its_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = listeners_at(address).unwrap();
        assert_eq!(found.iter().map(|found| found.address).collect::<Vec<_>>(), [address]);
        assert!(sockets_of(std::process::id()).contains(&found[0].inode));
        assert_eq!(owner_of(found[0].inode).unwrap().pid, std::process::id());
    }

    #[test]
    fn both_ways_to_ask_give_the_same_answer() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = four.local_addr().unwrap().port();
        let over_netlink = once(netlink::listeners(Some(port)).unwrap());
        let over_proc = once(table::listeners(Some(port)).unwrap());
        assert_eq!(over_netlink, over_proc);
        assert!(!over_proc.is_empty());
    }

    #[test]
    fn another_address_with_the_same_port_is_not_in_the_way() {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listeners_at(SocketAddr::new("127.0.0.3".parse().unwrap(), port)).unwrap().is_empty());
    }

    #[test]
    fn a_listener_on_every_address_is_in_the_way_of_each() {
        for every in ["0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(every) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert_eq!(listeners_at(SocketAddr::new("127.0.0.3".parse().unwrap(), port)).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_connection_is_found_by_both_ends_and_can_be_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        for ask in [netlink::open, table::open] {
            let found: Vec<_> =
                once(ask().unwrap()).into_iter().filter(|it| (it.local, it.remote) == (local, remote)).collect();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(sockets_of(std::process::id()).contains(&found[0].inode));
        }
        let connection = open().unwrap().into_iter().find(|it| it.local == local && it.remote == remote).unwrap();
        if let Err(error) = end(&connection) {
            assert!(!rustix::process::geteuid().is_root(), "{error}");
            return;
        }
        let ends = (std::io::Write::write(&mut client, b"x"), std::io::Read::read(&mut served, &mut [0]));
        assert!(ends.0.is_err() && !matches!(ends.1, Ok(1..)), "{ends:?}");
    }

    #[test]
    fn who_waits_for_an_answer_is_told_from_who_has_one() {
        use std::io::{Read, Write};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut served: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        let mut exchange = |index: usize, asks: bool| {
            let (from, to) = (&mut clients[index], &mut served[index]);
            let (from, to) = if asks { (from, to) } else { (to, from) };
            from.write_all(b"a word").unwrap();
            to.read_exact(&mut [0; 6]).unwrap();
        };
        assert_eq!(unanswered(address).unwrap(), 0, "nobody asked");
        exchange(0, true);
        exchange(1, true);
        assert_eq!(unanswered(address).unwrap(), 2);
        exchange(0, false);
        assert_eq!(unanswered(address).unwrap(), 1, "one is answered");
        // The kernel counts in ticks: what follows an answer within the same one looks answered.
        std::thread::sleep(std::time::Duration::from_millis(50));
        exchange(0, true);
        assert_eq!(unanswered(address).unwrap(), 2, "and asks again");
        drop((clients, served));
        assert_eq!(unanswered(address).unwrap(), 0);
    }

    #[test]
    fn open_connections_are_counted_and_closed_ones_are_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let served: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        assert_eq!(established(address).unwrap(), 3);
        let over_proc = once(table::established(address.port()).unwrap());
        assert_eq!(over_proc.iter().filter(|connection| connection.local == address).count(), 3);
        drop((clients, served));
        assert_eq!(established(address).unwrap(), 0);
    }
}
