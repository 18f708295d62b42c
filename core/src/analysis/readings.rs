//! The last reading of every counter of a balancer's pool, as it is held and as it is stored.

use super::bytes::{Reader, Writer};
use super::mark::Mark;
use super::meters::Whose;
use super::packed::Packed;
use super::rows::Rows;
use crate::fleet::MemberKey;
use crate::fleet::latency::Latency;
use crate::fleet::report::MemberReport;
use crate::fleet::spec::MemberState;
use crate::time::Moment;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// One balancer's counters of one pool, as they were read: whoever keeps them shares them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Unpacked", into = "Unpacked")]
pub(super) struct Panel(pub(super) Arc<Readings>);

/// What is held of them, mostly of services at rest: numbers, and beside them whose they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Readings {
    pub(super) process: Mark,
    /// When.
    pub(super) at: Moment,
    /// The same from one reading to the next, while nobody comes or goes.
    pub(super) members: Arc<[MemberKey]>,
    /// In the members' order.
    pub(super) numbers: Box<[u8]>,
    /// Members that are not among them any more; None: mostly.
    pub(super) gone: Option<Box<Rows<MemberKey, Gone>>>,
}

/// A member that a balancer said nothing more of: it may come back with its counters as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gone {
    pub(super) last: Reading,
    /// When that was.
    pub(super) at: Moment,
    /// What it counted up to now is no longer asked for: a rollout began since, or ended.
    pub(super) earlier: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Row")]
pub(super) struct Reading {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) cut: u64,
    pub(super) whose: Whose,
    pub(super) latency: Option<Latency>,
    /// Of the requests in flight.
    pub(super) oldest: Option<Duration>,
    /// It was out, and nothing was in flight: there was nothing more to count.
    pub(super) quiet: bool,
}

impl Gone {
    /// Whether something may have been counted that nobody read.
    pub(super) const fn may_have_counted(&self) -> bool {
        !self.last.quiet && !self.earlier
    }
}

/// What is stored.
#[derive(Serialize, Deserialize)]
struct Unpacked {
    process: Mark,
    #[serde(default)]
    at: Moment,
    members: Rows<MemberKey, Reading>,
    #[serde(default, skip_serializing_if = "Rows::is_empty")]
    gone: Rows<MemberKey, Gone>,
    /// Of both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    quiet: Vec<MemberKey>,
}

impl Unpacked {
    fn readings(&mut self) -> impl Iterator<Item = (&MemberKey, &mut Reading)> {
        let gone = self.gone.iter_mut().map(|(key, gone)| (key, &mut gone.last));
        self.members.iter_mut().chain(gone)
    }
}

impl From<Unpacked> for Panel {
    fn from(mut unpacked: Unpacked) -> Self {
        let quiet = std::mem::take(&mut unpacked.quiet);
        unpacked.readings().for_each(|(key, reading)| reading.quiet |= quiet.contains(key));
        let Unpacked { process, at, members, gone, .. } = unpacked;
        let mut numbers = Writer::default();
        members.values().for_each(|reading| reading.write(&mut numbers));
        let gone = (!gone.is_empty()).then(|| Box::new(gone));
        let (members, numbers) = (members.keys().cloned().collect(), numbers.done());
        Self(Arc::new(Readings { process, at, members, numbers, gone }))
    }
}

impl From<Panel> for Unpacked {
    fn from(panel: Panel) -> Self {
        let Readings { process, at, members, numbers, gone } = &*panel.0;
        let mut numbers = Reader::of(numbers);
        let members = members.iter().map(|key| (key.clone(), Reading::read(&mut numbers))).collect();
        let gone = gone.as_deref().cloned().unwrap_or_default();
        let mut unpacked = Self { process: *process, at: *at, members, gone, quiet: Vec::new() };
        let quiet = unpacked.readings().filter(|(_, reading)| reading.quiet).map(|(key, _)| key.clone());
        unpacked.quiet = quiet.collect();
        unpacked
    }
}

impl Panel {
    /// In the place of what was read before, where nobody shares it: mostly it takes as much.
    pub(super) fn renew(&mut self, mut readings: Readings, numbers: Writer) {
        match Arc::get_mut(&mut self.0) {
            Some(before) => {
                std::mem::swap(&mut readings.numbers, &mut before.numbers);
                numbers.take_the_place_of(&mut readings.numbers);
                *before = readings;
            }
            None => {
                readings.numbers = numbers.done();
                self.0 = Arc::new(readings);
            }
        }
    }

    /// From now on whoever is there is the old release.
    pub(super) fn relabelled(self) -> Self {
        let mut unpacked = Unpacked::from(self);
        unpacked.readings().for_each(|(_, reading)| reading.whose = Whose::Old);
        unpacked.gone.values_mut().for_each(|gone| gone.earlier = true);
        unpacked.into()
    }
}

