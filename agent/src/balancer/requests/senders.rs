//! The kernel's table of UDP sockets: who sent a datagram, and how many found no room.
//!
//! A datagram on loopback carries no name, but the socket it came from has an inode, and whoever holds that is known. And the
//! kernel counts what it had to drop, which it does not do for datagrams of unix sockets: of those, ten fit by default, and
//! nobody learns of the eleventh.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Tables that are read before a socket is held to be gone.
const LOOKS: usize = 3;

/// One UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) inode: u64,
    /// Datagrams it had no room for.
    pub(super) drops: u64,
}

/// Every UDP socket that may talk with `address`.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn table(address: SocketAddr) -> io::Result<Vec<Entry>> {
    let path = if address.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    Ok(fs::read_to_string(path)?.lines().filter_map(Entry::parse).collect())
}

/// What somebody looks for among these sockets. The kernel hands the table out in pages, and a socket that closes between two of
/// them moves another one over the edge: what is not found is looked for again.
pub(super) fn find<T>(address: SocketAddr, look: impl Fn(&[Entry]) -> Option<T>) -> Option<T> {
    (0..LOOKS).find_map(|_| look(&table(address).ok()?))
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field)?.parse().ok();
        Some(Self {
            local: address(fields.get(1)?)?,
            remote: address(fields.get(2)?)?,
            inode: number(9)?,
            drops: number(12)?,
        })
    }
}

/// The socket that a datagram came from: one connected to `to`, or connected to nobody and sending wherever it is told to. Such a
/// one may be bound to no address in particular; of two, the one bound to just this address has the port there.
pub(super) fn sender(table: &[Entry], from: SocketAddr, to: SocketAddr) -> Option<&Entry> {
    let sends = |entry: &&Entry| {
        let free = entry.remote.ip().is_unspecified() && entry.remote.port() == 0;
        entry.local.port() == from.port()
            && (entry.local.ip() == from.ip() || entry.local.ip().is_unspecified() && free)
            && (entry.remote == to || free)
    };
    table.iter().filter(sends).min_by_key(|entry| entry.local.ip().is_unspecified())
}

/// `0100007F:1F8F`: words of four bytes as this machine has them in memory, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |index: usize| {
        let word = u32::from_str_radix(ip.get(index * 8..index * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections;
    use std::net::UdpSocket;

    #[test]
    fn the_other_end_of_a_datagram_is_found_and_what_is_dropped_is_counted() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(here) = UdpSocket::bind(any) else { continue };
            let at = here.local_addr().unwrap();
            rustix::net::sockopt::set_socket_recv_buffer_size(&here, 2048).unwrap();
            let there = UdpSocket::bind(any).unwrap();
            there.connect(at).unwrap();
            let own = |entry: &Entry| entry.inode == rustix::fs::fstat(&here).unwrap().st_ino;
            let drops = || find(at, |table| table.iter().copied().find(own)).unwrap().drops;
            assert_eq!(drops(), 0);
            let mut sent: u64 = 0;
            while drops() == 0 {
                there.send(&[b'x'; 500]).unwrap();
                sent += 1;
            }
            assert_eq!(drops(), 1, "of {sent}");
            let inode = |socket: &UdpSocket| rustix::fs::fstat(socket).unwrap().st_ino;
            let dropped = |socket: &UdpSocket| connections::dropped(socket.local_addr().unwrap(), inode(socket));
            assert_eq!((dropped(&here), connections::dropped(at, inode(&there))), (Some(1), None));
            let (_, from) = here.recv_from(&mut [0; 500]).unwrap();
            let entry = find(at, |table| sender(table, from, at).copied()).unwrap();
            assert_eq!((entry.inode, entry.remote), (rustix::fs::fstat(&there).unwrap().st_ino, at));
        }
    }

    #[test]
    fn a_sender_that_is_connected_to_nobody_is_found_by_its_port() {
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = here.local_addr().unwrap();
        let there = UdpSocket::bind("0.0.0.0:0").unwrap();
        there.send_to(b"x", at).unwrap();
        let (_, from) = here.recv_from(&mut [0; 1]).unwrap();
        let found = find(at, |table| sender(table, from, at).copied()).unwrap();
        assert_eq!(found.inode, rustix::fs::fstat(&there).unwrap().st_ino);
        // One that talks with somebody else did not send it, nor did one with the same port of another address.
        let elsewhere = Entry { remote: "127.0.0.1:1".parse().unwrap(), ..found };
        let other = Entry { local: SocketAddr::new([127, 0, 0, 2].into(), from.port()), ..found };
        assert_eq!(sender(&[elsewhere, other], from, at), None);
    }
}
