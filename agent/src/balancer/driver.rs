//! What a balancer must be able to do, and what is seen of it: plain values, one procedure above them
//! ([`conduct`](super::conduct)), one protocol below each.

use baton_core::fleet::ability::{BalancerAbility, Feature};
use baton_core::fleet::latency::Latency;
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::{Side, TrafficSplit};
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

/// The verbs of a balancer.
pub(crate) trait Driver: Send + fmt::Debug {
    /// Reads everything the spec's pools need to know. Changes nothing. `Err`: nothing can be believed just now.
    fn observe(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) -> impl Future<Output = Result<Seen, Problem>> + Send;

    /// The same, where these changes will most likely be made next: what of them can be made ready meanwhile is, so that nobody
    /// notices. Who [makes them by itself](Self::acts_if_unchanged) does.
    fn observe_before(
        &mut self,
        pools: &BTreeMap<PoolName, PoolSpec>,
        _likely: &[Change],
    ) -> impl Future<Output = Result<Seen, Problem>> + Send {
        self.observe(pools)
    }

    /// Whether it can make changes on the condition that everything is as it was last seen. Then what is likely is what was decided by
    /// that, with everybody asked who comes in; else it is a guess.
    fn acts_if_unchanged(&self) -> bool {
        false
    }

    /// Makes the changes survive a restart, then makes them, in their order. What came of it is for the next look.
    fn apply(&mut self, changes: &[Change]) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Divides a pool's requests between its sides, now and after a restart; None: all its members are one side. Asked only
    /// for what it does not [lack](Self::lacks).
    fn divide(&mut self, pool: &PoolName, split: Option<&TrafficSplit>) -> impl Future<Output = Result<(), Problem>> + Send;

    /// What it is, and what it can do as far as was seen.
    fn ability(&self) -> BalancerAbility;

    /// What of a split it cannot do for a pool.
    fn lacks(&self, pool: &PoolName, split: &TrafficSplit) -> BTreeSet<Feature> {
        self.ability().split.lacks(pool, &split.needs())
    }

    /// Looks at what it can do, while there is no pool to look at.
    fn survey(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// In how many steps a weight may grow: each is a change.
    fn steps(&self) -> u32 {
        9
    }

    /// Ends whatever is in flight at a member that is out, and counts it into [`MemberSeen::cut`].
    fn cut(&mut self, pool: &PoolName, address: SocketAddr) -> impl Future<Output = Result<(), Problem>> + Send;

    /// What the balancer's owner should know, and what keeps nothing from being done.
    fn notes(&self) -> Vec<Problem> {
        Vec::new()
    }
}

/// One look at a balancer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its process: pid and start time.
    pub(crate) identity: String,
    pub(crate) pools: BTreeMap<PoolName, Result<PoolSeen, Problem>>,
    /// Of the pools that divide their requests.
    pub(crate) splits: BTreeMap<PoolName, SplitSeen>,
}

/// How a pool divides its requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SplitSeen {
    pub(crate) running: Option<TrafficSplit>,
    pub(crate) on_disk: Option<TrafficSplit>,
    /// Requests since the running split came into effect, by side, and those to the trial side that a rule sent there.
    pub(crate) stable: u64,
    pub(crate) trial: u64,
    pub(crate) ruled: u64,
}

/// The servers of one pool, by address: the spec's, and those this agent managed before.
pub(crate) type PoolSeen = BTreeMap<SocketAddr, MemberSeen>;

/// One server as the balancer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberSeen {
    /// What the balancer was told, by us or by anyone.
    pub(crate) told: MemberState,
    /// What it does: out also when its own checks keep the server out, ready also when another way leads there.
    pub(crate) running: MemberState,
    pub(crate) on_disk: MemberState,
    /// In effect now, and after a restart.
    pub(crate) weight: (u16, u16),
    /// In effect now, and after a restart.
    pub(crate) side: (Side, Side),
    pub(crate) in_flight: u64,
    /// How long the oldest of those in flight has been open, where the balancer can tell.
    pub(crate) oldest: Option<Duration>,
    pub(crate) out_for: Duration,
    pub(crate) cut: u64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) latency: Option<Latency>,
    pub(crate) remark: Remark,
}

/// What a driver has to say about one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remark {
    None,
    /// Worth knowing; what is asked for is still done.
    Note(Problem),
    /// Nothing of ours may touch it.
    Refused(Problem),
    /// By the balancer's own check it is down.
    Down(String),
    /// Another backend routes there, too.
    AlsoRouted(String),
    /// What was said when it was last told something.
    Complaint(String),
    /// What is left to do follows in the next pass.
    Later,
}

/// One server's next state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) pool: PoolName,
    pub(crate) address: SocketAddr,
    pub(crate) state: MemberState,
    pub(crate) weight: u16,
    pub(crate) side: Side,
    /// False: it vanished from the spec.
    pub(crate) wanted: bool,
}
