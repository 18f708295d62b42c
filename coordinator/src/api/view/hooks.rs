//! The hooks of a rollout: where each was asked for, and what became of it.

use super::millis;
use baton_core::fleet::Fleet;
use baton_core::fleet::hooks::{HookOutcome, HookRun, HookState};
use baton_core::hook::HookKey;
use baton_core::rollout::{Rollout, hooks};
use baton_core::time::Moment;
use baton_proto::v1::HookView;

pub(super) fn view(fleet: &Fleet, rollout: &Rollout, now: Moment) -> Vec<HookView> {
    let service = fleet.services.get(&rollout.service);
    let runs = service.into_iter().flat_map(|service| &service.hooks);
    let mine = runs.filter(|(key, run)| hooks::is_of(key, rollout) || run.release == rollout.to && is_once(key));
    mine.map(|(key, run)| one(fleet, key, run, now)).collect()
}

/// A migration is shown also where the rollout has turned back: it stays what happened.
fn is_once(key: &HookKey) -> bool {
    matches!(key.of, baton_core::hook::Of::Release(_))
}

fn one(fleet: &Fleet, key: &HookKey, run: &HookRun, now: Moment) -> HookView {
    let seen = fleet.hosts.get(&run.host).and_then(|host| host.report()).and_then(|report| report.hooks.get(key));
    let running = match seen.filter(|seen| seen.attempt == run.attempt).map(|seen| &seen.state) {
        Some(HookOutcome::Running { since }) if run.state == HookState::Asked => Some(*since),
        _ => None,
    };
    let (by, why) = match &run.state {
        HookState::Vouched { by, why } => (by.clone(), why.clone()),
        _ => Default::default(),
    };
    HookView {
        point: key.point.to_string(),
        host: run.host.to_string(),
        attempt: run.attempt,
        state: if running.is_some() { "running" } else { run.state.word() }.to_owned(),
        since_ms: millis(running.unwrap_or_else(|| now.since(run.since))),
        output: match &run.state {
            HookState::Succeeded { output } => output.clone(),
            _ => Vec::new(),
        },
        problem: run.state.problem().map(Into::into),
        by,
        why,
    }
}
