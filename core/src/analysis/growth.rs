//! How much the memory of instances grows, by their age.
//!
//! Of every half minute the least is kept: what a garbage collector takes away again is no growth. Growth is what that floor
//! rose by in four minutes. What a release's instances grew by at most at about an age is its curve: an instance that warms up
//! is compared with others that did.

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

/// What is known of every instance of a service, and of the releases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Growth {
    tracks: Rows<MemberKey, Track>,
    curves: Rows<ReleaseId, Curve>,
}

/// By age, in half octaves of steps: the most an instance grew by in one window, in KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Curve(Rows<u32, u64>);

/// One start of an instance, since it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Track {
    release: ReleaseId,
    incarnation: String,
    /// The step under way, and the least that was seen in it.
    step: u32,
    least: u64,
    /// The steps before: at most a window of them.
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
        let Some(track) = self.tracks.get_mut(member).filter(|track| track.is_of(instance) && track.step <= step) else {
            self.tracks.insert(member.clone(), Track::new(instance, step, least));
            return false;
        };
        if track.step == step {
            track.least = track.least.min(least);
            return false;
        }
        track.next(step, least);
        if let Some((age, by)) = track.window().and_then(|window| Some((window.last()?.0, rise(window)))) {
            let release = track.release;
            self.curve(release).take(age, by);
        }
        true
    }

    /// Forgets an instance that is gone.
    pub fn forget(&mut self, member: &MemberKey) {
        self.tracks.remove(member);
    }

    /// The instances that are followed.
    pub fn members(&self) -> impl Iterator<Item = &MemberKey> {
        self.tracks.keys()
    }

    /// Forgets what releases did that nobody goes to or comes from any more.
    pub fn keep(&mut self, is_known: impl Fn(&ReleaseId) -> bool) {
        let Self { tracks, curves } = self;
        curves.retain(|release, _| is_known(release) || tracks.values().any(|track| track.release == *release));
    }

    /// Learns what another has seen of releases.
    pub fn learn(&mut self, other: &Self) {
        for (release, curve) in other.curves.iter() {
            let own = self.curve(*release);
            curve.0.iter().for_each(|(age, by)| own.most(*age, *by));
        }
    }

    fn curve(&mut self, release: ReleaseId) -> &mut Curve {
        self.curves.entry(release)
    }

    /// Nothing is watched any more; what was seen of releases stays.
    pub fn rest(&mut self) {
        self.tracks.clear();
    }

    /// The instances of a release that were watched for a whole window.
    pub fn of(&self, release: ReleaseId) -> impl Iterator<Item = Grown<'_>> {
        let tracks = self.tracks.iter().filter(move |(_, track)| track.release == release);
        tracks.filter_map(|(member, track)| {
            let window = track.window()?;
            let (from, age) = (window.first()?.1, window.last()?.0);
            Some(Grown { member, age, from, by: rise(window), steadily: is_steady(window) })
        })
    }

    /// What instances of a release grew by at most at about this age; None: none was seen then.
    #[must_use]
    pub fn usual(&self, release: ReleaseId, age: u32) -> Option<u64> {
        let age = half_octaves(age);
        let about = age.saturating_sub(ABOUT)..=age.saturating_add(ABOUT);
        self.curves.get(&release)?.0.iter().filter(|(age, _)| about.contains(age)).map(|(_, by)| *by).max()
    }
}

impl Curve {
    fn take(&mut self, age: u32, by: u64) {
        self.most(half_octaves(age), by);
    }

    fn most(&mut self, age: u32, by: u64) {
        let most = self.0.entry(age);
        *most = by.max(*most);
    }
}

impl Track {
    fn new(instance: &InstanceReport, step: u32, least: u64) -> Self {
        let (release, incarnation) = (instance.release, instance.incarnation.clone());
        Self { release, incarnation, step, least, floors: Vec::new() }
    }

    fn is_of(&self, instance: &InstanceReport) -> bool {
        self.release == instance.release && self.incarnation == instance.incarnation
    }

    fn next(&mut self, step: u32, least: u64) {
        let first = self.step.saturating_sub(WINDOW);
        self.floors.retain(|(step, _)| *step >= first);
        // The first step is the first requests: they fill what every request needs.
        if self.step > 0 {
            self.floors.reserve_exact(1);
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
