//! The event loop: one queue, one virtual clock, every message an event.

use super::agenda::{Agenda, Event};
use super::coordinator::{Coordinator, Store};
use super::host::{Effect, Host};
use super::news::differs;
use super::random::Random;
use super::scenario::{FAULTS_BEGIN, FAULTS_END, Happening, LAST, Part, Quality, Scenario};
use super::{Outcome, strategies, truth};
use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::{HostSpec, PoolSpec};
use baton_core::fleet::{InstanceKey, MemberKey};
use baton_core::hook::HookKey;
use baton_core::name::{HostName, LabelValue, PoolName, ReleaseId, RolloutId, ServiceName};
use baton_core::rollout::command::Command;
use baton_core::rollout::{RolloutState, Turned};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// An agent repeats its report at least this often, and looks this often while something moves.
const HEARTBEAT: u64 = 4_000;
const LOOK: u64 = 100;

pub(super) struct World<'a> {
    pub(super) scenario: Scenario,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) agenda: Agenda,
    pub(super) hosts: truth::Hosts,
    pub(super) store: Store,
    pub(super) coordinator: Option<Coordinator>,
    outcome: Outcome,
    rollouts: u32,
    /// The hooks that really happened, and how often people asked for another attempt.
    pub(super) ran: BTreeSet<(HookKey, u32)>,
    pub(super) retries: u32,
    pub(super) resumed_reboots: u32,
    /// How often people let paused rollouts of a service go on: they do not say it for ever.
    pub(super) resumed: BTreeMap<usize, u32>,
    pub(super) tidied: u32,
    /// When people last said that what is broken for ever is gone.
    pub(super) given_up: u64,
    /// Hosts that people drained, skipped, added or took away, ever.
    pub(super) taken_out: BTreeSet<HostName>,
    /// Balancers that people declared dead, ever.
    pub(super) declared: BTreeSet<HostName>,
    tell: &'a mut dyn FnMut(&str),
}

impl<'a> World<'a> {
    pub(super) fn new(seed: u64, tell: &'a mut dyn FnMut(&str)) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random);
        Self {
            scenario,
            random,
            now: 0,
            agenda: Agenda::default(),
            hosts: BTreeMap::new(),
            store: Store::default(),
            coordinator: None,
            outcome: Outcome { log: 0xcbf2_9ce4_8422_2325, ..Outcome::default() },
            rollouts: 0,
            ran: BTreeSet::new(),
            retries: 0,
            resumed_reboots: 0,
            resumed: BTreeMap::new(),
            tidied: 0,
            given_up: 0,
            taken_out: BTreeSet::new(),
            declared: BTreeSet::new(),
            tell,
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        if let Err(violation) = self.live() {
            self.outcome.violation = Some(format!("at {} ms: {violation}", self.now));
        }
        self.outcome
    }
}

impl World<'_> {
    fn live(&mut self) -> Result<(), String> {
        self.begin();
        while let Some((at, event)) = self.agenda.next() {
            self.now = at;
            self.outcome.events += 1;
            self.event(event)?;
            if self.is_over() {
                return self.judge_rest();
            }
            if at > LAST {
                return Err(format!("liveness: no rest after {LAST} ms: {}", self.where_it_stands()));
            }
        }
        Err("liveness: nothing happens any more".into())
    }

