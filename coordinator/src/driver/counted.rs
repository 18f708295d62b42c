//! What the balancers count, service by service, and the looks that follow from it.
//!
//! Readings are taken in with every report; what a rollout remembers of them changes only with a look, every two seconds, in
//! the same transaction as everything else of that pass. A look that was not stored did not happen: the next one sees what
//! it would have seen.

use baton_core::analysis::counters::Counters;
use baton_core::analysis::growth::Growth;
use baton_core::analysis::history::{History, Summary};
use baton_core::analysis::judgement::{Judgement, Settings};
use baton_core::analysis::meters::{Meters, Traffic, Whose};
use baton_core::analysis::probes::{Answer, Probes};
use baton_core::analysis::series::{Answer as Counts, Series};
use baton_core::analysis::slowness::Pace;
use baton_core::analysis::source::Slots;
use baton_core::analysis::turn::Turn;
use baton_core::fleet::report::HostReport;
use baton_core::fleet::{Fleet, InstanceKey, MemberKey};
use baton_core::name::{HostName, ReleaseId, RolloutId, ServiceName};
use baton_core::rollout::gate::answers_alone;
use baton_core::rollout::place::Places;
use baton_core::rollout::{Direction, Rollout};
use baton_core::time::Moment;
use std::collections::{BTreeMap, BTreeSet};

/// Every service whose instances are measured, or whose requests are counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    services: BTreeMap<ServiceName, Service>,
    /// The instances whose memory or counters are followed.
    measured: BTreeMap<HostName, BTreeSet<InstanceKey>>,
}

#[derive(Debug, Default)]
struct Service {
    meters: Meters,
    history: History,
    pace: Pace,
    growth: Growth,
    counters: Counters,
    /// What the counters said while nothing was on trial.
    counters_usual: History,
    /// The same of a Prometheus.
    series: Series,
    series_usual: History,
    probes: Probes,
    /// The rollout these readings belong to.
    rollout: Option<RolloutId>,
    /// When it is time to look at what the balancers counted,
    balanced: Turn,
    /// at what was read of instances, or why nothing could be,
    read: Turn,
    /// at what a Prometheus said,
    asked: Turn,
    /// and at what is no bet: what the prober heard, and memory that was seen for a whole step. It is looked at with the others.
    seen: Turn,
}

impl Counted {
    /// Takes in what a host says.
    pub(super) fn hear(&mut self, fleet: &Fleet, host: &HostName, report: &HostReport, at: Moment) {
        let Some(issued) = fleet.hosts.get(host).map(|host| &host.issued) else { return };
        for (pool, spec) in &issued.pools {
            let Some(said) = report.pools.get(pool) else { continue };
            let rollout = fleet.active_rollout(&spec.service);
            let service = self.service(fleet, &spec.service, at);
            service.meters.read(host, said, at, |member| whose(fleet, &spec.service, rollout, member));
            service.balanced.hear(at);
        }
        self.measure(fleet, host, report, at);
        self.read(fleet, host, report, at);
        self.forget_gone(host, report);
    }

    /// Takes in what came back to the prober of a rollout.
    pub(super) fn answered(&mut self, fleet: &Fleet, id: &RolloutId, at: Moment, answer: Answer) {
        // What comes back after its end belongs to nobody.
        let Some(rollout) = fleet.rollouts.get(id).filter(|rollout| rollout.state.is_active()) else { return };
        let service = self.service(fleet, &rollout.service, at);
        service.probes.take(at, answer);
        service.seen.hear(at);
    }

    /// Takes in what a Prometheus says of a service's releases.
    pub(super) fn counted(&mut self, fleet: &Fleet, name: &ServiceName, answers: Vec<(ReleaseId, Counts)>, now: Moment) {
        if !fleet.services.contains_key(name) {
            return;
        }
        let rollout = fleet.active_rollout(name);
        let service = self.service(fleet, name, now);
        service.series.keep(|release| answers.iter().any(|(asked, _)| asked == release));
        for (release, answer) in answers {
            service.series.see(release, whose_release(rollout, release), answer);
        }
        service.asked.hear(now);
    }

