//! A service that nobody deployed here, and that hosts brought from another coordinator: what its first deploy here finds.

use super::recall;
use crate::fleet::spec::MemberState;
use crate::fleet::{Fleet, InstanceKey, Service};
use crate::name::{HostName, ReleaseId, ServiceName};
use crate::problem::{Code, Problem};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The fleet as a deploy of a service finds it: with what hosts brought of it, where nobody knew the service.
#[must_use]
pub fn with_brought<'a>(fleet: &'a Fleet, name: &ServiceName, shape: &Service) -> Cow<'a, Fleet> {
    let found = match fleet.services.get(name) {
        Some(known) if known.orders.brought.is_empty() => None,
        Some(known) => {
            let here = |host: &&HostName| fleet.hosts.contains_key(*host) && !known.hosts.contains(host);
            let more = known.orders.brought.iter().filter(here).cloned();
            Some(Service { hosts: known.hosts.iter().cloned().chain(more).collect(), ..known.clone() })
        }
        None => brought(fleet, name, shape),
    };
    let Some(service) = found else { return Cow::Borrowed(fleet) };
    let mut fleet = fleet.clone();
    fleet.services.insert(name.clone(), service);
    Cow::Owned(fleet)
}

/// Something runs, and nobody deployed it at this coordinator.
pub const NOT_DEPLOYED_HERE: Code = Code(751);

/// What a host does for a service that nobody deployed here: who else serves it is not known, nor how many of them it needs.
pub(crate) fn not_deployed_here(fleet: &Fleet, name: &HostName) -> Option<Problem> {
    let host = &fleet.hosts.get(name)?.issued;
    let is_brought =
        |service: &&ServiceName| fleet.services.get(*service).is_none_or(|known| known.orders.brought.contains(name));
    let leads = host.pools.values().filter(|pool| pool.members.values().any(|it| it.state == MemberState::Ready));
    let mut leads = leads.map(|pool| &pool.service).filter(|service| !fleet.services.contains_key(*service));
    let mut runs = host.instances.keys().map(|key| &key.service).filter(is_brought);
    let (does, service) = match (runs.next(), leads.next()) {
        (Some(service), _) => ("runs", service),
        (None, Some(service)) => ("balances", service),
        (None, None) => return None,
    };
    let what = format!("{name} {does} {service}, which nobody deployed here: what it needs to go on serving is not known");
    Some(
        Problem::new(NOT_DEPLOYED_HERE, what)
            .help(format!("baton deploy {service} takes it over as it runs; then ask once more")),
    )
}

/// Members of a service nobody knows here that answer requests, and whose hosts have not come over yet: they would go with the first
/// deploy, because nobody here knows what they serve.
pub(super) fn cut_off_members(fleet: &Fleet, name: &ServiceName) -> Option<Problem> {
    if fleet.services.contains_key(name) {
        return None;
    }
    let mut serve = BTreeSet::<&HostName>::new();
    let mut balancers = BTreeSet::<&HostName>::new();
    for (balancer, known) in fleet.hosts.iter().filter(|(_, known)| known.accepted) {
        let pools = known.issued.pools.iter().filter(|(_, pool)| pool.service == *name);
        for (pool, member, told) in pools.flat_map(|(pool, it)| it.members.iter().map(move |(key, told)| (pool, key, told)))
        {
            let seen = known.report().and_then(|report| report.pools.get(pool)?.members.get(member));
            let answers = told.state == MemberState::Ready && seen.is_none_or(|seen| seen.problem.is_none());
            if answers && !fleet.hosts.contains_key(&member.host) {
                serve.insert(&member.host);
                balancers.insert(balancer);
            }
        }
    }
    let names = |hosts: BTreeSet<&HostName>| hosts.into_iter().map(HostName::as_str).collect::<Vec<_>>().join(", ");
    let first = serve.first()?.as_str();
    let help = format!(
        "let them join first: baton token create --name {first}, and there baton-agent join HOST:PORT --token-file FILE --replace; one that \
         is gone for good does not count once the load balancer says that it is down"
    );
    let what = format!("{} leads requests of {name} to {}, which have not joined here", names(balancers), names(serve));
    Some(Problem::new(Code(750), what).help(help))
}

/// The service as the hosts have it; what they do not say of it is as in the manifest.
fn brought(fleet: &Fleet, name: &ServiceName, shape: &Service) -> Option<Service> {
    let of_service = |(key, _): &(&InstanceKey, _)| key.service == *name;
    let runs = |host: &&HostName| {
        fleet.hosts.get(*host).is_some_and(|it| it.accepted && it.issued.instances.iter().any(|it| of_service(&it)))
    };
    let hosts: Vec<HostName> = fleet.hosts.keys().filter(runs).cloned().collect();
    if hosts.is_empty() {
        return None;
    }
    let mut service = Service { hosts, ..shape.clone() };
    for (key, told) in fleet.hosts.values().flat_map(|host| &host.issued.instances).filter(of_service) {
        match service.ports.get_mut(usize::from(key.slot.0)) {
            Some(port) => *port = told.address.port(),
            None => service.ports.push(told.address.port()),
        }
    }
    if let Some(balancer) = &mut service.balancer {
        let pools =
            fleet.hosts.iter().flat_map(|(host, known)| known.issued.pools.iter().map(move |(pool, it)| (host, pool, it)));
        let (on, named): (Vec<_>, Vec<_>) =
            pools.filter(|(.., it)| it.service == *name).map(|(host, pool, _)| (host.clone(), pool.clone())).unzip();
        if let Some(other) = named.iter().find(|pool| **pool != balancer.pool) {
            balancer.pool = other.clone();
        }
        // A balancer that had nothing of it yet is no other place; one that the manifest leaves out is.
        balancer.on.extend(on.into_iter().filter(|host| !shape.balancer.iter().any(|it| it.on.contains(host))));
    }
    // What more than half of the manifest's hosts serve is live, so that there is something to go back to; the others keep what they
    // serve. Fewer have no say in what the rest would go back to: a host speaks for itself.
    let serves = recall::served_by(fleet, name, &service.hosts);
    let hosts = |release: ReleaseId| {
        serves.iter().filter(|(host, served)| **served == Some(release) && shape.hosts.contains(host)).count()
    };
    service.committed = serves.values().flatten().copied().find(|release| hosts(*release) * 2 > shape.hosts.len());
    serves.into_iter().for_each(|(host, release)| recall::keep(&mut service, host, release));
    Some(service)
}
