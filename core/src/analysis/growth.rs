//! How much the memory of instances grows, by their age.
//!
//! Of every half minute the least is kept: what a garbage collector takes away again is no growth. Growth is what that floor
//! rose by in four minutes. What a release's instances grew by at most at about an age is its curve: an instance that warms up
//! is compared with others that did.

use super::bytes::{Reader, Writer};
use super::mark::Mark;
use super::rows::Rows;
use crate::fleet::MemberKey;
use crate::fleet::report::{InstanceReport, InstanceState};
use crate::name::ReleaseId;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One floor each.
pub const STEP: Duration = Duration::from_secs(30);
/// Steps over which growth is measured: warming up has long slowed down, or is seen to.
pub const WINDOW: u32 = 8;
/// Floors that say enough of a window of nine: a report or two may be lost.
const FEWEST: usize = 7;
/// A silence of more steps than this is no window.
const GAP: u32 = 3;
/// What rises for ever falls by less than this part of what it rose by.
const FALL: u64 = 8;
/// In percent: the second half of a window grows by this much of what the first did, or it is on its way to an end.
const SUSTAINED: u64 = 80;
/// In half octaves: "about this age" is from half of it to twice as much.
const ABOUT: u32 = 2;

/// Bytes of all but the floors.
const ROOM: usize = 16;
/// Floors are told by how many steps they are before the one under way: by a bit each.
const TOLD: u32 = u64::BITS;

/// What is known of every instance of a service, and of the releases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Growth {
    releases: Rows<ReleaseId, Known>,
}

/// One release: what its instances did, and those that run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    curve: Curve,
    tracks: Rows<MemberKey, Track>,
}

/// By age, in half octaves of steps: the most an instance grew by in one window, in KiB. One after the other: it is rarely
/// looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Curve(Box<[u8]>);

/// One start of an instance, since it is ready: its [`Steps`], one number after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Track(Box<[u8]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Steps {
    incarnation: Mark,
    /// The step under way, and the least that was seen in it.
    step: u32,
    least: u64,
    /// The steps before: at most a window of them.
    floors: Vec<(u32, u64)>,
}

/// What is stored.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    tracks: Rows<MemberKey, StoredTrack>,
    curves: Rows<ReleaseId, Rows<u32, u64>>,
}

#[derive(Serialize, Deserialize)]
struct StoredTrack {
    release: ReleaseId,
    incarnation: Mark,
    step: u32,
    least: u64,
    floors: Vec<(u32, u64)>,
}

/// What one instance's memory did in the last window, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grown<'a> {
    pub member: &'a MemberKey,
    /// In steps.
    pub age: u32,
    pub from: u64,
    pub by: u64,
    /// All the time, and as much in the end as in the beginning.
    pub steadily: bool,
}

impl Growth {
    /// Sees how much memory an instance takes now. Returns whether a step of it is over.
    pub fn see(&mut self, member: &MemberKey, instance: &InstanceReport, bytes: u64) -> bool {
        // Before it is ready it is busy with its start, and what is asked to stop is no instance of its release any more.
        let InstanceState::Ready { since } = instance.state else { return false };
        let step = u32::try_from(since.as_secs() / STEP.as_secs()).unwrap_or(u32::MAX);
        let least = bytes / 1024;
        let (release, incarnation) = (instance.release, Mark::of(&instance.incarnation));
        let known = self.releases.get_mut(&release);
        let same = known.and_then(|known| {
            let track = known.tracks.get_mut(member)?;
            let steps = track.steps();
            (steps.incarnation == incarnation && steps.step <= step).then_some((&mut known.curve, track, steps))
        });
        let Some((curve, track, mut steps)) = same else {
            self.forget(member);
            let steps = Steps { incarnation, step, least, floors: Vec::new() };
            self.releases.entry(release).tracks.insert(member.clone(), Track::of(&steps));
            return false;
        };
        let is_over = steps.step < step;
        if is_over {
            steps.next(step, least);
            if let Some((age, by)) = steps.window().and_then(|window| Some((window.last()?.0, rise(window)))) {
                curve.take(age, by);
            }
        } else if steps.least <= least {
            return false;
        }
        steps.least = steps.least.min(least);
        steps.written().take_the_place_of(&mut track.0);
        is_over
    }

