//! The next safe steps for a whole fleet.

use super::Rollout;
use super::aside;
use super::converge::{Step, Way, converge};
use super::divide;
use super::draft::Draft;
use super::forget;
use super::gate;
use super::hooks::{self, Gate, Hooks};
use super::interlock::{self, Violation};
use super::place::{Place, Places};
use super::progress::{self, Standing};
use super::queue;
use super::routing::Enrolled;
use super::rules::{Members, Rules};
use super::target::{Seat, seats, start_of, target, way};
use super::turn::Turn;
use super::waiting::{Reason, Waiting};
use crate::fleet::past::Forgotten;
use crate::fleet::spec::{HostSpec, InstanceSpec};
use crate::fleet::{Fleet, Service};
use crate::hook::Point;
use crate::name::{HostName, ReleaseId, RolloutId, ServiceName};
use crate::time::{Moment, earlier};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What should change, and why not more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rollouts that changed.
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// Services that changed (a rollout ended).
    pub services: BTreeMap<ServiceName, Service>,
    /// Services that were to be removed, and of which nothing runs any more.
    pub gone: BTreeSet<ServiceName>,
    /// Releases that nothing needs any more, with what is known of their hooks.
    pub forgotten: BTreeMap<ReleaseId, Forgotten>,
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
        let decided = !(self.rollouts.is_empty() && self.services.is_empty() && self.gone.is_empty());
        decided || !(self.forgotten.is_empty() && self.specs.is_empty())
    }

    /// The fleet once this plan was taken: what the driver keeps after it stored the plan.
    pub fn take(&self, fleet: &mut Fleet) {
        let is_new = |rollout: &&Rollout| rollout.state.is_active() && !fleet.rollouts.contains_key(&rollout.id);
        let begun: BTreeSet<&ServiceName> = self.rollouts.values().filter(is_new).map(|rollout| &rollout.service).collect();
        // One that begins takes the place of those that ended before.
        fleet.rollouts.retain(|_, old| old.state.is_active() || !begun.contains(&old.service));
        fleet.rollouts.extend(self.rollouts.clone());
        fleet.services.extend(self.services.clone());
        fleet.releases.retain(|id, _| !self.forgotten.contains_key(id));
        for name in &self.gone {
            fleet.forget(name);
        }
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
    if fleet.fenced().is_some() {
        return plan;
    }
    let mut draft = Draft::new(fleet);
    let told = told(fleet);
    for (name, service) in fleet.services.iter().filter(|(name, _)| !held.contains(name)) {
        let told = told.get(name).map_or(&[][..], Vec::as_slice);
        plan_service(fleet, name, service, told, now, &mut draft, &mut plan);
    }
    let services = fleet.services.iter().filter(|(name, _)| !plan.gone.contains(*name));
    let services = services.chain(&plan.services).collect();
    let mut rollouts: BTreeMap<_, _> = fleet.rollouts.iter().collect();
    rollouts.extend(&plan.rollouts);
    let active: Vec<&Rollout> = rollouts.into_values().filter(|rollout| rollout.state.is_active()).collect();
    let rules = Rules::of(fleet, &services, &active);
    let members = Members::of(&rules);
    let balancers = draft.settle(&services, &active, &rules, &members);
    divide::divide(fleet, &mut draft, &services, &active);
    // Which member is the last of its side depends on how requests are divided, and that on who is left.
    if draft.forget_members(&balancers, &services, &active, &members) {
        divide::divide(fleet, &mut draft, &services, &active);
    }
    plan.specs = draft.finish();
    forget::forget(fleet, held, &mut plan, now);
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

/// The hosts that were told to run something of a service, by service and in the order of their names; not those that are left
/// alone with it.
fn told(fleet: &Fleet) -> BTreeMap<&ServiceName, Vec<&HostName>> {
    let mut told = BTreeMap::<_, Vec<_>>::new();
    let is_left_alone = |host: &HostName, of: &ServiceName| {
        fleet
            .services
            .get(of)
            .is_some_and(|service| !service.orders.brought.is_empty() && service.orders.brought.contains(host))
    };
    for (host, known) in &fleet.hosts {
        for key in known.issued.instances.keys().filter(|key| !is_left_alone(host, &key.service)) {
            let hosts = told.entry(&key.service).or_default();
            if hosts.last() != Some(&host) {
                hosts.push(host);
            }
        }
    }
    told
}

fn plan_service(
    fleet: &Fleet,
    name: &ServiceName,
    service: &Service,
    told: &[&HostName],
    now: Moment,
    draft: &mut Draft<'_>,
    plan: &mut Plan,
) {
    let mut next = service.clone();
    hooks::read(fleet, &mut next.hooks);
    let mut rollout = fleet.active_rollout(name).cloned();
    if rollout.is_none() {
        next.warm = next.warm.filter(|warm| warm.until >= now);
        plan.wake_at = earlier(plan.wake_at, cools(&next));
    }
    let mut turn_waits = None;
    let standings = loop {
        if rollout.is_none() {
            match queue::take_turn(fleet, name, &mut next, now) {
                Ok(begun) => rollout = begun,
                Err(reason) => turn_waits = Some(Waiting { host: None, reason }),
            }
        }
        let standings = look(fleet, name, &next, rollout.as_ref(), told, now);
        let Some(active) = &mut rollout else { break standings };
        if !progress::advance(fleet, active, &mut next, &standings, now) {
            break standings;
        }
        if !active.state.is_active() {
            plan.wake_at = earlier(plan.wake_at, cools(&next));
            plan.rollouts.extend(rollout.take().map(|ended| (ended.id.clone(), ended)));
        }
    };
    let strategy = rollout.as_ref().map_or(&next.strategy, |rollout| &rollout.strategy);
    let mut turn = Turn::new(fleet, name, &next, strategy, rollout.as_ref(), &standings, now);
    let mut acted = turn.take(&standings, draft);
    let (turned, asked) = (turn.waiting, turn.asked);
    acted |= !asked.is_empty();
    next.hooks.extend(asked);
    hooks::issue(fleet, &mut next.hooks, rollout.as_ref());
    // What is said of a hook is said once, and before what only follows from it.
    let mut waiting = turned;
    waiting.retain(|it| !matches!(it.reason, Reason::Hook { .. }));
    waiting.splice(..0, rollout.iter().flat_map(|rollout| hooks::waiting(fleet, &next, rollout)));
    if next.orders.removal.is_some() && waiting.is_empty() && standings.iter().all(|it| it.step == Step::Done) {
        plan.gone.insert(name.clone());
        return;
    }
    waiting.extend(turn_waits);
    plan.waiting.insert(name.clone(), waiting);
    let freeze = queue::freeze(fleet, Some(&next), now).filter(|_| rollout.is_none() && !next.orders.queue.is_empty());
    plan.wake_at = earlier(plan.wake_at, freeze.and_then(|freeze| freeze.until));
    if next != *service {
        plan.services.insert(name.clone(), next.clone());
    }
    if let Some(mut rollout) = rollout {
        if acted {
            rollout.progressed = now;
        }
        plan.wake_at = earlier(plan.wake_at, progress::wake_at(fleet, &rollout, &next, &standings, now));
        plan.wake_at = earlier(plan.wake_at, gate::wake_at(&rollout, service, now));
        if fleet.rollouts.get(&rollout.id) != Some(&rollout) {
            plan.rollouts.insert(rollout.id.clone(), rollout);
        }
    }
}

/// When what is warm is retired: after its last moment, so that a plan that ends a rollout retires nothing.
fn cools(service: &Service) -> Option<Moment> {
    service.warm.map(|warm| warm.until + Duration::from_millis(1))
}

/// Where each host of a service with an active rollout stands now.
pub(crate) fn standings(fleet: &Fleet, name: &ServiceName, now: Moment) -> Vec<Standing> {
    let Some(service) = fleet.services.get(name) else { return Vec::new() };
    let told = told(fleet).remove(name).unwrap_or_default();
    look(fleet, name, service, fleet.active_rollout(name), &told, now)
}

/// Looks at every host of a service: those of the rollout in its order, then those that still run something of it.
fn look(
    fleet: &Fleet,
    name: &ServiceName,
    service: &Service,
    rollout: Option<&Rollout>,
    told: &[&HostName],
    now: Moment,
) -> Vec<Standing> {
    let way = way(service, rollout);
    let places = Places::of(fleet, name, service, now).under(rollout);
    let stand = |seat: Seat<'_>, place: &Place<'_>| {
        let host = seat.host;
        let goal = target(fleet, name, service, rollout, seat);
        let has_new = rollout.is_some_and(|rollout| place.issued().any(|(_, told)| told.release == rollout.to));
        let aside = aside::of(place.host(), service, host);
        let start = start_of(rollout, seat, goal);
        let way = Way { start, ..way };
        let entered = goal.and_then(|goal| place.slot_of(goal, start)).is_some_and(|slot| place.is_told_in(slot));
        let step = match aside {
            Some(aside) => aside.step(place, way),
            None if goal.is_none() && place.is_untouched() => Step::Done,
            None => converge(place, goal, way),
        };
        let enrolls = |slot| matches!(place.enrolled(slot), Enrolled::Waiting(Reason::Enrolling { .. }));
        // That the host has not answered yet, be it to what another service told it, hides no balancer that has not either.
        let entering = match &step {
            Step::Wait(Reason::Enrolling { .. }) => true,
            Step::Wait(Reason::Echo) => goal.and_then(|goal| place.slot_of(goal, start)).is_some_and(enrolls),
            _ => false,
        };
        let step = match rollout {
            Some(rollout) => last_hook(Hooks { fleet, service, rollout, now }, place, goal, start, step),
            None => step,
        };
        // Where nothing is left to do, what stays beside the release is meant to.
        let taken_down = way.exclusive && rollout.is_some_and(|it| it.from.is_some()) && place.issued().next().is_none();
        let hooked = matches!(step, Step::Hook(..) | Step::Wait(Reason::Hook { .. }));
        let begun = step != Step::Done && (place.is_begun() || taken_down || hooked);
        Standing {
            host: host.clone(),
            belongs: seat.belongs,
            wave: seat.wave,
            connected: place.host().is_some_and(|host| host.connected),
            serves: place.serves(),
            grows: place.grows(),
            entering,
            goal,
            drains_told: matches!(step, Step::Drain(slot) if place.issued().any(|(issued, _)| issued == slot)),
            last_seen: !seat.belongs && matches!(step, Step::Stop(_)) && place.issued().count() == 1,
            step,
            begun,
            away: is_away(service, rollout, place),
            idle: place.issued().next().is_some() && !place.issued().any(|(slot, _)| place.is_told_in(slot)),
            entered,
            has_new,
            ready: goal.and_then(|goal| place.slot_of(goal, start)).is_some_and(|slot| place.is_ready(slot)),
            start,
            aside: aside.map(|it| Box::new(it.reason())),
        }
    };
    let seats = seats(service, rollout, told);
    let hosts: Vec<&HostName> = seats.iter().map(|seat| seat.host).collect();
    let (mut order, mut standings) = (Vec::with_capacity(seats.len()), Vec::with_capacity(seats.len()));
    places.walk(&hosts, |index, place| {
        if let Some(seat) = seats.get(index) {
            order.push(index);
            standings.push(stand(*seat, place));
        }
    });
    // From the order of the walk into that of the seats: mostly it is the same.
    for at in 0..order.len() {
        while let Some(to) = order.get(at).copied().filter(|to| *to != at) {
            order.swap(at, to);
            standings.swap(at, to);
        }
    }
    standings
}

/// Whether a host is away from rest by what it and the balancers were told. That something is left to do there says less: what
/// an earlier try left beside what is in takes nothing from anybody.
fn is_away(service: &Service, rollout: Option<&Rollout>, place: &Place<'_>) -> bool {
    let goal = rollout.map_or_else(|| service.at_rest(place.host_name), Rollout::goal);
    let least = rollout.and_then(|rollout| rollout.starts.get(place.host_name).copied()).unwrap_or_default();
    let is_new = |told: &InstanceSpec| Some(told.release) == goal && told.start >= least;
    let (told_in, out): (Vec<_>, Vec<_>) = place.issued().partition(|(slot, _)| place.is_told_in(*slot));
    // Told to run nothing, and that was not confirmed yet.
    let ends =
        rollout.is_some() && goal.is_none() && told_in.is_empty() && place.host().is_some_and(|it| it.echoed().is_none());
    ends || (told_in.is_empty() && !out.is_empty()) || out.iter().any(|(_, told)| is_new(told))
}

/// A host that has the new release is done once its last hook has been run there.
fn last_hook(hooks: Hooks<'_>, place: &Place<'_>, goal: Option<ReleaseId>, start: u32, step: Step) -> Step {
    let has_new = goal.filter(|goal| step == Step::Done && *goal == hooks.rollout.to);
    let Some(slot) = has_new.and_then(|goal| place.slot_of(goal, start)) else { return step };
    match hooks.on(Point::AfterEnroll, place.host_name, slot) {
        Gate::Open => step,
        Gate::Ask(key, run) => Step::Hook(key, run),
        Gate::Wait(reason) => Step::Wait(reason),
    }
}
