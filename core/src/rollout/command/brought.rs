//! A service that nobody deployed here, and that hosts brought from another coordinator: what its first deploy here finds.

use super::recall;
use crate::fleet::{Fleet, InstanceKey, Service};
use crate::name::{HostName, ReleaseId, ServiceName};
use std::borrow::Cow;

/// The fleet as a deploy of a service finds it: with what hosts brought of it, where nobody knew the service.
#[must_use]
pub fn with_brought<'a>(fleet: &'a Fleet, name: &ServiceName, shape: &Service) -> Cow<'a, Fleet> {
    let Some(service) = brought(fleet, name, shape) else { return Cow::Borrowed(fleet) };
    let mut fleet = fleet.clone();
    fleet.services.insert(name.clone(), service);
    Cow::Owned(fleet)
}

/// The service as the hosts have it; what they do not say of it is as in the manifest.
fn brought(fleet: &Fleet, name: &ServiceName, shape: &Service) -> Option<Service> {
    if fleet.services.contains_key(name) {
        return None;
    }
    let of_service = |(key, _): &(&InstanceKey, _)| key.service == *name;
    let runs =
        |host: &&HostName| fleet.hosts.get(*host).is_some_and(|it| it.issued.instances.iter().any(|it| of_service(&it)));
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
    // What most of them serve is live: there must be something to go back to. The others keep what they serve.
    let serves = recall::served_by(fleet, name, &service.hosts);
    let hosts = |release: ReleaseId| serves.values().filter(|served| **served == Some(release)).count();
    service.committed = serves.values().flatten().copied().max_by_key(|release| (hosts(*release), *release));
    serves.into_iter().for_each(|(host, release)| recall::keep(&mut service, host, release));
    Some(service)
}
