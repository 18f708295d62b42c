//! What a service's own traffic was like in the last ten minutes: how many requests, how many failures, how burst-like.

use super::counts::Counts;
use crate::time::Moment;
use std::collections::VecDeque;

const MINUTES: usize = 10;
const MINUTE: u64 = 60_000;

/// The last ten minutes, minute by minute. Not stored: it makes a verdict faster, and is not needed for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    minutes: VecDeque<Minute>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Minute {
    number: u64,
    polls: u64,
    /// Members with traffic, over all polls.
    slots: u64,
    counts: Counts,
    /// Of the errors of each poll.
    squares: u64,
}

/// The history as a rollout begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub polls: u64,
    pub slots: u64,
    pub counts: Counts,
    /// Variance over mean of the failures of a poll; 1 where they come one by one, or there were none.
    pub phi: f64,
}

impl History {
    /// Takes one poll of a service at rest.
    pub fn take(&mut self, now: Moment, slots: &[Counts]) {
        let number = now.0 / MINUTE;
        self.forget(number);
        if self.minutes.back().is_none_or(|minute| minute.number != number) {
            self.minutes.reserve_exact(MINUTES.saturating_sub(self.minutes.len()));
            self.minutes.push_back(Minute { number, ..Minute::default() });
        }
        let Some(minute) = self.minutes.back_mut() else { return };
        let mut sum = Counts::default();
        slots.iter().for_each(|slot| sum += *slot);
        minute.polls += 1;
        minute.slots += slots.iter().filter(|slot| slot.requests > 0).count() as u64;
        minute.counts += sum;
        minute.squares = minute.squares.saturating_add(sum.errors.saturating_mul(sum.errors));
    }

    #[must_use]
    pub fn summary(&self, now: Moment) -> Summary {
        let first = (now.0 / MINUTE).saturating_sub(MINUTES as u64 - 1);
        let mut all = Minute::default();
        for minute in self.minutes.iter().filter(|minute| minute.number >= first) {
            all.polls += minute.polls;
            all.slots += minute.slots;
            all.counts += minute.counts;
            all.squares = all.squares.saturating_add(minute.squares);
        }
        let polls = all.polls.max(1) as f64;
        let mean = all.counts.errors as f64 / polls;
        let variance = all.squares as f64 / polls - mean * mean;
        let phi = if mean > 0.0 { (variance / mean).max(1.0) } else { 1.0 };
        Summary { polls: all.polls, slots: all.slots, counts: all.counts, phi }
    }

    /// A minute that is over for long, or lies ahead of a clock that was set back, does not count.
    fn forget(&mut self, number: u64) {
        let first = number.saturating_sub(MINUTES as u64 - 1);
        self.minutes.retain(|minute| minute.number >= first && minute.number <= number);
    }
}
