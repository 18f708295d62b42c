//! The specs a plan is writing: the issued ones with its changes on top, stamped only where something really changed.

use super::Rollout;
use super::hooks;
use super::place::Place;
use super::rules::{Follows, Members, Membership, Rules, known, take_host};
use super::share::WEIGHT;
use crate::fleet::report::HostReport;
use crate::fleet::spec::{Exchange, HostSpec, InstanceSpec, MemberSpec, MemberState, PoolSpec, Restart};
use crate::fleet::split::{Side, TrafficSplit};
use crate::fleet::{Fleet, Host, InstanceKey, LiteMap, MemberKey, Service};
use crate::name::{HostName, PoolName, ReleaseId, ServiceName, Slot};
use crate::release::{Probe, Release};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How members are told to change: how long what is open may take, and whom a member that goes out waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    pub drain_deadline: Duration,
    pub exchange: Exchange,
}

/// The services as they will be, by name.
pub type Services<'a> = BTreeMap<&'a ServiceName, &'a Service>;

/// Specs under way.
#[derive(Debug)]
pub struct Draft<'a> {
    fleet: &'a Fleet,
    specs: BTreeMap<HostName, HostSpec>,
}

impl<'a> Draft<'a> {
    #[must_use]
    pub const fn new(fleet: &'a Fleet) -> Self {
        Self { fleet, specs: BTreeMap::new() }
    }

    /// Tells every balancer of the place what to do with a slot.
    pub fn set_member(&mut self, place: &Place<'_>, slot: Slot, state: MemberState, manner: Manner) {
        let (Some(host), Some(port)) = (place.host(), place.service.port(slot)) else { return };
        let Some(balancer) = &place.service.balancer else { return };
        let address = host.endpoint(port);
        let probe = self.probe(place, slot);
        for name in &balancer.on {
            let Some(spec) = self.edit(name) else { continue };
            let pool = spec.pools.entry(balancer.pool.clone()).or_insert_with(|| PoolSpec {
                service: place.name.clone(),
                members: BTreeMap::new(),
                drain_deadline: manner.drain_deadline,
                slow_start: balancer.slow_start,
                split: None,
                exchange: manner.exchange,
            });
            pool.drain_deadline = manner.drain_deadline;
            pool.slow_start = balancer.slow_start;
            pool.exchange = manner.exchange;
            let weight = pool.members.get(&place.member(slot)).map_or(WEIGHT, |member| member.weight);
            pool.members
                .insert(place.member(slot), MemberSpec { address, state, weight, side: Side::Stable, probe: probe.clone() });
        }
    }

    /// Gives the members of a service that are in their weights: those of `new`, and those of every other release.
    pub fn weigh(
        &mut self,
        name: &ServiceName,
        service: &Service,
        new: ReleaseId,
        weights: impl Fn(usize, usize) -> (u16, u16),
    ) {
        let Some(balancer) = &service.balancer else { return };
        for on in &balancer.on {
            let Some(pool) = self.spec(on).and_then(|spec| spec.pools.get(&balancer.pool)) else { continue };
            let runs_new = |member: &MemberKey| {
                let key = InstanceKey { service: name.clone(), slot: member.slot };
                self.spec(&member.host).and_then(|spec| spec.instances.get(&key)).is_some_and(|it| it.release == new)
            };
            let is_in = pool.members.iter().filter(|(_, member)| member.state == MemberState::Ready);
            // One of a host that people took away for good only stands in until another member is in.
            let is_in = is_in.filter(|(member, _)| self.fleet.hosts.contains_key(&member.host));
            let (mine, theirs): (Vec<_>, Vec<_>) = is_in.partition(|(member, _)| runs_new(member));
            let (light, heavy) = weights(mine.len(), theirs.len());
            let wanted = mine.into_iter().map(|it| (it, light)).chain(theirs.into_iter().map(|it| (it, heavy)));
            let wrong = wanted.filter(|((_, member), weight)| member.weight != *weight);
            let wrong: Vec<(MemberKey, u16)> = wrong.map(|((key, _), weight)| (key.clone(), weight)).collect();
            self.set_weights(on, &balancer.pool, &wrong);
        }
    }

