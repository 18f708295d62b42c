//! One host as it really is: its processes, its balancer, its agent and the agent's ledger.
//!
//! Processes and the balancer outlive the agent; the ledger outlives a reboot. The agent decides with the real
//! [`baton_core::host::plan`].

use super::errands::Errands;
use super::process::Process;
use super::random::Random;
use super::scenario::Quality;
use baton_core::fleet::ability::{BalancerAbility, SplitAbility};
use baton_core::fleet::report::{HostReport, MemberReport, PoolReport, ReleaseState, SplitReport};
use baton_core::fleet::spec::{Exchange, HostSpec, MemberSpec, MemberState, PoolSpec, Stamp};
use baton_core::fleet::split::TrafficSplit;
use baton_core::fleet::{InstanceKey, LiteMap, MemberKey};
use baton_core::hook::HookKey;
use baton_core::host::plan::{Action, Failures, Observed, plan};
use baton_core::mutant;
use baton_core::name::{PoolName, ReleaseId};
use baton_core::problem::{Code, Problem};
use baton_core::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Debug, Clone)]
pub(super) struct Host {
    /// Survives everything.
    pub(super) ledger: HostSpec,
    pub(super) powered: bool,
    pub(super) agent: bool,
    pub(super) cut: bool,
    pub(super) boots: u64,
    pub(super) processes: BTreeMap<InstanceKey, Process>,
    /// When each release is there; the future while it is fetched.
    held: BTreeMap<ReleaseId, u64>,
    failures: BTreeMap<InstanceKey, Failures>,
    pub(super) pools: BTreeMap<PoolName, Pool>,
    /// The stamp before the ledger's: only a mistake compares with that.
    read: Stamp,
    /// Members that were out when the agent died: only a mistake leaves them so.
    left_out: BTreeSet<MemberKey>,
    pub(super) last_report: Option<HostReport>,
    pub(super) last_sent: u64,
    starts: u64,
    /// Survives everything, too.
    pub(super) errands: Errands,
}

/// A pool in the balancer that really runs here.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    identity: u64,
    pub(super) running: BTreeMap<MemberKey, MemberState>,
    pub(super) disk: BTreeMap<MemberKey, MemberState>,
    busy_until: BTreeMap<MemberKey, u64>,
    out_since: BTreeMap<MemberKey, u64>,
    in_since: BTreeMap<MemberKey, u64>,
    split: Option<TrafficSplit>,
}