    fn begin(&mut self) {
        let mut coordinator = Coordinator::start(&mut self.store, 0);
        let accepted = self.random.chance(50);
        let spare = self.scenario.spare.clone();
        let mut names = BTreeSet::new();
        for Part { service, .. } in &self.scenario.parts {
            names.extend(service.hosts.iter().chain(service.balancer.iter().flat_map(|pool| &pool.on)).cloned());
        }
        for (index, name) in names.into_iter().chain(spare.clone()).enumerate() {
            let rack = LabelValue::new(if index % 2 == 0 { "a" } else { "b" }).expect("a value");
            let accepted = accepted || Some(&name) != spare.as_ref();
            coordinator.join(&mut self.store, &name, [(strategies::rack(), rack)].into(), accepted);
            self.hosts.insert(name.clone(), Host::new());
            self.agenda.look_at(&name, 1);
        }
        self.coordinator = Some(coordinator);
        (0..self.scenario.parts.len()).for_each(|place| self.bring_first(place));
        for (at, happening) in self.scenario.script.clone() {
            self.agenda.at(at, Event::Happens(happening));
        }
        for place in 0..self.scenario.parts.len() {
            let side = self.scenario.parts.get(place).is_some_and(|part| part.service.ports.len() > 1);
            self.sometimes(if side { "side by side" } else { "in place" });
        }
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Happens(happening) => {
                self.log(|| format!("{happening:?}"));
                self.happen(happening)
            }
            Event::AgentLooks(name) => self.agent_looks(&name),
            Event::AgentReturns(name) => {
                self.log(|| format!("agent of {name} returns"));
                if let Some(host) = self.hosts.get_mut(&name) {
                    host.resume();
                }
                self.agenda.look_at(&name, self.now);
                Ok(())
            }
            Event::Heals(name) => {
                self.log(|| format!("{name} is reachable again"));
                if let Some(host) = self.hosts.get_mut(&name).filter(|_| self.scenario.broken.as_ref() != Some(&name)) {
                    host.cut = false;
                    host.last_report = None;
                }
                Ok(())
            }
            Event::CoordinatorReturns => {
                self.log(|| "coordinator returns".into());
                self.coordinator = Some(Coordinator::start(&mut self.store, self.now));
                self.coordinator_passes()
            }
            Event::CoordinatorWakes => self.coordinator_passes(),
            Event::ToHost(name, spec) => self.host_receives(&name, &spec),
            Event::LeaveBoot(name, boot) => self.leaves_boot(&name, &boot),
            Event::ToCoordinator(name, report) => {
                let Some(coordinator) = &mut self.coordinator else { return Ok(()) };
                if let Some(spec) = coordinator.hear(&name, *report, self.now) {
                    self.send_spec(&name, spec);
                }
                if self.coordinator.as_ref().is_some_and(|coordinator| coordinator.is_due(self.now)) {
                    self.coordinator_passes()?;
                }
                Ok(())
            }
        }
    }

    /// An agent looks, decides, acts and reports; the invariants look at what it did.
    fn agent_looks(&mut self, name: &HostName) -> Result<(), String> {
        let now = self.now;
        let ready = self.who_is_ready(name);
        let Some(host) = self.hosts.get_mut(name) else { return Ok(()) };
        if !host.agent {
            return Ok(());
        }
        let answers = |pool: &PoolName, member: &MemberKey| ready.get(pool).is_some_and(|ready| ready.contains(member));
        let quality = |release: ReleaseId| self.scenario.quality_of(release);
        let effects = host.pass(now, &quality, &answers, &mut self.random);
        for effect in &effects {
            self.log(|| format!("{name} {effect:?}"));
            let believed = (&self.store.fleet, &self.declared);
            truth::check_effect(&self.scenario, &self.hosts, name, effect, believed, now)?;
            if let Effect::Left(pool, _) = effect {
                self.check_floor(name, pool)?;
            }
            self.note_deadline(name, effect);
            if let Effect::Ran(key, attempt) = effect {
                truth::check_once(&mut self.ran, self.retries, key, *attempt)?;
            }
        }
        if self.dies_in_a_switch(name) || self.dies_in_a_hook(name) {
            return self.happen(Happening::AgentCrash(name.clone(), 2_000));
        }
        let Some(host) = self.hosts.get_mut(name) else { return Ok(()) };
        let spoilt = self.scenario.parts.iter().filter(|part| part.quality == Quality::RejectedArtifact);
        let report = host.report(now, &spoilt.map(|part| part.new.id()).collect::<Vec<_>>());
        let news = host.last_report.as_ref().is_none_or(|last| differs(last, &report));
        let again = if host.is_moving(now) { LOOK } else { HEARTBEAT };
        if news || now >= host.last_sent + HEARTBEAT {
            host.last_report = Some(report.clone());
            host.last_sent = now;
            self.send_report(name, report);
        }
        let jitter = self.random.between(0, 20);
        self.agenda.look_at(name, now + again + jitter);
        Ok(())
    }

    /// What a balancer's own probe would find in each pool: nothing where there is no balancer.
    fn who_is_ready(&self, name: &HostName) -> BTreeMap<PoolName, BTreeSet<MemberKey>> {
        let pools = self.hosts.get(name).map(|host| &host.ledger.pools);
        let found = |spec: &PoolSpec| {
            let is_ready = |member: &&MemberKey| {
                let key = InstanceKey { service: spec.service.clone(), slot: member.slot };
                self.hosts.get(&member.host).is_some_and(|real| real.powered && real.is_ready(&key, self.now))
            };
            spec.members.keys().filter(is_ready).cloned().collect()
        };
        pools.into_iter().flatten().map(|(name, spec)| (name.clone(), found(spec))).collect()
    }

    /// The floor can only be asked for once the first release serves everywhere, and while nobody but us takes anything away.
    fn check_floor(&self, balancer: &HostName, pool: &PoolName) -> Result<(), String> {
        let Some(part) = self.scenario.part_of_pool(pool) else { return Ok(()) };
        let live = self.store.fleet.services.get(&part.name).filter(|service| service.committed.is_some());
        let Some(service) = live.filter(|service| service.orders.removal.is_none()) else { return Ok(()) };
        let ours = !self.scenario.capacity_faults && part.quality == Quality::Good && !self.declared.contains(balancer);
        if !ours {
            return Ok(());
        }
        truth::check_floor(part, service, &self.hosts, balancer, &self.taken_out, self.now)
    }

    fn host_receives(&mut self, name: &HostName, spec: &HostSpec) -> Result<(), String> {
        let Some(host) = self.hosts.get_mut(name) else { return Ok(()) };
        if !host.agent || host.cut {
            return Ok(());
        }
        let before = host.ledger.stamp();
        if host.receive(spec) {
            if host.ledger.stamp() < before {
                return Err(format!("9: {name} took {:?} over {before:?}", host.ledger.stamp()));
            }
            host.last_report = None;
            self.agenda.look_at(name, self.now);
        } else {
            self.sometimes("a spec of the past was rejected");
        }
        Ok(())
    }

    pub(super) fn coordinator_passes(&mut self) -> Result<(), String> {
        let twice = self.random.chance(10);
        let Some(coordinator) = &mut self.coordinator else { return Ok(()) };
        let before = self.store.fleet.rollouts.clone();
        let forgotten = self.store.forgotten.len();
        let known: BTreeSet<ServiceName> = self.store.fleet.services.keys().cloned().collect();
        let specs = coordinator.pass(&mut self.store, self.now, twice)?;
        if let Some(wake) = coordinator.wake_at {
            self.agenda.wake_at(wake.max(self.now + 1));
        }
        let is_known = |name: &ServiceName| self.store.fleet.services.contains_key(name);
        let gone = self.scenario.parts.iter().any(|part| known.contains(&part.name) && !is_known(&part.name));
        // With a service its hooks are forgotten.
        self.ran.retain(|(key, _)| is_known(&key.service));
        if gone {
            self.sometimes("a service was removed");
        }
        if self.store.forgotten.len() > forgotten {
            self.sometimes("a release was forgotten");
        }
        self.one_active_rollout()?;
        self.note_strategy();
        self.note_ends(&before)?;
        for (name, spec) in specs {
            self.log(|| format!("spec {} {:?}", name, spec.stamp()));
            self.send_spec(&name, spec);
        }
        self.reboots_pass();
        Ok(())
    }

    fn one_active_rollout(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        let mut active = self.store.fleet.rollouts.values().filter(|rollout| rollout.state.is_active());
        match active.find(|rollout| !seen.insert(&rollout.service)) {
            Some(second) => Err(format!("8: {} is one of two active rollouts", second.id)),
            None => Ok(()),
        }
    }

    fn note_ends(&mut self, before: &BTreeMap<RolloutId, baton_core::rollout::Rollout>) -> Result<(), String> {
        for (id, rollout) in self.store.fleet.rollouts.clone() {
            if before.get(&id).is_some_and(|old| old.state == rollout.state) {
                continue;
            }
            self.log(|| format!("{id} is {:?} {:?}", rollout.state, rollout.evidence));
            match (rollout.state, &rollout.turned) {
                (RolloutState::Succeeded, _) => {
                    self.sometimes("rollout succeeded");
                    truth::check_judged(&rollout)?;
                    let service = self.store.fleet.services.get(&rollout.service);
                    let warm = service.and_then(|service| service.warm);
                    let before = rollout.from.filter(|_| rollout.strategy.keeps_old());
                    if let (Some(part), Some(service)) = (self.scenario.part(&rollout.service), service) {
                        let left_out = |host: &HostName| rollout.left_out.iter().any(|it| it.host == *host);
                        // Where the next one has begun in the same plan, the service has that one's hosts already.
                        let goes_on = self.store.fleet.active_rollout(&rollout.service).is_some();
                        let is_its = |host: &HostName| !goes_on || rollout.hosts.contains(host);
                        let ours: Vec<_> =
                            service.hosts.iter().filter(|host| is_its(host) && !left_out(host)).cloned().collect();
                        truth::check_completeness(part, &ours, (&self.hosts, &self.declared), rollout.to, before)?;
                    }
                    if rollout.strategy.lockstep && rollout.from.is_some() {
                        self.sometimes("a wave entered together");
                    }
                    if rollout.strategy.preview().is_some() && rollout.from.is_some() {
                        self.sometimes("a preview ended with the switch");
                    }
                    if warm.is_some_and(|warm| warm.until > rollout.progressed) {
                        self.sometimes("the release before stayed warm");
                    }
                }
                (RolloutState::Reverted, Some(Turned::Evidence)) => self.sometimes("rollout reverted by evidence"),
                (RolloutState::Reverted, _) => self.sometimes("rollout turned back by an operator"),
                (RolloutState::Paused, _) if rollout.pause.as_ref().is_some_and(|it| it.by == "baton") => {
                    self.sometimes("rollout paused by itself");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn note_deadline(&mut self, name: &HostName, effect: &Effect) {
        let Effect::Stopped(key) = effect else { return };
        let member = MemberKey { host: name.clone(), slot: key.slot };
        let pool = self.scenario.part(&key.service).and_then(|part| part.service.balancer.as_ref()).map(|it| &it.pool);
        let pools = self.hosts.values().filter_map(|host| host.pools.get(pool?));
        let busy = pools.into_iter().any(|pool| pool.in_flight(&member, self.now) > 0);
        if busy {
            self.sometimes("drain deadline passed with requests in flight");
        }
    }

    pub(super) fn is_rolling(&self) -> bool {
        self.store.fleet.rollouts.values().any(|rollout| rollout.state.is_active())
    }

    pub(super) fn any_draining(&self) -> bool {
        use baton_core::fleet::spec::MemberState::Out;
        self.scenario.parts.iter().any(|part| {
            let pools = self.hosts.values().filter_map(|host| host.pools.get(&part.service.balancer.as_ref()?.pool));
            let mut out = pools.flat_map(|pool| &pool.running).filter(|(_, state)| **state == Out);
            out.any(|(member, _)| {
                let key = InstanceKey { service: part.name.clone(), slot: member.slot };
                self.hosts.get(&member.host).is_some_and(|host| host.processes.contains_key(&key))
            })
        })
    }

    /// Asks for something. Returns whether it was accepted and changed anything.
    pub(super) fn command(&mut self, command: Command) -> bool {
        let Some(coordinator) = &mut self.coordinator else { return false };
        let word = format!("{command:?}");
        let forgotten = self.store.forgotten.len();
        let accepted = coordinator.command(&mut self.store, command, self.now);
        if self.store.forgotten.len() < forgotten {
            self.sometimes("a forgotten release came back");
        }
        self.log(|| format!("{} accepted={accepted}", word.chars().take(12).collect::<String>()));
        self.agenda.wake_at(self.now);
        accepted
    }

    pub(super) fn next_id(&mut self) -> RolloutId {
        self.rollouts += 1;
        RolloutId::new(format!("r-{}", self.rollouts)).expect("an id")
    }

    fn send_spec(&mut self, name: &HostName, spec: HostSpec) {
        if let Some(at) = self.arrival(name) {
            self.agenda.at(at, Event::ToHost(name.clone(), Box::new(spec)));
        }
    }

    fn send_report(&mut self, name: &HostName, report: HostReport) {
        if let Some(at) = self.arrival(name) {
            self.agenda.at(at, Event::ToCoordinator(name.clone(), Box::new(report)));
        }
    }

    /// When a message arrives, if it does: late, and past others.
    pub(super) fn arrival(&mut self, name: &HostName) -> Option<u64> {
        if self.hosts.get(name).is_some_and(|host| host.cut) {
            return None;
        }
        let lossy = (FAULTS_BEGIN..FAULTS_END).contains(&self.now);
        if lossy && self.random.chance(self.scenario.loss) {
            self.sometimes("message lost");
            return None;
        }
        Some(self.now + self.random.between(1, self.scenario.delay))
    }

    pub(super) fn sometimes(&mut self, what: &'static str) {
        *self.outcome.sometimes.entry(what).or_default() += 1;
    }

    /// Folds a line into the log's hash (FNV-1a) and hands it to whoever listens.
    pub(super) fn log(&mut self, line: impl Fn() -> String) {
        let mut text = String::new();
        let _ = write!(text, "{:>7} {}", self.now, line());
        for byte in text.bytes() {
            self.outcome.log = (self.outcome.log ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        (self.tell)(&text);
    }
}
