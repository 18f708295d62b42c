//! Slower answers: how many of each release's took longer than the old one's own did before the rollout.
//!
//! The bounds are the old release's median, ninth tenth and ninety-ninth hundredth, frozen as the rollout begins, and host by
//! host: a slow machine is no evidence against the release that runs there. What is compared is counts, both releases at the
//! same time, so a database that slows both speaks against neither, and the guard's bet serves here, too.

use super::bytes::{Reader, Writer};
use super::counts::{Counts, Poll};
use super::guard::{Caution, Guard};
use super::judgement::is_default;
use super::late::Late;
use super::meters::{Traffic, Whose};
use super::packed::Packed;
use super::quantiles::{Mark, Marks, QUANTILES, few};
use super::real::Real;
use super::rows::Rows;
use super::settings::GuardSettings;
use super::signals::SLOW;
use crate::fleet::latency::Latency;
use crate::name::HostName;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Slots that are taken for granted before any was seen, and twice as uneven as chance would have them.
const GRANTED: (f64, f64) = (10.0, 2.0);
/// So many answers at most is the word of the time before worth.
const KNOWN: u64 = 500;
/// Of more slots the older ones count half.
const SLOTS: u32 = 2000;

/// What one look may multiply a bet by: a pause of one instance slows many answers, and is one event. Two such looks are never
/// enough, and three are, also where less than a third of what is bet is on the right alternative.
const MOST: f64 = 15.0;
/// Where nobody answers beside the new release, its caches may be cold everywhere at once: it has to be slow for some twenty
/// seconds.
const MOST_ALONE: f64 = 2.0;

/// How long a service at rest takes, by host. It fades, and is not stored: a rollout freezes what it needs of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pace {
    hosts: Arc<[HostName]>,
    /// What is known of them, in their order, after what is known of all.
    numbers: Box<[u8]>,
    takes: u32,
}

/// What its numbers say.
struct Paced {
    spreads: [Spread; QUANTILES.len()],
    /// What was frozen of all of them last.
    everywhere: Option<Marks>,
    hosts: Rows<HostName, Known>,
}

/// A host's.
#[derive(Default)]
struct Known {
    latency: Latency,
    /// What was frozen of it last, to see how unevenly slow answers are spread.
    marks: Option<Marks>,
}

/// Bytes that are there before they are needed: counts grow.
const ROOM: usize = 8;

/// Ten minutes of looks; then what came before counts half.
const FADES: u32 = 300;
/// Looks from one freezing of what is usual to the next.
const REFREEZE: u32 = 30;

/// What a rollout remembers of how long its answers took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slowness {
    #[serde(flatten)]
    usual: Usual,
    /// The old release's answers in the rollout itself, until they say how long it usually takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    gathered: Option<Packed>,
    tails: [Tail; QUANTILES.len()],
    /// The new release's answers while nothing led to the old one.
    #[serde(skip_serializing_if = "is_default")]
    late: [Late; QUANTILES.len()],
}

/// How long the old release usually takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Usual {
    hosts: Rows<HostName, Marks>,
    everywhere: Option<Marks>,
}

/// How unevenly the old release's slow answers are spread over its members and looks: squares in units of chance, and of how
/// many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Spread {
    squares: Real,
    slots: u32,
}

/// One quantile's count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredTail", into = "TailRow")]
pub struct Tail {
    guard: Guard,
    pub new: Counts,
    pub old: Counts,
    spread: Spread,
    /// Where most slow answers of the new release were in one look.
    worst: Option<(HostName, u64)>,
}

/// A tail's numbers in their order.
type TailRow = (Guard, Counts, Counts, Real, u32, Option<(HostName, u64)>);

/// As it is written now, and as it once was.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredTail {
    Row(TailRow),
    Named { guard: Guard, new: Counts, old: Counts, squares: Real, slots: u32, worst: Option<(HostName, u64)> },
}

impl From<StoredTail> for Tail {
    fn from(stored: StoredTail) -> Self {
        let (StoredTail::Row((guard, new, old, squares, slots, worst))
        | StoredTail::Named { guard, new, old, squares, slots, worst }) = stored;
        Self { guard, new, old, spread: Spread { squares, slots }, worst }
    }
}

impl From<Tail> for TailRow {
    fn from(it: Tail) -> Self {
        (it.guard, it.new, it.old, it.spread.squares, it.spread.slots, it.worst)
    }
}