    /// Takes in how much memory the instances of a host take.
    fn measure(&mut self, fleet: &Fleet, host: &HostName, report: &HostReport, now: Moment) {
        let member = |key: &InstanceKey| MemberKey { host: host.clone(), slot: key.slot };
        for (key, bytes) in &report.memory {
            let Some(instance) = report.instances.get(key).filter(|_| fleet.services.contains_key(&key.service)) else {
                continue;
            };
            let service = self.service(fleet, &key.service, now);
            if service.growth.see(&member(key), instance, *bytes) {
                service.seen.hear(now);
            }
            self.measured.entry(host.clone()).or_default().insert(key.clone());
        }
    }

    /// Takes in what the instances of a host count themselves.
    fn read(&mut self, fleet: &Fleet, host: &HostName, report: &HostReport, now: Moment) {
        for (key, reading) in &report.counters {
            let Some(instance) = report.instances.get(key).filter(|_| fleet.services.contains_key(&key.service)) else {
                continue;
            };
            let whose = whose_release(fleet.active_rollout(&key.service), instance.release);
            let service = self.service(fleet, &key.service, now);
            service.counters.see(&MemberKey { host: host.clone(), slot: key.slot }, instance, whose, reading);
            service.read.hear(now);
            self.measured.entry(host.clone()).or_default().insert(key.clone());
        }
    }

    fn forget_gone(&mut self, host: &HostName, report: &HostReport) {
        let member = |key: &InstanceKey| MemberKey { host: host.clone(), slot: key.slot };
        let Some(measured) = self.measured.get_mut(host) else { return };
        for gone in measured.extract_if(.., |key| !report.instances.contains_key(key)) {
            if let Some(service) = self.services.get_mut(&gone.service) {
                service.growth.forget(&member(&gone));
                service.counters.forget(&member(&gone));
            }
        }
    }

    fn service(&mut self, fleet: &Fleet, name: &ServiceName, now: Moment) -> &mut Service {
        let rollout = fleet.active_rollout(name);
        let measured = &mut self.measured;
        let service = self.services.entry(name.clone()).or_insert_with(|| {
            let service = Service::found(fleet, name, rollout);
            for member in service.growth.members().chain(service.counters.members()) {
                let key = InstanceKey { service: name.clone(), slot: member.slot };
                measured.entry(member.host.clone()).or_default().insert(key);
            }
            service
        });
        service.belong_to(rollout, now);
        service
    }

    /// The looks that are due: the rollouts' judgements after them.
    pub(super) fn looks(&mut self, fleet: &Fleet, now: Moment) -> BTreeMap<RolloutId, Judgement> {
        let mut looks = BTreeMap::new();
        for (name, service) in &mut self.services {
            if !service.is_due(now) {
                continue;
            }
            let rollout = fleet.active_rollout(name);
            // One that began since the last report: what was counted before is not its own, and would be counted at every look.
            service.belong_to(rollout, now);
            match rollout {
                Some(rollout) if service.is_due(now) => {
                    looks.insert(rollout.id.clone(), service.after(fleet, rollout, now));
                }
                Some(_) => {}
                None => service.rest(now),
            }
        }
        looks
    }

    /// When a look at a rollout's counts is late though nobody says anything.
    pub(super) fn late_at(&self) -> Option<Moment> {
        let judged = self.services.values().filter(|service| service.rollout.is_some());
        judged.filter_map(Service::late_at).min()
    }

    /// What each service's traffic was like lately, while nothing was on trial.
    pub(super) fn usual(&self, now: Moment) -> BTreeMap<ServiceName, Summary> {
        let summaries = self.services.iter().map(|(name, service)| (name.clone(), service.history.summary(now)));
        summaries.filter(|(_, summary)| summary.counts.requests > 0).collect()
    }

    /// Why what others count of services at rest could not be compared if a rollout began now.
    pub(super) fn doubts(&self, fleet: &Fleet) -> BTreeMap<ServiceName, [Vec<String>; 2]> {
        let asks = |service: &baton_core::fleet::Service| {
            service.strategy.scrape.is_some() || service.strategy.prometheus.is_some()
        };
        let at_rest = fleet.services.iter().filter(|(name, it)| asks(it) && fleet.active_rollout(name).is_none());
        let unseen = Service::default();
        let doubts = at_rest.filter_map(|(name, service)| {
            let release = fleet.releases.get(&service.committed?)?.version.to_string();
            let known = self.services.get(name).unwrap_or(&unseen);
            Some((name.clone(), [known.counters.doubts_at_rest(&release), known.series.doubts_at_rest(&release)]))
        });
        doubts.collect()
    }

