//! What no change may do to the traffic: 1 floor, 2 and 7 stops, 3 entries, 4 never empty.

use super::{Check, Violation, violation};
use crate::fleet::report::{HostReport, InstanceState, MemberReport};
use crate::fleet::spec::{HostSpec, InstanceSpec, MemberSpec, MemberState, PoolSpec};
use crate::fleet::{BalancerPool, Host, InstanceKey, MemberKey, Service};
use crate::name::{HostName, PoolName, ReleaseId, ServiceName};
use crate::rollout::Direction;
use std::collections::BTreeSet;
use std::time::Duration;

impl Check<'_> {
    /// 2 and 7: what stops is out of every balancer, read back, with nothing in flight or its time used up.
    pub(super) fn stops(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        let Some(pool) = &service.balancer else { return };
        for (host, key, before) in self.issued_instances(name) {
            let after = self.after(host).and_then(|spec| spec.instances.get(key));
            let fails_its_check = after.is_some_and(|after| is_withdrawn(pool, before, after));
            // Where what was there before is to be withdrawn first, to leave that out is to stop it.
            let same = |after: &InstanceSpec| {
                (after.release, after.start, after.address) == (before.release, before.start, before.address)
                    && (before.withdraw.is_none() || after.withdraw.is_some())
            };
            if after.is_some_and(same) {
                continue;
            }
            let member = MemberKey { host: host.clone(), slot: key.slot };
            for balancer in self.counting(pool) {
                if fails_its_check && self.finds_out(balancer, pool) {
                    continue;
                }
                if let Err(why) = self.nothing_leads_to(balancer, &pool.pool, &member) {
                    let invariant = if pool.on.len() > 1 { 7 } else { 2 };
                    violations.push(violation(invariant, name, format!("{member} would stop, but on {balancer} {why}")));
                }
            }
        }
    }

    /// The balancers whose word is needed: all, but those that people declared dead and that say nothing, while others are left.
    pub(super) fn counting<'a>(&'a self, pool: &'a BalancerPool) -> Vec<&'a HostName> {
        let is_dead = |on: &&HostName| {
            self.fleet.hosts.get(*on).is_some_and(|host| host.dead_balancer.is_some()) && self.is_silent(on, pool)
        };
        let (dead, left): (Vec<&HostName>, Vec<&HostName>) = pool.on.iter().partition(is_dead);
        if left.is_empty() { dead } else { left }
    }

    /// Whether a balancer that cannot be told notices by itself who does not answer, as people say of it, while another one speaks.
    pub(super) fn finds_out(&self, balancer: &HostName, pool: &BalancerPool) -> bool {
        let speaks = |on: &&HostName| !self.is_silent(on, pool);
        pool.withdraw.is_some() && self.is_silent(balancer, pool) && self.counting(pool).iter().any(speaks)
    }

    /// Whether a balancer cannot be told anything, or does not do it.
    fn is_silent(&self, balancer: &HostName, pool: &BalancerPool) -> bool {
        let host = self.fleet.hosts.get(balancer).filter(|host| host.connected);
        let seen = host.and_then(|host| host.heard.as_ref()).and_then(|heard| heard.report.pools.get(&pool.pool));
        seen.is_none_or(|seen| seen.problem.is_some())
    }

    pub(super) fn nothing_leads_to(
        &self,
        balancer: &HostName,
        pool: &PoolName,
        member: &MemberKey,
    ) -> Result<(), &'static str> {
        let host = self.fleet.hosts.get(balancer).ok_or("nobody ever joined")?;
        let told = |spec: &HostSpec| spec.pools.get(pool).and_then(|it| it.members.get(member)).map(|it| it.state);
        if told(&host.issued) != Some(MemberState::Out) {
            return Err("it was never told to take it out");
        }
        if self.proposal.specs.get(balancer).is_some_and(|spec| !matches!(told(spec), Some(MemberState::Out) | None)) {
            return Err("the same plan puts it back");
        }
        if !host.connected {
            return Err("the agent is silent");
        }
        Self::said_quiet(host, pool, member)
    }

    /// Whether a balancer's last word answers its newest spec, and was that nothing leads to a member.
    fn said_quiet(host: &Host, pool: &PoolName, member: &MemberKey) -> Result<(), &'static str> {
        let report = host.heard.as_ref().map(|heard| &heard.report).ok_or("nothing was ever heard")?;
        if report.observed != host.issued.stamp() {
            return Err("the newest spec was not answered");
        }
        let seen = report.pools.get(pool).ok_or("the pool was not reported")?;
        if seen.problem.is_some() {
            return Err("the balancer cannot be believed");
        }
        let seen = seen.members.get(member).ok_or("the member was not reported")?;
        let deadline = host.issued.pools.get(pool).map(|pool| pool.drain_deadline).unwrap_or_default();
        is_quiet(seen, deadline)
    }

    /// 3: nothing starts where a balancer leads to at once, before it was seen ready.
    pub(super) fn starts(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        let Some(pool) = &service.balancer else { return };
        for (host, spec) in &self.proposal.specs {
            let issued = self.fleet.hosts.get(host).map(|host| &host.issued.instances);
            let is_new = |key: &&InstanceKey| key.service == *name && issued.is_none_or(|it| !it.contains_key(*key));
            for key in spec.instances.keys().filter(is_new) {
                let member = MemberKey { host: host.clone(), slot: key.slot };
                for balancer in self.counting(pool) {
                    let said = |host| Self::said_quiet(host, &pool.pool, &member);
                    if let Err(why) = self.fleet.hosts.get(balancer).ok_or("nobody ever joined").and_then(said) {
                        violations.push(violation(3, name, format!("{member} would start, but on {balancer} {why}")));
                    }
                }
            }
        }
    }

    /// 7: on the way forward nothing is taken out while one of its balancers cannot be told.
    pub(super) fn removals(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        let Some(pool) = service.balancer.as_ref().filter(|pool| pool.on.len() > 1) else { return };
        if self.active(name).is_some_and(|rollout| rollout.direction == Direction::Back) {
            return;
        }
        let state =
            |spec: &HostSpec, member| spec.pools.get(&pool.pool).and_then(|it| it.members.get(member)).map(|it| it.state);
        let is_there = |on: &HostName| self.fleet.hosts.get(on).is_some_and(|host| host.connected);
        let silent = self.counting(pool).into_iter().find(|on| !is_there(on) && !self.finds_out(on, pool));
        let Some(silent) = silent else { return };
        for balancer in &pool.on {
            let (Some(known), Some(after)) = (self.fleet.hosts.get(balancer), self.proposal.specs.get(balancer)) else {
                continue;
            };
            let before = known.issued.pools.get(&pool.pool).into_iter().flat_map(|it| &it.members);
            let was_in = before.filter(|(_, member)| member.state == MemberState::Ready).map(|(member, _)| member);
            for member in was_in.filter(|member| state(after, member) == Some(MemberState::Out)) {
                let what = format!("{member} would go out on {balancer}, and {silent} cannot be told");
                violations.push(violation(7, name, what));
            }
        }
    }

    /// 3: what comes in is the right release, and was seen ready for long enough on this very start.
    pub(super) fn entries(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        let rollouts = self.fleet.rollouts.values().filter(|rollout| rollout.service == *name);
        let active = rollouts.filter(|rollout| rollout.state.is_active());
        let right: BTreeSet<ReleaseId> =
            active.flat_map(|it| it.from.into_iter().chain([it.to])).chain(service.committed).collect();
        for (balancer, member) in self.entering(name) {
            if let Err(why) = self.is_right_and_ready(name, &member, &right) {
                violations.push(violation(3, name, format!("{member} would come in on {balancer}, but {why}")));
            }
        }
    }

    fn entering(&self, name: &ServiceName) -> Vec<(HostName, MemberKey)> {
        let mut entering = Vec::new();
        for (balancer, spec) in &self.proposal.specs {
            for (pool_name, pool) in spec.pools.iter().filter(|(_, pool)| pool.service == *name) {
                let before = self.fleet.hosts.get(balancer).and_then(|host| host.issued.pools.get(pool_name));
                let was = |member| before.and_then(|pool| pool.members.get(member)).map(|it| it.state);
                let enter = pool.members.iter().filter(|(_, it)| it.state == MemberState::Ready);
                let enter = enter.filter(|(member, _)| was(member) != Some(MemberState::Ready));
                entering.extend(enter.map(|(member, _)| (balancer.clone(), member.clone())));
            }
        }
        entering
    }

    fn is_right_and_ready(
        &self,
        name: &ServiceName,
        member: &MemberKey,
        right: &BTreeSet<ReleaseId>,
    ) -> Result<(), &'static str> {
        let key = InstanceKey { service: name.clone(), slot: member.slot };
        let host = self.fleet.hosts.get(&member.host).ok_or("its host never joined")?;
        let told = host.issued.instances.get(&key).ok_or("nothing was told to run there")?;
        let kept = self.fleet.services.get(name).and_then(|service| service.orders.kept.get(&member.host));
        if !right.contains(&told.release) && kept.is_none_or(|kept| kept.release != told.release) {
            return Err("it is neither the committed release nor the rollout's");
        }
        let after = self.after(&member.host).and_then(|spec| spec.instances.get(&key));
        if after.map(|it| (it.release, it.start)) != Some((told.release, told.start)) {
            return Err("the same plan stops it");
        }
        if !host.connected {
            return Err("its agent is silent");
        }
        let report = host.heard.as_ref().map(|heard| &heard.report).ok_or("nothing was ever heard")?;
        if report.observed != host.issued.stamp() {
            return Err("its host has not answered its newest spec");
        }
        let seen = report.instances.get(&key).ok_or("it does not run")?;
        if seen.release != told.release {
            return Err("another release runs there");
        }
        if seen.start != told.start {
            return Err("an earlier start of it runs there");
        }
        let healthy_for = self.fleet.releases.get(&told.release).map(|release| release.health.healthy_for);
        match seen.state {
            InstanceState::Ready { since } if since >= healthy_for.unwrap_or_default() => Ok(()),
            InstanceState::Ready { .. } => Err("it has not been ready for long enough"),
            _ => Err("it is not ready"),
        }
    }

    /// 1 and 4: no change of ours takes a balancer below the floor, or empties it.
    pub(super) fn floor(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        for (balancer, spec) in &self.proposal.specs {
            let issued = self.fleet.hosts.get(balancer).map(|host| &host.issued);
            for (pool_name, before) in issued.into_iter().flat_map(|spec| &spec.pools) {
                if before.service != *name {
                    continue;
                }
                let after = spec.pools.get(pool_name);
                // On the way forward nobody counts on a host that cannot be asked now.
                let forward = self.active(name).is_some_and(|rollout| rollout.direction == Direction::Forward);
                let is_there = |host: &HostName| self.fleet.hosts.get(host).is_some_and(|host| host.connected);
                let counts = |member: &MemberKey| self.answers(name, member) && (!forward || is_there(&member.host));
                let count = |pool: &PoolSpec, only_answering: bool| {
                    let is_in = pool.members.iter().filter(|(_, member)| member.state == MemberState::Ready);
                    let is_in = is_in.filter(|(member, _)| !only_answering || counts(member));
                    is_in.map(|(member, _)| &member.host).collect::<BTreeSet<_>>().len()
                };
                let serves = |host: &HostName| {
                    let mut is_in = before.members.iter().filter(|(_, member)| member.state == MemberState::Ready);
                    is_in.any(|(member, _)| member.host == *host && self.answers(name, member))
                };
                let counted = |host: &&HostName| !self.stands_aside(service, host) || serves(host);
                let hosts = service.hosts.iter().filter(counted).count();
                let may_miss = self.strategy_of(name, service).max_unavailable.at_most(hosts);
                // People may take a host out for work on it also where releases may take none: one, and no other with it.
                let goes = |member: &MemberKey, told: &MemberSpec| {
                    let stays =
                        after.and_then(|pool| pool.members.get(member)).is_some_and(|it| it.state == MemberState::Ready);
                    let known = self.fleet.hosts.get(&member.host);
                    told.state == MemberState::Ready && !stays && known.is_some_and(|host| host.maintenance.is_some())
                };
                let for_work = before.members.iter().any(|(member, told)| goes(member, told));
                let may_miss = if for_work { may_miss.max(1) } else { may_miss };
                let (had, has) = (count(before, true), after.map_or(0, |pool| count(pool, true)));
                let floor = had.min(hosts.saturating_sub(may_miss));
                if has < floor && !self.ends_on_purpose(name) {
                    let what = format!("{has} members of {name} would be in on {balancer}, the floor is {floor}");
                    violations.push(violation(1, name, what));
                }
                let might_answer = before
                    .members
                    .iter()
                    .any(|(member, told)| told.state == MemberState::Ready && !self.is_known_gone(name, member));
                let emptied = might_answer && after.is_none_or(|pool| count(pool, false) == 0);
                if emptied && may_miss < hosts && !self.ends_on_purpose(name) {
                    violations.push(violation(4, name, format!("the pool of {name} on {balancer} would be empty")));
                }
            }
        }
    }

    /// Whether a member, as last heard, would answer a request.
    fn answers(&self, name: &ServiceName, member: &MemberKey) -> bool {
        let key = InstanceKey { service: name.clone(), slot: member.slot };
        let report: Option<&HostReport> =
            self.fleet.hosts.get(&member.host).and_then(|host| host.heard.as_ref()).map(|heard| &heard.report);
        report
            .and_then(|report| report.instances.get(&key))
            .is_some_and(|instance| matches!(instance.state, InstanceState::Ready { .. }))
    }

    /// Whether the host of a member says now that no process of it is left: nobody loses anything when it is taken out.
    pub(super) fn is_known_gone(&self, name: &ServiceName, member: &MemberKey) -> bool {
        let key = InstanceKey { service: name.clone(), slot: member.slot };
        let host = self.fleet.hosts.get(&member.host).filter(|host| host.connected);
        host.and_then(|host| host.heard.as_ref().filter(|heard| heard.report.observed == host.issued.stamp()))
            .and_then(|heard| heard.report.instances.get(&key))
            .is_some_and(|instance| matches!(instance.state, InstanceState::Failed { .. }))
    }

    /// Whether people took a host out of the service for a while.
    pub(super) fn stands_aside(&self, service: &Service, host: &HostName) -> bool {
        service.orders.skipped.contains_key(host)
            || self.fleet.hosts.get(host).is_some_and(|host| host.maintenance.is_some())
    }

    /// A first deployment taken back, or a service that is removed, ends with nobody serving. So does what a host still has of
    /// a service without a release.
    pub(super) fn ends_on_purpose(&self, name: &ServiceName) -> bool {
        if self.fleet.services.get(name).is_some_and(|service| service.orders.removal.is_some()) {
            return true;
        }
        let ids = self.fleet.rollouts.keys().chain(self.proposal.rollouts.keys());
        let rollouts = ids.filter_map(|id| self.rollout(id)).filter(|rollout| rollout.service == *name);
        let mut active = rollouts.filter(|rollout| rollout.state.is_active()).peekable();
        let service = self.proposal.services.get(name).or_else(|| self.fleet.services.get(name));
        let has_none = service.is_some_and(|it| it.committed.is_none() && it.orders.kept.is_empty());
        match active.peek() {
            None => has_none,
            Some(_) => active.any(|rollout| rollout.goal().is_none()),
        }
    }
}

/// Whether a host ends an instance only after balancers that ask it have found out that it is not ready, and has another one
/// take its place.
fn is_withdrawn(pool: &BalancerPool, before: &InstanceSpec, after: &InstanceSpec) -> bool {
    let long_enough = |needed: Duration| after.withdraw.is_some_and(|it| it.unready_for >= needed);
    before.address == after.address && pool.withdraw.is_some_and(|asked| long_enough(asked.unready_for))
}

fn is_quiet(member: &MemberReport, deadline: Duration) -> Result<(), &'static str> {
    if member.running != MemberState::Out {
        return Err("it still routes");
    }
    if member.on_disk != MemberState::Out {
        return Err("it would route again after a restart");
    }
    if member.in_flight > 0 && member.out_for < deadline {
        return Err("requests are in flight");
    }
    Ok(())
}
