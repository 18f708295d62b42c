//! What may be written down: 8 one rollout, 9 fencing, 10 intent, 12 and 18 the way back, 13 completeness.

use super::{Check, Violation, violation};
use crate::fleet::report::{InstanceState, PoolReport};
use crate::fleet::spec::MemberState;
use crate::fleet::{MemberKey, Service};
use crate::name::{HostName, ReleaseId, ServiceName};
use crate::rollout::{Rollout, RolloutState};
use std::collections::BTreeSet;

impl Check<'_> {
    /// 9 and 10: a spec is newer than the one before, of this epoch, and carries every document it speaks of.
    pub(super) fn fencing(&self, violations: &mut Vec<Violation>) {
        if self.fleet.fence.as_ref().is_some_and(|fence| fence.stands) && self.proposal.changes_anything() {
            let what = "a decision before the hosts of a restored coordinator were heard".to_owned();
            violations.push(Violation { invariant: 9, service: None, what });
        }
        for (name, spec) in &self.proposal.specs {
            let mut fail = |invariant, what| violations.push(Violation { invariant, service: None, what });
            match self.fleet.hosts.get(name) {
                None => fail(9, format!("a spec for {name}, which never joined")),
                Some(host) if spec.epoch != self.fleet.epoch || spec.generation <= host.issued.generation => {
                    fail(9, format!("a spec for {name} that is not newer than the one issued"));
                }
                Some(host) if !(host.accepted || spec.instances.is_empty() && spec.pools.is_empty()) => {
                    fail(20, format!("a spec for {name}, which nobody accepted"));
                }
                Some(_) => {}
            }
            if let Some(key) = spec.instances.iter().find(|(_, it)| {
                let named = [Some(it.release), it.fallback].into_iter().flatten();
                named.into_iter().any(|release| !spec.releases.contains_key(&release))
            }) {
                fail(10, format!("{} on {name} without the document of its release", key.0));
            }
        }
    }

    /// 8: at most one active rollout.
    pub(super) fn one_rollout(&self, name: &ServiceName, violations: &mut Vec<Violation>) {
        let after = self.fleet.rollouts.keys().chain(self.proposal.rollouts.keys()).collect::<BTreeSet<_>>();
        let active = after.into_iter().filter_map(|id| self.rollout(id));
        let active = active.filter(|rollout| rollout.service == *name && rollout.state.is_active()).count();
        if active > 1 {
            violations.push(violation(8, name, format!("{active} active rollouts of {name}")));
        }
    }

    /// 12 and 18: no host is told to let go of what it serves, or of what it would go back to.
    pub(super) fn reserve(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        if self.proposal.gone.contains(name) {
            // Nothing runs of it any more, so nothing of it is needed: if people said so.
            if service.orders.removal.is_none() || self.issued_instances(name).next().is_some() {
                violations.push(violation(12, name, format!("{name} would be forgotten while it runs, or unasked")));
            }
            return;
        }
        let active = self.active(name);
        let under_way: BTreeSet<ReleaseId> = active.into_iter().flat_map(|it| it.from.into_iter().chain([it.to])).collect();
        let at_rest: BTreeSet<ReleaseId> = service.committed.into_iter().chain(service.previous).collect();
        let warm = service.warm.map(|warm| warm.release);
        for (host, spec) in self.proposal.specs.iter().filter(|(host, _)| service.hosts.contains(host)) {
            let held = self.fleet.hosts.get(host).map(|host| &host.issued.releases);
            let dropped = held.into_iter().flatten().map(|(id, _)| *id).filter(|id| !spec.releases.contains_key(id));
            for release in dropped {
                let invariant = match () {
                    () if under_way.contains(&release) || warm == Some(release) => 18,
                    () if at_rest.contains(&release) => 12,
                    () => continue,
                };
                violations.push(violation(invariant, name, format!("{host} would let go of a release it may need")));
            }
        }
    }

    /// 13: a rollout succeeds only when every host attests it, from what runs there, in every balancer; and it is said to be
    /// taken back only when the release before is attested like that.
    pub(super) fn completeness(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        // Where another one begins at once, that one's manifest may name other hosts.
        let service = self.fleet.services.get(name).unwrap_or(service);
        for rollout in self.proposal.rollouts.values().filter(|rollout| rollout.service == *name) {
            let was = self.fleet.rollouts.get(&rollout.id).map(|rollout| rollout.state);
            let mut fail = |what: String| violations.push(violation(13, name, what));
            if has_succeeded(rollout.state) && !was.is_some_and(has_succeeded) {
                let mut asked = service.hosts.iter().filter(|host| !self.is_left_out(service, rollout, host)).peekable();
                if asked.peek().is_none() && service.committed != Some(rollout.to) {
                    fail("the rollout would have succeeded, and no host takes part in it".to_owned());
                }
                for host in asked {
                    if let Err(why) = self.attests(name, service, host, rollout) {
                        fail(format!("the rollout would have succeeded, but on {host} {why}"));
                    }
                }
            }
            if rollout.state == RolloutState::Reverted && was != Some(RolloutState::Reverted) {
                for host in service.hosts.iter().filter(|host| !self.is_left_out(service, rollout, host)) {
                    if let Err(why) = self.is_back(name, service, host, rollout) {
                        fail(format!("the rollout would have been taken back, but on {host} {why}"));
                    }
                }
            }
        }
    }

    /// That a host has what it had before: or is away, and was never told of the new release.
    fn is_back(
        &self,
        name: &ServiceName,
        service: &Service,
        host: &HostName,
        rollout: &Rollout,
    ) -> Result<(), &'static str> {
        let known = self.fleet.hosts.get(host);
        let told = known.into_iter().flat_map(|known| &known.issued.instances).filter(|(key, _)| key.service == *name);
        let told: Vec<ReleaseId> = told.map(|(_, it)| it.release).collect();
        if known.is_none_or(|known| !known.connected) && !told.contains(&rollout.to) {
            return Ok(());
        }
        if let Some(from) = rollout.from {
            return self.attests_alone(name, service, host, from, |_| false);
        }
        let report = known.and_then(|known| known.heard.as_ref()).map(|heard| &heard.report);
        let report = report.ok_or("nothing was ever heard")?;
        let runs = report.instances.iter().any(|(key, it)| key.service == *name && it.state.may_run());
        if runs || !told.is_empty() { Err("something of it runs, or is told to") } else { Ok(()) }
    }

    /// Whether a rollout leaves a host out, and people said so.
    fn is_left_out(&self, service: &Service, rollout: &Rollout, host: &HostName) -> bool {
        rollout.left_out.iter().any(|left_out| left_out.host == *host) && self.stands_aside(service, host)
    }

    fn attests(
        &self,
        name: &ServiceName,
        service: &Service,
        host: &HostName,
        rollout: &Rollout,
    ) -> Result<(), &'static str> {
        // What it came from may stay as a way back, also where the next rollout begins at once and needs its place.
        let before = rollout.from.filter(|_| rollout.strategy.keeps_old());
        let may_stay =
            |release: ReleaseId| before == Some(release) || service.warm.is_some_and(|warm| warm.release == release);
        self.attests_alone(name, service, host, rollout.to, may_stay)
    }

    /// That one release serves on a host, in every balancer, and what else runs there may stay, and is out.
    fn attests_alone(
        &self,
        name: &ServiceName,
        service: &Service,
        host: &HostName,
        release: ReleaseId,
        may_stay: impl Fn(ReleaseId) -> bool,
    ) -> Result<(), &'static str> {
        let known = self.fleet.hosts.get(host).ok_or("nobody ever joined")?;
        let report = known.heard.as_ref().map(|heard| &heard.report).ok_or("nothing was ever heard")?;
        if report.observed != known.issued.stamp() {
            return Err("the newest spec was not answered");
        }
        let mut serves = false;
        for (key, it) in report.instances.iter().filter(|(key, it)| key.service == *name && it.state.may_run()) {
            let member = MemberKey { host: host.clone(), slot: key.slot };
            let states = self.states(service, &member)?;
            if it.release == release {
                let ready = matches!(it.state, InstanceState::Ready { .. });
                serves |=
                    ready && states.iter().all(|(now, later)| (*now, *later) == (MemberState::Ready, MemberState::Ready));
            } else if !may_stay(it.release) {
                return Err("another release runs");
            } else if states.iter().any(|(now, later)| (*now, *later) != (MemberState::Out, MemberState::Out)) {
                return Err("the release before is still routed to");
            }
        }
        if serves { Ok(()) } else { Err("nothing that is ready and in everywhere runs it") }
    }

    /// What every balancer of the service says of a member, now and after a restart.
    fn states(&self, service: &Service, member: &MemberKey) -> Result<Vec<(MemberState, MemberState)>, &'static str> {
        let Some(pool) = &service.balancer else { return Ok(Vec::new()) };
        let look = |balancer: &HostName| {
            let host = self.fleet.hosts.get(balancer).ok_or("its balancer never joined")?;
            let report = host.heard.as_ref().map(|heard| &heard.report).ok_or("its balancer was never heard")?;
            // One that cannot be told finds out by itself, where people say so: what it had is what it has.
            if report.observed != host.issued.stamp() && !self.finds_out(balancer, pool) {
                return Err("its balancer has not answered the newest spec");
            }
            let seen: &PoolReport = report.pools.get(&pool.pool).ok_or("its pool was not reported")?;
            let seen = seen.members.get(member).ok_or("its member was not reported")?;
            Ok((seen.running, seen.on_disk))
        };
        self.counting(pool).into_iter().map(look).collect()
    }
}

/// Whether everybody is said to have the release, but those left out by name.
const fn has_succeeded(state: RolloutState) -> bool {
    matches!(state, RolloutState::Succeeded | RolloutState::Partial)
}