    /// Forgets an instance that is gone.
    pub fn forget(&mut self, member: &MemberKey) {
        self.releases.values_mut().for_each(|known| known.tracks.remove(member));
        self.releases.retain(|_, known| *known != Known::default());
    }

    /// The instances that are followed.
    pub fn members(&self) -> impl Iterator<Item = &MemberKey> {
        self.releases.values().flat_map(|known| known.tracks.keys())
    }

    /// Forgets what releases did that nobody goes to or comes from any more.
    pub fn keep(&mut self, is_known: impl Fn(&ReleaseId) -> bool) {
        self.releases.retain(|release, known| is_known(release) || !known.tracks.is_empty());
    }

    /// Learns what another has seen of releases.
    pub fn learn(&mut self, other: &Self) {
        for (release, known) in other.releases.iter().filter(|(_, known)| known.curve != Curve::default()) {
            self.releases.entry(*release).curve.learn(&known.curve);
        }
    }

    /// Nothing is watched any more; what was seen of releases stays.
    pub fn rest(&mut self) {
        self.releases.values_mut().for_each(|known| known.tracks.clear());
        self.releases.retain(|_, known| *known != Known::default());
    }

    /// The instances of a release that were watched for a whole window.
    pub fn of(&self, release: ReleaseId) -> impl Iterator<Item = Grown<'_>> {
        let tracks = self.releases.get(&release).into_iter().flat_map(|known| known.tracks.iter());
        tracks.filter_map(|(member, track)| {
            let steps = track.steps();
            let window = steps.window()?;
            let (from, age) = (window.first()?.1, window.last()?.0);
            Some(Grown { member, age, from, by: rise(window), steadily: is_steady(window) })
        })
    }

    /// How many instances of a release are watched, for a whole window or not yet.
    #[must_use]
    pub fn watched(&self, release: ReleaseId) -> usize {
        self.releases.get(&release).map_or(0, |known| known.tracks.iter().count())
    }

    /// What instances of a release grew by at most at about this age; None: none was seen then.
    #[must_use]
    pub fn usual(&self, release: ReleaseId, age: u32) -> Option<u64> {
        let age = half_octaves(age);
        let about = age.saturating_sub(ABOUT)..=age.saturating_add(ABOUT);
        self.releases.get(&release)?.curve.iter().filter(|(age, _)| about.contains(age)).map(|(_, by)| by).max()
    }
}

impl Curve {
    fn of(ages: &Rows<u32, u64>) -> Self {
        let mut numbers = Writer::default();
        ages.iter().flat_map(|(age, by)| [u64::from(*age), *by]).for_each(|number| numbers.number(number));
        Self(numbers.done())
    }

    fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        let mut numbers = Reader::of(&self.0);
        std::iter::from_fn(move || (!numbers.is_done()).then(|| (small(numbers.number()), numbers.number())))
    }

    fn take(&mut self, age: u32, by: u64) {
        self.most([(half_octaves(age), by)].into_iter());
    }

    fn learn(&mut self, other: &Self) {
        self.most(other.iter());
    }

    fn most(&mut self, others: impl Iterator<Item = (u32, u64)>) {
        let mut ages: Rows<u32, u64> = self.iter().collect();
        for (age, by) in others {
            let most = ages.entry(age);
            *most = by.max(*most);
        }
        *self = Self::of(&ages);
    }
}

impl From<Stored> for Growth {
    fn from(stored: Stored) -> Self {
        let mut growth = Self::default();
        for (release, ages) in stored.curves.iter() {
            growth.releases.entry(*release).curve = Curve::of(ages);
        }
        for (member, StoredTrack { release, incarnation, step, least, floors }) in stored.tracks.iter() {
            let steps = Steps { incarnation: *incarnation, step: *step, least: *least, floors: floors.clone() };
            growth.releases.entry(*release).tracks.insert(member.clone(), Track::of(&steps));
        }
        growth
    }
}

impl From<Growth> for Stored {
    fn from(growth: Growth) -> Self {
        let mut stored = Self::default();
        for (release, known) in growth.releases.iter() {
            if known.curve != Curve::default() {
                stored.curves.insert(*release, known.curve.iter().collect());
            }
            for (member, track) in known.tracks.iter() {
                let Steps { incarnation, step, least, floors } = track.steps();
                let track = StoredTrack { release: *release, incarnation, step, least, floors };
                stored.tracks.insert(member.clone(), track);
            }
        }
        stored
    }
}

