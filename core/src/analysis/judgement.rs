//! Everything a rollout remembers of its judging: a few numbers and the last readings, stored with it.

use super::bet::{Border, Rates, before, expected, guess};
use super::counters::Counters;
use super::counts::{Counts, Poll, Unit};
use super::failures::Failures;
use super::gate::Gate;
use super::history::Summary;
use super::memory::{GROWS, Memory};
use super::meters::{Meters, Traffic, Whose};
use super::notice;
use super::probes::Probes;
use super::proof::Proof;
use super::quantiles::QUANTILES;
use super::real::Real;
use super::series::Series;
use super::settings::{GateSettings, GuardSettings, Share};
use super::signals::{self, Signal};
use super::slowness::Slowness;
use super::source::{Slots, Source};
use crate::fleet::MemberKey;
use crate::name::HostName;
use crate::problem::{Code, Problem};
use crate::time::Moment;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A smaller chance is not told from this one.
const LEAST: f64 = 0.000_01;

/// The new release fails more often than the old one.
const WORSE: Code = Code(901);
/// Its answers take longer.
const SLOWER: Code = Code(904);

/// What is persisted. A coordinator that restarts goes on exactly where it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Judgement {
    /// The guard's bet on failures that the load balancers count.
    #[serde(flatten)]
    pub failures: Failures,
    /// On those that the instances' own metrics count; None until some were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Source>,
    /// What was read of them last.
    #[serde(skip_serializing_if = "is_default")]
    pub counters: Counters,
    /// On those that a Prometheus knows of; None until it knew of some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Source>,
    /// What it said last.
    #[serde(skip_serializing_if = "is_default")]
    pub series: Series,
    /// On slower answers; None where no balancer counts how long they take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<Slowness>,
    /// The most all bets together were ever worth.
    highest: Real,
    /// The largest of them when that was enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    named: Option<Signal>,
    pub gate: Gate,
    pub proof: Proof,
    pub meters: Meters,
    /// What the old release counted before the rollout and in it, every request.
    past_requests: Counts,
    /// Where most failures of the new release were.
    #[serde(skip_serializing_if = "Option::is_none")]
    worst: Option<(HostName, u64)>,
    /// What the memory of the instances did.
    #[serde(skip_serializing_if = "is_default")]
    pub memory: Memory,
    /// The last look at the counters.
    pub looked: Option<Moment>,
}

/// What nobody used is not stored.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What one look needs besides the counters.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    pub guard: &'a GuardSettings,
    pub gate: Option<&'a GateSettings>,
    /// Whether the new release is on trial: going forward, against an old one.
    pub on_trial: bool,
    /// Nothing leads to the old one any more.
    pub alone: bool,
}

impl Judgement {
    /// Begins with what is known of the old release.
    #[must_use]
    pub fn begin(history: &Summary, slow: Option<Slowness>) -> Self {
        Self { slow, failures: Failures::begin(history), past_requests: history.counts, ..Self::default() }
    }

    /// Takes what was counted since the last look.
    pub fn look(&mut self, settings: Settings<'_>, traffic: &Traffic, now: Moment) {
        self.proof.take(traffic, self.looked, now);
        self.looked = Some(now);
        if !settings.on_trial {
            return;
        }
        let (new, old) = (traffic.of(Whose::New), traffic.of(Whose::Old));
        self.failures.look(settings.guard, &new, &old, settings.alone);
        let raw = Unit::Requests.poll(&new, &old);
        if let Some(gate) = settings.gate {
            self.gate.look(gate, self.past_requests, raw, self.failures.phi());
        }
        self.past_requests += raw.old;
        self.note_worst(traffic);
        if !traffic.latencies.is_empty() {
            self.slow.get_or_insert_default().look(settings.guard, traffic, settings.alone);
        }
        self.weigh(settings.guard);
    }

    /// Takes what the instances' own metrics have counted since the last look.
    pub fn look_at_metrics(&mut self, settings: Settings<'_>, history: &Summary, slots: Slots) {
        if settings.on_trial {
            self.metrics.get_or_insert_with(|| Source::begin(history)).look(settings.guard, slots, settings.alone);
            self.weigh(settings.guard);
        }
    }

    /// Takes what a Prometheus has counted since the last look.
    pub fn look_at_series(&mut self, settings: Settings<'_>, history: &Summary, slots: Slots) {
        if settings.on_trial {
            self.prometheus.get_or_insert_with(|| Source::begin(history)).look(settings.guard, slots, settings.alone);
            self.weigh(settings.guard);
        }
    }

    /// What all bets together are worth now; they begin with 1.
    #[must_use]
    pub fn worth(&self, settings: &GuardSettings) -> f64 {
        self.weighed(settings).0
    }

