//! What the guard listens to, and how much of its one bet goes to each.
//!
//! Bets that are fair each for itself are fair on average, too, with weights that were fixed before: so several signals share
//! one error probability, and none of them needs a threshold of its own.

use super::quantiles::QUANTILES;
use super::settings::Sources;
use serde::{Deserialize, Serialize};

/// One kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Requests that failed, as the load balancers count them,
    Failures,
    /// as the instances do,
    Metrics,
    /// and as a Prometheus knows them.
    Prometheus,
    /// Answers beyond one of the frozen quantiles.
    Slow(usize),
}

/// What goes to failures, whoever counts them: what most releases are taken back for must not become slow to be seen because
/// others are watched, too.
const FAILURES: f64 = 0.8;
/// What goes to slow answers, by quantile.
pub const SLOW: [f64; QUANTILES.len()] = [0.05, 0.1, 0.05];

/// What goes to each source of failures.
#[must_use]
pub fn of_failures(sources: Sources) -> f64 {
    FAILURES / f64::from(sources.all())
}

/// Every signal with its share of the bet; together 1.
pub fn weights(sources: Sources) -> impl Iterator<Item = (Signal, f64)> {
    let each = of_failures(sources);
    let named = [(true, Signal::Failures), (sources.metrics, Signal::Metrics), (sources.prometheus, Signal::Prometheus)];
    let failures = named.into_iter().filter(|(named, _)| *named).map(move |(_, signal)| (signal, each));
    failures.chain(SLOW.into_iter().enumerate().map(|(quantile, weight)| (Signal::Slow(quantile), weight)))
}

/// What all bets together are worth, and the one that is worth most.
#[must_use]
pub fn worth(sources: Sources, each: impl Fn(Signal) -> f64) -> (f64, Signal) {
    let (mut sum, mut largest) = (0.0, (f64::MIN, Signal::Failures));
    for (signal, weight) in weights(sources) {
        let term = weight * each(signal);
        sum += term;
        if term > largest.0 {
            largest = (term, signal);
        }
    }
    (sum, largest.1)
}
