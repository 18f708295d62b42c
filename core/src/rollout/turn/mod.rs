//! One pass over the hosts of a service: who may take its step now.

mod admit;
mod ask;
mod exclude;
mod say;

use super::converge::Step;
use super::draft::{Draft, Manner};
use super::hooks::Asked;
use super::place::{Place, Places};
use super::progress::Standing;
use super::waiting::{Reason, Waiting};
use super::{Direction, Rollout, share};
use crate::analysis::judgement;
use crate::fleet::spec::{Exchange, InstanceSpec, MemberState};
use crate::fleet::{Fleet, Service};
use crate::hook::Point;
use crate::name::{HostName, ServiceName, Slot};
use crate::strategy::Strategy;
use crate::time::Moment;
use admit::{is_collected, is_near, is_unconfirmed, will_begin};
use exclude::is_unable;
use say::entry;

/// The bounds of a strategy against what goes on, and what is waited for.
pub(super) struct Turn<'a> {
    fleet: &'a Fleet,
    name: &'a ServiceName,
    service: &'a Service,
    strategy: &'a Strategy,
    rollout: Option<&'a Rollout>,
    now: Moment,
    places: Places<'a>,
    /// Hosts not at rest because of us, and how many may be.
    begun: usize,
    begun_limit: usize,
    /// Those of them that are away from it by what was told.
    away: usize,
    /// Hosts of which nothing is in by what was told, whatever may still answer there.
    idle: usize,
    /// Whether a step of this pass made one more of them.
    emptied: bool,
    /// Hosts that do not serve, for whatever reason, and how many may be.
    unavailable: usize,
    unavailable_limit: usize,
    /// Hosts of the service that serve.
    serving: usize,
    /// Hosts that left the service and serve still: they stand in for those that do not serve yet.
    leaving: usize,
    /// Hosts that stand aside and do not serve.
    aside: usize,
    /// Hosts that stop serving by a step of this pass.
    lowered: Vec<HostName>,
    /// A host earlier in the order is about to begin: nobody overtakes it.
    order_holds: bool,
    /// What the hosts that enter together still wait for.
    gate: Option<Reason>,
    /// Where the releases cannot coexist, the first host that is not able to begin.
    unable: Option<HostName>,
    /// Hooks that must be run before steps of this pass, and were never asked for.
    pub(super) asked: Asked,
    pub(super) waiting: Vec<Waiting>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        fleet: &'a Fleet,
        name: &'a ServiceName,
        service: &'a Service,
        strategy: &'a Strategy,
        rollout: Option<&'a Rollout>,
        standings: &[Standing],
        now: Moment,
    ) -> Self {
        // Whoever stands aside and does not serve is no part of the service meanwhile.
        let counted = |it: &&Standing| it.belongs && (it.aside.is_none() || it.serves);
        let hosts = standings.iter().filter(counted).count();
        // Silence is no sickness, and no health either: who goes forward does not count on a host that cannot be asked. The way
        // back does: it must not wait for one.
        let goes_forward = rollout.is_some_and(|rollout| rollout.direction == Direction::Forward);
        let is_silent = |it: &Standing| goes_forward && !it.connected;
        let is_down = |it: &&Standing| {
            (!it.serves || it.grows || is_silent(it) || it.entering) && !is_collected(fleet, name, &it.host)
        };
        Self {
            fleet,
            name,
            service,
            strategy,
            rollout,
            now,
            places: Places::of(fleet, name, service, now).under(rollout),
            begun: 0,
            begun_limit: strategy.at_once(hosts),
            away: standings.iter().filter(|it| it.away && it.aside.is_none()).count(),
            idle: standings.iter().filter(|it| it.idle && it.belongs && it.aside.is_none()).count(),
            emptied: false,
            unavailable: standings.iter().filter(counted).filter(is_down).count(),
            unavailable_limit: strategy.max_unavailable.at_most(hosts),
            serving: standings.iter().filter(|it| it.belongs && it.serves).count(),
            leaving: standings.iter().filter(|it| !it.belongs && it.serves).count(),
            aside: service.hosts.len() - hosts,
            lowered: Vec::new(),
            order_holds: false,
            gate: None,
            unable: None,
            asked: Asked::new(),
            // Of many hosts most wait.
            waiting: Vec::with_capacity(standings.len()),
        }
    }

    /// Takes every step that may be taken now. Hosts where something was begun come first. Returns whether any was taken.
    pub(super) fn take(&mut self, standings: &[Standing], draft: &mut Draft<'_>) -> bool {
        if let Some(rollout) = self.rollout {
            self.say_rollout(rollout, standings);
            self.gate = entry(rollout, standings);
            self.ask_together(rollout, standings);
            self.unable = standings.iter().find(|it| is_unable(rollout, it)).map(|standing| standing.host.clone());
        }
        let pending = |it: &&Standing| !(mutant!("pending hosts are not counted") && matches!(it.step, Step::Wait(_)));
        let away = standings.iter().filter(|it| (it.begun || is_unconfirmed(it)) && !it.last_seen);
        self.begun = if mutant!("one more event starts one more batch") { 0 } else { away.filter(pending).count() };
        let (begun, rest): (Vec<_>, Vec<_>) = standings.iter().partition(|standing| standing.begun);
        let mut acted = false;
        for standing in begun.into_iter().chain(rest) {
            self.order_holds |= !standing.begun && will_begin(standing);
            match self.step(standing, draft) {
                Ok(did) => acted |= did,
                Err(reason) => self.waiting.push(Waiting { host: Some(standing.host.clone()), reason }),
            }
        }
        if let Some(rollout) = self.rollout.filter(|rollout| rollout.direction == Direction::Forward) {
            match share::shares(&rollout.strategy) {
                true => draft.weigh(self.name, self.service, rollout.to, |new, old| share::weights(rollout, new, old)),
                false => draft.weigh_alike(self.service),
            }
        }
        acted
    }

    fn step(&mut self, standing: &Standing, draft: &mut Draft<'_>) -> Result<bool, Reason> {
        match &standing.step {
            Step::Done => self.say_done(standing).map(|()| false),
            Step::Wait(Reason::Probe { .. } | Reason::Healthy { .. }) if self.leaves_early(standing, draft) => Ok(true),
            Step::Wait(reason) => Err(reason.clone()),
            Step::Failed(problem) => Err(Reason::Failed { problem: problem.clone() }),
            Step::Drain(slot) => {
                // Asked before anything is looked up: of many hosts most wait for their turn.
                if standing.drains_told {
                    self.its_turn(standing)?;
                }
                let place = self.places.at(&standing.host);
                if self.leaves_together(standing) {
                    self.gate.clone().map_or(Ok(()), Err)?;
                    self.takes_out_everywhere(&place)?;
                }
                if place.issued().any(|(issued, _)| issued == *slot) {
                    let spoken = self.rollout.is_some_and(|rollout| !rollout.evidence.is_empty());
                    let killed = mutant!("healthy ones are killed because new ones fail") && spoken;
                    let lowers =
                        !self.ends_with_nothing() && !killed && place.may_serve_in(*slot) && !place.serves_beside(*slot);
                    let before = (self.unavailable, self.leaving, self.lowered.clone());
                    if !lowers && !killed && !self.ends_with_nothing() && place.alone_may_come_back_in(*slot) {
                        self.leaves_a_peer(&standing.host)?;
                    }
                    self.admit(standing, lowers)?;
                    let leaves = self.leaves(&place, *slot);
                    let empties = self.empties(standing, &place, *slot);
                    let bound = if leaves { self.may_leave(standing) } else { Ok(()) };
                    let bound = bound.and_then(|()| if empties { self.may_empty() } else { Ok(()) });
                    let opens = bound.and_then(|()| self.opens(standing));
                    if let Err(reason) = opens.and_then(|()| self.before_drain(&place, *slot)) {
                        // It begins, and serves until its hooks have been run.
                        (self.unavailable, self.leaving, self.lowered) = before;
                        return Err(reason);
                    }
                    self.away += usize::from(leaves && is_near(standing));
                    self.idle += usize::from(empties);
                    self.emptied |= empties;
                } else {
                    self.opens(standing)?;
                    self.before_drain(&place, *slot)?;
                }
                draft.set_member(&place, *slot, MemberState::Out, self.manner());
                Ok(true)
            }
            Step::Start(slot, release) => {
                self.admit(standing, false)?;
                self.may_leave(standing)?;
                self.opens(standing)?;
                self.alone(*release)?;
                if self.strategy.exclusive {
                    self.hook_once(Point::Migrate)?;
                }
                let place = self.places.at(&standing.host);
                let fills = standing.belongs && standing.aside.is_none() && place.issued().next().is_none();
                if fills && self.emptied {
                    // Nothing is in here either until it is proven.
                    self.may_empty()?;
                }
                self.idle += usize::from(fills);
                draft.start(&place, *slot, *release, standing.start, self.strategy.drain_deadline);
                self.away += usize::from(is_near(standing));
                Ok(true)
            }
            Step::Stop(slot) => {
                draft.stop(&self.places.at(&standing.host), *slot);
                Ok(true)
            }
            Step::Enroll(slot) => {
                let place = self.places.at(&standing.host);
                // What serves already and was only away for a while waits for nobody.
                if place.issued().any(|(issued, told)| issued == *slot && self.is_goal(&standing.host, told)) {
                    self.gate.clone().map_or(Ok(()), Err)?;
                }
                let mut out = place.issued().filter(|(other, _)| other != slot && place.is_told_in(*other));
                let leaves = self.exchanges() && out.any(|(_, told)| self.is_goal(&standing.host, told));
                if leaves {
                    self.may_leave(standing)?;
                }
                if self.exchanges() {
                    self.takes_out_everywhere(&place)?;
                    for (other, _) in place.issued().filter(|(other, _)| other != slot) {
                        self.before_drain(&place, other)?;
                    }
                }
                self.away += usize::from(leaves && is_near(standing));
                draft.set_member(&place, *slot, MemberState::Ready, self.manner());
                if self.exchanges() {
                    for (other, _) in place.issued().filter(|(other, _)| other != slot && place.is_told_in(*other)) {
                        draft.set_member(&place, other, MemberState::Out, self.manner());
                    }
                }
                Ok(true)
            }
            Step::Hook(key, run) => {
                self.asked.insert(key.clone(), (**run).clone());
                Ok(true)
            }
        }
    }

    /// Whether what is there goes out as the new one comes in: it stays as a way back, and shares no traffic meanwhile.
    fn exchanges(&self) -> bool {
        let wave = self.rollout.and_then(|rollout| rollout.strategy.waves.get(rollout.wave).map(|wave| (rollout, wave)));
        let shares = wave.is_some_and(|(rollout, wave)| rollout.direction == Direction::Forward && wave.share.is_some());
        self.strategy.keeps_old() && !shares
    }

    /// Whether a step takes out the old one beside a new one that is in, as the others of the wave do: one switch.
    fn leaves_together(&self, standing: &Standing) -> bool {
        let forward = self.rollout.is_some_and(|rollout| rollout.direction == Direction::Forward);
        self.strategy.lockstep && forward && standing.entered && standing.drains_told && standing.aside.is_none()
    }

    /// Where the old one goes out as the new one comes in, it does so on every balancer or on none. The way back waits for nobody.
    fn takes_out_everywhere(&self, place: &Place<'_>) -> Result<(), Reason> {
        let back = self.rollout.is_some_and(|rollout| rollout.direction == Direction::Back);
        place.unreachable().filter(|_| !back).map_or(Ok(()), Err)
    }

    /// On the way back from a release that its traffic speaks against, it goes out as soon as that leaves enough hosts, and not only
    /// once the old one is ready beside it: what it answers meanwhile is no service.
    fn leaves_early(&mut self, standing: &Standing, draft: &mut Draft<'_>) -> bool {
        let by_evidence = |rollout: &&Rollout| {
            let judged = rollout.evidence.iter().any(|evidence| judgement::is_verdict(evidence.problem.code));
            judged && rollout.direction == Direction::Back && rollout.from.is_some()
        };
        let routed = self.service.balancer.is_some();
        let Some(rollout) = self.rollout.filter(by_evidence).filter(|_| routed) else { return false };
        let place = self.places.at(&standing.host);
        let is_bad = |(_, told): &(Slot, &InstanceSpec)| told.release == rollout.to;
        let Some((slot, _)) = place.issued().filter(is_bad).find(|(slot, _)| place.is_told_in(*slot)) else { return false };
        let before = (self.begun, self.unavailable, self.leaving, self.lowered.clone());
        let may = self.admit(standing, place.may_serve_in(slot)).and_then(|()| self.before_drain(&place, slot));
        match may {
            Ok(()) => draft.set_member(&place, slot, MemberState::Out, self.manner()),
            Err(_) => (self.begun, self.unavailable, self.leaving, self.lowered) = before,
        }
        may.is_ok()
    }

    /// How members change places: all together where a wave enters together, host by host where the old one stays as a way
    /// back or comes back, and each for itself elsewhere.
    fn manner(&self) -> Manner {
        let forward = self.rollout.is_some_and(|rollout| rollout.direction == Direction::Forward);
        let exchange = match (self.strategy.lockstep, self.strategy.keeps_old()) {
            (true, _) if forward => Exchange::All,
            (_, true) => Exchange::Host,
            _ => Exchange::Each,
        };
        Manner { drain_deadline: self.strategy.drain_deadline, exchange }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
