//! Hooks: which one must have been run before a step, on which host, and what follows from how it went.
//!
//! A hook is asked for once. What is remembered of it is durable before any host hears of it, and stays when the rollout is
//! over: only a person asks for another attempt.

use super::aside::aside;
use super::waiting::{Reason, Waiting};
use super::{Direction, Rollout};
use crate::fleet::hooks::{CutOff, HookOutcome, HookRun, HookRuns, HookSpec, HookState};
use crate::fleet::report::ReleaseState;
use crate::fleet::{Fleet, Service};
use crate::hook::{HookKey, Of, Point};
use crate::name::{HostName, ReleaseId, Slot};
use crate::problem::{Code, Problem};
use crate::time::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// Whether a step may be taken, as far as a hook goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// There is no such hook, or it has been run.
    Open,
    /// It was never asked for: now it is.
    Ask(HookKey, Box<HookRun>),
    Wait(Reason),
}

/// One rollout's hooks.
#[derive(Debug, Clone, Copy)]
pub struct Hooks<'a> {
    pub fleet: &'a Fleet,
    pub service: &'a Service,
    pub rollout: &'a Rollout,
    pub now: Moment,
}

impl Hooks<'_> {
    /// The gate of a hook that one host runs for all.
    #[must_use]
    pub fn once(&self, point: Point) -> Gate {
        self.gate(self.key(point, None), || Some((self.elect()?, None)))
    }

    /// The gate of a hook that a host runs for its own instance.
    #[must_use]
    pub fn on(&self, point: Point, host: &HostName, slot: Slot) -> Gate {
        self.gate(self.key(point, Some(host)), || Some((host.clone(), Some(slot))))
    }

    fn key(&self, point: Point, host: Option<&HostName>) -> HookKey {
        let of = match point {
            Point::Migrate => Of::Release(self.rollout.to),
            _ => Of::Rollout(self.rollout.id.clone()),
        };
        HookKey { service: self.rollout.service.clone(), point, of, host: host.cloned() }
    }

    fn gate(&self, key: HookKey, who: impl Fn() -> Option<(HostName, Option<Slot>)>) -> Gate {
        let hook = self.fleet.releases.get(&self.rollout.to).and_then(|release| release.hooks.at(key.point));
        if hook.is_none() || !applies(self.rollout, key.point) {
            return Gate::Open;
        }
        if let Some(run) = self.service.hooks.get(&key) {
            return if run.state.is_good() { Gate::Open } else { Gate::Wait(reason(self.fleet, &key, run)) };
        }
        // What a rollout before left running is not met by another one of its kind.
        let for_all = |(it, run): &(&HookKey, &HookRun)| !it.point.on_every_host() && run.state == HookState::Asked;
        if let Some((other, run)) = self.service.hooks.iter().find(for_all).filter(|_| !key.point.on_every_host()) {
            return Gate::Wait(reason(self.fleet, other, run));
        }
        let Some((host, slot)) = who() else { return Gate::Wait(Reason::Echo) };
        let cuts_off = self.cuts_off(&key);
        let (release, since) = (self.rollout.to, self.now);
        let (state, earlier) = (HookState::Asked, CutOff::default());
        let run = HookRun { release, host, slot, attempt: 1, issued: 0, state, since, cuts_off, earlier };
        Gate::Ask(key, Box::new(run))
    }

    /// The host that runs hooks for all: the one that did before, else the first in the rollout's order that is there and
    /// holds the release. It is the first to get the release anyway, and often one that does not serve.
    fn elect(&self) -> Option<HostName> {
        let before = self.service.hooks.iter().filter(|(key, _)| !key.point.on_every_host() && is_of(key, self.rollout));
        let mut able = before.map(|(_, run)| &run.host).chain(&self.rollout.hosts).filter(|host| self.is_able(host));
        able.next().cloned()
    }

    fn is_able(&self, name: &HostName) -> bool {
        let host = self.fleet.hosts.get(name).filter(|host| host.connected).and_then(|host| host.echoed());
        let holds = host.is_some_and(|report| report.releases.get(&self.rollout.to) == Some(&ReleaseState::Held));
        holds && self.service.hosts.contains(name) && aside(self.fleet, self.service, name).is_none()
    }

    /// What cannot be gone back to once a hook has run: every other release there has been of the service, where it says so.
    /// Those that only wait their turn come after, and those that are forgotten came before.
    #[must_use]
    pub fn cuts_off(&self, key: &HookKey) -> CutOff {
        let hook = self.fleet.releases.get(&self.rollout.to).and_then(|release| release.hooks.at(key.point));
        if hook.is_none_or(|hook| !hook.no_way_back) {
            return CutOff::default();
        }
        let queued: Vec<ReleaseId> = self.service.orders.queue.iter().map(|queued| queued.release).collect();
        let releases = self.fleet.releases.iter().filter(|(_, release)| release.service == self.rollout.service);
        let others = releases.map(|(id, _)| *id).filter(|id| *id != self.rollout.to && !queued.contains(id));
        CutOff { releases: others.chain(self.rollout.from).collect(), until: Some(self.now) }
    }

    /// Who runs the next attempt of a hook: the host of the one before, as long as it is able to.
    #[must_use]
    pub fn again(&self, key: &HookKey, run: &HookRun) -> HostName {
        match key.host {
            None if !self.is_able(&run.host) => self.elect().unwrap_or_else(|| run.host.clone()),
            _ => run.host.clone(),
        }
    }
}