    /// What the bets on failures are worth now, the largest of them: each begins with 1.
    #[must_use]
    pub fn failures_worth(&self) -> f64 {
        let others = self.metrics.iter().chain(&self.prometheus).map(|source| source.failures.guard.worth());
        others.fold(self.failures.guard.worth(), f64::max)
    }

    fn weighed(&self, settings: &GuardSettings) -> (f64, Signal) {
        let slow: Vec<f64> = self.slow.iter().flat_map(Slowness::worths).collect();
        signals::worth(settings.sources, |signal| match signal {
            Signal::Failures => self.failures.guard.worth(),
            Signal::Metrics => self.metrics.as_ref().map_or(1.0, Source::worth),
            Signal::Prometheus => self.prometheus.as_ref().map_or(1.0, Source::worth),
            Signal::Slow(quantile) => slow.get(quantile).copied().unwrap_or(1.0),
        })
    }

    fn weigh(&mut self, settings: &GuardSettings) {
        let (worth, largest) = self.weighed(settings);
        self.highest = Real::new(self.highest.get().max(worth));
        if self.named.is_none() && worth >= 1.0 / settings.alpha() {
            self.named = Some(largest);
        }
    }

    /// The rollout ends: what was counted since the last look is in the proof, too. Of the readings nothing is kept.
    pub fn close(&mut self, traffic: &Traffic, now: Moment) {
        self.proof.capacity.close(now);
        self.proof.take(traffic, self.looked, now);
        self.looked = Some(now);
        self.meters = Meters::default();
        (self.counters, self.series) = (Counters::default(), Series::default());
        self.memory.growth.rest();
    }

    /// Whether anything was looked at.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        let read = self.counters != Counters::default() || self.series != Series::default();
        self.looked.is_some() || self.memory != Memory::default() || self.proof.probes != Probes::default() || read
    }

    fn note_worst(&mut self, traffic: &Traffic) {
        for ((whose, member), counts) in traffic.slots.iter() {
            let most = self.worst.as_ref().map_or(0, |(_, errors)| *errors);
            if *whose == Whose::New && counts.errors > most {
                self.worst = Some((member.host.clone(), counts.errors));
            }
        }
    }

    /// The host where most failures of the new release were in one look.
    #[must_use]
    pub fn worst_host(&self) -> Option<&HostName> {
        self.worst.as_ref().map(|(host, _)| host)
    }

    /// What speaks against the new release, and on which host most of it was seen; None while that may be chance.
    #[must_use]
    pub fn verdict(&self, new: &str, old: &str) -> Option<(HostName, Problem)> {
        let answers = match self.named {
            // It knows of no hosts.
            None | Some(Signal::Prometheus) => None,
            Some(Signal::Failures) => self.worst.as_ref().map(|(host, _)| (host.clone(), self.fails(new, old))),
            Some(Signal::Metrics) => self.metrics.as_ref().and_then(|source| {
                let worst: MemberKey = source.worst()?.parse().ok()?;
                Some((worst.host, self.fails_by(source, "by its own metrics", new, old)))
            }),
            Some(Signal::Slow(quantile)) => self.slower(quantile, new, old),
        };
        answers.or_else(|| self.memory.verdict(new, old))
    }

    /// What speaks against the new release by a Prometheus.
    #[must_use]
    pub fn verdict_of_prometheus(&self, new: &str, old: &str) -> Option<Problem> {
        let source = self.prometheus.as_ref().filter(|_| self.named == Some(Signal::Prometheus))?;
        let worst = source.worst().filter(|worst| !worst.is_empty());
        let worst = worst.map_or_else(String::new, |worst| format!(", most of them at {worst}"));
        Some(self.fails_by(source, &format!("by Prometheus{worst}"), new, old))
    }

    fn fails(&self, new: &str, old: &str) -> Problem {
        self.failed(&self.failures, "by the load balancer", (new, self.proof.new), (old, self.proof.old))
    }

    fn fails_by(&self, source: &Source, by: &str, new: &str, old: &str) -> Problem {
        self.failed(&source.failures, by, (new, source.new), (old, source.old))
    }

    fn failed(&self, by: &Failures, whom: &str, new: (&str, Counts), old: (&str, Counts)) -> Problem {
        let failed = |counts: Counts| format!("{} of {} requests failed", counts.errors, counts.requests);
        let compared = match by.alone() {
            Some((_, past)) => (format!("{}, before", old.0), failed(past)),
            None => (format!("{}, meanwhile", old.0), failed(old.1)),
        };
        Problem::new(WORSE, format!("{} fails more often than {}", new.0, old.0))
            .saw(new.0, failed(new.1))
            .saw(compared.0, compared.1)
            .saw("chance", self.chance())
            .saw("counted", format!("{}, {whom}", by.unit.unwrap_or(Unit::Requests).words()))
            .help("look at the new release's own log for what it answered")
    }

    fn slower(&self, quantile: usize, new: &str, old: &str) -> Option<(HostName, Problem)> {
        let slow = self.slow.as_ref()?;
        let (tail, (host, bound)) = (slow.tail(quantile)?, slow.worst(quantile)?);
        let took = |counts: Counts| format!("{} of {} answers were slow", counts.errors, counts.requests);
        let percent = QUANTILES.get(quantile).copied().unwrap_or_default() / 10;
        let usual = format!("{percent} % of {old}'s answers took a quarter less before the rollout, or still less");
        let problem = Problem::new(SLOWER, format!("{new} answers more slowly than {old}"))
            .saw(new, took(tail.new))
            .saw(format!("{old}, meanwhile"), took(tail.old))
            .saw("slow", format!("more than {} on {host}: {usual}", humantime::format_duration(bound)))
            .saw("chance", self.chance())
            .help("compare what the new release does for a request with the old one");
        Some((host.clone(), problem))
    }

    /// How surprising it would be.
    #[must_use]
    pub fn chance(&self) -> String {
        if self.highest.get() <= 1.0 {
            return "nothing so far speaks against the new release".to_owned();
        }
        let share = Share((1.0 / self.highest.get()).max(LEAST));
        format!("if both were equally good, a gap like this would appear in at most {share} of rollouts")
    }

    /// How many requests the gate has and needs, while it is not passed.
    #[must_use]
    pub fn missing(&self, settings: &GateSettings) -> Option<(u64, u64)> {
        let has = self.proof.new.requests;
        let to_go = self.gate.requests_to_go(settings, self.past_requests);
        (!self.gate.passed()).then_some((has, has.saturating_add(to_go)))
    }

    /// The smallest share of failures that would have been noticed with the traffic so far.
    #[must_use]
    pub fn would_have_caught(&self, settings: &GuardSettings) -> Option<f64> {
        let alone = self.failures.alone().map_or(Alone::NOBODY, |(requests, past)| Alone { requests, past });
        catches_with(settings, guess(self.past_requests), self.traffic(), alone)
    }

    /// How soon a release that fails at this share would be noticed, at the traffic so far.
    #[must_use]
    pub fn would_notice(&self, settings: &GuardSettings, share: f64) -> Option<Duration> {
        notice::within(settings, self.past_requests, self.traffic(), self.proof.mixed()?, share)
    }

    fn traffic(&self) -> Poll {
        let beside = self.failures.compared();
        if beside.new.requests > 0 || self.failures.alone().is_some() {
            return beside;
        }
        // As versions before have stored it.
        let requests = |counts: Counts| Counts::new(counts.requests, 0);
        Poll { new: requests(self.proof.new), old: requests(self.proof.old) }
    }
}

