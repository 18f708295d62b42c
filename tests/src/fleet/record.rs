//! What a running fleet consists of, on disk: every command of `fleet` is a process of its own.

use super::STATE;
use super::front::Front;
use super::host::Host;
use super::pool::Pool;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// A fleet that is up, or on its way up or down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fleet {
    pub hosts: Vec<Host>,
    /// Cgroup hierarchies that were mounted for this fleet.
    pub mounted: Vec<PathBuf>,
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Coordinator,
    Balancer(Front),
    Web,
}

/// The only coordinator's name.
pub const COORDINATOR: &str = "coord";

impl Fleet {
    /// Who would be in a fleet of so many hosts, with these load balancers.
    ///
    /// # Errors
    /// When the network has no room for so many.
    pub fn of(hosts: u8, fronts: &[Front]) -> anyhow::Result<Self> {
        const MOST_BALANCERS: usize = 9;
        const MOST_HOSTS: u8 = 100;
        if hosts == 0 || hosts > MOST_HOSTS || fronts.len() > MOST_BALANCERS {
            bail!("1 to {MOST_HOSTS} hosts and 0 to {MOST_BALANCERS} load balancers, please");
        }
        let host = |name: String, part, last| Host { name, part, address: Ipv4Addr::new(10, 77, 0, last) };
        let mut all = vec![host(COORDINATOR.to_owned(), Part::Coordinator, 2)];
        all.extend((1..).zip(fronts).map(|(n, front)| host(format!("lb{n}"), Part::Balancer(*front), 10 + n)));
        all.extend((1..=hosts).map(|n| host(format!("web{n}"), Part::Web, 20 + n)));
        Ok(Self { hosts: all, mounted: Vec::new() })
    }

    /// The fleet that is up.
    ///
    /// # Errors
    /// When none is.
    pub fn load() -> anyhow::Result<Self> {
        let text = fs::read(path()).context("no fleet is up: run `fleet up` first")?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path().display()))
    }

    /// Remembers it.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn save(&self) -> anyhow::Result<()> {
        fs::create_dir_all(STATE).with_context(|| format!("cannot make {STATE}"))?;
        fs::write(path(), serde_json::to_vec_pretty(self)?).with_context(|| format!("cannot write {}", path().display()))
    }

    /// One host.
    ///
    /// # Errors
    /// When none has the name; the error lists those there are.
    pub fn host(&self, name: &str) -> anyhow::Result<&Host> {
        self.hosts.iter().find(|host| host.name == name).with_context(|| {
            let names = self.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
            format!("no host `{name}`; there are {names}")
        })
    }

    /// The coordinator's host.
    ///
    /// # Errors
    /// When the record has none.
    pub fn coordinator(&self) -> anyhow::Result<&Host> {
        self.host(COORDINATOR)
    }

    /// Every host that is for one thing, in order.
    pub fn every(&self, part: Part) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.part == part)
    }

    /// The load balancers that serve a pool.
    pub fn before(&self, pool: &Pool) -> impl Iterator<Item = &Host> {
        self.every(Part::Balancer(pool.front))
    }

    /// The hosts whose agents a pool's service needs.
    pub fn around(&self, pool: &Pool) -> impl Iterator<Item = &Host> {
        self.before(pool).chain(self.every(Part::Web))
    }
}

fn path() -> PathBuf {
    Path::new(STATE).join("fleet.json")
}
