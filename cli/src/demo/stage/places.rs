//! Addresses and ports that are free.

use super::{Place, Setup};
use anyhow::bail;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

/// Below the range the kernel takes ports for outgoing connections from, so nobody takes them by accident.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 32_000;
const TRIES: usize = 500;
/// Above every host's.
const SECOND: u8 = 254;
/// A unix socket's path has at most 107 bytes; this leaves room for the names below the folder.
const LONGEST_TEMP: usize = 60;

/// Where everything listens.
#[derive(Debug, Clone)]
pub struct Places {
    /// The coordinator's, the balancer's and the operator's address.
    pub centre: IpAddr,
    /// The second balancer's, where there is one.
    pub second: IpAddr,
    pub coordinator: SocketAddr,
    pub frontend: SocketAddr,
    /// Where an nginx says what it serves.
    pub balancer_status: SocketAddr,
    /// In the order of the hosts.
    pub hosts: Vec<IpAddr>,
    /// The service's ports, free on every host.
    pub ports: Vec<u16>,
    /// A port on every host that no manifest names: where a confused release listens.
    pub elsewhere: u16,
    /// A port on every host for the socket that is handed over.
    pub public: u16,
    /// Where the coordinator answers Prometheus, where it does.
    pub coordinator_metrics: SocketAddr,
    /// The port where every agent does.
    pub agent_metrics: u16,
}

impl Places {
    pub(super) fn find(setup: &Setup) -> anyhow::Result<Self> {
        let [a, b, c] = setup.network;
        let address = |last: u8| IpAddr::V4(Ipv4Addr::new(a, b, c, last));
        let (centre, second) = (address(1), address(SECOND));
        let hosts = (0..setup.hosts).map(|index| address(index.saturating_add(2))).collect::<Vec<_>>();
        let slots = if setup.place == Place::InPlace { 1 } else { 2 };
        let everywhere = hosts.iter().copied().chain([centre, second]).collect::<Vec<_>>();
        let mut ports = free_ports(&everywhere, slots + 7)?;
        let others = ports.split_off(usize::from(slots));
        let [elsewhere, public, coordinator, balancer, status, coordinator_metrics, agent_metrics] = others[..] else {
            bail!("no port")
        };
        let balancer_status = SocketAddr::new(centre, status);
        let frontend = match (setup.place, hosts.first()) {
            (Place::Handover, Some(host)) => SocketAddr::new(*host, public),
            _ => SocketAddr::new(centre, balancer),
        };
        let [coordinator, coordinator_metrics] =
            [coordinator, coordinator_metrics].map(|port| SocketAddr::new(centre, port));
        Ok(Self {
            centre,
            second,
            coordinator,
            frontend,
            balancer_status,
            hosts,
            ports,
            elsewhere,
            public,
            coordinator_metrics,
            agent_metrics,
        })
    }
}

/// Ports in a row that nobody listens on, on any of the addresses.
fn free_ports(addresses: &[IpAddr], count: u16) -> anyhow::Result<Vec<u16>> {
    let random = RandomState::new();
    for attempt in 0..TRIES {
        let offset = random.hash_one(attempt) % u64::from(LAST_PORT - FIRST_PORT - count);
        let first = FIRST_PORT + u16::try_from(offset)?;
        let ports = (first..first + count).collect::<Vec<_>>();
        let free = |port: u16| addresses.iter().all(|address| TcpListener::bind((*address, port)).is_ok());
        if ports.iter().all(|port| free(*port)) {
            return Ok(ports);
        }
    }
    bail!("no {count} free ports between {FIRST_PORT} and {LAST_PORT} on {addresses:?}")
}

/// The temporary folder, unless its path is too long for a socket in it.
pub(super) fn short_temp() -> PathBuf {
    let temp = std::env::temp_dir();
    if temp.as_os_str().len() > LONGEST_TEMP { PathBuf::from("/tmp") } else { temp }
}
