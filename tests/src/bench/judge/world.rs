//! Simulated services: how much traffic, which truth, and what a poll of two seconds counts of it.

use super::super::chance::Chance;
use baton_core::analysis::counts::{Counts, Poll};

pub(super) const POLLS_A_MINUTE: u64 = 30;

/// A service and a truth about its two releases.
#[derive(Debug, Clone, Copy)]
pub(super) struct World {
    pub(super) name: &'static str,
    /// Requests a second, in all.
    pub(super) rate: u64,
    /// The new release's share of them.
    pub(super) share: f64,
    /// The error rates.
    pub(super) old: f64,
    pub(super) new: f64,
    /// Failures come in groups of this many, in one poll and on one release.
    pub(super) burst: u64,
    /// An incident hits both releases from this minute to that one, with this error rate.
    pub(super) incident: Option<(u64, u64, f64)>,
    pub(super) minutes: u64,
}

/// One run, poll by poll, after ten minutes in which only the old release was there.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) before: Vec<Counts>,
    pub(super) polls: Vec<Poll>,
}

impl World {
    pub(super) const fn clean(name: &'static str, rate: f64) -> Self {
        Self::truth(name, rate, rate, 60)
    }

    /// The traffic of the table: 10 requests a second, a tenth of it to the new release.
    pub(super) const fn truth(name: &'static str, old: f64, new: f64, minutes: u64) -> Self {
        Self { name, rate: 10, share: 0.1, old, new, burst: 1, incident: None, minutes }
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.old == self.new
    }

    pub(super) fn run(&self, seed: u64) -> Run {
        let mut chance = Chance::new(seed + 1);
        let count = |chance: &mut Chance, requests: u64, rate: f64| {
            let groups = chance.successes(requests, rate / self.burst as f64);
            // The others of a group are one client's retries: they come on top.
            Counts::new(requests + groups * (self.burst - 1), groups * self.burst)
        };
        let in_poll = self.rate * 2;
        let before = (0..10 * POLLS_A_MINUTE).map(|_| count(&mut chance, in_poll, self.old)).collect();
        let polls = (0..self.minutes * POLLS_A_MINUTE).map(|poll| {
            let minute = poll / POLLS_A_MINUTE;
            let incident = self.incident.filter(|(from, until, _)| (*from..*until).contains(&minute));
            let (old, new) = incident.map_or((self.old, self.new), |(_, _, rate)| (rate, rate));
            // A balancer with weights takes turns: the share is kept in every poll.
            let to_new = (in_poll as f64 * self.share).round() as u64;
            Poll { new: count(&mut chance, to_new, new), old: count(&mut chance, in_poll - to_new, old) }
        });
        let polls = polls.collect();
        Run { before, polls }
    }
}