    /// Gives the members of a service that are in one and the same weight.
    pub fn weigh_alike(&mut self, service: &Service) {
        let Some(balancer) = &service.balancer else { return };
        for on in &balancer.on {
            let Some(pool) = self.spec(on).and_then(|spec| spec.pools.get(&balancer.pool)) else { continue };
            let wrong = |member: &MemberSpec| member.state == MemberState::Ready && member.weight != WEIGHT;
            let wrong = pool.members.iter().filter(|(_, member)| wrong(member));
            let wrong: Vec<(MemberKey, u16)> = wrong.map(|(key, _)| (key.clone(), WEIGHT)).collect();
            self.set_weights(on, &balancer.pool, &wrong);
        }
    }

    fn set_weights(&mut self, balancer: &HostName, pool: &PoolName, weights: &[(MemberKey, u16)]) {
        if weights.is_empty() {
            return;
        }
        let Some(pool) = self.edit(balancer).and_then(|spec| spec.pools.get_mut(pool)) else { return };
        for (key, weight) in weights {
            if let Some(member) = pool.members.get_mut(key) {
                member.weight = *weight;
            }
        }
    }

    /// Tells the host to run a release in a slot: anew, where it runs there already at an earlier start.
    pub fn start(&mut self, place: &Place<'_>, slot: Slot, release: ReleaseId, start: u32, drain_deadline: Duration) {
        let (Some(host), Some(port)) = (place.host(), place.service.port(slot)) else { return };
        let scrape = place.service.strategy.scrape.clone().map(Box::new);
        let withdraw = place.withdrawal(slot, drain_deadline);
        let (address, restart) = (host.endpoint(port), Restart::Never);
        let instance = InstanceSpec { release, address, restart, start, fallback: None, scrape, withdraw };
        if let Some(spec) = self.edit(place.host_name) {
            spec.instances.insert(place.key(slot), instance);
        }
    }

    /// Tells the host to run nothing in a slot.
    pub fn stop(&mut self, place: &Place<'_>, slot: Slot) {
        if let Some(spec) = self.edit(place.host_name) {
            spec.instances.remove(&place.key(slot));
        }
    }

    /// Brings into line what follows from everything else: which releases a host holds, which instances start again by
    /// themselves, which hooks are run. Comes back with the hosts that balance: to walk along all of them takes longer than what is done
    /// with most.
    pub(super) fn settle(
        &mut self,
        services: &Services<'_>,
        active: &[&Rollout],
        rules: &Rules<'_>,
        members: &Members<'_>,
    ) -> Vec<(&'a HostName, &'a Host)> {
        let fleet = self.fleet;
        // Most services have none.
        let hooked = services.iter().map(|(name, service)| (*name, *service));
        let hooked: Vec<_> = hooked.filter(|(_, service)| !service.hooks.is_empty()).collect();
        let (mut hooks, mut balancers) = (Vec::new(), Vec::new());
        let mut unvisited = members.0.as_slice();
        for (name, known) in &fleet.hosts {
            let spec = self.specs.get(name).unwrap_or(&known.issued);
            if !spec.pools.is_empty() {
                balancers.push((name, known));
            }
            if !(hooked.is_empty() && spec.hooks.is_empty()) {
                hooks.push((name, known));
            }
            let here = take_host(&mut unvisited, name);
            // Of many hosts nearly all are as they should be.
            if matches!(here, [(_, rule)] if rule.is_followed_by(name, spec)) {
                continue;
            }
            let mut releases = self.wanted_releases(spec, name, here, rules);
            self.keep_signs(known, &mut releases);
            let follows = |(key, it): (&InstanceKey, &InstanceSpec)| rules.follows(key, name, it).is_so(it);
            if spec.releases.keys().eq(releases.iter()) && spec.instances.iter().all(follows) {
                continue;
            }
            let documents = self.documents(known, &releases);
            if let Some(spec) = self.edit(name) {
                spec.releases = documents;
                for (key, instance) in &mut spec.instances {
                    let Follows { restart, fallback, scrape } = rules.follows(key, name, instance);
                    let scrape = scrape.cloned().map(Box::new);
                    (instance.restart, instance.fallback, instance.scrape) = (restart, fallback, scrape);
                }
            }
        }
        for (name, known) in hooks {
            self.tell_hooks(name, known, &hooked, active);
        }
        for (name, service) in services {
            if !active.iter().any(|rollout| rollout.service == **name) {
                self.level(service);
            }
        }
        balancers
    }

