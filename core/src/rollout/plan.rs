//! The next safe steps for a whole fleet.

use super::converge::{Step, Way, converge};
use super::divide;
use super::draft::Draft;
use super::interlock::{self, Violation};
use super::place::Place;
use super::progress::{self, Standing};
use super::target::{target, wave_of};
use super::waiting::{Reason, Waiting};
use super::{Rollout, RolloutState};
use crate::fleet::spec::{HostSpec, MemberState};
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, RolloutId, ServiceName, Slot};
use crate::strategy::Strategy;
use crate::time::{Moment, earlier};
use std::collections::{BTreeMap, BTreeSet};

/// What should change, and why not more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rollouts that changed.
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// Services that changed (a rollout ended).
    pub services: BTreeMap<ServiceName, Service>,
    /// Specs that changed, with their new stamps.
    pub specs: BTreeMap<HostName, HostSpec>,
    /// Why nothing more happens, by service.
    pub waiting: BTreeMap<ServiceName, Vec<Waiting>>,
    /// When to plan again even if nothing is heard.
    pub wake_at: Option<Moment>,
}

impl Plan {
    /// Whether anything must be stored or sent.
    #[must_use]
    pub fn changes_anything(&self) -> bool {
        !(self.rollouts.is_empty() && self.services.is_empty() && self.specs.is_empty())
    }

    /// The fleet once this plan was taken: what the driver keeps after it stored the plan.
    pub fn take(&self, fleet: &mut Fleet) {
        fleet.rollouts.extend(self.rollouts.clone());
        fleet.services.extend(self.services.clone());
        for (name, spec) in &self.specs {
            if let Some(host) = fleet.hosts.get_mut(name) {
                host.issued = spec.clone();
            }
        }
    }
}

/// Plans the next safe steps: pure, and planning twice changes nothing.
#[must_use]
pub fn plan(fleet: &Fleet, now: Moment) -> Plan {
    plan_without(fleet, &BTreeSet::new(), now)
}

/// The same, and nothing moves of the services in `held`.
fn plan_without(fleet: &Fleet, held: &BTreeSet<&ServiceName>, now: Moment) -> Plan {
    let mut plan = Plan::default();
    let mut draft = Draft::new(fleet);
    for (name, service) in fleet.services.iter().filter(|(name, _)| !held.contains(name)) {
        plan_service(fleet, name, service, now, &mut draft, &mut plan);
    }
    let services = fleet.services.iter().map(|(name, service)| (name.clone(), service.clone()));
    let services = services.chain(plan.services.clone()).collect();
    let rollouts = fleet.rollouts.iter().map(|(id, rollout)| plan.rollouts.get(id).unwrap_or(rollout));
    let active: Vec<&Rollout> = rollouts.filter(|rollout| rollout.state.is_active()).collect();
    draft.settle(&services, &active);
    divide::divide(fleet, &mut draft, &services, &active);
    plan.specs = draft.finish();
    plan
}

/// The plan after the interlock refused one: every rollout concerned pauses and says so, nothing of its service moves, and
/// the other services go on.
#[must_use]
pub fn refused(fleet: &Fleet, violations: &[Violation], now: Moment) -> Plan {
    let concerned = |name: &&ServiceName| violations.iter().any(|it| it.service.as_ref().is_none_or(|it| it == *name));
    let held = fleet.services.keys().filter(concerned).collect();
    let rest = plan_without(fleet, &held, now);
    let mut plan = if interlock::check(fleet, &rest).is_ok() { rest } else { Plan::default() };
    for rollout in fleet.rollouts.values().filter(|rollout| rollout.state.is_active()) {
        let concerns = |violation: &&Violation| violation.service.as_ref().is_none_or(|name| *name == rollout.service);
        let Some(violation) = violations.iter().find(concerns) else { continue };
        let mut held = rollout.clone();
        progress::pause(&mut held, "interlock".into(), violation.to_string());
        if held != *rollout {
            held.progressed = now;
            plan.rollouts.insert(held.id.clone(), held);
        }
    }
    plan
}