impl Pace {
    /// Takes one look at a service at rest.
    pub fn take(&mut self, traffic: &Traffic) {
        let Paced { mut spreads, mut everywhere, mut hosts } = self.unpacked();
        self.takes += 1;
        if self.takes >= FADES {
            self.takes = 0;
            hosts.retain(|_, known| {
                known.latency.halve();
                known.latency.total() > 0
            });
        }
        if self.takes.is_multiple_of(REFREEZE) {
            everywhere = marks_of_all(&hosts);
            hosts.values_mut().for_each(|known| known.marks = Marks::of(&known.latency));
        }
        let marks = hosts.iter().map(|(host, known)| (host, known.marks));
        let slots = slots(marks, everywhere, traffic, Whose::Old);
        spreads.iter_mut().zip(&slots).for_each(|(spread, slots)| spread.take(slots));
        for ((_, member), latency) in traffic.took(Whose::Old) {
            hosts.entry(member.host.clone()).latency += latency;
        }
        self.pack(&Paced { spreads, everywhere, hosts });
    }

    fn unpacked(&self) -> Paced {
        let mut numbers = Reader::of(&self.numbers);
        let spreads = [(); QUANTILES.len()].map(|()| Spread::read(&mut numbers));
        let everywhere = Marks::read(&mut numbers);
        let hosts = self.hosts.iter().map(|host| (host.clone(), Known::read(&mut numbers))).collect();
        Paced { spreads, everywhere, hosts }
    }

    fn pack(&mut self, Paced { spreads, everywhere, hosts }: &Paced) {
        if !hosts.keys().eq(self.hosts.iter()) {
            self.hosts = hosts.keys().cloned().collect();
        }
        let mut numbers = Writer::for_about(self.numbers.len() + ROOM);
        spreads.iter().for_each(|spread| spread.write(&mut numbers));
        Marks::write(*everywhere, &mut numbers);
        hosts.values().for_each(|known| known.write(&mut numbers));
        numbers.take_the_place_of(&mut self.numbers);
    }

    /// What a rollout that begins now compares with; None where nobody counts how long answers take.
    #[must_use]
    pub fn frozen(&self) -> Option<Slowness> {
        let Paced { spreads, hosts, .. } = self.unpacked();
        let tails = spreads.map(|spread| Tail { spread, ..Tail::default() });
        let marks = hosts.iter().filter_map(|(host, known)| Some((host.clone(), Marks::of(&known.latency)?)));
        let usual = Usual { hosts: marks.collect(), everywhere: marks_of_all(&hosts) };
        (!hosts.is_empty()).then_some(Slowness { usual, tails, ..Slowness::default() })
    }
}

fn marks_of_all(hosts: &Rows<HostName, Known>) -> Option<Marks> {
    let mut everywhere = Latency::default();
    hosts.values().for_each(|known| everywhere += &known.latency);
    Marks::of(&everywhere)
}

impl Known {
    fn write(&self, numbers: &mut Writer) {
        numbers.latency(&self.latency);
        Marks::write(self.marks, numbers);
    }

    fn read(numbers: &mut Reader<'_>) -> Self {
        Self { latency: numbers.latency(), marks: Marks::read(numbers) }
    }
}

impl Slowness {
    /// Takes one look at both releases. `alone`: nothing leads to the old one any more.
    pub fn look(&mut self, settings: &GuardSettings, traffic: &Traffic, alone: bool) {
        if self.usual.everywhere.is_none() {
            self.gather(traffic);
            return;
        }
        let [new, old] = [Whose::New, Whose::Old].map(|whose| self.usual.slots(traffic, whose));
        if alone && old.iter().all(Vec::is_empty) {
            for ((late, tail), new) in self.late.iter_mut().zip(&mut self.tails).zip(&new) {
                tail.look_alone(late, settings, new);
            }
            return;
        }
        for ((tail, new), old) in self.tails.iter_mut().zip(&new).zip(&old) {
            tail.look(settings, new, old);
        }
    }

    /// Nothing is known from before: the first answers of the old release say how long it usually takes. None of them is
    /// judged by what it helped to say.
    fn gather(&mut self, traffic: &Traffic) {
        let mut gathered = self.gathered.as_ref().map(Packed::latency).unwrap_or_default();
        for (_, latency) in traffic.took(Whose::Old) {
            gathered += latency;
        }
        self.usual.everywhere = Marks::of(&gathered);
        self.gathered = self.usual.everywhere.is_none().then(|| Packed::from(&gathered));
    }

    /// What is too little to go back for, and enough to ask a person: once.
    pub fn ask(&mut self, settings: &GuardSettings, new: &str, old: &str) -> Option<String> {
        let worths = || self.late.iter().zip(SLOW).map(|(late, weight)| late.worth() * weight);
        if self.late.iter().any(|late| late.asked) || worths().sum::<f64>() < 1.0 / settings.alpha() {
            return None;
        }
        let (largest, _) = worths().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let (host, bound) = self.worst(largest).map(|(host, bound)| (host.clone(), bound))?;
        let late = self.late.get_mut(largest)?;
        late.asked = true;
        let Counts { requests, errors } = late.new;
        let usual = self.usual.marks(&host)?.get(largest)?.usual;
        Some(format!(
            "{new} answers more slowly since nothing leads to {old} any more: {errors} of {requests} answers were slow, more than {} \
             on {host}; before, {} of {} of {old} were there; more traffic or an incident would look the same",
            humantime::format_duration(bound),
            usual.errors,
            usual.requests
        ))
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
        Some((host, self.usual.marks(host)?.bound(quantile)?))
    }
}

