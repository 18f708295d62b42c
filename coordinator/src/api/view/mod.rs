//! The fleet as people see it: core's types and reasons as the words and numbers of a view.

mod hooks;
mod host;
mod proof;
mod service;
#[cfg(test)]
mod tests;

pub(super) use proof::notices;
pub(super) use service::live;

use crate::driver::{Hello, Picture};
use crate::store::{Dated, WallTime};
use baton_core::fleet::Fleet;
use baton_core::fleet::orders::{Freeze, Order};
use baton_core::name::{HostName, ReleaseId, ServiceName};
use baton_core::time::Moment;
use baton_proto::v1::{FleetView, FreezeView, OrderView, ReleaseList, ReleaseView, RolloutRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The whole fleet, or one service of it with the hosts it concerns.
#[must_use]
pub fn fleet(picture: &Picture, hellos: &BTreeMap<HostName, Hello>, now: Moment, only: Option<&ServiceName>) -> FleetView {
    let fleet = &picture.fleet;
    let shown = |name: &ServiceName| only.is_none_or(|only| only == name);
    let services = fleet.services.iter().filter(|(name, _)| shown(name));
    let concerns = |host: &HostName| {
        only.and_then(|only| fleet.services.get(only)).is_none_or(|service| {
            service.hosts.contains(host) || service.balancer.as_ref().is_some_and(|balancer| balancer.on.contains(host))
        })
    };
    let hosts = fleet.hosts.iter().filter(|(name, _)| concerns(name));
    FleetView {
        services: services.map(|(name, it)| service::view(picture, name, it, now)).collect(),
        hosts: hosts.map(|(name, it)| host::view(fleet, name, it, hellos.get(name), now)).collect(),
        epoch: fleet.epoch.0,
        problems: picture.trouble.iter().map(Into::into).collect(),
        freeze: freeze(fleet.freeze.as_ref(), now),
    }
}

/// The releases that the hosts of a service serve: one at rest, none before the first, more while they change or differ.
#[must_use]
pub fn served(fleet: &Fleet, name: &str) -> BTreeSet<ReleaseId> {
    let service = fleet.services.iter().find(|(known, _)| known.as_str() == name);
    service.map(|(name, known)| service::served(fleet, name, known)).unwrap_or_default()
}

/// What the driver's clock and the one on the wall show.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub moment: Moment,
    pub at: WallTime,
}

/// One rollout as it was or is.
#[must_use]
pub fn record(fleet: &Fleet, dated: &Dated, now: Now) -> RolloutRecord {
    let rollout = &dated.rollout;
    RolloutRecord {
        service: rollout.service.to_string(),
        rollout: Some(service::rollout_view(fleet, rollout, 0, now.moment)),
        ended_ago_ms: rollout.ended.map(|_| millis(ended_ago(dated, now))).unwrap_or_default(),
    }
}

/// The longer one of the two: the driver's clock stood while nobody drove, and the one on the wall may have been set back.
fn ended_ago(dated: &Dated, now: Now) -> Duration {
    let by_driver = dated.rollout.ended.map_or(Duration::ZERO, |ended| now.moment.since(ended));
    let on_wall = dated.ended.map_or(0, |ended| now.at.0.saturating_sub(ended.0));
    by_driver.max(Duration::from_secs(u64::try_from(on_wall).unwrap_or(0)))
}

/// The releases the fleet knows, and who holds them.
#[must_use]
pub fn releases(fleet: &Fleet, only: Option<&ServiceName>, history: &[Dated]) -> ReleaseList {
    use baton_core::fleet::report::ReleaseState;
    let mut shown: Vec<_> =
        fleet.releases.iter().filter(|(_, release)| only.is_none_or(|only| *only == release.service)).collect();
    // A release is as old as the first rollout that brought it; one that waits its turn has none yet.
    shown.sort_by_key(|(id, release)| {
        let queue = fleet.services.get(&release.service).map(|service| &service.orders.queue);
        let waits = queue.is_some_and(|queue| queue.iter().any(|queued| queued.release == **id));
        let brought = history.iter().rposition(|dated| dated.rollout.to == **id).unwrap_or(usize::MAX);
        (&release.service, !waits, brought)
    });
    let view = |(id, release): (&ReleaseId, &Arc<baton_core::release::Release>)| {
        let service = fleet.services.get(&release.service);
        let role = match service {
            // Also one that some hosts keep, beside the others.
            Some(service) if service.hosts.iter().any(|host| service.at_rest(host) == Some(*id)) => "live",
            Some(service) if service.way_back() == Some(*id) => "previous",
            _ => "",
        };
        let holds = |host: &&HostName| {
            let report = fleet.hosts.get(*host).and_then(|host| host.report());
            report.and_then(|report| report.releases.get(id)) == Some(&ReleaseState::Held)
        };
        ReleaseView {
            service: release.service.to_string(),
            version: release.version.to_string(),
            id: id.to_string(),
            artifact_digest: release.artifact.digest.to_string(),
            artifact_size: release.artifact.size,
            role: role.to_owned(),
            held_by: fleet.hosts.keys().filter(holds).map(ToString::to_string).collect(),
        }
    };
    ReleaseList { releases: shown.into_iter().map(view).collect() }
}

fn order(order: &Order, now: Moment) -> OrderView {
    OrderView { by: order.by.clone(), why: order.why.clone(), since_ms: millis(now.since(order.since)) }
}

/// A freeze, as long as it holds.
fn freeze(freeze: Option<&Freeze>, now: Moment) -> Option<FreezeView> {
    let freeze = freeze.filter(|freeze| freeze.holds(now))?;
    let left_ms = freeze.until.map_or(0, |until| millis(until.since(now)));
    Some(FreezeView { order: Some(order(&freeze.order, now)), left_ms })
}

/// The version people know a release by.
fn version(fleet: &Fleet, id: Option<ReleaseId>) -> String {
    let Some(id) = id else { return String::new() };
    fleet.releases.get(&id).map_or_else(|| id.0.short(), |release| release.version.to_string())
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
