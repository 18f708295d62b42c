//! The socket table from `/proc/net/tcp` and `/proc/net/tcp6`: slower, and everywhere.

use super::{Connection, Listener};
use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use std::io;

pub(super) fn listeners(port: Option<u16>) -> io::Result<Vec<Listener>> {
    Ok(entries(&TcpState::Listen)?
        .filter(|entry| port.is_none_or(|port| entry.local_address.port() == port))
        .map(|entry| Listener { address: entry.local_address, inode: entry.inode })
        .collect())
}

pub(super) fn established(port: u16) -> io::Result<Vec<Connection>> {
    let entries = entries(&TcpState::Established)?;
    Ok(entries.filter(|entry| entry.local_address.port() == port).map(|entry| connection(&entry)).collect())
}

pub(super) fn open() -> io::Result<Vec<Connection>> {
    let open = [TcpState::Established, TcpState::SynSent, TcpState::CloseWait];
    Ok(all()?.filter(|entry| open.contains(&entry.state)).map(|entry| connection(&entry)).collect())
}

fn connection(entry: &TcpNetEntry) -> Connection {
    Connection { local: entry.local_address, remote: entry.remote_address, inode: entry.inode }
}

fn entries(state: &TcpState) -> io::Result<impl Iterator<Item = TcpNetEntry>> {
    Ok(all()?.filter(move |entry| entry.state == *state))
}

fn all() -> io::Result<impl Iterator<Item = TcpNetEntry>> {
    let four = tcp().map_err(io::Error::other)?;
    // A host without IPv6 has no such file.
    let six = tcp6().unwrap_or_default();
    Ok(four.into_iter().chain(six))
}
