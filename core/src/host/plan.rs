//! The next actions on one host. Same shape as the fleet's plan: observed and wanted in, actions out.

use crate::fleet::report::{InstanceReport, InstanceState, ReleaseState};
use crate::fleet::spec::{HostSpec, InstanceSpec, Restart};
use crate::fleet::{InstanceKey, LiteMap};
use crate::name::ReleaseId;
use crate::time::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a host knows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub instances: LiteMap<InstanceKey, InstanceReport>,
    pub releases: LiteMap<ReleaseId, ReleaseState>,
    /// For instances that failed: how often in a row, and when last. Clears once one has been ready.
    pub failures: BTreeMap<InstanceKey, Failures>,
}

/// How often in a row an instance failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    pub count: u32,
    pub last: Moment,
}

/// One thing to do. Each is idempotent: asking for it again while it is under way changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Fetch, verify and unpack a release the spec wants held.
    Fetch(ReleaseId),
    /// Start the instance as the spec says.
    Start(InstanceKey),
    /// Ask the instance to finish, and make it after its timeout. Carries what was seen, so that a later start is not hit.
    Stop { key: InstanceKey, incarnation: String },
    /// Forget a failed instance that is not wanted any more.
    Forget(InstanceKey),
    /// Delete a release that is held and neither wanted nor run.
    Drop(ReleaseId),
}

/// What to do now, and when to look again even if nothing happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPlan {
    pub actions: Vec<Action>,
    pub wake_at: Option<Moment>,
}

/// The first wait before a failed instance of the committed release is started again; it doubles up to the last.
pub const RESTART_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Plans the next actions on a host.
///
/// A slot is never started while anything of ours may run there; what runs another release than the spec's is stopped first.
/// Releases are dropped last, and never one that an instance still runs.
#[must_use]
pub fn plan(spec: &HostSpec, observed: &Observed, now: Moment) -> HostPlan {
    let mut plan = HostPlan::default();
    for release in spec.releases.keys().filter(|release| !observed.releases.contains_key(release)) {
        plan.actions.push(Action::Fetch(*release));
    }
    for (key, instance) in &observed.instances {
        plan.actions.extend(retire(spec, key, instance));
    }
    for (key, wanted) in &spec.instances {
        if observed.releases.get(&wanted.release) != Some(&ReleaseState::Held) {
            continue;
        }
        match start(key, wanted, observed, now) {
            Start::Now => plan.actions.push(Action::Start(key.clone())),
            Start::At(moment) => plan.wake_at = crate::time::earlier(plan.wake_at, Some(moment)),
            Start::No => {}
        }
    }
    for release in observed.releases.keys().filter(|release| !spec.releases.contains_key(release)) {
        if !observed.instances.values().any(|instance| instance.release == *release && instance.state.may_run()) {
            plan.actions.push(Action::Drop(*release));
        }
    }
    plan
}

fn retire(spec: &HostSpec, key: &InstanceKey, instance: &InstanceReport) -> Option<Action> {
    let wanted = spec.instances.get(key).is_some_and(|wanted| is_of(instance, wanted));
    match (wanted, &instance.state) {
        (true, _) | (_, InstanceState::Stopping { .. }) => None,
        (false, InstanceState::Failed { .. }) => Some(Action::Forget(key.clone())),
        (false, _) => Some(Action::Stop { key: key.clone(), incarnation: instance.incarnation.clone() }),
    }
}

/// Whether it is the release that is wanted, and the start of it.
fn is_of(instance: &InstanceReport, wanted: &InstanceSpec) -> bool {
    instance.release == wanted.release && instance.start == wanted.start
}

enum Start {
    Now,
    At(Moment),
    No,
}

fn start(key: &InstanceKey, wanted: &InstanceSpec, observed: &Observed, now: Moment) -> Start {
    let Some(instance) = observed.instances.get(key) else { return Start::Now };
    if instance.state.may_run() && (is_of(instance, wanted) || !mutant!("the old process answers for the new one")) {
        return Start::No;
    }
    if !is_of(instance, wanted) {
        return Start::Now;
    }
    match wanted.restart {
        Restart::Never => Start::No,
        Restart::Always => match observed.failures.get(key) {
            None => Start::Now,
            Some(failures) => {
                let due = failures.last + backoff(failures.count);
                if due <= now { Start::Now } else { Start::At(due) }
            }
        },
    }
}

fn backoff(failures: u32) -> Duration {
    let (first, last) = RESTART_BACKOFF;
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(last)
}