/// What an agent's pass did to the world: what the invariants look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Started(InstanceKey, ReleaseId),
    Stopped(InstanceKey),
    Entered(PoolName, MemberKey),
    Left(PoolName, MemberKey),
    /// A hook really happened.
    Ran(HookKey, u32),
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            ledger: HostSpec::default(),
            powered: true,
            agent: true,
            cut: false,
            boots: 1,
            processes: BTreeMap::new(),
            held: BTreeMap::new(),
            failures: BTreeMap::new(),
            pools: BTreeMap::new(),
            read: HostSpec::default().stamp(),
            left_out: BTreeSet::new(),
            last_report: None,
            last_sent: 0,
            starts: 0,
            errands: Errands::new(),
        }
    }

    /// Rejects the past; takes everything else into the ledger. Returns whether it was taken.
    pub(super) fn receive(&mut self, spec: &HostSpec) -> bool {
        let known =
            if mutant!("staleness is checked at the start and not at the write") { self.read } else { self.ledger.stamp() };
        if spec.stamp() < known {
            return false;
        }
        (self.read, self.ledger) = (self.ledger.stamp(), spec.clone());
        true
    }

    pub(super) fn reboot(&mut self) {
        self.boots += 1;
        self.processes.clear();
        self.end_hooks();
        self.failures.clear();
        self.restart_balancer();
    }

    /// What a restart of the balancer leaves: what stood on disk, and nothing in flight.
    pub(super) fn restart_balancer(&mut self) {
        for pool in self.pools.values_mut() {
            pool.identity += 1;
            pool.running = pool.disk.clone();
            pool.busy_until.clear();
        }
    }

    /// Whether a restart of its balancer would change what it does: it is between two writes.
    pub(super) fn is_between_writes(&self) -> bool {
        self.pools.values().any(|pool| pool.running.iter().any(|(member, state)| pool.disk.get(member) != Some(state)))
    }

    /// Whether its balancer is in the middle of a change of everything together.
    pub(super) fn is_in_switch(&self) -> bool {
        self.ledger.pools.iter().any(|(name, spec)| self.pools.get(name).is_some_and(|pool| pool.is_in_switch(spec)))
    }

    /// Its agent runs again, and finishes what its ledger says.
    pub(super) fn resume(&mut self) {
        (self.agent, self.powered, self.last_report) = (true, true, None);
        let members = self.pools.values().flat_map(|pool| &pool.running).filter(|(_, state)| **state == MemberState::Out);
        let left = members.filter(|_| mutant!("the tool dies and leaves a host out")).map(|(member, _)| member.clone());
        self.left_out.extend(left);
    }

    /// Whether an instance answers from a port that is its own: what the world sees, and no probe.
    pub(super) fn answers(&self, key: &InstanceKey, now: u64) -> bool {
        self.powered && self.processes.get(key).is_some_and(|process| process.is_ready(now) && process.owns_port)
    }

    pub(super) fn is_ready(&self, key: &InstanceKey, now: u64) -> bool {
        self.processes.get(key).is_some_and(|process| process.is_ready(now))
    }

    /// One pass of the agent: look, decide with the real code, act.
    pub(super) fn pass(
        &mut self,
        now: u64,
        quality: &dyn Fn(ReleaseId) -> Quality,
        answers: &dyn Fn(&PoolName, &MemberKey) -> bool,
        random: &mut Random,
    ) -> Vec<Effect> {
        self.age(now);
        let observed = self.observe(now);
        let mut effects = Vec::new();
        for action in plan(&self.ledger, &observed, Moment(now)).actions {
            self.act(action, now, quality, random, &mut effects);
        }
        self.stop_withdrawn(now, random, &mut effects);
        self.run_hooks(now, random, &mut effects);
        let pools = self.ledger.pools.clone();
        for (name, wanted) in &pools {
            let answers = |member: &MemberKey| answers(name, member);
            let pool = self.pools.entry(name.clone()).or_default();
            pool.split.clone_from(&wanted.split);
            let held = pool.held(wanted, &answers);
            let mut members: Vec<_> = wanted
                .members
                .iter()
                .filter(|(member, _)| !held.contains(*member) && !self.left_out.contains(*member))
                .collect();
            let leaves_first = mutant!("on the way back the old one leaves first");
            members.sort_by_key(|(_, it)| (it.state == MemberState::Ready) == leaves_first);
            for (member, wanted_member) in members {
                // What is left is done at the next look: anything may happen in between.
                if random.chance(3) {
                    return effects;
                }
                let effect = pool.step(member, wanted_member.state, now, answers(member), random);
                effects.extend(effect.map(|entered| match entered {
                    true => Effect::Entered(name.clone(), member.clone()),
                    false => Effect::Left(name.clone(), member.clone()),
                }));
            }
        }
        effects
    }

    /// Processes that had to end by now have ended.
    pub(super) fn age(&mut self, now: u64) {
        let ledger = &self.ledger;
        let failures = &mut self.failures;
        self.processes.retain(|_, process| process.stopping.is_none_or(|(_, gone)| gone > now));
        for (key, process) in self.processes.iter_mut().filter(|(_, process)| process.failed.is_none()) {
            let patience = ledger.releases.get(&process.release).map(|it| it.health.start_timeout.as_millis() as u64);
            let never = process.ready_at.is_none_or(|ready| ready > now);
            let problem = match process.exits_at {
                Some(at) if at <= now => Some("exited"),
                _ if never && patience.is_some_and(|it| now - process.started >= it) => Some("never became ready"),
                _ => None,
            };
            if !never {
                failures.remove(key);
            }
            if let (Some(what), None) = (problem, process.stopping) {
                process.failed = Some(Problem::new(Code(210), what));
                let count = failures.get(key).map_or(0, |failures| failures.count) + 1;
                failures.insert(key.clone(), Failures { count, last: Moment(now) });
            }
        }
    }

    fn act(
        &mut self,
        action: Action,
        now: u64,
        quality: &dyn Fn(ReleaseId) -> Quality,
        random: &mut Random,
        effects: &mut Vec<Effect>,
    ) {
        match action {
            Action::Fetch(release) => {
                self.held.insert(release, now + random.between(50, 2_000));
            }
            Action::Start(key) => {
                let Some(spec) = self.ledger.instances.get(&key) else { return };
                self.starts += 1;
                let quality = quality(spec.release);
                let mut process = Process::start((spec.release, spec.start), self.starts, now, quality, random);
                if self.processes.get(&key).is_some_and(Process::is_alive) {
                    (process.owns_port, process.ready_at) = (false, Some(now));
                }
                effects.push(Effect::Started(key.clone(), spec.release));
                self.processes.insert(key, process);
            }
            Action::Stop { key, .. } => {
                let withdraws = self.ledger.instances.get(&key).is_some_and(|told| told.withdraw.is_some());
                let Some(process) = self.processes.get_mut(&key) else { return };
                if withdraws {
                    process.withdrawn = Some(now);
                } else {
                    process.stop(now, random);
                    effects.push(Effect::Stopped(key));
                }
            }
            Action::Forget(key) => {
                self.processes.remove(&key);
                self.failures.remove(&key);
            }
            Action::Drop(release) => {
                self.held.remove(&release);
            }
        }
    }

    /// What has failed its health check for long enough is stopped, and so is what need not do that any more.
    fn stop_withdrawn(&mut self, now: u64, random: &mut Random, effects: &mut Vec<Effect>) {
        let ledger = &self.ledger;
        let leaving =
            self.processes.iter_mut().filter(|(_, process)| process.stopping.is_none() && process.failed.is_none());
        for (key, process) in leaving {
            let told = ledger.instances.get(key).and_then(|told| told.withdraw);
            let is_over = told.is_none_or(|it| process.withdrawn_for(now) >= it.unready_for);
            if process.withdrawn.is_some() && is_over {
                process.stop(now, random);
                effects.push(Effect::Stopped(key.clone()));
            }
        }
    }

    pub(super) fn holds(&self, release: ReleaseId, now: u64) -> bool {
        self.held.get(&release).is_some_and(|at| *at <= now)
    }

    fn observe(&self, now: u64) -> Observed {
        let state = |(key, process): (&InstanceKey, &Process)| (key.clone(), process.report(now));
        Observed {
            instances: self.processes.iter().map(state).collect(),
            releases: self.releases(now, &[]),
            failures: self.failures.clone(),
        }
    }

    fn releases(&self, now: u64, rejected: &[ReleaseId]) -> LiteMap<ReleaseId, ReleaseState> {
        let state = |(release, at): (&ReleaseId, &u64)| {
            let state = match () {
                () if rejected.contains(release) => {
                    ReleaseState::Rejected { problem: Problem::new(Code(601), "the archive is corrupt") }
                }
                () if *at <= now => ReleaseState::Held,
                () => ReleaseState::Fetching { done: 0, total: 1_000_000 },
            };
            (*release, state)
        };
        self.held.iter().map(state).collect()
    }

    pub(super) fn report(&self, now: u64, rejected: &[ReleaseId]) -> HostReport {
        let pools = self.ledger.pools.iter().filter_map(|(name, spec)| {
            let pool = self.pools.get(name)?;
            let members =
                spec.members.keys().map(|member| (member.clone(), pool.report(member, spec.slow_start, now))).collect();
            let split = pool.split.clone().map(|split| SplitReport { split, ..SplitReport::default() });
            let balancer = pool.identity.to_string();
            Some((name.clone(), PoolReport { balancer, members, split, ..PoolReport::default() }))
        });
        HostReport {
            observed: self.ledger.stamp(),
            boot: self.boots.to_string(),
            instances: self.observe(now).instances,
            pools: pools.collect(),
            balancer: Some(BalancerAbility {
                driver: "builtin".to_owned(),
                split: SplitAbility::Everything,
                ..BalancerAbility::default()
            }),
            releases: self.releases(now, rejected),
            hooks: self.hook_reports(now),
            ..HostReport::default()
        }
    }

    pub(super) fn crash_one(&mut self, now: u64, random: &mut Random) {
        let keys: Vec<InstanceKey> = self.processes.keys().cloned().collect();
        if let Some(process) = random.pick(&keys).and_then(|key| self.processes.get_mut(key)) {
            process.exits_at = Some(now);
        }
    }

    /// When something here changes by itself next, as far as nobody asks for anything.
    pub(super) fn changes_at(&self, now: u64) -> Option<u64> {
        let held = self.held.values().copied();
        let processes = self.processes.values().flat_map(Process::changes_at);
        let busy = self.pools.values().flat_map(|pool| pool.busy_until.values().copied());
        held.chain(processes).chain(busy).filter(|at| *at > now).min()
    }

    /// Whether its balancer has not done yet what it was told.
    pub(super) fn is_in_steps(&self) -> bool {
        let is_as = |(name, spec): (&PoolName, &PoolSpec)| {
            spec.members.is_empty() || self.pools.get(name).is_some_and(|pool| pool.is_as(spec))
        };
        !self.ledger.pools.iter().all(is_as)
    }

    /// Whether something here changes soon by itself, so that the agent should look again shortly.
    pub(super) fn is_moving(&self, now: u64) -> bool {
        self.is_in_a_hook()
            || self.held.values().any(|at| *at > now)
            || self.processes.values().any(|process| process.is_moving(now))
            || self.pools.values().any(|pool| pool.busy_until.values().any(|until| *until > now))
            || self.is_in_steps()
            || self.ledger.instances.keys().any(|key| !self.processes.contains_key(key))
    }
}