    /// These rollouts' looks are durable.
    pub(super) fn took(&mut self, looks: &BTreeMap<RolloutId, Judgement>, now: Moment) {
        for service in self.services.values_mut() {
            if service.rollout.as_ref().is_some_and(|rollout| looks.contains_key(rollout)) {
                service.took(now);
            }
        }
    }

    /// Adds what was counted since the last look to a rollout that ends now; `looked`: the look was in this very pass.
    pub(super) fn close(&self, rollout: &mut Rollout, looked: bool, now: Moment) {
        let service = self.services.get(&rollout.service).filter(|service| service.rollout.as_ref() == Some(&rollout.id));
        if let Some(service) = service {
            let in_it = looked && service.balanced.is_due(now);
            let nothing = Traffic::default();
            rollout.judgement.close(if in_it { &nothing } else { service.meters.pending() }, now);
            rollout.judgement.proof.probes = service.probes.clone();
        }
    }
}

impl Service {
    /// A service not seen before by this driver: a rollout under way goes on from the readings stored with it.
    fn found(fleet: &Fleet, name: &ServiceName, rollout: Option<&Rollout>) -> Self {
        let known = rollout.filter(|rollout| rollout.judgement.has_begun());
        let mut growth = known.map(|rollout| rollout.judgement.memory.growth.clone()).unwrap_or_default();
        // How the old release's instances were when they were young is known from the rollouts that brought it.
        for earlier in fleet.rollouts.values().filter(|rollout| rollout.service == *name) {
            growth.learn(&earlier.judgement.memory.growth);
        }
        Self {
            growth,
            counters: known.map(|rollout| rollout.judgement.counters.clone()).unwrap_or_default(),
            series: known.map(|rollout| rollout.judgement.series.clone()).unwrap_or_default(),
            probes: rollout.map(|rollout| rollout.judgement.proof.probes.clone().resumed()).unwrap_or_default(),
            meters: known.map(|rollout| rollout.judgement.meters.clone()).unwrap_or_default(),
            rollout: known.map(|rollout| rollout.id.clone()),
            balanced: Turn::after(known.and_then(|rollout| rollout.judgement.looked)),
            ..Self::default()
        }
    }

    fn is_due(&self, now: Moment) -> bool {
        [self.balanced, self.read, self.asked].iter().any(|turn| turn.is_due(now)) || self.seen.is_late(now)
    }

    fn late_at(&self) -> Option<Moment> {
        [self.balanced, self.read, self.asked, self.seen].iter().filter_map(Turn::late_at).min()
    }

    fn belong_to(&mut self, rollout: Option<&Rollout>, now: Moment) {
        if self.rollout.as_ref() == rollout.map(|rollout| &rollout.id) {
            return;
        }
        let traffic = self.meters.take();
        if self.rollout.is_none() {
            self.remember(&traffic, now);
        }
        self.counters.take();
        self.counters.relabel();
        self.series.take();
        self.series.relabel();
        self.meters.relabel();
        self.probes = Probes::default();
        // Its first looks are at the first that is said, its first answer among it: it may be over soon.
        (self.balanced, self.read, self.asked, self.seen) = Default::default();
        let releases = rollout.map(|rollout| (Some(rollout.to), rollout.from));
        if let Some((to, from)) = releases {
            self.growth.keep(|release| [to, from].contains(&Some(*release)));
        }
        self.rollout = rollout.map(|rollout| rollout.id.clone());
    }

