//! How far a rollout may reach at once: 5 bounded disruption, 14 blast radius, 22 releases that exclude each other.

use super::{Check, Violation, violation};
use crate::fleet::report::InstanceReport;
use crate::fleet::spec::{HostSpec, InstanceSpec, MemberState, PoolSpec};
use crate::fleet::{InstanceKey, MemberKey, Service};
use crate::name::{HostName, LabelValue, ReleaseId, ServiceName};
use crate::strategy::Strategy;
use std::collections::{BTreeMap, BTreeSet};

impl Check<'_> {
    /// 5: no more hosts than allowed are under way because of us, and no more of them than that without anything that serves.
    pub(super) fn disruption(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        if self.proposal.specs.is_empty() {
            return;
        }
        let hosts = service.hosts.len();
        let strategy = self.strategy_of(name, service);
        let goal = self.active(name).map_or(service.committed, super::Rollout::goal);
        let before = |host: &HostName| self.fleet.hosts.get(host).map(|host| &host.issued);
        let (had, has) =
            (self.extent(name, service, goal, before), self.extent(name, service, goal, |host| self.after(host)));
        let limit = strategy.parallel.unwrap_or(strategy.max_unavailable).at_most(hosts).max(1);
        if has.pending.len() > limit && has.pending.len() > had.pending.len() {
            let what = format!("{} hosts of {name} would be away from rest, {limit} at most may be", has.pending.len());
            violations.push(violation(5, name, what));
        }
        let limit = strategy.max_unavailable.at_most(hosts).max(1);
        let taken = has.idle.iter().any(|host| had.serves(host));
        if taken && has.idle.len() > limit && !self.ends_on_purpose(name) {
            let what = format!("{} hosts of {name} would have nothing that is in, {limit} at most may", has.idle.len());
            violations.push(violation(5, name, what));
        }
        for (value, group) in self.groups(service, strategy).into_iter().filter(|(_, group)| group.len() > 1) {
            let serve = |extent: &Extent<'_>| group.iter().any(|host| extent.serves(host));
            // Nobody loses anything with a host that says itself that no process of the service is left.
            let lost = group.iter().any(|host| had.serves(host) && !self.has_ended(name, service, host));
            if lost && !serve(&has) && !self.ends_on_purpose(name) {
                violations.push(violation(5, name, format!("no host of {name} labelled {value} would be in")));
            }
        }
    }

    /// Whether a host says now that nothing of what leads to it is left.
    fn has_ended(&self, name: &ServiceName, service: &Service, host: &HostName) -> bool {
        let told = self.fleet.hosts.get(host).into_iter().flat_map(|known| known.issued.instances.keys());
        let members = told.filter(|key| key.service == *name).map(|key| MemberKey { host: host.clone(), slot: key.slot });
        let balancers = || service.balancer.iter().flat_map(|it| it.on.iter().map(move |on| (on, &it.pool)));
        let is_in = |member: &MemberKey| {
            balancers().any(|(on, pool)| {
                let told = self.fleet.hosts.get(on).and_then(|on| on.issued.pools.get(pool)?.members.get(member));
                told.is_some_and(|told| told.state == MemberState::Ready)
            })
        };
        members.filter(is_in).all(|member| self.is_known_gone(name, &member))
    }

    /// The hosts of a service that take part, by what the label says by which a strategy spreads them.
    fn groups<'a>(&'a self, service: &'a Service, strategy: &Strategy) -> BTreeMap<&'a LabelValue, BTreeSet<&'a HostName>> {
        let mut groups: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let Some(label) = &strategy.spread_by else { return groups };
        for host in service.hosts.iter().filter(|host| !self.stands_aside(service, host)) {
            if let Some(value) = self.fleet.hosts.get(host).and_then(|known| known.labels.get(label)) {
                groups.entry(value).or_default().insert(host);
            }
        }
        groups
    }

    /// Where the hosts of a service stand, by what they and the balancers are told.
    fn extent<'a>(
        &'a self,
        name: &ServiceName,
        service: &Service,
        goal: Option<ReleaseId>,
        spec_of: impl Fn(&HostName) -> Option<&'a HostSpec>,
    ) -> Extent<'a> {
        let pool = |on| service.balancer.as_ref().and_then(|it| spec_of(on)?.pools.get(&it.pool));
        let pools: Vec<Option<&PoolSpec>> = service.balancer.iter().flat_map(|it| &it.on).map(pool).collect();
        let is_in = |member: &MemberKey| {
            let told = |pool: &PoolSpec| pool.members.get(member).map(|told| told.state);
            pools.iter().all(|pool| pool.and_then(told) == Some(MemberState::Ready))
        };
        let active = self.active(name);
        let its: BTreeSet<&HostName> = service.hosts.iter().collect();
        let mut extent = Extent::default();
        for host in self.hosts_of(name).filter(|host| !self.stands_aside(service, host)) {
            // A host that keeps another release by a person's word is at rest with that.
            let kept = service.orders.kept.get(host).filter(|_| active.is_none()).map(|kept| kept.release);
            let goal = kept.or(goal);
            // Of the same release, an earlier start is the old one.
            let start = active.and_then(|rollout| rollout.starts.get(host).copied()).unwrap_or_default();
            let is_new = |told: &InstanceSpec| Some(told.release) == goal && told.start >= start;
            let (mut any, mut serving, mut unproven) = (false, false, false);
            let told = spec_of(host).into_iter().flat_map(|spec| &spec.instances).filter(|(key, _)| key.service == *name);
            for (key, told) in told {
                let is_in = is_in(&MemberKey { host: host.clone(), slot: key.slot });
                any = true;
                serving |= is_in;
                unproven |= !is_in && is_new(told);
            }
            if serving {
                extent.serving.push(host);
            } else if any && its.contains(host) {
                // Of one that left the service nothing is to be in: the floor is all that it may be needed for.
                extent.idle.push(host);
            }
            if unproven || (!serving && any) {
                extent.pending.push(host);
            }
        }
        extent
    }

    /// 14: after the first evidence, no host that does not have the release is told to start it.
    pub(super) fn blast_radius(&self, name: &ServiceName, violations: &mut Vec<Violation>) {
        let rollouts = self.fleet.rollouts.keys().filter_map(|id| self.rollout(id));
        for rollout in rollouts.filter(|it| it.service == *name && it.state.is_active() && !it.evidence.is_empty()) {
            let runs =
                |spec: &HostSpec| spec.instances.iter().any(|(key, it)| key.service == *name && it.release == rollout.to);
            for (host, spec) in &self.proposal.specs {
                let had = self.fleet.hosts.get(host).is_some_and(|host| runs(&host.issued));
                if runs(spec) && !had && rollout.from != Some(rollout.to) {
                    let what = format!("{host} would start a release that speaks against itself elsewhere");
                    violations.push(violation(14, name, what));
                }
            }
        }
    }

    /// 22: a host that may still run something of a service keeps a release of it, by which whoever decides later knows that.
    pub(super) fn signs(&self, violations: &mut Vec<Violation>) {
        for (host, spec) in &self.proposal.specs {
            let Some(known) = self.fleet.hosts.get(host) else { continue };
            let kept: BTreeSet<&ServiceName> = spec.releases.values().map(|it| &it.service).collect();
            let had: BTreeSet<&ServiceName> = known.issued.releases.values().map(|it| &it.service).collect();
            for name in had.difference(&kept) {
                let answer =
                    known.heard.as_ref().map(|heard| &heard.report).filter(|it| it.observed == known.issued.stamp());
                let is_told = known.issued.instances.keys().any(|key| key.service == **name);
                let runs = answer.is_none_or(|report| {
                    report.instances.iter().any(|(key, it)| key.service == **name && it.state.may_run())
                });
                if is_told || runs {
                    let what = format!("{host} would let go of {name}, and has not said that nothing of it runs there");
                    violations.push(violation(22, name, what));
                }
            }
        }
    }

    /// 22: where releases cannot coexist, none starts while any host runs, or was told to run, another.
    pub(super) fn exclusion(&self, name: &ServiceName, service: &Service, violations: &mut Vec<Violation>) {
        if !self.strategy_of(name, service).exclusive {
            return;
        }
        let mine = |key: &&InstanceKey| key.service == *name;
        let started = self.proposal.specs.iter().flat_map(|(host, spec)| {
            let issued = self.fleet.hosts.get(host).map(|host| &host.issued);
            let had = move |key: &InstanceKey| issued.and_then(|spec| spec.instances.get(key)).map(|it| it.release);
            let instances = spec.instances.iter().filter(move |(key, _)| mine(key));
            instances.filter(move |(key, it)| had(key) != Some(it.release)).map(move |(_, it)| (host, it.release))
        });
        for (host, release) in started {
            let elsewhere = self.fleet.hosts.iter().find(|(other, known)| {
                let told = self.after(other).into_iter().flat_map(|spec| &spec.instances);
                let runs = |it: &InstanceReport| it.release != release && it.state.may_run();
                let seen = known.heard.iter().flat_map(|heard| &heard.report.instances);
                let told: Vec<ReleaseId> = told.filter(|(key, _)| mine(key)).map(|(_, it)| it.release).collect();
                let report = known.heard.as_ref().map(|heard| &heard.report);
                let follows = report.is_some_and(|report| report.observed == known.issued.stamp());
                let was_there =
                    service.hosts.contains(*other) || known.issued.releases.values().any(|it| it.service == *name);
                told.iter().any(|told| *told != release)
                    || (told.is_empty() && !follows && was_there)
                    || seen.filter(|(key, _)| mine(key)).any(|(_, it)| runs(it))
            });
            if let Some((other, _)) = elsewhere {
                let what = format!("{host} would start a release that cannot coexist with the one on {other}");
                violations.push(violation(22, name, what));
            }
        }
    }
}

/// Hosts of a service, by what they and the balancers are told, in the order of their names.
#[derive(Default)]
struct Extent<'a> {
    /// Something of it is in, everywhere.
    serving: Vec<&'a HostName>,
    /// It is one of the service's, is told to run something, and nothing of that is in.
    idle: Vec<&'a HostName>,
    /// Under way: nothing is in, or the release it should have is not.
    pending: Vec<&'a HostName>,
}

impl Extent<'_> {
    fn serves(&self, host: &HostName) -> bool {
        self.serving.binary_search(&host).is_ok()
    }
}