impl Pool {
    /// The members that wait for others, as the exchange of the pool says.
    fn held(&self, wanted: &PoolSpec, answers: &dyn Fn(&MemberKey) -> bool) -> BTreeSet<MemberKey> {
        let is_in = |member: &MemberKey| self.running.get(member) == Some(&MemberState::Ready);
        let missing = wanted.members.iter().filter(|(_, it)| it.state == MemberState::Ready).map(|(member, _)| member);
        let missing: Vec<&MemberKey> = missing.filter(|member| !is_in(member) && !answers(member)).collect();
        let leaves = |(member, it): &(&MemberKey, &MemberSpec)| it.state != MemberState::Ready && is_in(member);
        let leaving = wanted.members.iter().filter(leaves).map(|(member, _)| member);
        match wanted.exchange {
            _ if mutant!("on the way back the old one leaves first") => BTreeSet::new(),
            Exchange::Each => BTreeSet::new(),
            Exchange::Host => leaving.filter(|it| missing.iter().any(|other| other.host == it.host)).cloned().collect(),
            Exchange::All if missing.is_empty() || leaving.clone().next().is_none() => BTreeSet::new(),
            Exchange::All => wanted.members.keys().cloned().collect(),
        }
    }

    /// Whether every member is as it should be, now and after a restart.
    fn is_as(&self, wanted: &PoolSpec) -> bool {
        let is = |states: &BTreeMap<MemberKey, MemberState>, (member, it): (&MemberKey, &MemberSpec)| {
            states.get(member) == Some(&it.state)
        };
        wanted.members.iter().all(|it| is(&self.running, it) && is(&self.disk, it))
    }

