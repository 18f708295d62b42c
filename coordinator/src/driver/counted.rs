//! What the balancers count, service by service, and the looks that follow from it.
//!
//! Readings are taken in with every report; what a rollout remembers of them changes only with a look, every two seconds, in
//! the same transaction as everything else of that pass. A look that was not stored did not happen: the next one sees what
//! it would have seen.

use baton_core::analysis::POLL;
use baton_core::analysis::counters::Counters;
use baton_core::analysis::growth::Growth;
use baton_core::analysis::history::{History, Summary};
use baton_core::analysis::judgement::{Judgement, Settings};
use baton_core::analysis::meters::{Meters, Traffic, Whose};
use baton_core::analysis::probes::{Answer, Probes};
use baton_core::analysis::series::{Answer as Counts, Series};
use baton_core::analysis::slowness::Pace;
use baton_core::analysis::source::Slots;
use baton_core::fleet::report::HostReport;
use baton_core::fleet::{Fleet, InstanceKey, MemberKey};
use baton_core::name::{HostName, ReleaseId, RolloutId, ServiceName};
use baton_core::rollout::place::Places;
use baton_core::rollout::{Direction, Rollout};
use baton_core::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Reports come every two seconds, a little earlier or later.
const LEAST: Duration = POLL.saturating_sub(Duration::from_millis(150));

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
    looked: Option<Moment>,
    /// A balancer was read since the last look.
    news: bool,
    /// The memory of an instance was seen for a whole step since.
    grown: bool,
    /// The counters of an instance were read since, or could not be.
    read: bool,
    /// A Prometheus was asked since.
    asked: bool,
    /// The prober heard something since.
    probed: bool,
}

impl Counted {
    /// Takes in what a host says.
    pub(super) fn hear(&mut self, fleet: &Fleet, host: &HostName, report: &HostReport, now: Moment) {
        let Some(issued) = fleet.hosts.get(host).map(|host| &host.issued) else { return };
        for (pool, spec) in &issued.pools {
            let Some(said) = report.pools.get(pool) else { continue };
            let rollout = fleet.active_rollout(&spec.service);
            let service = self.service(fleet, &spec.service, now);
            service.meters.read(host, said, |member| whose(fleet, &spec.service, rollout, member));
            service.news = true;
        }
        self.measure(fleet, host, report, now);
        self.read(fleet, host, report, now);
        self.forget_gone(host, report);
    }

    /// Takes in what came back to the prober of a rollout.
    pub(super) fn answered(&mut self, fleet: &Fleet, id: &RolloutId, at: Moment, answer: Answer) {
        // What comes back after its end belongs to nobody.
        let Some(rollout) = fleet.rollouts.get(id).filter(|rollout| rollout.state.is_active()) else { return };
        let service = self.service(fleet, &rollout.service, at);
        service.probes.take(at, answer);
        service.probed = true;
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
        service.asked = true;
    }

