//! Whose datagrams count as nginx's, and where it sends them.

use super::line;
use super::processes::{Master, Worker};
use crate::balancer::requests::{Said, Teller};
use crate::connections::sockets_of;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The workers of one nginx, also those that outlived an earlier master.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) master: Master,
    pub(super) orphans: BTreeSet<Worker>,
}

impl Workers {
    fn pids(&self) -> impl Iterator<Item = u32> {
        self.master.workers().into_iter().chain(self.orphans.iter().copied()).map(|worker| worker.pid)
    }
}

impl Teller for Workers {
    const NAME: &'static str = "nginx-requests";
    type Member = SocketAddr;

    fn is(&self, other: &Self) -> bool {
        self.master == other.master
    }

    /// All of them: what one sent while nobody listened failed, and the failure is told when it sends the next one, which fails
    /// with it.
    fn elders(&self) -> BTreeSet<u32> {
        self.pids().collect()
    }

    fn owner(&self, inode: u64) -> Option<u32> {
        self.pids().find(|pid| sockets_of(*pid).contains(&inode))
    }

    fn read(datagram: &[u8], whole: bool) -> Said<'_, SocketAddr> {
        let line = Some(datagram).filter(|_| whole).and_then(line::parse);
        line.map_or(Said::Unreadable, Said::Request)
    }
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