    /// Tells a host which hooks it should have run.
    fn tell_hooks(&mut self, name: &HostName, known: &Host, hooked: &[(&ServiceName, &Service)], active: &[&Rollout]) {
        let spec = self.specs.get(name).unwrap_or(&known.issued);
        let rollout = |name: &ServiceName| active.iter().find(|rollout| rollout.service == *name).copied();
        let told = hooked.iter().flat_map(|(of, service)| hooks::specs(self.fleet, name, service, rollout(of)));
        let told = told.collect();
        if spec.hooks == told {
            return;
        }
        if let Some(spec) = self.edit(name) {
            spec.hooks = told;
        }
    }

    /// At rest all members weigh the same, and change places each for itself.
    fn level(&mut self, service: &Service) {
        let Some(balancer) = service.balancer.as_ref().filter(|_| service.committed.is_some()) else { return };
        self.weigh_alike(service);
        for on in &balancer.on {
            let pool = self.spec(on).and_then(|spec| spec.pools.get(&balancer.pool));
            if pool.is_none_or(|pool| pool.exchange == Exchange::Each) {
                continue;
            }
            if let Some(pool) = self.edit(on).and_then(|spec| spec.pools.get_mut(&balancer.pool)) {
                pool.exchange = Exchange::Each;
            }
        }
    }

    /// The specs that differ from what was issued, with their new stamps.
    #[must_use]
    pub fn finish(self) -> BTreeMap<HostName, HostSpec> {
        let fleet = self.fleet;
        let changed = self.specs.into_iter().filter_map(|(name, mut spec)| {
            let issued = &fleet.hosts.get(&name)?.issued;
            spec.epoch = fleet.epoch;
            spec.generation = issued.generation.next();
            (!spec.same_content(issued)).then_some((name, spec))
        });
        changed.collect()
    }

    /// Tells a balancer how a pool divides its requests, and which side each member serves.
    pub(super) fn divide(
        &mut self,
        balancer: &HostName,
        pool: &PoolName,
        split: Option<TrafficSplit>,
        sides: &BTreeMap<MemberKey, Side>,
    ) {
        let Some(pool) = self.edit(balancer).and_then(|spec| spec.pools.get_mut(pool)) else { return };
        pool.split = split;
        for (key, member) in &mut pool.members {
            member.side = sides.get(key).copied().unwrap_or_default();
        }
    }

    pub(super) fn spec(&self, host: &HostName) -> Option<&HostSpec> {
        self.specs.get(host).or_else(|| self.fleet.hosts.get(host).map(|host| &host.issued))
    }

    fn edit(&mut self, host: &HostName) -> Option<&mut HostSpec> {
        if !self.specs.contains_key(host) {
            let issued = self.fleet.hosts.get(host)?.issued.clone();
            self.specs.insert(host.clone(), issued);
        }
        self.specs.get_mut(host)
    }

    fn probe(&self, place: &Place<'_>, slot: Slot) -> Probe {
        let spec = self.spec(place.host_name);
        let release = spec.and_then(|spec| spec.instances.get(&place.key(slot))).map(|instance| instance.release);
        let release = release.and_then(|release| self.fleet.releases.get(&release));
        release.map_or(Probe::Tcp, |release| release.health.probe.clone())
    }

