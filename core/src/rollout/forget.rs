//! Which releases a fleet forgets: those that nothing needs, but for the newest of each service.
//!
//! Forgetting loses nothing, for whoever asks for a release again gets it back with all that is known of it. It keeps what is
//! looked at in every pass as small after years as on the first day.

use super::Rollout;
use super::plan::Plan;
use crate::fleet::hooks::HookState;
use crate::fleet::report::HostReport;
use crate::fleet::spec::HostSpec;
use crate::fleet::{Fleet, Host, Service};
use crate::name::{ReleaseId, ServiceName};
use crate::time::Moment;
use std::collections::{BTreeMap, BTreeSet};

/// Adds to a plan what may be forgotten once it was taken; nothing of the services in `held`.
pub(super) fn forget(fleet: &Fleet, held: &BTreeSet<&ServiceName>, plan: &mut Plan, now: Moment) {
    let mut known = BTreeMap::<&ServiceName, Vec<ReleaseId>>::new();
    for (id, release) in &fleet.releases {
        known.entry(&release.service).or_default().push(*id);
    }
    known.retain(|name, ids| ids.len() > fleet.remembers.0 && !held.contains(name) && !plan.gone.contains(*name));
    for (name, ids) in known {
        let Some(service) = plan.services.get(name).or_else(|| fleet.services.get(name)) else { continue };
        let past = past(fleet, plan, name, service, ids);
        if past.is_empty() {
            continue;
        }
        let mut next = service.clone();
        for id in past {
            if let Some(release) = fleet.releases.get(&id) {
                plan.forgotten.insert(id, next.forget(release.clone(), now));
            }
        }
        next.past.cut_off.retain(|id, _| fleet.releases.contains_key(id) && !plan.forgotten.contains_key(id));
        plan.services.insert(name.clone(), next);
    }
}

/// The releases of a service that nothing needs once a plan was taken, but for the newest.
fn past(fleet: &Fleet, plan: &Plan, name: &ServiceName, service: &Service, mut known: Vec<ReleaseId>) -> Vec<ReleaseId> {
    // What a hook cuts off is open until it is known whether it began.
    if service.hooks.values().any(|run| run.state == HookState::Asked) {
        return Vec::new();
    }
    let mine = |rollout: &&Rollout| rollout.service == *name;
    let begins = plan.rollouts.values().filter(mine).any(|it| it.state.is_active() && !fleet.rollouts.contains_key(&it.id));
    // One that begins takes the place of those that ended before.
    let before = fleet.rollouts.values().filter(mine).filter(|rollout| !begins || rollout.state.is_active());
    let mut needed: BTreeSet<ReleaseId> = before.chain(plan.rollouts.values().filter(mine)).flat_map(of_rollout).collect();
    needed.extend(of_service(service));
    known.retain(|id| !needed.contains(id));
    known.sort_by_key(|id| service.past.order.iter().position(|other| other == id));
    known.truncate(known.len().saturating_sub(fleet.remembers.0));
    if !known.is_empty() {
        let specs = fleet.hosts.iter().map(|(name, host)| plan.specs.get(name).unwrap_or(&host.issued));
        let seen = fleet.hosts.values().filter_map(Host::report).flat_map(of_report);
        let there: BTreeSet<ReleaseId> = specs.flat_map(of_spec).chain(seen).collect();
        known.retain(|id| !there.contains(id));
    }
    known
}

fn of_rollout(rollout: &Rollout) -> impl Iterator<Item = ReleaseId> + use<> {
    rollout.from.into_iter().chain([rollout.to])
}

fn of_service(service: &Service) -> impl Iterator<Item = ReleaseId> + '_ {
    let orders = &service.orders;
    let kept = orders.kept.values().map(|kept| kept.release);
    let queued = orders.queue.iter().map(|queued| queued.release);
    let warm = service.warm.map(|warm| warm.release);
    service.committed.into_iter().chain(service.previous).chain(warm).chain(kept).chain(queued)
}

fn of_report(report: &HostReport) -> impl Iterator<Item = ReleaseId> + '_ {
    report.releases.keys().copied().chain(report.instances.values().map(|it| it.release))
}

fn of_spec(spec: &HostSpec) -> impl Iterator<Item = ReleaseId> + '_ {
    let instances = spec.instances.values().flat_map(|it| [Some(it.release), it.fallback]).flatten();
    spec.releases.keys().copied().chain(instances).chain(spec.hooks.values().map(|hook| hook.release))
}
