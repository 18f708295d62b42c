//! What follows for every host from a service as it is: found once for each service, and looked up for thousands of hosts.

use super::Rollout;
use super::draft::Services;
use super::hooks;
use crate::fleet::spec::{HostSpec, InstanceSpec, Restart};
use crate::fleet::{Fleet, InstanceKey, Service};
use crate::name::{HostName, ReleaseId, ServiceName};
use crate::scrape::Scrape;

/// What follows from every service, by name.
pub(super) struct Rules<'a>(Vec<Rule<'a>>);

/// What follows from one.
pub(super) struct Rule<'a> {
    pub(super) name: &'a ServiceName,
    service: &'a Service,
    /// The releases that its hosts hold whatever they run: what serves, what is about to, and what a rollback needs.
    pub(super) needs: Vec<ReleaseId>,
    /// What a host with the committed release may go back to by itself. None: that is left as it is.
    fallback: Option<Option<ReleaseId>>,
}

/// What an instance should have beside its release.
pub(super) struct Follows<'a> {
    pub(super) restart: Restart,
    pub(super) fallback: Option<ReleaseId>,
    pub(super) scrape: Option<&'a Scrape>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(fleet: &Fleet, services: &Services<'a>, active: &[&Rollout]) -> Self {
        Self(services.iter().map(|(name, service)| Rule::of(fleet, name, service, active)).collect())
    }

    /// Of a service nobody knows here (a restored coordinator's) a host goes on with what it has, as does one that came over with it.
    pub(super) fn follows<'t>(&'t self, key: &InstanceKey, host: &HostName, told: &'t InstanceSpec) -> Follows<'t> {
        let rule = self.0.binary_search_by(|rule| rule.name.cmp(&key.service)).ok().and_then(|index| self.0.get(index));
        let as_it_is = || Follows { restart: told.restart, fallback: told.fallback, scrape: told.scrape.as_deref() };
        let rule = rule.filter(|rule| !rule.service.orders.brought.contains(host));
        rule.map_or_else(as_it_is, |rule| rule.follows(host, told))
    }
}

impl<'a> Rule<'a> {
    fn of(fleet: &Fleet, name: &'a ServiceName, service: &'a Service, active: &[&Rollout]) -> Self {
        let own = || active.iter().filter(|rollout| rollout.service == *name);
        let at_rest = own().next().is_none();
        // Where a hook forbids the way back, a host does not take it by itself either.
        let there = |release: &ReleaseId| hooks::no_way_back(service, Some(*release)).is_none();
        let fallback = service
            .committed
            .filter(|_| at_rest)
            .map(|committed| service.previous.filter(|release| *release != committed).filter(there));
        let going = own().flat_map(|rollout| rollout.from.into_iter().chain([rollout.to]));
        let needs = match mutant!("cleanup deletes what is live") {
            true => known(fleet, own().map(|rollout| rollout.to)),
            false => {
                let resting = service.committed.into_iter().chain(service.previous);
                known(fleet, resting.chain(service.warm.map(|warm| warm.release)).chain(going))
            }
        };
        Self { name, service, needs, fallback }
    }

    fn follows(&self, host: &HostName, told: &InstanceSpec) -> Follows<'_> {
        let restart = if stays(self.service, host, told.release) { Restart::Always } else { Restart::Never };
        let is_committed = self.service.committed == Some(told.release);
        let fallback = self.fallback.filter(|_| is_committed).unwrap_or(told.fallback);
        Follows { restart, fallback, scrape: self.service.strategy.scrape.as_ref() }
    }

    /// Whether a host where nothing else is to run has what follows, and nothing else.
    pub(super) fn is_followed_by(&self, host: &HostName, spec: &HostSpec) -> bool {
        let needed = |release: &ReleaseId| self.needs.contains(release);
        let follows = |(key, told): (&InstanceKey, &InstanceSpec)| {
            key.service == *self.name
                && needed(&told.release)
                && told.fallback.as_ref().is_none_or(needed)
                && self.follows(host, told).is_so(told)
        };
        spec.releases.keys().eq(&self.needs) && spec.instances.iter().all(follows)
    }
}

impl Follows<'_> {
    pub(super) fn is_so(&self, told: &InstanceSpec) -> bool {
        (self.restart, self.fallback, self.scrape) == (told.restart, told.fallback, told.scrape.as_deref())
    }
}

/// Each once, in order, without those of which nobody knows what they are.
pub(super) fn known(fleet: &Fleet, releases: impl Iterator<Item = ReleaseId>) -> Vec<ReleaseId> {
    let mut releases: Vec<ReleaseId> = releases.collect();
    releases.sort_unstable();
    releases.dedup();
    releases.retain(|release| fleet.releases.contains_key(release));
    releases
}

/// That a service is to run on a host.
pub(super) type Membership<'a> = (&'a HostName, &'a Rule<'a>);

/// Which services are to run on which hosts, in the order of the hosts' names.
pub(super) struct Members<'a>(pub(super) Vec<Membership<'a>>);

impl<'a> Members<'a> {
    pub(super) fn of(rules: &'a Rules<'a>) -> Self {
        let of = |rule: &'a Rule<'a>| rule.service.hosts.iter().map(move |host| (host, rule));
        let mut members = Vec::with_capacity(rules.0.iter().map(|rule| rule.service.hosts.len()).sum());
        members.extend(rules.0.iter().flat_map(of));
        members.sort_by_key(|(host, rule)| (*host, rule.name));
        Self(members)
    }
}

/// Takes what belongs to a host from the front of what was not visited yet, and what belongs to hosts before it away.
pub(super) fn take_host<'m, 'a>(unvisited: &mut &'m [Membership<'a>], host: &HostName) -> &'m [Membership<'a>] {
    let is_before = |(it, _): &Membership<'_>| *it < host;
    // The next one is mostly the first.
    let before = if unvisited.first().is_some_and(is_before) { unvisited.partition_point(is_before) } else { 0 };
    let of_host = unvisited.iter().skip(before).take_while(|(it, _)| *it == host).count();
    let (_, rest) = unvisited.split_at(before);
    let (mine, rest) = rest.split_at(of_host);
    *unvisited = rest;
    mine
}

/// Whether a host serves a release for good: the committed one, one that is warm, one it keeps, or one it stands aside with.
fn stays(service: &Service, host: &HostName, release: ReleaseId) -> bool {
    let orders = &service.orders;
    let kept = orders.kept.get(host).is_some_and(|kept| kept.release == release);
    let aside = orders.skipped.contains_key(host) && service.previous == Some(release);
    let warm = service.warm.is_some_and(|warm| warm.release == release);
    service.committed == Some(release) || warm || kept || aside
}