    fn after(&self, fleet: &Fleet, rollout: &Rollout, now: Moment) -> Judgement {
        let mut judgement = if rollout.judgement.has_begun() {
            rollout.judgement.clone()
        } else {
            let mut judgement = Judgement::begin(&self.history.summary(now), self.pace.frozen());
            judgement.proof.capacity = rollout.judgement.proof.capacity.clone();
            judgement
        };
        let strategy = &rollout.strategy;
        let on_trial = rollout.direction == Direction::Forward && rollout.from.is_some();
        let alone = on_trial && answers_alone(fleet, rollout, now);
        let settings = Settings { guard: &strategy.guard, gate: strategy.gate.as_ref(), on_trial, alone };
        // What nobody counted is no look at no requests; and what is not looked at yet is read again where nobody lives to do it.
        let is_looked_at = |turn: &Turn| turn.heard().is_none() || turn.is_due(now);
        if is_looked_at(&self.balanced) {
            judgement.meters = self.meters.settled();
            if let Some(counted) = self.balanced.heard() {
                judgement.look(settings, self.meters.pending(), counted);
            }
        }
        if is_looked_at(&self.read) {
            judgement.counters = self.counters.clone();
            let slots = judgement.counters.take();
            if self.read.heard().is_some() && strategy.scrape.is_some() {
                judgement.look_at_metrics(settings, &self.counters_usual.summary(now), slots);
            }
        }
        if is_looked_at(&self.asked) {
            judgement.series = self.series.clone();
            let slots = judgement.series.take();
            if self.asked.heard().is_some() && strategy.prometheus.is_some() {
                judgement.look_at_series(settings, &self.series_usual.summary(now), slots);
            }
        }
        judgement.proof.probes = self.probes.clone();
        judgement.memory.growth = self.growth.clone();
        if let Some(old) = rollout.from.filter(|_| on_trial && strategy.guard.memory) {
            judgement.memory.look(rollout.to, old);
        }
        judgement
    }

    /// The look is durable.
    fn took(&mut self, now: Moment) {
        if take(&mut self.balanced, now) {
            self.meters.take();
        }
        if take(&mut self.read, now) {
            self.counters.take();
        }
        if take(&mut self.asked, now) {
            self.series.take();
        }
        self.seen.pass(now);
    }

    /// Nothing is on trial: what was counted is what the service is usually like.
    fn rest(&mut self, now: Moment) {
        if take(&mut self.balanced, now) {
            let traffic = self.meters.take();
            self.remember(&traffic, now);
        }
        let old = |slots: Slots| slots.old.into_values().collect::<Vec<_>>();
        if take(&mut self.read, now) {
            self.counters_usual.take(now, &old(self.counters.take()));
        }
        if take(&mut self.asked, now) {
            self.series_usual.take(now, &old(self.series.take()));
        }
        self.seen.pass(now);
    }

    /// Nothing is on trial: this is what the service is usually like.
    fn remember(&mut self, traffic: &Traffic, now: Moment) {
        self.history.take(now, &traffic.of(Whose::Old));
        self.pace.take(traffic);
    }
}

/// Whether it was this one's turn; it no longer is.
fn take(turn: &mut Turn, now: Moment) -> bool {
    let due = turn.is_due(now);
    if due {
        turn.take();
    }
    due
}

/// Notes in every rollout under way how many of its service's hosts answer now, as far as was last heard.
pub(super) fn see_capacity(fleet: &mut Fleet, now: Moment) {
    let serving = |rollout: &Rollout| {
        let service = fleet.services.get(&rollout.service)?;
        let places = Places::of(fleet, &rollout.service, service, now);
        let answers = |host: &&HostName| places.at(host).answers();
        Some((count(service.hosts.iter().filter(answers).count()), count(service.hosts.len())))
    };
    let active = fleet.rollouts.values().filter(|rollout| rollout.state.is_active());
    let seen: Vec<_> = active.filter_map(|rollout| Some((rollout.id.clone(), serving(rollout)?))).collect();
    for (id, (serving, hosts)) in seen {
        if let Some(rollout) = fleet.rollouts.get_mut(&id) {
            rollout.judgement.proof.capacity.see(serving, hosts, now);
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Whose release a member is: by what its host was told to run there.
fn whose(fleet: &Fleet, service: &ServiceName, rollout: Option<&Rollout>, member: &MemberKey) -> Option<Whose> {
    let key = InstanceKey { service: service.clone(), slot: member.slot };
    let release = fleet.hosts.get(&member.host)?.issued.instances.get(&key)?.release;
    Some(whose_release(rollout, release))
}

fn whose_release(rollout: Option<&Rollout>, release: ReleaseId) -> Whose {
    match rollout {
        None => Whose::Old,
        Some(rollout) if release == rollout.to => Whose::New,
        Some(rollout) if Some(release) == rollout.from => Whose::Old,
        Some(_) => Whose::Other,
    }
}