/// Going back waits for no hook but the one without which the release must not start.
fn applies(rollout: &Rollout, point: Point) -> bool {
    rollout.direction == Direction::Forward
        && rollout.from != Some(rollout.to)
        && (!rollout.returns || point == Point::Migrate)
}

/// Whether a hook is one of a rollout's, or of the release it brings.
#[must_use]
pub fn is_of(key: &HookKey, rollout: &Rollout) -> bool {
    key.service == rollout.service
        && match &key.of {
            Of::Rollout(id) => *id == rollout.id,
            Of::Release(release) => *release == rollout.to && applies(rollout, key.point),
        }
}

/// Takes down what hosts say of the hooks that were asked for.
pub fn read(fleet: &Fleet, runs: &mut HookRuns) {
    for (key, run) in runs.iter_mut().filter(|(_, run)| run.state == HookState::Asked) {
        let was_told = run.issued == run.attempt;
        let Some(host) = fleet.hosts.get(&run.host) else {
            if !was_told {
                take_back(key, run);
                continue;
            }
            let why = format!("{} was removed before it said", run.host);
            run.state = HookState::Unknown { problem: lost(key, &format!("{} of {}", key.point, key.service), &why) };
            continue;
        };
        let Some(report) = host.echoed().filter(|_| was_told) else { continue };
        let is_told = host.issued.hooks.get(key).is_some_and(|told| told.attempt == run.attempt);
        match report.hooks.get(key).filter(|seen| seen.attempt == run.attempt) {
            Some(seen) => run.state = HookState::from(&seen.state),
            None if is_told => {}
            None => take_back(key, run),
        }
    }
}

/// It never ran, so what it would have changed is as the attempts before left it.
fn take_back(key: &HookKey, run: &mut HookRun) {
    let problem = Problem::new(Code(804), format!("{} was taken back before {} began it", key.point, run.host));
    run.state = HookState::Failed { problem: problem.help(way_on(key)) };
    run.cuts_off = run.earlier.clone();
}

/// Notes that hosts are told of the hooks that were asked for.
pub fn issue(fleet: &Fleet, runs: &mut HookRuns, rollout: Option<&Rollout>) {
    let told = runs.iter_mut().filter(|(key, run)| is_told(fleet, key, run, rollout));
    told.for_each(|(_, run)| run.issued = run.attempt);
}

/// Whether a host is told of an attempt: for as long as its rollout goes on. One that was taken back is never told again.
fn is_told(fleet: &Fleet, key: &HookKey, run: &HookRun, rollout: Option<&Rollout>) -> bool {
    let goes_on = rollout.is_some_and(|it| it.direction == Direction::Forward && is_of(key, it));
    let known = fleet.services.get(&key.service).and_then(|service| service.hooks.get(key));
    let is_new = known.is_none_or(|known| known.issued < run.attempt);
    let told = fleet.hosts.get(&run.host).and_then(|host| host.issued.hooks.get(key));
    goes_on && run.state == HookState::Asked && (is_new || told.is_some_and(|told| told.attempt == run.attempt))
}

