//! What the guard listens to, and how much of its one bet goes to each.
//!
//! Bets that are fair each for itself are fair on average, too, with weights that were fixed before: so several signals share
//! one error probability, and none of them needs a threshold of its own.

use super::slowness::QUANTILES;
use serde::{Deserialize, Serialize};

/// One kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Requests that failed.
    Failures,
    /// Answers beyond one of the frozen quantiles.
    Slow(usize),
}

/// Every signal with its share of the bet; together 1.
pub const WEIGHTS: [(Signal, f64); 4] =
    [(Signal::Failures, FAILURES), (Signal::Slow(0), 0.05), (Signal::Slow(1), 0.1), (Signal::Slow(2), 0.05)];
/// What most releases are taken back for: it must not become slow because others are watched, too.
pub const FAILURES: f64 = 0.8;

const _: () = assert!(QUANTILES.len() + 1 == WEIGHTS.len(), "every quantile has its share");

/// What all bets together are worth, and the one that is worth most.
#[must_use]
pub fn worth(each: impl Fn(Signal) -> f64) -> (f64, Signal) {
    let (mut sum, mut largest) = (0.0, (f64::MIN, Signal::Failures));
    for (signal, weight) in WEIGHTS {
        let term = weight * each(signal);
        sum += term;
        if term > largest.0 {
            largest = (term, signal);
        }
    }
    (sum, largest.1)
}