/// Whether a code stands for what gets worse while a release runs.
#[must_use]
pub fn gets_worse(code: Code) -> bool {
    is_verdict(code) || code == GROWS
}

/// Whether a code is the guard's word on what a release answers.
#[must_use]
pub fn is_verdict(code: Code) -> bool {
    [WORSE, SLOWER].contains(&code)
}

/// Requests of a new release that are held against what the old one did before.
#[derive(Debug, Clone, Copy)]
struct Alone {
    requests: u64,
    past: Counts,
}

impl Alone {
    const NOBODY: Self = Self { requests: 0, past: Counts { requests: 0, errors: 0 } };
}

/// The smallest share of failures of the new release that this much traffic would show, where the old one fails at `old`.
#[must_use]
pub fn catches(settings: &GuardSettings, old: f64, traffic: Poll) -> Option<f64> {
    catches_with(settings, old, traffic, Alone::NOBODY)
}

fn catches_with(settings: &GuardSettings, old: f64, traffic: Poll, alone: Alone) -> Option<f64> {
    let border = Border { ratio: settings.ratio(), margin: settings.margin() };
    let beside = |new: f64| {
        let rates = Rates { old, new };
        let both = traffic.new.requests > 0 && traffic.old.requests > 0 && new > border.at(old);
        if both { expected(rates, border.nearest(rates, traffic), traffic) } else { 0.0 }
    };
    let later = |new: f64| {
        let most = before(border, alone.past, 1.0).filter(|most| alone.requests > 0 && new > *most);
        let traffic = Poll { new: Counts::new(alone.requests, 0), old: Counts::default() };
        most.map_or(0.0, |most| expected(Rates { old: most, new }, Rates { old: most, new: most }, traffic))
    };
    let notices = |new: f64| beside(new) + later(new) >= notice::worth(settings).ln();
    if !notices(1.0 - 1e-9) {
        return None;
    }
    let (mut low, mut high) = (old, 1.0);
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        *(if notices(middle) { &mut high } else { &mut low }) = middle;
    }
    Some(high)
}
