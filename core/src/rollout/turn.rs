//! One pass over the hosts of a service: who may take its step now.

use super::aside::aside;
use super::converge::Step;
use super::draft::{Draft, Manner};
use super::gate::{self, Word};
use super::hooks::{Asked, Gate, Hooks};
use super::place::{Place, Places};
use super::progress::{self, Standing};
use super::waiting::{Reason, Waiting};
use super::{Direction, Rollout, RolloutState, share, spread};
use crate::analysis::judgement;
use crate::fleet::report::HostReport;
use crate::fleet::spec::{Exchange, InstanceSpec, MemberState};
use crate::fleet::{Fleet, Host, Service};
use crate::hook::Point;
use crate::name::{HostName, ReleaseId, ServiceName, Slot};
use crate::strategy::Strategy;
use crate::time::Moment;

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
    /// Hosts that do not serve, for whatever reason, and how many may be.
    unavailable: usize,
    unavailable_limit: usize,
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
        // One that was told to come in may just have been told to go out: what was heard before is no word of it.
        let is_entering = |it: &Standing| matches!(it.step, Step::Wait(Reason::Enrolling { .. }));
        let is_down =
            |it: &&Standing| (!it.serves || is_silent(it) || is_entering(it)) && !is_collected(fleet, name, &it.host);
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
            unavailable: standings.iter().filter(counted).filter(is_down).count(),
            unavailable_limit: strategy.max_unavailable.at_most(hosts),
            leaving: standings.iter().filter(|it| !it.belongs && it.serves).count(),
            aside: service.hosts.len() - hosts,
            lowered: Vec::new(),
            order_holds: false,
            gate: None,
            unable: None,
            asked: Asked::new(),
            waiting: Vec::new(),
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
        let away = standings.iter().filter(|it| (it.begun || is_unconfirmed(it)) && !self.is_over_with(it));
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
                let place = self.places.at(&standing.host);
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
                    let bound = if leaves { self.may_leave(standing) } else { Ok(()) };
                    let opens = bound.and_then(|()| self.opens(standing));
                    if let Err(reason) = opens.and_then(|()| self.before_drain(&place, *slot)) {
                        // It begins, and serves until its hooks have been run.
                        (self.unavailable, self.leaving, self.lowered) = before;
                        return Err(reason);
                    }
                    self.away += usize::from(leaves && is_near(standing));
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
                draft.start(&self.places.at(&standing.host), *slot, *release, standing.start);
                self.away += usize::from(is_near(standing));
                Ok(true)
            }
            Step::Stop(slot) => {
                draft.stop(&self.places.at(&standing.host), *slot);
                Ok(true)
            }
            Step::Enroll(slot) => {
                self.gate.clone().map_or(Ok(()), Err)?;
                let place = self.places.at(&standing.host);
                let mut out = place.issued().filter(|(other, _)| other != slot && place.is_told_in(*other));
                let leaves = self.strategy.keeps_old() && out.any(|(_, told)| self.is_goal(&standing.host, told));
                if leaves {
                    self.may_leave(standing)?;
                }
                if self.strategy.keeps_old() {
                    self.takes_out_everywhere(&place)?;
                    for (other, _) in place.issued().filter(|(other, _)| other != slot) {
                        self.before_drain(&place, other)?;
                    }
                }
                self.away += usize::from(leaves && is_near(standing));
                draft.set_member(&place, *slot, MemberState::Ready, self.manner());
                if self.strategy.keeps_old() {
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

    /// Whether a host may begin, and may stop serving if the step means that. Counts it, if so.
    fn admit(&mut self, standing: &Standing, lowers: bool) -> Result<(), Reason> {
        if !standing.begun && standing.aside.is_none() {
            let held = self.rollout.is_some_and(|rollout| rollout.state == RolloutState::Paused);
            if held || self.order_holds || self.begun >= self.begun_limit {
                return Err(Reason::Turn { wave: count(standing.wave) });
            }
            if let Some(host) = &self.unable {
                return Err(Reason::Exclusive { host: host.clone() });
            }
        }
        // Work on hosts takes no more of them than the strategy allows, however many stand aside already.
        let aside = if standing.aside.is_some() { self.aside } else { 0 };
        // A host that may serve and is not known to is one of those that do not already.
        let itself = usize::from(lowers && standing.belongs && !standing.serves);
        if lowers && self.unavailable + aside >= self.unavailable_limit + self.leaving + itself {
            let (unavailable, max_unavailable) = (count(self.unavailable + aside), count(self.unavailable_limit));
            return Err(Reason::Floor { unavailable, max_unavailable });
        }
        if lowers {
            self.leaves_a_peer(&standing.host)?;
            self.lowered.push(standing.host.clone());
        }
        self.begun += usize::from(!standing.begun);
        match standing.belongs {
            true => self.unavailable += usize::from(lowers) - itself,
            false => self.leaving -= usize::from(lowers).min(self.leaving),
        }
        Ok(())
    }

    /// Whether a host left the service, and with this step nothing is told to run there: nobody looks at it any more.
    fn is_over_with(&self, standing: &Standing) -> bool {
        let stops = !standing.belongs && matches!(standing.step, Step::Stop(_));
        stops && self.places.at(&standing.host).issued().count() == 1
    }

    /// Whether a host is away from rest once this slot is out: nothing else is in, or the release it should have is not.
    fn leaves(&self, place: &Place<'_>, slot: Slot) -> bool {
        let is_goal = place.issued().any(|(other, told)| other == slot && self.is_goal(place.host_name, told));
        is_goal || !place.issued().any(|(other, _)| other != slot && place.is_told_in(other))
    }

    fn is_goal(&self, host: &HostName, told: &InstanceSpec) -> bool {
        let least = |rollout: &Rollout| rollout.starts.get(host).copied().unwrap_or_default();
        self.rollout.is_some_and(|it| it.goal() == Some(told.release) && told.start >= least(it))
    }

    /// Where something was begun already a host may be at rest all the same, by what was told: it leaves that like any other.
    fn may_leave(&self, standing: &Standing) -> Result<(), Reason> {
        let full = self.away >= self.begun_limit.max(1);
        // How many begin is bounded where they do.
        if full && standing.begun && is_near(standing) { Err(Reason::Turn { wave: count(standing.wave) }) } else { Ok(()) }
    }

    /// Whether some other host serves of which the strategy's label says the same, where there is another one at all.
    fn leaves_a_peer(&self, host: &HostName) -> Result<(), Reason> {
        let Self { fleet, service, .. } = *self;
        let Some(label) = &self.strategy.spread_by else { return Ok(()) };
        let serves = |host: &HostName| self.places.at(host).serves();
        let others = spread::peers(fleet, service, label, host);
        let left = others.iter().any(|other| serves(other) && !self.lowered.contains(other));
        match spread::group(fleet, label, host) {
            Some(value) if !others.is_empty() && !left => Err(Reason::Spread { label: label.clone(), value: value.clone() }),
            _ => Ok(()),
        }
    }

    /// The hooks before everything hold every host that has not begun. Where the releases cannot coexist, the migration waits
    /// until nobody runs the old one.
    fn opens(&mut self, standing: &Standing) -> Result<(), Reason> {
        let brings = self.rollout.is_some_and(|rollout| standing.goal == Some(rollout.to));
        // A host may be away from rest for another reason: one that was drained for work on it comes back.
        let has_begun = standing.begun && standing.has_new;
        if has_begun || standing.aside.is_some() || !brings {
            return Ok(());
        }
        let points =
            if self.strategy.exclusive { &[Point::BeforeRollout][..] } else { &[Point::BeforeRollout, Point::Migrate] };
        let wave = count(standing.wave);
        points.iter().try_for_each(|point| self.hook_once(*point)).map_err(|_| Reason::Turn { wave })
    }

    /// A host that serves runs its hook before that is drained for the new release.
    fn before_drain(&mut self, place: &Place<'_>, slot: Slot) -> Result<(), Reason> {
        let Some(rollout) = self.rollout else { return Ok(()) };
        let mut issued = place.issued().filter(|(issued, told)| *issued == slot && told.release != rollout.to);
        let concerned = self.service.hosts.contains(place.host_name) && place.is_told_in(slot);
        if !concerned || aside(self.fleet, self.service, place.host_name).is_some() || issued.next().is_none() {
            return Ok(());
        }
        let gate = self.hooks(rollout).on(Point::BeforeDrain, place.host_name, slot);
        self.pass(gate)
    }

    fn hook_once(&mut self, point: Point) -> Result<(), Reason> {
        let gate = self.rollout.map_or(Gate::Open, |rollout| self.hooks(rollout).once(point));
        self.pass(gate)
    }

    fn hooks(&self, rollout: &'a Rollout) -> Hooks<'a> {
        Hooks { fleet: self.fleet, service: self.service, rollout, now: self.now }
    }

    fn pass(&mut self, gate: Gate) -> Result<(), Reason> {
        match gate {
            Gate::Open => Ok(()),
            Gate::Wait(reason) => Err(reason),
            Gate::Ask(key, run) => {
                self.asked.entry(key).or_insert(*run);
                Err(Reason::Echo)
            }
        }
    }

    /// Hosts that enter together run their hooks together before they do.
    fn ask_together(&mut self, rollout: &'a Rollout, standings: &[Standing]) {
        if !self.strategy.lockstep || rollout.direction == Direction::Back || self.gate.is_some() {
            return;
        }
        let mut held = false;
        for standing in standings {
            let Step::Enroll(slot) = &standing.step else { continue };
            let place = self.places.at(&standing.host);
            for (other, _) in place.issued().filter(|(other, _)| other != slot) {
                held |= self.before_drain(&place, other).is_err();
            }
        }
        if held {
            let (ready, of) = progress::staged(rollout, standings);
            self.gate = Some(Reason::Together { ready: count(ready), of: count(of) });
        }
    }

    /// Where the releases cannot coexist: whether no host runs another one, or will once it hears its newest spec or returns.
    ///
    /// A host that was told to run this release heard before that it runs nothing. A host that was told to run nothing must
    /// have said so: until then its ledger may hold the other release, and start it. One that left the service holds a release
    /// of it until it did.
    fn alone(&self, release: ReleaseId) -> Result<(), Reason> {
        if !self.strategy.exclusive {
            return Ok(());
        }
        let Self { fleet, name, service, .. } = *self;
        let runs_another = |host: &&HostName| {
            let place = self.places.at(host);
            let mut told = place.issued().map(|(_, told)| told.release).peekable();
            let mute = told.peek().is_none() && place.host().and_then(Host::echoed).is_none();
            let holds = || fleet.hosts.get(host).is_some_and(|known| known.issued.holds_any_of(name));
            (mute && (service.hosts.contains(host) || holds()))
                || told.any(|told| told != release)
                || place.reported().any(|(_, instance)| instance.release != release && instance.state.may_run())
        };
        fleet.hosts.keys().find(runs_another).map_or(Ok(()), |host| Err(Reason::Exclusive { host: host.clone() }))
    }

    /// A service that is removed, or a first release that is taken back, leaves nothing, and that is meant; also of a host
    /// that comes back later.
    fn ends_with_nothing(&self) -> bool {
        let none_at_rest = self.service.committed.is_none() && self.service.orders.kept.is_empty();
        self.service.orders.removal.is_some() || self.rollout.map_or(none_at_rest, |rollout| rollout.goal().is_none())
    }

    /// A host that is done only because it stands aside, its turn has not come, or it keeps what it has says so.
    fn say_done(&self, standing: &Standing) -> Result<(), Reason> {
        if let Some(reason) = &standing.aside {
            return Err(reason.clone());
        }
        match self.rollout {
            Some(rollout) if standing.goal.is_some() && standing.goal != rollout.goal() => {
                Err(Reason::Turn { wave: count(standing.wave) })
            }
            None => match self.service.orders.kept.get(&standing.host) {
                Some(kept) if standing.goal == Some(kept.release) => Err(Reason::Kept { by: kept.by.clone() }),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn say_rollout(&mut self, rollout: &Rollout, standings: &[Standing]) {
        let mut say = |reason| self.waiting.push(Waiting { host: None, reason });
        if let Some(pause) = &rollout.pause {
            say(Reason::Paused { by: pause.by.clone(), why: pause.why.clone() });
        }
        let baked = |since| self.now.since(since) >= rollout.strategy.bake_of(rollout.wave);
        let held = rollout.wave_done.filter(|since| baked(*since)).map(|_| gate::ask(rollout, self.service, self.now));
        if let Some(Word::Wait(reason)) = held {
            say(reason);
        } else if let Some(wave) = progress::asks_for(rollout, standings, self.now) {
            say(Reason::Approval { wave: count(wave) });
        } else if let Some(since) = rollout.wave_done {
            say(Reason::Bake { left: rollout.strategy.bake_of(rollout.wave).saturating_sub(self.now.since(since)) });
        }
    }
}

/// What keeps the hosts that enter together from doing so; None: they may, or need not.
fn entry(rollout: &Rollout, standings: &[Standing]) -> Option<Reason> {
    if !rollout.strategy.lockstep || rollout.direction == Direction::Back {
        return None;
    }
    let (ready, of) = progress::staged(rollout, standings);
    let held = rollout.state == RolloutState::Paused || !progress::is_let_through(rollout, rollout.wave);
    (held || ready < of).then_some(Reason::Together { ready: count(ready), of: count(of) })
}

/// Whether a failed instance counts as none at all: an old mistake, and never so.
fn is_collected(fleet: &Fleet, name: &ServiceName, host: &HostName) -> bool {
    let has_failed =
        |report: &HostReport| report.instances.iter().any(|(key, it)| key.service == *name && !it.state.may_run());
    mutant!("a failed instance is collected") && fleet.hosts.get(host).and_then(Host::report).is_some_and(has_failed)
}

/// Nobody is taken down for a release that cannot coexist with the other while some host could not follow.
fn is_unable(rollout: &Rollout, standing: &Standing) -> bool {
    rollout.strategy.exclusive
        && rollout.direction == Direction::Forward
        && standing.goal == Some(rollout.to)
        && matches!(
            standing.step,
            Step::Wait(Reason::Artifact { .. } | Reason::AgentSilent { .. } | Reason::NeverJoined | Reason::Echo)
                | Step::Wait(Reason::BalancerUnreachable { .. })
                | Step::Failed(_)
        )
}

/// On its way to begin, and only waits for its release or for an answer, be it to what another service told it.
fn will_begin(standing: &Standing) -> bool {
    match standing.step {
        Step::Wait(Reason::Artifact { .. } | Reason::Shutting { .. }) => true,
        Step::Wait(Reason::Echo) => standing.goal.is_some() && !standing.entered && standing.aside.is_none(),
        _ => false,
    }
}

/// Told something, and it was not confirmed yet: not at rest, though nothing may be left to do.
fn is_unconfirmed(standing: &Standing) -> bool {
    matches!(
        standing.step,
        Step::Enroll(_) | Step::Stop(_) | Step::Wait(Reason::Enrolling { .. } | Reason::Echo | Reason::Healthy { .. })
    )
}

/// At rest by what was told, and not out of it because people said so.
fn is_near(standing: &Standing) -> bool {
    !standing.away && standing.aside.is_none()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
