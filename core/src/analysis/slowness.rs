//! Slower answers: how many of each release's took longer than the old one's own did before the rollout.
//!
//! The bounds are the old release's median, ninth tenth and ninety-ninth hundredth, frozen as the rollout begins, and host by
//! host: a slow machine is no evidence against the release that runs there. What is compared is counts, both releases at the
//! same time, so a database that slows both speaks against neither, and the guard's bet serves here, too.

use super::counts::{Counts, Poll};
use super::guard::{Caution, Guard};
use super::meters::{Traffic, Whose};
use super::real::Real;
use super::settings::GuardSettings;
use crate::fleet::MemberKey;
use crate::fleet::latency::{BOUNDS_MS, BUCKETS, Latency};
use crate::name::HostName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is frozen of the old release's latency, of a thousand answers.
pub const QUANTILES: [u16; 3] = [500, 900, 990];

/// So many answers say how long a release usually takes.
const ENOUGH: u64 = 100;
/// Up to this much more is no slowness, and neither is the width of a bucket.
const SLACK: f64 = 1.25;
/// Slots that are taken for granted before any was seen, and twice as uneven as chance would have them.
const GRANTED: (f64, f64) = (10.0, 2.0);
/// So many answers at most is the word of the time before worth.
const KNOWN: u64 = 500;
/// Of more slots the older ones count half.
const SLOTS: u32 = 2000;

/// What one look may multiply a bet by: a pause of one instance slows many answers, and is one event. Two such looks are never
/// enough, and three are, also where less than a third of what is bet is on the right alternative.
const MOST: f64 = 15.0;

/// What is usual: by quantile, the last bucket whose answers are not slow, and how many are beyond it all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks([Mark; QUANTILES.len()]);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u8, u64, u64)", into = "(u8, u64, u64)")]
struct Mark {
    bucket: u8,
    usual: Counts,
}

/// How long a service at rest takes, by host. It fades, and is not stored: a rollout freezes what it needs of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pace {
    hosts: BTreeMap<HostName, Latency>,
    takes: u32,
    /// What was frozen of it last, to see how unevenly slow answers are spread.
    usual: Slowness,
}

/// Ten minutes of looks; then what came before counts half.
const FADES: u32 = 300;
/// Looks from one freezing of what is usual to the next.
const REFREEZE: u32 = 30;

/// What a rollout remembers of how long its answers took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slowness {
    hosts: BTreeMap<HostName, Marks>,
    everywhere: Option<Marks>,
    /// The old release's answers in the rollout itself, until they say how long it usually takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    gathered: Option<Latency>,
    tails: [Tail; QUANTILES.len()],
}

/// One quantile's count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    guard: Guard,
    pub new: Counts,
    pub old: Counts,
    /// How unevenly the old release's slow answers are spread over its members and looks: squares in units of chance, and
    /// of how many.
    squares: Real,
    slots: u32,
    /// Where most slow answers of the new release were in one look.
    worst: Option<(HostName, u64)>,
}

impl Marks {
    /// None where too little is known.
    #[must_use]
    pub fn of(latency: &Latency) -> Option<Self> {
        if latency.total() < ENOUGH {
            return None;
        }
        let mut marks = [Mark::default(); QUANTILES.len()];
        for (mark, per_mille) in marks.iter_mut().zip(QUANTILES) {
            let most = latency.about(per_mille)? * SLACK;
            let bucket = BOUNDS_MS.partition_point(|bound| (*bound as f64) < most).min(BUCKETS - 1);
            mark.bucket = u8::try_from(bucket).unwrap_or(u8::MAX);
            mark.usual = mark.slow(latency);
        }
        Some(Self(marks))
    }

    /// Longer than this is slow; None where nothing is.
    #[must_use]
    pub fn bound(self, quantile: usize) -> Option<Duration> {
        let bound = BOUNDS_MS.get(usize::from(self.0.get(quantile)?.bucket))?;
        Some(Duration::from_millis(*bound))
    }
}

impl From<(u8, u64, u64)> for Mark {
    fn from((bucket, requests, errors): (u8, u64, u64)) -> Self {
        Self { bucket, usual: Counts::new(requests, errors) }
    }
}

