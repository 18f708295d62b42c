//! What may be forgotten: 11 what ran once stays known, 12 nothing that is needed goes.

use super::{Check, Violation, violation};
use crate::fleet::Service;
use crate::fleet::hooks::{HookRun, HookState};
use crate::fleet::past::Forgotten;
use crate::hook::{HookKey, Of};
use crate::name::{ReleaseId, ServiceName};
use crate::rollout::Rollout;

impl Check<'_> {
    /// 11 and 12: nothing that runs, is committed, warm, waits its turn or is a way back is forgotten; and with what is
    /// forgotten goes all that is known of its hooks, while what those forbid of the others still stands.
    pub(super) fn memory(&self, violations: &mut Vec<Violation>) {
        for (id, forgotten) in &self.proposal.forgotten {
            let name = &forgotten.release.service;
            let mut fail = |invariant, what: &str| {
                let version = &forgotten.release.version;
                violations.push(violation(invariant, name, format!("{name} {version} would be forgotten, but {what}")));
            };
            let (Some(before), true) =
                (self.fleet.services.get(name), self.fleet.releases.get(id) == Some(&forgotten.release))
            else {
                fail(12, "it was never known");
                continue;
            };
            let after = self.proposal.services.get(name).unwrap_or(before);
            if let Some(why) = self.is_needed(*id, name, after) {
                fail(12, why);
            }
            if let Err(why) = goes_whole(*id, forgotten, before, after) {
                fail(11, why);
            }
            // While it is open whether a hook began, what it cuts off is, too.
            if none_is_open(before) && self.fleet.releases.keys().any(|other| self.would_be_let(*other, before, after)) {
                fail(11, "what its hooks forbid would be let");
            }
        }
    }

    fn is_needed(&self, id: ReleaseId, name: &ServiceName, service: &Service) -> Option<&'static str> {
        let is_it = |release: &ReleaseId| *release == id;
        let is_new = |it: &&Rollout| it.state.is_active() && !self.fleet.rollouts.contains_key(&it.id);
        let mine = |rollout: &&Rollout| rollout.service == *name;
        // With one that begins, those that ended before it go.
        let begins = self.proposal.rollouts.values().filter(mine).any(|it| is_new(&it));
        let stay = self.fleet.rollouts.values().filter(mine).filter(|it| it.state.is_active() || !begins);
        let mut of_service = stay.chain(self.proposal.rollouts.values().filter(mine));
        let told = self.fleet.hosts.keys().filter_map(|host| self.after(host)).any(|spec| {
            spec.releases.contains_key(&id)
                || spec.hooks.values().any(|hook| hook.release == id)
                || spec.instances.values().any(|it| it.release == id || it.fallback == Some(id))
        });
        let seen = self.fleet.hosts.values().filter_map(|host| host.heard.as_ref()).any(|heard| {
            heard.report.releases.contains_key(&id) || heard.report.instances.values().any(|it| it.release == id)
        });
        match () {
            () if told => Some("a host is told of it"),
            () if seen => Some("a host has it"),
            () if of_service.any(|rollout| rollout.to == id || rollout.from == Some(id)) => Some("a rollout names it"),
            () if service.committed.as_ref().is_some_and(is_it) => Some("it is live"),
            () if service.previous.as_ref().is_some_and(is_it) => Some("it is the way back"),
            () if service.warm.is_some_and(|warm| warm.release == id) => Some("it is warm"),
            () if service.orders.kept.values().any(|kept| kept.release == id) => Some("a host keeps it"),
            () if service.orders.queue.iter().any(|queued| queued.release == id) => Some("it waits its turn"),
            () => None,
        }
    }

    /// Whether a release that stays known could be gone back to all at once.
    fn would_be_let(&self, id: ReleaseId, before: &Service, after: &Service) -> bool {
        !self.proposal.forgotten.contains_key(&id) && is_cut_off(before, id) && !is_cut_off(after, id)
    }
}

/// That what goes is all that is known of a release, and none of it stays behind.
fn goes_whole(id: ReleaseId, forgotten: &Forgotten, before: &Service, after: &Service) -> Result<(), &'static str> {
    let is_its = |key: &HookKey| key.of == Of::Release(id);
    let known = before.hooks.iter().filter(|(key, _)| is_its(key));
    let same = |(one, other): ((&HookKey, &HookRun), (&HookKey, &HookRun))| {
        // It may be heard in this very pass how one ended.
        let ended = one.1.state == HookState::Asked && one.1.attempt == other.1.attempt;
        one.0 == other.0 && (one.1 == other.1 || ended)
    };
    if known.clone().count() != forgotten.hooks.len() || !known.zip(&forgotten.hooks).all(same) {
        return Err("not with what is known of its hooks");
    }
    if !none_is_open(after) {
        return Err("a hook is under way");
    }
    if after.hooks.keys().any(is_its) {
        return Err("its hooks would stay");
    }
    if none_is_open(before) && is_cut_off(before, id) != forgotten.cut_off.is_some() {
        return Err("not with the hook that forbids it");
    }
    let newest = after.past.newest.as_ref().map(|newest| newest.until);
    if forgotten.hooks.values().any(|run| run.cuts_off.until > newest) {
        return Err("what was forgotten before its migration would be let");
    }
    Ok(())
}

fn none_is_open(service: &Service) -> bool {
    service.hooks.values().all(|run| run.state != HookState::Asked)
}

fn is_cut_off(service: &Service, id: ReleaseId) -> bool {
    service.hooks.values().any(|run| run.cuts_off.releases.contains(&id)) || service.past.cut_off.contains_key(&id)
}
