//! Releases that cannot coexist, and services that are to end with nothing.

use super::Turn;
use crate::fleet::Host;
use crate::name::{HostName, ReleaseId};
use crate::rollout::converge::Step;
use crate::rollout::progress::Standing;
use crate::rollout::waiting::Reason;
use crate::rollout::{Direction, Rollout};

impl Turn<'_> {
    /// Where the releases cannot coexist: whether no host runs another one, or will once it hears its newest spec or returns.
    ///
    /// A host that was told to run this release heard before that it runs nothing. A host that was told to run nothing must
    /// have said so: until then its ledger may hold the other release, and start it. One that left the service holds a release
    /// of it until it did.
    pub(super) fn alone(&self, release: ReleaseId) -> Result<(), Reason> {
        if !self.strategy.exclusive {
            return Ok(());
        }
        let Self { fleet, name, service, .. } = *self;
        let runs_another = |host: &&HostName| {
            let place = self.places.at(host);
            let mut told = place.issued().map(|(_, told)| told.release).peekable();
            let mute = told.peek().is_none() && place.host().and_then(Host::echoed).is_none();
            let holds = || fleet.hosts.get(host).is_some_and(|known| known.issued.holds_any_of(name));
            (mute && (service.hosts.contains(host) || holds()))
                || told.any(|told| told != release)
                || place.reported().any(|(_, instance)| instance.release != release && instance.state.may_run())
        };
        fleet.hosts.keys().find(runs_another).map_or(Ok(()), |host| Err(Reason::Exclusive { host: host.clone() }))
    }

    /// A service that is removed, or a first release that is taken back, leaves nothing, and that is meant; also of a host
    /// that comes back later.
    pub(super) fn ends_with_nothing(&self) -> bool {
        let none_at_rest = self.service.committed.is_none() && self.service.orders.kept.is_empty();
        self.service.orders.removal.is_some() || self.rollout.map_or(none_at_rest, |rollout| rollout.goal().is_none())
    }
}

/// Nobody is taken down for a release that cannot coexist with the other while some host could not follow.
pub(super) fn is_unable(rollout: &Rollout, standing: &Standing) -> bool {
    rollout.strategy.exclusive
        && rollout.direction == Direction::Forward
        && standing.goal == Some(rollout.to)
        && matches!(
            standing.step,
            Step::Wait(Reason::Artifact { .. } | Reason::AgentSilent { .. } | Reason::NeverJoined | Reason::Echo)
                | Step::Wait(Reason::BalancerUnreachable { .. })
                | Step::Failed(_)
        )
}