/// The readings of before, in the order of the members.
pub(super) struct Known<'a> {
    members: &'a [MemberKey],
    numbers: Reader<'a>,
    /// Those that were passed over: they are no longer there.
    pub(super) lost: Vec<(MemberKey, Reading)>,
}

impl<'a> Known<'a> {
    pub(super) fn of(readings: Option<&'a Readings>) -> Self {
        let (members, numbers) = readings.map_or((&[][..], &[][..]), |before| (&*before.members, &*before.numbers));
        Self { members, numbers: Reader::of(numbers), lost: Vec::new() }
    }

    /// What was read of a member.
    pub(super) fn next(&mut self, key: &MemberKey) -> Option<Reading> {
        while let Some((first, rest)) = self.members.split_first().filter(|(first, _)| *first <= key) {
            self.members = rest;
            let reading = Reading::read(&mut self.numbers);
            if first == key {
                return Some(reading);
            }
            self.lost.push((first.clone(), reading));
        }
        None
    }

    /// Nobody else is there: those that are no longer, and were when they were read last.
    pub(super) fn end_at(self, at: Moment) -> Vec<(MemberKey, Gone)> {
        let Self { members, mut numbers, lost } = self;
        let rest = members.iter().map(|key| (key.clone(), Reading::read(&mut numbers)));
        lost.into_iter().chain(rest).map(|(key, last)| (key, Gone { last, at, earlier: false })).collect()
    }
}

/// There is one of each member of each service: its numbers are stored in their order, without their names.
type Row = (u64, u64, u64, Whose, Option<Packed>, Option<Duration>);

/// As it is written now, and as it once was.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Row(Row),
    Named {
        requests: u64,
        errors: u64,
        cut: u64,
        whose: Whose,
        #[serde(default)]
        latency: Option<Packed>,
        #[serde(default)]
        oldest: Option<Duration>,
    },
}

impl From<Stored> for Reading {
    fn from(stored: Stored) -> Self {
        let (Stored::Row((requests, errors, cut, whose, latency, oldest))
        | Stored::Named { requests, errors, cut, whose, latency, oldest }) = stored;
        Self { requests, errors, cut, whose, latency: latency.as_ref().map(Packed::latency), oldest, quiet: false }
    }
}

impl From<Reading> for Row {
    fn from(it: Reading) -> Self {
        (it.requests, it.errors, it.cut, it.whose, it.latency.as_ref().map(Packed::from), it.oldest)
    }
}

/// What is in the first number of a reading beside whose it is.
const LATENCY: u64 = 4;
const OLDEST: u64 = 8;
const QUIET: u64 = 16;

impl Reading {
    pub(super) fn of(member: &MemberReport, whose: Whose) -> Self {
        let MemberReport { requests, errors, cut, ref latency, oldest, .. } = *member;
        let quiet = member.running == MemberState::Out && member.in_flight == 0;
        Self { requests, errors, cut, whose, latency: latency.as_deref().cloned(), oldest, quiet }
    }

    /// Whether this is what a balancer says of a member that it does not have, though it once did.
    pub(super) fn is_missing_in(&self, member: &MemberReport) -> bool {
        let has = self.requests > 0 || self.errors > 0;
        has && member.running == MemberState::Out && (member.requests, member.errors) == (0, 0)
    }

    pub(super) fn write(&self, numbers: &mut Writer) {
        let has = |is: bool, what: u64| if is { what } else { 0 };
        let what = has(self.latency.is_some(), LATENCY) | has(self.oldest.is_some(), OLDEST) | has(self.quiet, QUIET);
        numbers.number(self.whose as u64 | what);
        [self.requests, self.errors, self.cut].into_iter().for_each(|number| numbers.number(number));
        self.latency.iter().for_each(|latency| numbers.latency(latency));
        if let Some(oldest) = self.oldest {
            numbers.number(oldest.as_secs());
            numbers.number(oldest.subsec_nanos().into());
        }
    }

    fn read(numbers: &mut Reader<'_>) -> Self {
        let what = numbers.number();
        let whose = match what % LATENCY {
            0 => Whose::Old,
            1 => Whose::New,
            _ => Whose::Other,
        };
        let [requests, errors, cut] = [(); 3].map(|()| numbers.number());
        let latency = (what & LATENCY > 0).then(|| numbers.latency());
        let oldest = (what & OLDEST > 0).then(|| Duration::from_secs(numbers.number()));
        let oldest = oldest.map(|secs| secs.saturating_add(Duration::from_nanos(numbers.number())));
        Self { requests, errors, cut, whose, latency, oldest, quiet: what & QUIET > 0 }
    }
}
