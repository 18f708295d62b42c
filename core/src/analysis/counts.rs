//! What a poll counted.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::AddAssign;

/// Requests, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "(u64, u64)")]
pub struct Counts {
    pub requests: u64,
    pub errors: u64,
}

/// As they are written now, and as they once were.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Pair(u64, u64),
    Named { requests: u64, errors: u64 },
}

/// One poll: both releases, over the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Poll {
    pub new: Counts,
    pub old: Counts,
}

/// What is counted as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Every failed request; where failures come in bursts, each counts for less.
    Requests,
    /// A member and a poll with at least one failure count once: at low traffic one client that retries looks like many.
    Slots,
}

/// Fewer requests than this of a member in a poll are low traffic.
const LOW: u64 = 20;

impl Counts {
    /// What cannot be is made possible: there are no more failures than requests.
    #[must_use]
    pub fn new(requests: u64, errors: u64) -> Self {
        Self { requests: requests.max(errors), errors }
    }

    /// The share that failed; None without requests.
    #[must_use]
    pub fn share(self) -> Option<f64> {
        (self.requests > 0).then(|| self.errors as f64 / self.requests as f64)
    }
}

impl From<Stored> for Counts {
    fn from(stored: Stored) -> Self {
        let (Stored::Pair(requests, errors) | Stored::Named { requests, errors }) = stored;
        Self { requests, errors }
    }
}

impl From<Counts> for (u64, u64) {
    fn from(counts: Counts) -> Self {
        (counts.requests, counts.errors)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.errors, self.requests)
    }
}

impl Unit {
    /// The unit for a service whose old release answers this many requests on this many members and polls.
    #[must_use]
    pub const fn for_traffic(requests: u64, slots: u64) -> Self {
        if requests < LOW.saturating_mul(slots) { Self::Slots } else { Self::Requests }
    }

    /// One poll in this unit, from what each member counted.
    ///
    /// A slot of the old release that had `k` times the traffic of the new one's counts for up to `k`: else busier members
    /// would look better than they are.
    #[must_use]
    pub fn poll(self, new: &[Counts], old: &[Counts]) -> Poll {
        let sum = |slots: &[Counts], most: &dyn Fn(Counts) -> u64| {
            let mut sum = Counts::default();
            for slot in slots {
                sum += Counts::new(slot.requests, slot.errors.min(most(*slot)));
            }
            sum
        };
        match self {
            Self::Requests => Poll { new: sum(new, &|_| u64::MAX), old: sum(old, &|_| u64::MAX) },
            Self::Slots => {
                let busy = new.iter().filter(|slot| slot.requests > 0).count() as u64;
                let requests: u64 = new.iter().map(|slot| slot.requests).sum();
                let usual = requests.checked_div(busy).unwrap_or(0).max(1);
                Poll { new: sum(new, &|_| 1), old: sum(old, &|slot| slot.requests.div_ceil(usual)) }
            }
        }
    }

    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Requests => "failed requests",
            Self::Slots => "members and polls with a failure: there is little traffic",
        }
    }
}
