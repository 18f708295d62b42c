//! What the balancers counted while a rollout went on: the only thing "0 failed" may ever be said of.

use super::counts::Counts;
use super::meters::{Traffic, Whose};
use crate::time::{Moment, millis};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Counted by the balancers, from a rollout's begin to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub old: Counts,
    pub new: Counts,
    /// Answered by neither release of the rollout.
    pub other: Counts,
    /// Requests cut at a drain's deadline.
    pub cut: u64,
    /// How often a balancer's counters began anew: what it answered in between is not in here.
    pub restarts: u32,
    /// Looks at the counters.
    pub polls: u32,
    /// When both releases were first seen to answer in one look, and when last.
    pub mixed_from: Option<Moment>,
    pub mixed_until: Option<Moment>,
    /// The longest time in which no request at all was counted, in steps of a look.
    #[serde(with = "millis")]
    pub quiet: Duration,
    /// Since when none was counted.
    quiet_since: Option<Moment>,
}

impl Proof {
    pub fn take(&mut self, traffic: &Traffic, last: Option<Moment>, now: Moment) {
        let (old, new, other) = (traffic.sum(Whose::Old), traffic.sum(Whose::New), traffic.sum(Whose::Other));
        self.old += old;
        self.new += new;
        self.other += other;
        self.cut = self.cut.saturating_add(traffic.cut);
        self.restarts = self.restarts.saturating_add(traffic.restarts);
        self.polls = self.polls.saturating_add(1);
        if old.requests > 0 && new.requests > 0 {
            self.mixed_from.get_or_insert(now);
            self.mixed_until = Some(now);
        }
        if old.requests + new.requests + other.requests > 0 {
            self.quiet_since = None;
        } else if let Some(last) = last {
            self.quiet = self.quiet.max(now.since(*self.quiet_since.get_or_insert(last)));
        }
    }

    /// Every request; None when none was counted: then nothing is proven.
    #[must_use]
    pub fn all(&self) -> Option<Counts> {
        let mut all = self.old;
        all += self.new;
        all += self.other;
        (all.requests > 0).then_some(all)
    }

    /// How long both releases answered.
    #[must_use]
    pub fn mixed(&self) -> Option<Duration> {
        Some(self.mixed_until?.since(self.mixed_from?))
    }
}
