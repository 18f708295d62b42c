//! How long answers took, in a few fixed buckets: counts add up and subtract, which averages and quantiles do not.

use serde::{Deserialize, Serialize};
use std::ops::AddAssign;
use std::time::Duration;

/// The upper bounds of the buckets but the last, which has none: about a third more from one to the next.
pub const BOUNDS_MS: [u64; 24] =
    [1, 2, 3, 5, 7, 10, 14, 20, 30, 40, 55, 75, 100, 140, 200, 300, 400, 550, 750, 1000, 1500, 2500, 5000, 10_000];

/// The number of buckets.
pub const BUCKETS: usize = BOUNDS_MS.len() + 1;

/// Counts of answers by how long they took, since the balancer started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Latency([u64; BUCKETS]);

/// Counts that do not have one number for each bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} counts, and there are {BUCKETS} buckets")]
pub struct InvalidLatency(pub usize);

/// The bucket of an answer that took so long.
#[must_use]
pub fn bucket(took: Duration) -> usize {
    BOUNDS_MS.partition_point(|bound| took > Duration::from_millis(*bound))
}

impl Latency {
    #[must_use]
    pub const fn new(counts: [u64; BUCKETS]) -> Self {
        Self(counts)
    }

    #[must_use]
    pub const fn counts(&self) -> &[u64; BUCKETS] {
        &self.0
    }

    /// How many answers.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The answers since an earlier look. None where that had more: the counters began anew in between.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut counts = self.0;
        for (count, then) in counts.iter_mut().zip(&earlier.0) {
            *count = count.checked_sub(*then)?;
        }
        Some(Self(counts))
    }

    /// What came before counts half from now on.
    pub fn halve(&mut self) {
        self.0.iter_mut().for_each(|count| *count /= 2);
    }

    /// About how many milliseconds so many of a thousand answers stayed within: as if those of a bucket were spread evenly
    /// over it. `None` without answers.
    #[must_use]
    pub fn about(&self, per_mille: u16) -> Option<f64> {
        let rank = self.total() as f64 * f64::from(per_mille.min(1000)) / 1000.0;
        let (mut seen, mut low) = (0.0, 0.0);
        for (index, count) in self.0.iter().enumerate() {
            let high = BOUNDS_MS.get(index).map_or(low, |bound| *bound as f64);
            let here = *count as f64;
            if here > 0.0 && seen + here >= rank {
                return Some(low + (high - low) * (rank - seen) / here);
            }
            (seen, low) = (seen + here, high);
        }
        None
    }

    /// The bound that so many of a thousand answers stayed within: 990 for the slowest hundredth. `None` without answers; an
    /// answer beyond the last bound counts as the last bound.
    #[must_use]
    pub fn quantile(&self, per_mille: u16) -> Option<Duration> {
        let total = self.total();
        let rank = u128::from(total) * u128::from(per_mille.min(1000));
        let mut seen: u128 = 0;
        for (index, count) in self.0.iter().enumerate() {
            seen += u128::from(*count);
            if total > 0 && *count > 0 && seen * 1000 >= rank {
                let bound = BOUNDS_MS.get(index).or(BOUNDS_MS.last()).copied().unwrap_or_default();
                return Some(Duration::from_millis(bound));
            }
        }
        None
    }
}

impl AddAssign<&Self> for Latency {
    fn add_assign(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(count, more)| *count = count.saturating_add(*more));
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl TryFrom<Vec<u64>> for Latency {
    type Error = InvalidLatency;
    fn try_from(counts: Vec<u64>) -> Result<Self, InvalidLatency> {
        counts.try_into().map(Self).map_err(|counts: Vec<u64>| InvalidLatency(counts.len()))
    }
}

impl From<Latency> for Vec<u64> {
    fn from(latency: Latency) -> Vec<u64> {
        latency.0.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(millis: &[u64]) -> Latency {
        let mut latency = Latency::default();
        millis.iter().for_each(|millis| latency.0[bucket(Duration::from_millis(*millis))] += 1);
        latency
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let latency = latency(&[1, 1, 1, 2, 2, 9, 9, 9, 60, 20_000]);
        let quantile = |per_mille| latency.quantile(per_mille).unwrap().as_millis();
        assert_eq!([300, 500, 800, 900, 1000].map(quantile), [1, 2, 10, 75, 10_000]);
        assert_eq!(Latency::default().quantile(500), None);
    }

    #[test]
    fn what_came_since_is_the_difference_and_unknown_after_a_restart() {
        let (then, now) = (latency(&[1, 5]), latency(&[1, 5, 5, 700]));
        assert_eq!(now.since(&then), Some(latency(&[5, 700])));
        assert_eq!(latency(&[3]).since(&now), None);
    }

    #[test]
    fn between_the_bounds_of_a_bucket_answers_are_spread_evenly() {
        let latency = latency(&[25; 10]);
        assert_eq!([0, 500, 1000].map(|per_mille| latency.about(per_mille).unwrap()), [20.0, 25.0, 30.0]);
        assert_eq!(Latency::default().about(500), None);
    }

    #[test]
    fn the_last_bucket_has_no_bound() {
        assert_eq!(bucket(Duration::from_millis(10_000)), BUCKETS - 2);
        assert_eq!(bucket(Duration::from_secs(3600)), BUCKETS - 1);
        assert_eq!(bucket(Duration::ZERO), 0);
    }
}
