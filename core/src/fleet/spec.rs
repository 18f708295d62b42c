//! What should be on a host: one document, the only thing an agent is ever told.

use super::hooks::HookSpec;
use super::split::{Side, TrafficSplit};
use super::withdraw::Withdrawal;
use super::{InstanceKey, LiteMap, MemberKey};
use crate::hook::HookKey;
use crate::name::{Epoch, Generation, PoolName, ReleaseId, ServiceName};
use crate::release::{Probe, Release};
use crate::scrape::Scrape;
use crate::time::millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Which instances should run on a host, which pools its balancer should serve, which releases it should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    pub epoch: Epoch,
    pub generation: Generation,
    /// An instance that is not here should not run.
    #[serde(serialize_with = "super::as_map")]
    pub instances: LiteMap<InstanceKey, InstanceSpec>,
    /// Pools of the balancer on this host; empty where there is none.
    pub pools: BTreeMap<PoolName, PoolSpec>,
    /// The releases this host should hold, unpacked and verified: those that run, those about to, those to go back to.
    #[serde(serialize_with = "super::as_map")]
    pub releases: LiteMap<ReleaseId, Arc<Release>>,
    /// The hooks this host should have run, each once.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<HookKey, HookSpec>,
}

/// One instance that should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// A key of [`HostSpec::releases`].
    pub release: ReleaseId,
    pub address: SocketAddr,
    pub restart: Restart,
    /// Counts up when an instance should be started anew although its release stays the same.
    #[serde(default)]
    pub start: u32,
    /// What the host may run instead, by itself, once the release turns out not to run there. A key of [`HostSpec::releases`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ReleaseId>,
    /// Where its own counters are found, if somebody wants to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape: Option<Box<Scrape>>,
    /// How what was in the slot before is ended: some balancer that leads to it cannot be told. None: it is just stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraw: Option<Withdrawal>,
}

/// What an exit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// The release is the committed one: start it again, with backoff.
    Always,
    /// The release is on trial: an exit is the verdict.
    Never,
}

/// One pool, as its balancer should serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    pub service: ServiceName,
    /// A member that is not here is not routed to, and its drain no longer matters.
    pub members: BTreeMap<MemberKey, MemberSpec>,
    /// How long requests may go on at a member that is out; then they are cut and counted.
    #[serde(with = "millis")]
    pub drain_deadline: Duration,
    /// How long a member that comes in takes to get its whole weight, as far as others have theirs; zero: none.
    #[serde(default, with = "millis", skip_serializing_if = "Duration::is_zero")]
    pub slow_start: Duration,
    /// How requests are divided between the sides of the members. None: all members are one side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<TrafficSplit>,
    /// What a member that goes out waits for.
    #[serde(default)]
    pub exchange: Exchange,
}

/// How the members of a pool change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exchange {
    /// Each for itself: a member that goes out waits for nobody, as long as somebody is in.
    #[default]
    Each,
    /// Host by host: a member goes out once the one of its host that is to be in answered.
    Host,
    /// All together: nobody goes out before every member that is to be in answered, and then all change in one operation.
    All,
}

/// One member of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSpec {
    pub address: SocketAddr,
    pub state: MemberState,
    /// Relative share of traffic, 1 to 256.
    pub weight: u16,
    #[serde(default)]
    pub side: Side,
    /// What the balancer's host asks the member before it puts it in.
    pub probe: Probe,
}

/// Whether a balancer routes to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Gets requests.
    Ready,
    /// Gets no new clients; sticky ones may still come. A polite phase, never the last one before a stop.
    Drain,
    /// Gets nothing new. Requests in flight go on until the drain's deadline.
    Out,
}

/// The (epoch, generation) of a spec: what agents compare, and what they echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    pub epoch: Epoch,
    pub generation: Generation,
}

impl HostSpec {
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, generation: self.generation }
    }

    /// Whether the host is to hold a release of a service.
    #[must_use]
    pub fn holds_any_of(&self, service: &ServiceName) -> bool {
        self.releases.values().any(|release| release.service == *service)
    }

    /// Whether both ask for the same, whoever asks and whenever.
    #[must_use]
    pub fn same_content(&self, other: &HostSpec) -> bool {
        self.instances == other.instances
            && self.pools == other.pools
            && self.releases == other.releases
            && self.hooks == other.hooks
    }
}
