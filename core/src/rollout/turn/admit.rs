//! How far a pass may go at once: who may begin, and who may stop serving.

use super::{Turn, count};
use crate::fleet::report::HostReport;
use crate::fleet::spec::InstanceSpec;
use crate::fleet::{Fleet, Host};
use crate::name::{HostName, ServiceName, Slot};
use crate::rollout::converge::Step;
use crate::rollout::place::Place;
use crate::rollout::progress::Standing;
use crate::rollout::spread;
use crate::rollout::waiting::Reason;
use crate::rollout::{Rollout, RolloutState};

impl Turn<'_> {
    /// Whether a host that has not begun may do so now.
    pub(super) fn its_turn(&self, standing: &Standing) -> Result<(), Reason> {
        if !standing.begun && standing.aside.is_none() {
            let held = self.rollout.is_some_and(|rollout| rollout.state == RolloutState::Paused);
            if held || self.order_holds || self.begun >= self.begun_limit {
                return Err(Reason::Turn { wave: count(standing.wave) });
            }
            if let Some(host) = &self.unable {
                return Err(Reason::Exclusive { host: host.clone() });
            }
        }
        Ok(())
    }

    /// Whether a host may begin, and may stop serving if the step means that. Counts it, if so.
    pub(super) fn admit(&mut self, standing: &Standing, lowers: bool) -> Result<(), Reason> {
        self.its_turn(standing)?;
        // Work on hosts takes no more of them than the strategy allows, however many stand aside already, or one where it takes none.
        let (aside, limit) = match standing.aside.is_some() {
            true => (self.aside, self.unavailable_limit.max(1)),
            false => (0, self.unavailable_limit),
        };
        // A host that may serve and is not known to is one of those that do not already.
        let itself = usize::from(lowers && standing.belongs && (!standing.serves || standing.grows));
        if lowers && self.unavailable + aside >= limit + self.leaving + itself {
            let (unavailable, max_unavailable) = (count(self.unavailable + aside), count(limit));
            return Err(Reason::Floor { unavailable, max_unavailable });
        }
        // Nor the last one that serves: what became of the others since people asked for the work, nobody knew then.
        let is_last = standing.serves && self.serving + self.leaving <= self.lowered.len() + 1;
        if lowers && standing.aside.is_some() && is_last {
            let unavailable = count(self.service.hosts.len().saturating_sub(1));
            return Err(Reason::Floor { unavailable, max_unavailable: unavailable });
        }
        if lowers {
            self.leaves_a_peer(&standing.host)?;
            self.lowered.push(standing.host.clone());
        }
        self.begun += usize::from(!standing.begun);
        match standing.belongs {
            true => self.unavailable += usize::from(lowers) - itself,
            false => self.leaving -= usize::from(lowers).min(self.leaving),
        }
        Ok(())
    }

    /// Whether a host is away from rest once this slot is out: nothing else is in, or the release it should have is not.
    pub(super) fn leaves(&self, place: &Place<'_>, slot: Slot) -> bool {
        let is_goal = place.issued().any(|(other, told)| other == slot && self.is_goal(place.host_name, told));
        is_goal || !place.issued().any(|(other, _)| other != slot && place.is_told_in(other))
    }

    pub(super) fn is_goal(&self, host: &HostName, told: &InstanceSpec) -> bool {
        let least = |rollout: &Rollout| rollout.starts.get(host).copied().unwrap_or_default();
        self.rollout.is_some_and(|it| it.goal() == Some(told.release) && told.start >= least(it))
    }

    /// Where something was begun already a host may be at rest all the same, by what was told: it leaves that like any other.
    pub(super) fn may_leave(&self, standing: &Standing) -> Result<(), Reason> {
        let full = self.away >= self.begun_limit.max(1);
        // How many begin is bounded where they do.
        if full && standing.begun && is_near(standing) { Err(Reason::Turn { wave: count(standing.wave) }) } else { Ok(()) }
    }

    /// Whether nothing of a host is in any more once this slot is out, by what was told.
    pub(super) fn empties(&self, standing: &Standing, place: &Place<'_>, slot: Slot) -> bool {
        let other = place.issued().any(|(other, _)| other != slot && place.is_told_in(other));
        standing.belongs && standing.aside.is_none() && place.is_told_in(slot) && !other
    }

    /// What is told to serve and does not may come back by itself: no more hosts are told not to than may be out.
    pub(super) fn may_empty(&self) -> Result<(), Reason> {
        let limit = self.unavailable_limit.max(1);
        let full = self.idle >= limit && !self.ends_with_nothing();
        if full { Err(Reason::Floor { unavailable: count(self.idle), max_unavailable: count(limit) }) } else { Ok(()) }
    }

    /// Whether some other host serves of which the strategy's label says the same, where there is another one at all.
    pub(super) fn leaves_a_peer(&self, host: &HostName) -> Result<(), Reason> {
        let Self { fleet, service, .. } = *self;
        let Some(label) = &self.strategy.spread_by else { return Ok(()) };
        let serves = |host: &HostName| self.places.at(host).serves();
        let others = spread::peers(fleet, service, label, host);
        let left = others.iter().any(|other| serves(other) && !self.lowered.contains(other));
        match spread::group(fleet, label, host) {
            Some(value) if !others.is_empty() && !left => Err(Reason::Spread { label: label.clone(), value: value.clone() }),
            _ => Ok(()),
        }
    }
}

/// Whether a failed instance counts as none at all: an old mistake, and never so.
pub(super) fn is_collected(fleet: &Fleet, name: &ServiceName, host: &HostName) -> bool {
    let has_failed =
        |report: &HostReport| report.instances.iter().any(|(key, it)| key.service == *name && !it.state.may_run());
    mutant!("a failed instance is collected") && fleet.hosts.get(host).and_then(Host::report).is_some_and(has_failed)
}

/// On its way to begin, and only waits for its release or for an answer, be it to what another service told it.
pub(super) fn will_begin(standing: &Standing) -> bool {
    match standing.step {
        Step::Wait(Reason::Artifact { .. } | Reason::Shutting { .. }) => true,
        Step::Wait(Reason::Echo) => standing.goal.is_some() && !standing.entered && standing.aside.is_none(),
        _ => false,
    }
}

/// Told something, and it was not confirmed yet: not at rest, though nothing may be left to do.
pub(super) fn is_unconfirmed(standing: &Standing) -> bool {
    matches!(
        standing.step,
        Step::Enroll(_) | Step::Stop(_) | Step::Wait(Reason::Enrolling { .. } | Reason::Echo | Reason::Healthy { .. })
    )
}

/// At rest by what was told, and not out of it because people said so.
pub(super) fn is_near(standing: &Standing) -> bool {
    !standing.away && standing.aside.is_none()
}