/// What was a `u32` when it was written.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Track {
    fn of(steps: &Steps) -> Self {
        Self(steps.written().done())
    }

    fn steps(&self) -> Steps {
        let mut numbers = Reader::of(&self.0);
        let (incarnation, step, least) = (numbers.mark(), small(numbers.number()), numbers.number());
        let told = numbers.number();
        let mut floors = Vec::with_capacity(WINDOW as usize + 1);
        let mut last = least;
        for ago in (0..TOLD).filter(|ago| told & 1 << ago > 0) {
            last = numbers.changed(last);
            floors.push((step.saturating_sub(ago), last));
        }
        floors.reverse();
        Steps { incarnation, step, least, floors }
    }
}

impl Steps {
    fn written(&self) -> Writer {
        let Self { incarnation, step, least, floors } = self;
        let mut numbers = Writer::for_about(floors.len() + ROOM);
        numbers.mark(*incarnation);
        numbers.number((*step).into());
        numbers.number(*least);
        let ago = |floor: u32| step.checked_sub(floor).filter(|ago| *ago < TOLD);
        let told = floors.iter().filter_map(|(floor, _)| ago(*floor));
        numbers.number(told.fold(0, |told, ago| told | 1 << ago));
        // It takes about as much as in the step after.
        let mut last = *least;
        for (_, floor) in floors.iter().rev().filter(|(floor, _)| ago(*floor).is_some()) {
            numbers.change(last, *floor);
            last = *floor;
        }
        numbers
    }

    fn next(&mut self, step: u32, least: u64) {
        let first = self.step.saturating_sub(WINDOW);
        self.floors.retain(|(step, _)| *step >= first);
        // The first step is the first requests: they fill what every request needs.
        if self.step > 0 {
            self.floors.push((self.step, self.least));
        }
        if step.saturating_sub(self.step) > GAP {
            self.floors.clear();
        }
        (self.step, self.least) = (step, least);
    }

    fn window(&self) -> Option<&[(u32, u64)]> {
        let (first, last) = (self.floors.first()?.0, self.floors.last()?.0);
        (last.saturating_sub(first) == WINDOW && self.floors.len() >= FEWEST).then_some(&self.floors)
    }
}

fn rise(window: &[(u32, u64)]) -> u64 {
    let ends = window.first().zip(window.last());
    ends.map_or(0, |((_, from), (_, to))| to.saturating_sub(*from))
}

/// Whether it rose all the time, and as much in the second half as in the first: not on its way to an end.
fn is_steady(window: &[(u32, u64)]) -> bool {
    let (by, Some(first)) = (rise(window), window.first()) else { return false };
    let falls = window.windows(2).map(|pair| match pair {
        [(_, before), (_, after)] => before.saturating_sub(*after),
        _ => 0,
    });
    let middle = at(window, first.0 + WINDOW / 2).unwrap_or(u64::MAX);
    let early = middle.saturating_sub(first.1);
    let late = (first.1 + by).saturating_sub(middle);
    by > 0
        && falls.max().unwrap_or(0).saturating_mul(FALL) <= by
        && late.saturating_mul(100) >= early.saturating_mul(SUSTAINED)
}

/// The floor at a step, or on the line between its neighbours where that one is missing.
fn at(window: &[(u32, u64)], step: u32) -> Option<u64> {
    let after = window.iter().find(|(at, _)| *at >= step)?;
    let before = window.iter().rev().find(|(at, _)| *at <= step)?;
    let steps = u64::from(after.0.saturating_sub(before.0));
    let rest = u64::from(after.0.saturating_sub(step));
    match steps {
        0 => Some(after.1),
        _ => Some((before.1.saturating_mul(rest) + after.1.saturating_mul(steps.saturating_sub(rest))) / steps),
    }
}

/// Twice the logarithm: ages that differ by less than a half are one.
fn half_octaves(step: u32) -> u32 {
    let octave = step.max(1).ilog2();
    let beyond = u64::from(step).pow(2) >= 1 << (2 * octave + 1).min(63);
    2 * octave + u32::from(beyond)
}
