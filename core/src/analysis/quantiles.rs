//! What counts as slow: the old release's own quantiles, frozen, and how many of its answers took longer all the same.

use super::bytes::{Reader, Writer};
use super::counts::Counts;
use crate::fleet::latency::{BOUNDS_MS, BUCKETS, Latency};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is frozen of the old release's latency, of a thousand answers.
pub const QUANTILES: [u16; 3] = [500, 900, 990];

/// So many answers say how long a release usually takes.
const ENOUGH: u64 = 100;
/// Up to this much more is no slowness, and neither is the width of a bucket.
const SLACK: f64 = 1.25;

/// What is usual: by quantile, the last bucket whose answers are not slow, and how many are beyond it all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Row")]
pub struct Marks {
    /// Of so many answers.
    answers: u32,
    beyond: [(u8, u32); QUANTILES.len()],
}

/// The answers, and of each quantile the bucket and the answers beyond it.
type Row = (u32, u8, u32, u8, u32, u8, u32);

/// As they are written now, and as they once were.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Row(Row),
    Each([(u8, u64, u64); QUANTILES.len()]),
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    bucket: u8,
    pub usual: Counts,
}

impl Marks {
    /// None where too little is known.
    #[must_use]
    pub fn of(latency: &Latency) -> Option<Self> {
        if latency.total() < ENOUGH {
            return None;
        }
        let mut marks = Self { answers: few(latency.total()), beyond: [(0, 0); QUANTILES.len()] };
        for (mark, per_mille) in marks.beyond.iter_mut().zip(QUANTILES) {
            let most = latency.about(per_mille)? * SLACK;
            let bucket = BOUNDS_MS.partition_point(|bound| (*bound as f64) < most).min(BUCKETS - 1);
            let bucket = u8::try_from(bucket).unwrap_or(u8::MAX);
            *mark = (bucket, few(beyond(bucket, latency)));
        }
        Some(marks)
    }

    #[must_use]
    pub fn get(&self, quantile: usize) -> Option<Mark> {
        let (bucket, slow) = *self.beyond.get(quantile)?;
        Some(Mark { bucket, usual: Counts::new(self.answers.into(), slow.into()) })
    }

    /// There are none of no answers.
    pub(super) fn write(marks: Option<Self>, numbers: &mut Writer) {
        numbers.number(marks.map_or(0, |marks| marks.answers.into()));
        for (bucket, slow) in marks.iter().flat_map(|marks| marks.beyond) {
            numbers.number(bucket.into());
            numbers.number(slow.into());
        }
    }

    pub(super) fn read(numbers: &mut Reader<'_>) -> Option<Self> {
        let answers = few(numbers.number());
        let mut mark = || (u8::try_from(numbers.number()).unwrap_or(u8::MAX), few(numbers.number()));
        (answers > 0).then(|| Self { answers, beyond: [(); QUANTILES.len()].map(|()| mark()) })
    }

    /// Longer than this is slow; None where nothing is.
    #[must_use]
    pub fn bound(self, quantile: usize) -> Option<Duration> {
        let bound = BOUNDS_MS.get(usize::from(self.get(quantile)?.bucket))?;
        Some(Duration::from_millis(*bound))
    }
}

/// What fades within ten minutes is never more than this, or it does not matter how much more.
pub(super) fn few(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// How many answers took longer than a bucket's.
fn beyond(bucket: u8, latency: &Latency) -> u64 {
    let beyond = latency.counts().get(usize::from(bucket) + 1..).unwrap_or_default();
    beyond.iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
}

impl From<Stored> for Marks {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Row((answers, a, slow_a, b, slow_b, c, slow_c)) => {
                Self { answers, beyond: [(a, slow_a), (b, slow_b), (c, slow_c)] }
            }
            Stored::Each(each) => {
                let answers = each.iter().map(|(_, answers, _)| few(*answers)).max().unwrap_or(0);
                Self { answers, beyond: each.map(|(bucket, _, slow)| (bucket, few(slow))) }
            }
        }
    }
}

impl From<Marks> for Row {
    fn from(marks: Marks) -> Self {
        let [(a, slow_a), (b, slow_b), (c, slow_c)] = marks.beyond;
        (marks.answers, a, slow_a, b, slow_b, c, slow_c)
    }
}

impl Mark {
    /// How many of these answers were slow.
    #[must_use]
    pub fn of(self, latency: &Latency) -> Counts {
        Counts::new(latency.total(), beyond(self.bucket, latency))
    }

    /// What is usual here, as much (or, with -1, as little) as chance may hide.
    #[must_use]
    pub fn usually(self, sign: f64) -> f64 {
        let slow = self.usual.errors as f64;
        let beyond = slow + sign * (slow + 1.0).sqrt() + f64::from(sign > 0.0);
        beyond.max(0.5) / self.usual.requests.max(1) as f64
    }
}