    /// Takes in how much memory the instances of a host take.
    fn measure(&mut self, fleet: &Fleet, host: &HostName, report: &HostReport, now: Moment) {
        let member = |key: &InstanceKey| MemberKey { host: host.clone(), slot: key.slot };
        for (key, bytes) in &report.memory {
            let Some(instance) = report.instances.get(key).filter(|_| fleet.services.contains_key(&key.service)) else {
                continue;
            };
            let service = self.service(fleet, &key.service, now);
            service.grown |= service.growth.see(&member(key), instance, *bytes);
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
            service.read = true;
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
            if !service.has_news() {
                continue;
            }
            let rollout = fleet.active_rollout(name);
            if !service.is_due(rollout, now) {
                continue;
            }
            // One that began since the last report: what was counted before is not its own, and would be counted at every look.
            service.belong_to(rollout, now);
            match rollout {
                Some(rollout) => {
                    looks.insert(rollout.id.clone(), service.after(rollout, now));
                }
                None => service.rest(now),
            }
        }
        looks
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
            let traffic = if looked { Traffic::default() } else { service.meters.clone().take() };
            rollout.judgement.close(&traffic, now);
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
            looked: known.and_then(|rollout| rollout.judgement.looked),
            ..Self::default()
        }
    }

    const fn has_news(&self) -> bool {
        self.news || self.grown || self.read || self.asked || self.probed
    }

    fn is_due(&self, rollout: Option<&Rollout>, now: Moment) -> bool {
        let soon = self.looked.is_some_and(|looked| now.since(looked) < LEAST);
        // The first answer is looked at when it comes: a rollout that is over sooner must not end as one where nobody could ask.
        let unseen = rollout.is_some_and(|rollout| rollout.judgement.proof.probes.asked == 0) && self.probes.asked > 0;
        !soon || unseen
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
        let releases = rollout.map(|rollout| (Some(rollout.to), rollout.from));
        if let Some((to, from)) = releases {
            self.growth.keep(|release| [to, from].contains(&Some(*release)));
        }
        self.rollout = rollout.map(|rollout| rollout.id.clone());
    }

    fn after(&self, rollout: &Rollout, now: Moment) -> Judgement {
        let mut meters = self.meters.clone();
        let traffic = meters.take();
        let mut judgement = if rollout.judgement.has_begun() {
            rollout.judgement.clone()
        } else {
            let mut judgement = Judgement::begin(&self.history.summary(now), self.pace.frozen());
            judgement.proof.capacity = rollout.judgement.proof.capacity.clone();
            judgement
        };
        let mut counters = self.counters.clone();
        let slots = counters.take();
        let mut series = self.series.clone();
        let found = series.take();
        (judgement.meters, judgement.counters, judgement.series) = (meters, counters, series);
        let strategy = &rollout.strategy;
        let on_trial = rollout.direction == Direction::Forward && rollout.from.is_some();
        let settings = Settings { guard: &strategy.guard, gate: strategy.gate.as_ref(), on_trial };
        // What nobody counted is no look at no requests.
        if self.news {
            judgement.look(settings, &traffic, now);
        }
        if self.read && strategy.scrape.is_some() {
            judgement.look_at_metrics(settings, &self.counters_usual.summary(now), slots);
        }
        if self.asked && strategy.prometheus.is_some() {
            judgement.look_at_series(settings, &self.series_usual.summary(now), found);
        }
        judgement.proof.probes = self.probes.clone();
        judgement.memory.growth = self.growth.clone();
        if let Some(old) = rollout.from.filter(|_| on_trial && strategy.guard.memory) {
            judgement.memory.look(rollout.to, old);
        }
        judgement
    }

    fn took(&mut self, now: Moment) -> (Traffic, Slots, Slots) {
        self.looked = Some(now);
        (self.news, self.grown, self.probed) = (false, false, false);
        (self.read, self.asked) = (false, false);
        (self.meters.take(), self.counters.take(), self.series.take())
    }

    /// Nothing is on trial: what was counted is what the service is usually like.
    fn rest(&mut self, now: Moment) {
        let (balanced, read, asked) = (self.news, self.read, self.asked);
        if !(balanced || read || asked) {
            (self.grown, self.probed) = (false, false);
            return;
        }
        let (traffic, counted, found) = self.took(now);
        if balanced {
            self.remember(&traffic, now);
        }
        for (seen, slots, usual) in [(read, counted, &mut self.counters_usual), (asked, found, &mut self.series_usual)] {
            if seen {
                usual.take(now, &slots.old.into_values().collect::<Vec<_>>());
            }
        }
    }

    /// Nothing is on trial: this is what the service is usually like.
    fn remember(&mut self, traffic: &Traffic, now: Moment) {
        self.history.take(now, &traffic.of(Whose::Old));
        self.pace.take(traffic);
    }
}

/// Notes in every rollout under way how many of its service's hosts serve now.
pub(super) fn see_capacity(fleet: &mut Fleet, now: Moment) {
    let serving = |rollout: &Rollout| {
        let service = fleet.services.get(&rollout.service)?;
        let places = Places::of(fleet, &rollout.service, service, now);
        let serves = |host: &&HostName| places.at(host).serves();
        Some((count(service.hosts.iter().filter(serves).count()), count(service.hosts.len())))
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