impl From<Mark> for (u8, u64, u64) {
    fn from(mark: Mark) -> Self {
        (mark.bucket, mark.usual.requests, mark.usual.errors)
    }
}

impl Mark {
    fn slow(self, latency: &Latency) -> Counts {
        let beyond = latency.counts().iter().skip(usize::from(self.bucket) + 1);
        Counts::new(latency.total(), beyond.fold(0, |sum: u64, count| sum.saturating_add(*count)))
    }

    /// What is usual here, as much (or, with -1, as little) as chance may hide.
    fn usually(self, sign: f64) -> f64 {
        let slow = self.usual.errors as f64;
        let beyond = slow + sign * (slow + 1.0).sqrt() + f64::from(sign > 0.0);
        beyond.max(0.5) / self.usual.requests.max(1) as f64
    }
}

impl Pace {
    /// Takes one look at a service at rest.
    pub fn take(&mut self, traffic: &Traffic) {
        self.takes += 1;
        if self.takes >= FADES {
            self.takes = 0;
            self.hosts.values_mut().for_each(Latency::halve);
            self.hosts.retain(|_, latency| latency.total() > 0);
        }
        if self.takes.is_multiple_of(REFREEZE) {
            self.usual = self.freeze();
        }
        self.usual.spread(traffic);
        for ((whose, member), latency) in &traffic.latencies {
            if *whose == Whose::Old {
                *self.hosts.entry(member.host.clone()).or_default() += latency;
            }
        }
    }

    /// What a rollout that begins now compares with; None where nobody counts how long answers take.
    #[must_use]
    pub fn frozen(&self) -> Option<Slowness> {
        (!self.hosts.is_empty()).then(|| self.freeze())
    }

    fn freeze(&self) -> Slowness {
        let mut everywhere = Latency::default();
        self.hosts.values().for_each(|latency| everywhere += latency);
        let hosts = self.hosts.iter().filter_map(|(host, latency)| Some((host.clone(), Marks::of(latency)?)));
        let tails = self.usual.tails.each_ref().map(Tail::begun);
        Slowness { hosts: hosts.collect(), everywhere: Marks::of(&everywhere), gathered: None, tails }
    }
}

impl Slowness {
    /// Takes one look at both releases.
    pub fn look(&mut self, settings: &GuardSettings, traffic: &Traffic) {
        if self.everywhere.is_none() {
            self.gather(traffic);
            return;
        }
        for quantile in 0..QUANTILES.len() {
            let (new, old) = (self.slots(traffic, Whose::New, quantile), self.slots(traffic, Whose::Old, quantile));
            if let Some(tail) = self.tails.get_mut(quantile) {
                tail.look(settings, &new, &old);
            }
        }
    }

    /// Takes one look at a service at rest.
    fn spread(&mut self, traffic: &Traffic) {
        for quantile in 0..QUANTILES.len() {
            let old = self.slots(traffic, Whose::Old, quantile);
            if let Some(tail) = self.tails.get_mut(quantile) {
                tail.spread(&old);
            }
        }
    }

    /// Nothing is known from before: the first answers of the old release say how long it usually takes. None of them is
    /// judged by what it helped to say.
    fn gather(&mut self, traffic: &Traffic) {
        let gathered = self.gathered.get_or_insert_default();
        for ((_, _), latency) in traffic.latencies.iter().filter(|((whose, _), _)| *whose == Whose::Old) {
            *gathered += latency;
        }
        self.everywhere = Marks::of(gathered);
        if self.everywhere.is_some() {
            self.gathered = None;
        }
    }

    fn slots<'a>(&self, traffic: &'a Traffic, of: Whose, quantile: usize) -> Vec<Slot<'a>> {
        let latencies = traffic.latencies.iter().filter(|((whose, _), _)| *whose == of);
        let slot = |((_, member), latency): (&'a (Whose, MemberKey), &Latency)| {
            let mark = *self.marks(&member.host)?.0.get(quantile)?;
            Some(Slot { host: &member.host, counts: mark.slow(latency), mark })
        };
        latencies.filter_map(slot).collect()
    }

    fn marks(&self, host: &HostName) -> Option<Marks> {
        self.hosts.get(host).copied().or(self.everywhere)
    }

    /// What the bet on each quantile is worth.
    pub fn worths(&self) -> impl Iterator<Item = f64> {
        self.tails.iter().map(|tail| tail.guard.worth())
    }

    #[must_use]
    pub fn tail(&self, quantile: usize) -> Option<&Tail> {
        self.tails.get(quantile)
    }

    /// Where most of a quantile's slow answers were, and what is slow there.
    #[must_use]
    pub fn worst(&self, quantile: usize) -> Option<(&HostName, Duration)> {
        let (host, _) = self.tails.get(quantile)?.worst.as_ref()?;
        Some((host, self.marks(host)?.bound(quantile)?))
    }
}