fn plan_service(fleet: &Fleet, name: &ServiceName, service: &Service, now: Moment, draft: &mut Draft<'_>, plan: &mut Plan) {
    let mut next = service.clone();
    let mut rollout = fleet.active_rollout(name).cloned();
    let standings = loop {
        let standings = look(fleet, name, &next, rollout.as_ref(), now);
        let Some(active) = &mut rollout else { break standings };
        if !progress::advance(fleet, active, &mut next, &standings, now) {
            break standings;
        }
        if !active.state.is_active() {
            plan.rollouts.extend(rollout.take().map(|ended| (ended.id.clone(), ended)));
        }
    };
    let strategy = rollout.as_ref().map_or(&next.strategy, |rollout| &rollout.strategy);
    let mut turn = Turn::new(fleet, name, &next, strategy, rollout.as_ref(), now);
    let acted = turn.take(&standings, draft);
    plan.waiting.insert(name.clone(), turn.waiting);
    if next != *service {
        plan.services.insert(name.clone(), next);
    }
    if let Some(mut rollout) = rollout {
        if acted {
            rollout.progressed = now;
        }
        plan.wake_at = earlier(plan.wake_at, progress::wake_at(fleet, &rollout, &standings));
        if fleet.rollouts.get(&rollout.id) != Some(&rollout) {
            plan.rollouts.insert(rollout.id.clone(), rollout);
        }
    }
}

/// Looks at every host of a service: those of the rollout in its order, then those that still run something of it.
fn look(fleet: &Fleet, name: &ServiceName, service: &Service, rollout: Option<&Rollout>, now: Moment) -> Vec<Standing> {
    let mut hosts: Vec<&HostName> = rollout.map_or(&service.hosts, |rollout| &rollout.hosts).iter().collect();
    let others = fleet.hosts.iter().filter(|(_, host)| host.issued.instances.keys().any(|key| key.service == *name));
    for host in service.hosts.iter().chain(others.map(|(host, _)| host)) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let strategy = rollout.map_or(&service.strategy, |rollout| &rollout.strategy);
    let way = Way { placement: strategy.placement, drain_deadline: strategy.drain_deadline };
    let stand = |host: &HostName| {
        let place = Place { fleet, name, service, host_name: host, now };
        let goal = target(fleet, name, service, rollout, host);
        let has_new = rollout.is_some_and(|rollout| place.issued().any(|(_, told)| told.release == rollout.to));
        Standing { host: host.clone(), goal, step: converge(&place, goal, way), begun: place.is_begun(), has_new }
    };
    hosts.into_iter().map(stand).collect()
}

/// One pass over the hosts of a service: who may take its step now.
struct Turn<'a> {
    fleet: &'a Fleet,
    name: &'a ServiceName,
    service: &'a Service,
    strategy: &'a Strategy,
    rollout: Option<&'a Rollout>,
    now: Moment,
    /// Hosts not at rest because of us, and how many may be.
    begun: usize,
    begun_limit: usize,
    /// Hosts that do not serve, for whatever reason, and how many may be.
    unavailable: usize,
    unavailable_limit: usize,
    /// A host earlier in the order is about to begin: nobody overtakes it.
    order_holds: bool,
    waiting: Vec<Waiting>,
}

impl<'a> Turn<'a> {
    fn new(
        fleet: &'a Fleet,
        name: &'a ServiceName,
        service: &'a Service,
        strategy: &'a Strategy,
        rollout: Option<&'a Rollout>,
        now: Moment,
    ) -> Self {
        let unavailable_limit = strategy.max_unavailable.at_most(service.hosts.len());
        let serves = |host: &&HostName| Place { fleet, name, service, host_name: host, now }.serves();
        let unavailable = service.hosts.iter().filter(|host| !serves(host)).count();
        let begun_limit = unavailable_limit.max(1);
        let waiting = Vec::new();
        Self {
            fleet,
            name,
            service,
            strategy,
            rollout,
            now,
            begun: 0,
            begun_limit,
            unavailable,
            unavailable_limit,
            order_holds: false,
            waiting,
        }
    }

    /// Takes every step that may be taken now. Hosts where something was begun come first. Returns whether any was taken.
    fn take(&mut self, standings: &[Standing], draft: &mut Draft<'_>) -> bool {
        if let Some(rollout) = self.rollout {
            self.say_rollout(rollout);
        }
        self.begun = standings.iter().filter(|standing| standing.begun || is_unconfirmed(standing)).count();
        let (begun, rest): (Vec<_>, Vec<_>) = standings.iter().partition(|standing| standing.begun);
        let mut acted = false;
        for standing in begun.into_iter().chain(rest) {
            self.order_holds |= !standing.begun && will_begin(standing);
            match self.step(standing, draft) {
                Ok(did) => acted |= did,
                Err(reason) => self.waiting.push(Waiting { host: Some(standing.host.clone()), reason }),
            }
        }
        acted
    }

