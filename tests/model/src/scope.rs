//! What is explored: how large the fleet is, how a release replaces another, and what may go wrong.

use crate::state::Budget;
use baton_core::fleet::orders::Orders;
use baton_core::fleet::{BalancerPool, Service};
use baton_core::name::{Digest, HostName, PoolName, ServiceName, Version};
use baton_core::release::{Artifact, Health, Probe, Release, Run, Signal, Stop};
use baton_core::strategy::{Amount, OnFailure, Placement, Strategy, Wave};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a release replaces another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// One host after the other, in the old one's place: the first alone, then the rest.
    InPlace,
    /// One host after the other, beside the old one.
    Beside,
    /// Everything beside everything, and one switch.
    Together,
    /// Everything stops before anything starts.
    Exclusive,
}

/// Where a coordinator writes that should not be there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// To the store of the one that took over, which refuses it: it repeats what was decided before, and decides nothing.
    Shared,
    /// To a copy, so that it goes on deciding. Nobody may run it so, and the exploration shows why.
    Copied,
}

/// How reports travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reports {
    /// One of each party may be on its way for as long as it likes, until a newer one takes its place.
    UnderWay,
    /// Each arrives at once or never, but for those that the budget delays.
    AtOnce,
}

/// One exhaustive exploration.
#[derive(Debug, Clone)]
pub struct Scope {
    pub name: &'static str,
    pub hosts: usize,
    pub balancers: usize,
    pub manner: Manner,
    /// Whether messages may be lost: any, as often as they like.
    pub lossy: bool,
    /// Whether requests may be open at a member that goes out.
    pub busy: bool,
    pub store: Store,
    pub reports: Reports,
    pub budget: Budget,
}

impl Scope {
    /// Hosts, then balancers.
    pub(crate) fn names(&self) -> Vec<HostName> {
        let webs = (1..=self.hosts).map(|number| host(&format!("web{number}")));
        webs.chain((1..=self.balancers).map(|number| host(&format!("lb{number}")))).collect()
    }

    pub(crate) fn slots(&self) -> usize {
        match self.manner {
            Manner::InPlace | Manner::Exclusive => 1,
            Manner::Beside | Manner::Together => 2,
        }
    }

    pub(crate) fn service(&self) -> Service {
        let names = self.names();
        let (hosts, on) = names.split_at(self.hosts);
        let ports = [8101, 8102].into_iter().take(self.slots()).collect();
        Service {
            hosts: hosts.to_vec(),
            ports,
            balancer: Some(BalancerPool {
                on: on.to_vec(),
                pool: pool(),
                slow_start: std::time::Duration::ZERO,
                withdraw: None,
            }),
            strategy: self.strategy(),
            committed: None,
            previous: None,
            warm: None,
            hooks: Default::default(),
            orders: Orders::default(),
            past: Default::default(),
        }
    }

    /// Nothing is watched and nothing has to prove itself for long: a wait is an interleaving here, and no number.
    fn strategy(&self) -> Strategy {
        let plain = Strategy {
            placement: Placement::InPlace,
            waves: [Amount::Hosts(1), Amount::Percent(100)].map(Wave::of).to_vec(),
            max_unavailable: Amount::Hosts(1),
            parallel: None,
            lockstep: false,
            keep_old: Duration::ZERO,
            exclusive: false,
            spread_by: None,
            bake: Duration::ZERO,
            drain_deadline: Duration::from_secs(10),
            progress_deadline: Duration::from_secs(60),
            users: Default::default(),
            guard: Default::default(),
            gate: None,
            max_failed: None,
            prober: None,
            scrape: None,
            prometheus: None,
            second_person: false,
            on_failure: OnFailure::Revert,
        };
        let all = || vec![Wave::of(Amount::Percent(100))];
        let (placement, none) = (Placement::SideBySide, Amount::Hosts(0));
        match self.manner {
            Manner::InPlace => plain,
            Manner::Beside => Strategy { placement, max_unavailable: none, ..plain },
            Manner::Together => {
                let parallel = Some(Amount::Percent(100));
                Strategy { placement, waves: all(), max_unavailable: none, parallel, lockstep: true, ..plain }
            }
            Manner::Exclusive => Strategy { waves: all(), max_unavailable: Amount::Percent(100), exclusive: true, ..plain },
        }
    }
}

fn host(text: &str) -> HostName {
    HostName::new(text).expect("a name")
}

pub(crate) fn shop() -> ServiceName {
    ServiceName::new("shop").expect("a name")
}

pub(crate) fn pool() -> PoolName {
    PoolName::new("shop").expect("a name")
}

pub(crate) fn release(version: &str) -> Release {
    let (interval, timeout, healthy_for) = Default::default();
    Release {
        service: shop(),
        version: Version::new(version).expect("a version"),
        artifact: Artifact { digest: Digest::of(version.as_bytes()), size: 1 },
        run: Run {
            command: vec!["bin/shop".into()],
            user: None,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            stop: Stop { signal: Signal::Term, timeout: Duration::ZERO },
            listen: Vec::new(),
        },
        health: Health { probe: Probe::Tcp, interval, timeout, healthy_for, start_timeout: Duration::from_secs(8) },
        hooks: Default::default(),
    }
}