    /// Whether everything changes together here and has begun to, but is not through.
    pub(super) fn is_in_switch(&self, wanted: &PoolSpec) -> bool {
        let is_so = |(member, it): &(&MemberKey, &MemberSpec)| self.running.get(*member) == Some(&it.state);
        let so = wanted.members.iter().filter(is_so).count();
        wanted.exchange == Exchange::All && so > 0 && so < wanted.members.len()
    }

    /// One small step towards the wanted state: a crash can fall between any two. Returns whether the member entered or
    /// left the running balancer.
    fn step(
        &mut self,
        member: &MemberKey,
        wanted: MemberState,
        now: u64,
        answers: bool,
        random: &mut Random,
    ) -> Option<bool> {
        let running = self.running.get(member).copied();
        let disk = self.disk.get(member).copied();
        match wanted {
            MemberState::Ready if running != Some(MemberState::Ready) => {
                if !answers {
                    return None;
                }
                self.running.insert(member.clone(), MemberState::Ready);
                self.out_since.remove(member);
                self.in_since.insert(member.clone(), now);
                Some(true)
            }
            MemberState::Ready => {
                self.disk.insert(member.clone(), MemberState::Ready);
                None
            }
            MemberState::Drain | MemberState::Out
                if disk != Some(MemberState::Out) && !mutant!("a restarted balancer forgets") =>
            {
                self.disk.insert(member.clone(), MemberState::Out);
                None
            }
            MemberState::Drain | MemberState::Out if running != Some(MemberState::Out) => {
                let was_in = running == Some(MemberState::Ready);
                self.running.insert(member.clone(), MemberState::Out);
                self.out_since.insert(member.clone(), now);
                if was_in {
                    self.busy_until.insert(member.clone(), now + random.between(0, 3_000));
                }
                was_in.then_some(false)
            }
            MemberState::Drain | MemberState::Out => None,
        }
    }

