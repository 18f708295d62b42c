//! What a preview may do to the traffic: nobody reaches the new release but whom a rule names (3), nothing of the old one goes out (1)
//! but for work on its host, and never all of it (4).

use super::{Check, Violation, violation};
use crate::fleet::spec::{MemberSpec, MemberState, PoolSpec};
use crate::fleet::split::{Share, Side};
use crate::fleet::{InstanceKey, MemberKey, Service};
use crate::name::{HostName, ReleaseId, ServiceName};
use crate::rollout::Direction;

impl Check<'_> {
    pub(super) fn previews(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        let Some(rollout) = self.active(name).filter(|rollout| rollout.direction == Direction::Forward) else { return };
        let asked = rollout.strategy.waves.get(rollout.wave).and_then(|wave| wave.share);
        let Some(from) = rollout.from.filter(|from| *from != rollout.to && asked == Some(Share::NONE)) else { return };
        for (balancer, spec) in &self.proposal.specs {
            for (pool_name, pool) in spec.pools.iter().filter(|(_, pool)| pool.service == *name) {
                let exposed = |(member, told): &(&MemberKey, &MemberSpec)| {
                    told.state == MemberState::Ready
                        && self.would_run(name, member) == Some(rollout.to)
                        && !is_shielded(pool, told)
                };
                for (member, _) in pool.members.iter().filter(exposed) {
                    let what = format!("{member} would come in for everybody on {balancer}, before the switch");
                    violations.push(violation(3, name, what));
                }
                let before = self.fleet.hosts.get(balancer).and_then(|known| known.issued.pools.get(pool_name));
                let is_in = |pool: &PoolSpec, member: &MemberKey| {
                    pool.members.get(member).is_some_and(|told| told.state == MemberState::Ready)
                };
                let serves_all = |pool: &PoolSpec| {
                    let mut members = pool.members.keys().filter(|member| is_in(pool, member));
                    members.any(|member| self.runs(name, member) == Some(from) && !self.is_known_gone(name, member))
                };
                // Where nobody is left at all, nobody is led astray: that is another rule's to judge.
                let is_left = pool.members.values().any(|told| told.state == MemberState::Ready);
                if before.is_some_and(serves_all) && is_left && !serves_all(pool) && !self.ends_on_purpose(name) {
                    let what = format!("nobody on {balancer} would be there for those whom no rule of the preview names");
                    violations.push(violation(4, name, what));
                }
                let leaves = |member: &&MemberKey| {
                    let was_in = before.is_some_and(|before| is_in(before, member));
                    let serves_on = |other: &MemberKey| {
                        other.host == member.host && is_in(pool, other) && self.runs(name, other) == Some(from)
                    };
                    let goes = was_in && !is_in(pool, member) && self.runs(name, member) == Some(from);
                    goes && !pool.members.keys().any(serves_on)
                };
                let takes_part = |host: &HostName| service.hosts.contains(host) && !self.stands_aside(service, host);
                let members = before.into_iter().flat_map(|before| before.members.keys());
                for member in members.filter(leaves).filter(|member| takes_part(&member.host)) {
                    if !self.is_known_gone(name, member) && !self.ends_on_purpose(name) {
                        let what = format!("{member} would go out on {balancer}, before the switch");
                        violations.push(violation(1, name, what));
                    }
                }
            }
        }
    }

    /// The release a member's host is told to run there.
    fn runs(&self, name: &ServiceName, member: &MemberKey) -> Option<ReleaseId> {
        let key = InstanceKey { service: name.clone(), slot: member.slot };
        Some(self.fleet.hosts.get(&member.host)?.issued.instances.get(&key)?.release)
    }

    /// The same after the proposal.
    fn would_run(&self, name: &ServiceName, member: &MemberKey) -> Option<ReleaseId> {
        let key = InstanceKey { service: name.clone(), slot: member.slot };
        Some(self.after(&member.host)?.instances.get(&key)?.release)
    }
}

/// Whether only whom a rule names is led to a member.
fn is_shielded(pool: &PoolSpec, told: &MemberSpec) -> bool {
    let closed = pool.split.as_ref().is_some_and(|split| split.share == Share::NONE && !split.rules.is_empty());
    closed && told.side == Side::Trial
}