    fn step(&mut self, standing: &Standing, draft: &mut Draft<'_>) -> Result<bool, Reason> {
        let Self { fleet, name, service, now, .. } = *self;
        let place = Place { fleet, name, service, host_name: &standing.host, now };
        let drain = self.strategy.drain_deadline;
        match &standing.step {
            Step::Done => self.say_turn(standing).map(|()| false),
            Step::Wait(reason) => Err(reason.clone()),
            Step::Failed(problem) => Err(Reason::Failed { problem: problem.clone() }),
            Step::Drain(slot) => {
                if place.issued().any(|(issued, _)| issued == *slot) {
                    let lowers = standing.goal.is_some() && place.serves_in(*slot) && !serves_elsewhere(&place, *slot);
                    self.admit(standing, lowers)?;
                }
                draft.set_member(&place, *slot, MemberState::Out, drain);
                Ok(true)
            }
            Step::Start(slot, release) => {
                self.admit(standing, false)?;
                draft.start(&place, *slot, *release);
                Ok(true)
            }
            Step::Stop(slot) => {
                draft.stop(&place, *slot);
                Ok(true)
            }
            Step::Enroll(slot) => {
                draft.set_member(&place, *slot, MemberState::Ready, drain);
                Ok(true)
            }
        }
    }

    /// Whether a host may begin, and may stop serving if the step means that. Counts it, if so.
    fn admit(&mut self, standing: &Standing, lowers: bool) -> Result<(), Reason> {
        if !standing.begun {
            let held = self.rollout.is_some_and(|rollout| rollout.state == RolloutState::Paused);
            if held || self.order_holds || self.begun >= self.begun_limit {
                return Err(Reason::Turn { wave: self.wave(standing) });
            }
        }
        if lowers && self.unavailable >= self.unavailable_limit {
            let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let (unavailable, max_unavailable) = (count(self.unavailable), count(self.unavailable_limit));
            return Err(Reason::Floor { unavailable, max_unavailable });
        }
        self.begun += usize::from(!standing.begun);
        self.unavailable += usize::from(lowers);
        Ok(())
    }

    fn wave(&self, standing: &Standing) -> u32 {
        let wave = self.rollout.map_or(0, |rollout| wave_of(rollout, &standing.host));
        u32::try_from(wave).unwrap_or(u32::MAX)
    }

    /// A host that is done only because its turn has not come says so.
    fn say_turn(&self, standing: &Standing) -> Result<(), Reason> {
        match self.rollout {
            Some(rollout) if standing.goal.is_some() && standing.goal != rollout.goal() => {
                Err(Reason::Turn { wave: self.wave(standing) })
            }
            _ => Ok(()),
        }
    }

    fn say_rollout(&mut self, rollout: &Rollout) {
        if let Some(pause) = &rollout.pause {
            let reason = Reason::Paused { by: pause.by.clone(), why: pause.why.clone() };
            self.waiting.push(Waiting { host: None, reason });
        }
        if let Some(since) = rollout.wave_done {
            let left = rollout.strategy.bake_of(rollout.wave).saturating_sub(self.now.since(since));
            self.waiting.push(Waiting { host: None, reason: Reason::Bake { left } });
        }
    }
}

/// On its way to begin, and only waits for its release or for an answer.
fn will_begin(standing: &Standing) -> bool {
    matches!(standing.step, Step::Wait(Reason::Artifact { .. } | Reason::Shutting { .. }))
}

/// Told something, and it was not confirmed yet: not at rest, though nothing may be left to do.
fn is_unconfirmed(standing: &Standing) -> bool {
    matches!(
        standing.step,
        Step::Enroll(_) | Step::Stop(_) | Step::Wait(Reason::Enrolling { .. } | Reason::Echo | Reason::Healthy { .. })
    )
}

fn serves_elsewhere(place: &Place<'_>, slot: Slot) -> bool {
    place.issued().any(|(other, _)| other != slot && place.serves_in(other))
}