    pub(super) fn in_flight(&self, member: &MemberKey, now: u64) -> u64 {
        u64::from(self.busy_until.get(member).is_some_and(|until| *until > now))
    }

    pub(super) fn out_for(&self, member: &MemberKey, now: u64) -> Duration {
        self.out_since.get(member).map_or(Duration::ZERO, |since| Duration::from_millis(now - since))
    }

    /// How long a member's share still grows: while some other has more.
    fn full_in(&self, member: &MemberKey, slow_start: Duration, now: u64) -> Option<Duration> {
        if slow_start.is_zero() {
            return None;
        }
        let is_in = |(member, _): &(&MemberKey, &u64)| self.running.get(*member) == Some(&MemberState::Ready);
        let since = *self.in_since.get_key_value(member).filter(|it| is_in(it))?.1;
        let is_last = self.in_since.iter().filter(is_in).any(|(_, before)| *before < since);
        let left = slow_start.saturating_sub(Duration::from_millis(now.saturating_sub(since)));
        Some(left).filter(|left| is_last && !left.is_zero())
    }

    fn report(&self, member: &MemberKey, slow_start: Duration, now: u64) -> MemberReport {
        let state = |states: &BTreeMap<MemberKey, MemberState>| states.get(member).copied();
        let disk = if mutant!("a restarted balancer forgets") { &self.running } else { &self.disk };
        MemberReport {
            on_disk: state(disk).unwrap_or(MemberState::Ready),
            in_flight: self.in_flight(member, now),
            out_for: self.out_for(member, now),
            full_in: self.full_in(member, slow_start, now),
            ..MemberReport::quiet(state(&self.running).unwrap_or(MemberState::Ready))
        }
    }
}
