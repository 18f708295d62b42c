//! The fleet: what should be on each host ([`spec`]), what each host says there is ([`report`]), and the two together.

pub mod ability;
pub mod fence;
pub mod hooks;
pub mod latency;
pub mod news;
pub mod orders;
pub mod past;
pub mod report;
pub mod spec;
pub mod split;
pub mod withdraw;

use crate::name::{Epoch, HostName, LabelKey, LabelValue, PoolName, ReleaseId, RolloutId, ServiceName, Slot};
use crate::release::Release;
use crate::rollout::Rollout;
use crate::strategy::Strategy;
use crate::time::{Moment, millis};
use fence::Fence;
use hooks::HookRuns;
/// The map of what there is of a kind on one host, which is mostly one: a sorted list. A tree has a leaf of kilobytes for that one,
/// and thousands of hosts are walked through.
pub use litemap::LiteMap;
use orders::{Freeze, Leaving, Maintenance, Order, Orders};
use past::{Past, Remembers};
use report::HostReport;
use serde::{Deserialize, Serialize, Serializer};
use spec::HostSpec;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use withdraw::Withdraw;

/// Writes such a map as a map. By itself it looks at its first key for what it may be, and an empty one is written as a list, which
/// whoever came before it cannot read.
fn as_map<K: Serialize, V: Serialize, S: Serializer>(map: &LiteMap<K, V>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(map.iter())
}

/// Everything a plan is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// The epoch of whoever drives now: every spec issued carries it.
    pub epoch: Epoch,
    pub hosts: BTreeMap<HostName, Host>,
    pub services: BTreeMap<ServiceName, Service>,
    pub releases: BTreeMap<ReleaseId, Arc<Release>>,
    /// Active rollouts and the latest ended one of each service.
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// A freeze of every service.
    pub freeze: Option<Freeze>,
    /// Where the coordinator was restored from a copy.
    pub fence: Option<Fence>,
    /// How much of the past stays in [`Self::releases`].
    pub remembers: Remembers,
}

/// A host that joined: what it was told, and what it last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where balancers reach its instances.
    pub address: IpAddr,
    /// The last spec issued; persisted before it was sent.
    pub issued: HostSpec,
    /// What the host last said, and when it was heard. Not persisted: agents repeat it.
    pub heard: Option<Heard>,
    /// False from the moment its stream closed or fell silent.
    pub connected: bool,
    /// False while it has joined with a token that named nobody, and no admin has said that it belongs here: it is told nothing.
    pub accepted: bool,
    /// Taken out of every balancer, and out of every rollout, for work on it.
    pub maintenance: Option<Maintenance>,
    /// The load balancer there was declared dead: nobody waits for its word while it says nothing.
    pub dead_balancer: Option<Order>,
    pub labels: Labels,
}

/// What people say of a host: in which rack it stands, which part it plays. Given by operators, never by the host itself.
pub type Labels = BTreeMap<LabelKey, LabelValue>;

/// A report and the moment it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub at: Moment,
    pub report: HostReport,
}

/// A service: where it runs, behind what, and which release it should be at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// In the order of the manifest.
    pub hosts: Vec<HostName>,
    /// One slot a port.
    pub ports: Vec<u16>,
    /// None: nobody routes to it, so there is nothing to drain.
    pub balancer: Option<BalancerPool>,
    /// How the next rollout goes, unless it says otherwise.
    pub strategy: Strategy,
    /// The release of the last rollout that succeeded: what a host serves at rest.
    pub committed: Option<ReleaseId>,
    /// The one before: where `rollback` goes.
    pub previous: Option<ReleaseId>,
    /// What still runs of it, out of every balancer, so that going back is a switch and no start.
    #[serde(default)]
    pub warm: Option<Warm>,
    /// The hooks that were asked for: of its releases as long as those are remembered, of rollouts until the next.
    #[serde(default, skip_serializing_if = "HookRuns::is_empty")]
    pub hooks: HookRuns,
    /// What people decided beyond the release.
    #[serde(default)]
    pub orders: Orders,
    /// What it knows of its releases beyond each of them.
    #[serde(default, skip_serializing_if = "Past::is_empty")]
    pub past: Past,
}

/// A release that stays running beside the committed one for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    pub release: ReleaseId,
    pub until: Moment,
}

/// The pool a service has, in each balancer that serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerPool {
    /// Hosts whose agents drive a balancer.
    pub on: Vec<HostName>,
    pub pool: PoolName,
    /// How long a member that comes in takes to get its whole share; zero: none.
    #[serde(default, with = "millis", skip_serializing_if = "Duration::is_zero")]
    pub slow_start: Duration,
    /// How an instance that is replaced leaves a balancer that cannot be told. None: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraw: Option<Withdraw>,
}

/// An instance on one host: `shop/0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceKey {
    pub service: ServiceName,
    pub slot: Slot,
}

/// A member of a pool: `web1/0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberKey {
    pub host: HostName,
    pub slot: Slot,
}