/// What a host is told of a service's hooks. What is known how it ended is not told again.
pub fn specs<'a>(
    fleet: &'a Fleet,
    host: &'a HostName,
    service: &'a Service,
    rollout: Option<&'a Rollout>,
) -> impl Iterator<Item = (HookKey, HookSpec)> + 'a {
    let address = fleet.hosts.get(host).map(|host| host.address);
    let told = service.hooks.iter().filter(move |(key, run)| run.host == *host && is_told(fleet, key, run, rollout));
    told.filter_map(move |(key, run)| {
        let instance = run.slot.and_then(|slot| Some((slot, service.port(slot)?)));
        Some((key.clone(), HookSpec { attempt: run.attempt, release: run.release, address: address?, instance }))
    })
}

/// The first hook of a rollout that went wrong, or may have.
#[must_use]
pub fn broken<'a>(service: &'a Service, rollout: &Rollout) -> Option<(&'a HookKey, &'a HookRun, &'a Problem)> {
    let mine = service.hooks.iter().filter(|(key, _)| is_of(key, rollout));
    mine.filter_map(|(key, run)| Some((key, run, run.state.problem()?))).next()
}

/// How long what is under way may still take.
#[must_use]
pub fn patience(fleet: &Fleet, service: &Service, rollout: &Rollout) -> Duration {
    let pending = service.hooks.iter().filter(|(key, run)| is_of(key, rollout) && run.state == HookState::Asked);
    pending.filter_map(|(key, run)| timeout(fleet, key, run)).max().unwrap_or_default()
}

/// What of a rollout's hooks is waited for.
#[must_use]
pub fn waiting(fleet: &Fleet, service: &Service, rollout: &Rollout) -> Vec<Waiting> {
    let mine = service.hooks.iter().filter(|(key, run)| is_of(key, rollout) && !run.state.is_good());
    let mine = mine.filter(|_| rollout.direction == Direction::Forward);
    mine.map(|(key, run)| Waiting { host: Some(run.host.clone()), reason: reason(fleet, key, run) }).collect()
}

/// The hook that forbids going back to a release.
#[must_use]
pub fn no_way_back(service: &Service, to: Option<ReleaseId>) -> Option<&HookKey> {
    service.forbids(to?)
}

/// Forgets the hooks of rollouts that ended; those of releases go where the release goes.
pub fn forget_past(runs: &mut HookRuns) {
    runs.retain(|key, run| matches!(key.of, Of::Release(_)) || run.state == HookState::Asked);
}

/// That nobody knows how a hook ended.
#[must_use]
pub fn lost(key: &HookKey, name: &str, why: &str) -> Problem {
    let problem = Problem::new(Code(803), format!("nobody knows whether {name} did its work"));
    problem.saw("begun", "yes, by what is written down").saw("end", why).help(way_on(key))
}

/// What people can do about a hook that went wrong.
#[must_use]
pub fn way_on(key: &HookKey) -> String {
    let HookKey { service, point, .. } = key;
    format!(
        "baton retry {service} runs it again; if it did happen: baton skip {service} --hook {point}; or baton rollback {service}"
    )
}

fn timeout(fleet: &Fleet, key: &HookKey, run: &HookRun) -> Option<Duration> {
    Some(fleet.releases.get(&run.release)?.hooks.at(key.point)?.timeout)
}

fn reason(fleet: &Fleet, key: &HookKey, run: &HookRun) -> Reason {
    let seen = fleet.hosts.get(&run.host).and_then(|host| host.report()).and_then(|report| report.hooks.get(key));
    let since = match seen.filter(|seen| seen.attempt == run.attempt).map(|seen| &seen.state) {
        Some(HookOutcome::Running { since }) => Some(*since),
        _ => None,
    };
    let timeout = timeout(fleet, key, run).unwrap_or_default();
    let problem = run.state.problem().cloned().map(Box::new);
    Reason::Hook { point: key.point, host: run.host.clone(), attempt: run.attempt, since, timeout, problem }
}

/// The hooks that were asked for in one pass.
pub type Asked = BTreeMap<HookKey, HookRun>;