impl Usual {
    fn slots<'a>(&self, traffic: &'a Traffic, of: Whose) -> [Vec<Slot<'a>>; QUANTILES.len()] {
        slots(self.hosts.iter().map(|(host, marks)| (host, Some(*marks))), self.everywhere, traffic, of)
    }

    fn marks(&self, host: &HostName) -> Option<Marks> {
        self.hosts.get(host).copied().or(self.everywhere)
    }
}

/// Of each quantile: what each member of one side counted in this look. The hosts come in their order.
fn slots<'a, 'b>(
    hosts: impl Iterator<Item = (&'b HostName, Option<Marks>)>,
    everywhere: Option<Marks>,
    traffic: &'a Traffic,
    of: Whose,
) -> [Vec<Slot<'a>>; QUANTILES.len()] {
    let took = traffic.took(of);
    let mut slots = [(); QUANTILES.len()].map(|()| Vec::with_capacity(took.len()));
    let mut known = hosts.peekable();
    for ((_, member), latency) in took {
        while known.next_if(|(host, _)| **host < member.host).is_some() {}
        let own = known.peek().filter(|(host, _)| **host == member.host).and_then(|(_, marks)| *marks);
        let Some(marks) = own.or(everywhere) else { continue };
        for (quantile, slots) in slots.iter_mut().enumerate() {
            let slot = |mark: Mark| Slot { host: &member.host, counts: mark.of(latency), mark };
            slots.extend(marks.get(quantile).map(slot));
        }
    }
    slots
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
        let caution = Caution { phi: self.spread.unevenness(), most: MOST };
        let mut past = usually(old, KNOWN);
        past += self.old;
        self.guard.bet(&allowing(settings, new, old), past, poll, caution);
        self.spread.take(old);
        self.new += poll.new;
        self.old += poll.old;
        self.note_worst(new);
    }

    /// Nobody answers beside the new release: it is held against what is usual.
    fn look_alone(&mut self, late: &mut Late, settings: &GuardSettings, new: &[Slot<'_>]) {
        let poll = sum(new);
        let caution = Caution { phi: self.spread.unevenness(), most: MOST_ALONE };
        late.new += poll;
        late.look(settings, usually(new, known_of_all(new)), poll, caution);
        self.note_worst(new);
    }

    fn note_worst(&mut self, new: &[Slot<'_>]) {
        for slot in new {
            if slot.counts.errors > self.worst.as_ref().map_or(0, |(_, most)| *most) {
                self.worst = Some((slot.host.clone(), slot.counts.errors));
            }
        }
    }
}

impl Spread {
    fn write(&self, numbers: &mut Writer) {
        numbers.number((self.squares.get() as f32).to_bits().into());
        numbers.number(self.slots.into());
    }

    fn read(numbers: &mut Reader<'_>) -> Self {
        let squares = Real::new(f32::from_bits(few(numbers.number())).into());
        Self { squares, slots: few(numbers.number()) }
    }

    /// How much likelier slow answers make others, at the same member and time: 1 where they do not.
    fn unevenness(self) -> f64 {
        let (granted, uneven) = GRANTED;
        ((granted * uneven + self.squares.get()) / (granted + f64::from(self.slots))).max(1.0)
    }

    fn take(&mut self, slots: &[Slot<'_>]) {
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

/// How many answers say at least what is usual, for each of these slots.
fn known_of_all(slots: &[Slot<'_>]) -> u64 {
    slots.iter().map(|slot| slot.mark.usual.requests).min().unwrap_or(0)
}

/// What is known of these slots from before, as if from so many answers: a guess that is better than none, and soon outweighed where
/// it is wrong.
fn usually(slots: &[Slot<'_>], known: u64) -> Counts {
    let all = sum(slots).requests.max(1) as f64;
    let share = |slot: &Slot<'_>| slot.counts.requests as f64 / all * slot.mark.usual.share().unwrap_or(0.0);
    Counts::new(known, (slots.iter().map(share).sum::<f64>() * known as f64) as u64)
}

fn sum(slots: &[Slot<'_>]) -> Counts {
    let mut sum = Counts::default();
    slots.iter().for_each(|slot| sum += slot.counts);
    sum
}