/// Text that should have been `name/slot`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name, a slash and a slot number")]
pub struct InvalidKey(String);

fn split_key<N: FromStr>(text: &str) -> Result<(N, Slot), InvalidKey> {
    let invalid = || InvalidKey(text.chars().take(80).collect());
    let (name, slot) = text.rsplit_once('/').ok_or_else(invalid)?;
    Ok((name.parse().map_err(|_| invalid())?, Slot(slot.parse().map_err(|_| invalid())?)))
}

macro_rules! key {
    ($key:ident, $name:ident) => {
        impl fmt::Display for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.$name, self.slot)
            }
        }

        impl FromStr for $key {
            type Err = InvalidKey;
            fn from_str(text: &str) -> Result<Self, InvalidKey> {
                let ($name, slot) = split_key(text)?;
                Ok(Self { $name, slot })
            }
        }

        impl TryFrom<String> for $key {
            type Error = InvalidKey;
            fn try_from(text: String) -> Result<Self, InvalidKey> {
                text.parse()
            }
        }

        impl From<$key> for String {
            fn from(key: $key) -> String {
                key.to_string()
            }
        }
    };
}

key!(InstanceKey, service);
key!(MemberKey, host);

impl Fleet {
    /// The rollout of a service that has not ended, if there is one. The store admits one at most.
    #[must_use]
    pub fn active_rollout(&self, service: &ServiceName) -> Option<&Rollout> {
        self.rollouts.values().find(|rollout| rollout.service == *service && rollout.state.is_active())
    }

    /// The active rollout, else the one that ended last and left what is live now.
    #[must_use]
    pub fn latest_rollout(&self, service: &ServiceName) -> Option<&Rollout> {
        let known = self.services.get(service)?;
        let of_service = self.rollouts.values().filter(|rollout| rollout.service == *service);
        let latest = of_service.max_by_key(|rollout| (rollout.state.is_active(), rollout.ended))?;
        (latest.state.is_active() || latest.may_have_left(known)).then_some(latest)
    }

    /// The fence, while nothing is decided because of it.
    #[must_use]
    pub fn fenced(&self) -> Option<&Fence> {
        self.fence.as_ref().filter(|fence| fence.stands)
    }

    /// Forgets a service with its releases and rollouts: nothing of it runs.
    pub fn forget(&mut self, service: &ServiceName) {
        self.services.remove(service);
        self.rollouts.retain(|_, rollout| rollout.service != *service);
        self.releases.retain(|_, release| release.service != *service);
    }

    /// Begins a new epoch: every spec is stamped anew, so that whoever drove before has no effect any more.
    pub fn take_over(&mut self) {
        self.epoch = self.epoch.next();
        for host in self.hosts.values_mut() {
            host.issued.epoch = self.epoch;
            host.issued.generation = host.issued.generation.next();
        }
    }
}

impl Host {
    /// A host that joined and was told nothing yet.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            issued: HostSpec::default(),
            heard: None,
            connected: false,
            accepted: true,
            maintenance: None,
            dead_balancer: None,
            labels: Labels::new(),
        }
    }

    #[must_use]
    pub fn report(&self) -> Option<&HostReport> {
        self.heard.as_ref().map(|heard| &heard.report)
    }

    /// The report, when it answers the spec issued last: only then may anything irreversible follow from it.
    #[must_use]
    pub fn echoed(&self) -> Option<&HostReport> {
        self.report().filter(|report| report.follows(&self.issued) || mutant!("a stale snapshot is believed"))
    }

    /// Since when it has been told to leave its boot, while it has not said another one.
    #[must_use]
    pub fn leaves(&self) -> Option<Moment> {
        let Some(Leaving::Told { boot, since }) = self.maintenance.as_ref().and_then(|it| it.reboot.as_ref()) else {
            return None;
        };
        let left = self.report().is_some_and(|report| !report.boot.is_empty() && report.boot != *boot);
        (!left).then_some(*since)
    }

    #[must_use]
    pub fn endpoint(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
}

impl Service {
    /// The release that a host has at rest: the committed one, or the one it keeps since a rollout was ended where it stood.
    #[must_use]
    pub fn at_rest(&self, host: &HostName) -> Option<ReleaseId> {
        self.orders.kept.get(host).map(|kept| kept.release).or(self.committed)
    }

    /// Where a rollback goes. Hosts that keep another release come back to the committed one; else everybody to the one before.
    #[must_use]
    pub fn way_back(&self) -> Option<ReleaseId> {
        if self.orders.kept.is_empty() { self.previous } else { self.committed }
    }

    #[must_use]
    pub fn port(&self, slot: Slot) -> Option<u16> {
        self.ports.get(usize::from(slot.0)).copied()
    }

    #[must_use]
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = Slot> + use<> {
        (0..self.ports.len()).filter_map(|index| u8::try_from(index).ok()).map(Slot)
    }
}