    /// What runs, what a host may fall back to from it, what is about to, and what a rollback needs (invariant 18).
    fn wanted_releases(
        &self,
        spec: &HostSpec,
        host: &HostName,
        here: &[Membership<'_>],
        rules: &Rules<'_>,
    ) -> Vec<ReleaseId> {
        let named =
            |(key, told): (&InstanceKey, &InstanceSpec)| [Some(told.release), rules.follows(key, host, told).fallback];
        let named = spec.instances.iter().flat_map(named).flatten();
        known(self.fleet, named.chain(here.iter().flat_map(|(_, rule)| rule.needs.iter().copied())))
    }

    /// Of a service of which a host would hold nothing any more, it keeps what it has until it said, in answer to its newest spec,
    /// that nothing of it runs there. A coordinator that begins meanwhile knows by that alone that something still may.
    fn keep_signs(&self, known: &Host, wanted: &mut Vec<ReleaseId>) {
        let issued = &known.issued;
        if issued.releases.keys().all(|release| wanted.contains(release)) {
            return;
        }
        let has_ended = |service: &ServiceName| {
            let runs =
                |report: &HostReport| report.instances.iter().any(|(key, it)| key.service == *service && it.state.may_run());
            let told = issued.instances.keys().any(|key| key.service == *service);
            !told && known.echoed().is_some_and(|report| !runs(report))
        };
        let held = |release: &ReleaseId| issued.releases.get(release).or_else(|| self.fleet.releases.get(release));
        let goes = |service: &ServiceName| wanted.iter().filter_map(held).all(|release| release.service != *service);
        let signs = issued.releases.iter().filter(|(_, it)| goes(&it.service) && !has_ended(&it.service));
        let signs: Vec<ReleaseId> = signs.map(|(id, _)| *id).collect();
        wanted.extend(signs);
        wanted.sort_unstable();
    }

    fn documents(&self, known: &Host, releases: &[ReleaseId]) -> LiteMap<ReleaseId, Arc<Release>> {
        let document = |id: &ReleaseId| self.fleet.releases.get(id).or_else(|| known.issued.releases.get(id)).cloned();
        releases.iter().filter_map(|id| Some((*id, document(id)?))).collect()
    }

    /// Drops members that are history from every balancer. Returns whether there were any.
    pub(super) fn forget_members(
        &mut self,
        balancers: &[(&'a HostName, &'a Host)],
        services: &Services<'_>,
        active: &[&Rollout],
        members: &Members<'_>,
    ) -> bool {
        balancers
            .iter()
            .fold(false, |any, (name, known)| self.forget_members_of(name, known, services, members, active) || any)
    }

    /// Drops members of hosts that left the service, once nothing of it runs there. Of a host that people took away for good the
    /// last member that is in stays until another one is: if it serves all the same, nobody is cut off. Of a service nobody knows
    /// here every member that is in stays: the host came over with it from another coordinator.
    fn forget_members_of(
        &mut self,
        balancer: &HostName,
        known: &Host,
        services: &Services<'_>,
        members: &Members<'_>,
        active: &[&Rollout],
    ) -> bool {
        let spec = self.specs.get(balancer).unwrap_or(&known.issued);
        let runs = |host: &HostName, service: &ServiceName| {
            self.spec(host).is_some_and(|spec| spec.instances.keys().any(|key| key.service == *service))
        };
        let mut history = Vec::new();
        for (pool, told) in &spec.pools {
            let (mut unvisited, mut host, mut services_there) = (members.0.as_slice(), None, &[][..]);
            let is_known = services.contains_key(&told.service);
            for (member, its) in &told.members {
                if host.replace(&member.host) != Some(&member.host) {
                    services_there = take_host(&mut unvisited, &member.host);
                }
                let left = !services_there.iter().any(|(_, rule)| *rule.name == told.service);
                let stays = !is_known && its.state == MemberState::Ready;
                if left && !stays && !runs(&member.host, &told.service) {
                    history.push((pool.clone(), member.clone()));
                }
            }
        }
        let is_in = |(pool, member): &(PoolName, MemberKey)| {
            let told = spec.pools.get(pool).and_then(|pool| pool.members.get(member));
            told.is_some_and(|told| told.state == MemberState::Ready)
        };
        // Where requests are divided, each side has a last one.
        let is_last = |(pool, member): &(PoolName, MemberKey)| {
            let Some(told) = spec.pools.get(pool) else { return false };
            let side = |member: &MemberKey| told.members.get(member).map(|it| it.side);
            let beside = told.members.keys().filter(|other| side(other) == side(member));
            let mut others = beside.map(|member| (pool.clone(), member.clone()));
            let serves = services.get(&told.service).is_some_and(|service| is_to_serve(&told.service, service, active));
            serves && !others.any(|other| is_in(&other) && !history.contains(&other))
        };
        let last: Vec<_> = history.iter().filter(|it| is_in(it) && is_last(it)).cloned().collect();
        history.retain(|it| !last.contains(it));
        let is_gone = |pool: &PoolSpec| !services.contains_key(&pool.service);
        if history.is_empty() && !spec.pools.values().any(is_gone) {
            return false;
        }
        let any = !history.is_empty();
        if let Some(spec) = self.edit(balancer) {
            for (pool, member) in history {
                if let Some(pool) = spec.pools.get_mut(&pool) {
                    pool.members.remove(&member);
                }
            }
            spec.pools.retain(|_, pool| !(is_gone(pool) && pool.members.is_empty()));
        }
        any
    }
}

/// Whether a service is to be served by anybody: it is not being removed, and has a release or gets one.
fn is_to_serve(name: &ServiceName, service: &Service, active: &[&Rollout]) -> bool {
    let rollout = active.iter().find(|rollout| rollout.service == *name);
    let has_any = service.committed.is_some() || !service.orders.kept.is_empty();
    service.orders.removal.is_none() && rollout.map_or(has_any, |rollout| rollout.goal().is_some())
}
