//! Strategies as values: what people call "rolling" is a few numbers, and nothing else in Baton asks for its name.

use crate::time::millis;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How a release replaces another over the hosts of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strategy {
    pub placement: Placement,
    /// Cumulative sizes: a wave begins when every host of the one before is done and has baked.
    pub waves: Vec<Amount>,
    /// How many hosts may be without a serving instance because of the rollout.
    pub max_unavailable: Amount,
    /// How long a wave is watched before the next begins.
    #[serde(with = "millis")]
    pub bake: Duration,
    /// How long requests may take to finish on a member that is out; then they are cut, counted and reported.
    #[serde(with = "millis")]
    pub drain_deadline: Duration,
    /// How long a rollout may stand without any progress before it pauses and asks.
    #[serde(with = "millis")]
    pub progress_deadline: Duration,
    pub on_failure: OnFailure,
}

/// Where the new instance starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// In the old one's slot, after it stopped.
    InPlace,
    /// In a free slot, before the old one stops.
    SideBySide,
}

/// A number of hosts, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    Hosts(u32),
    Percent(u8),
}

/// What evidence against the new release leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    Revert,
    Pause,
}

impl Amount {
    /// The number of hosts this is of `total`, rounded up and at most `total`: a wave of 1 % of 10 hosts is one host.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Hosts(hosts) => (hosts as usize).min(total),
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100).min(total),
        }
    }

    /// The same, rounded down: a bound on what may be missing is never rounded up.
    #[must_use]
    pub fn at_most(self, total: usize) -> usize {
        match self {
            Self::Hosts(hosts) => (hosts as usize).min(total),
            Self::Percent(percent) => (total * usize::from(percent) / 100).min(total),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts(hosts) => write!(f, "{hosts}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}