/// A member and a look.
#[derive(Debug, Clone, Copy)]
struct Slot<'a> {
    host: &'a HostName,
    counts: Counts,
    mark: Mark,
}

impl Tail {
    fn look(&mut self, settings: &GuardSettings, new: &[Slot<'_>], old: &[Slot<'_>]) {
        let poll = Poll { new: sum(new), old: sum(old) };
        let caution = Caution { phi: self.unevenness(), most: MOST };
        let mut past = usually(old);
        past += self.old;
        self.guard.bet(&allowing(settings, new, old), past, poll, caution);
        self.spread(old);
        self.new += poll.new;
        self.old += poll.old;
        for slot in new {
            if slot.counts.errors > self.worst.as_ref().map_or(0, |(_, most)| *most) {
                self.worst = Some((slot.host.clone(), slot.counts.errors));
            }
        }
    }

    /// How much likelier slow answers make others, at the same member and time: 1 where they do not.
    fn unevenness(&self) -> f64 {
        let (granted, uneven) = GRANTED;
        ((granted * uneven + self.squares.get()) / (granted + f64::from(self.slots))).max(1.0)
    }

    fn spread(&mut self, slots: &[Slot<'_>]) {
        for slot in slots {
            let usual = slot.mark.usual.share().unwrap_or(0.0).clamp(1e-4, 1.0 - 1e-4);
            let expected = slot.counts.requests as f64 * usual;
            if expected > 0.0 {
                let square = (slot.counts.errors as f64 - expected).powi(2) / (expected * (1.0 - usual));
                self.squares = Real::new(self.squares.get() + square);
                self.slots = self.slots.saturating_add(1);
            }
        }
        if self.slots > SLOTS {
            self.slots /= 2;
            self.squares = Real::new(self.squares.get() / 2.0);
        }
    }

    /// What a rollout begins with.
    fn begun(&self) -> Self {
        Self { squares: self.squares, slots: self.slots, ..Self::default() }
    }
}

/// Hosts differ in how many of their answers are beyond a mark that is the bound of a bucket: this much is no difference
/// between the releases, and neither is what the few answers of before leave open.
fn allowing(settings: &GuardSettings, new: &[Slot<'_>], old: &[Slot<'_>]) -> GuardSettings {
    let usual = |slots: &[Slot<'_>], sign: f64| {
        let all = sum(slots).requests.max(1) as f64;
        slots.iter().map(|slot| slot.counts.requests as f64 * slot.mark.usually(sign)).sum::<f64>() / all
    };
    let one = new.iter().chain(old).all(|slot| new.first().is_some_and(|first| first.mark == slot.mark));
    let apart = if one { 1.0 } else { (usual(new, 1.0) / usual(old, -1.0).max(1e-9)).max(1.0) };
    let ratio = (f64::from(settings.ratio_percent) * apart).ceil().min(1e6);
    GuardSettings { ratio_percent: ratio as u32, ..*settings }
}

/// What is known of these slots from before: a guess that is better than none, and soon outweighed where it is wrong.
fn usually(slots: &[Slot<'_>]) -> Counts {
    let all = sum(slots).requests.max(1) as f64;
    let share = |slot: &Slot<'_>| slot.counts.requests as f64 / all * slot.mark.usual.share().unwrap_or(0.0);
    Counts::new(KNOWN, (slots.iter().map(share).sum::<f64>() * KNOWN as f64) as u64)
}

fn sum(slots: &[Slot<'_>]) -> Counts {
    let mut sum = Counts::default();
    slots.iter().for_each(|slot| sum += slot.counts);
    sum
}
