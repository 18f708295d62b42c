//! What a service's own traffic was like in the last ten minutes: how many requests, how many failures, how burst-like.

use super::bytes::{Reader, Writer};
use super::counts::Counts;
use crate::time::Moment;

const MINUTES: u64 = 10;
const MINUTE: u64 = 60_000;
/// Bytes of a minute, about.
const ROOM: usize = 12;

/// The last ten minutes, minute by minute. Not stored: it makes a verdict faster, and is not needed for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// One after the other: there is one of each service, and it is looked at every two seconds.
    minutes: Box<[u8]>,
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
        // A minute that is over for long, or lies ahead of a clock that was set back, does not count.
        let counts = |minute: &Minute| minute.number >= first(number) && minute.number <= number;
        let mut minutes: Vec<Minute> = self.minutes().filter(counts).collect();
        let mut minute = minutes.pop_if(|minute| minute.number == number).unwrap_or(Minute { number, ..Minute::default() });
        let mut sum = Counts::default();
        slots.iter().for_each(|slot| sum += *slot);
        minute.polls += 1;
        minute.slots += slots.iter().filter(|slot| slot.requests > 0).count() as u64;
        minute.counts += sum;
        minute.squares = minute.squares.saturating_add(sum.errors.saturating_mul(sum.errors));
        minutes.push(minute);
        let mut numbers = Writer::for_about(self.minutes.len() + ROOM);
        let mut before = 0;
        for minute in &minutes {
            numbers.change(before, minute.number);
            minute.numbers().into_iter().for_each(|it| numbers.number(it));
            before = minute.number;
        }
        numbers.take_the_place_of(&mut self.minutes);
    }

    #[must_use]
    pub fn summary(&self, now: Moment) -> Summary {
        let first = first(now.0 / MINUTE);
        let mut all = Minute::default();
        for minute in self.minutes().filter(|minute| minute.number >= first) {
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

    fn minutes(&self) -> impl Iterator<Item = Minute> {
        let (mut numbers, mut number) = (Reader::of(&self.minutes), 0);
        std::iter::from_fn(move || {
            (!numbers.is_done()).then(|| {
                number = numbers.changed(number);
                Minute::of(number, [(); 5].map(|()| numbers.number()))
            })
        })
    }
}

/// The first minute that still counts in another.
const fn first(number: u64) -> u64 {
    number.saturating_sub(MINUTES - 1)
}

impl Minute {
    /// All but its own.
    const fn numbers(&self) -> [u64; 5] {
        let Self { polls, slots, counts: Counts { requests, errors }, squares, .. } = *self;
        [polls, slots, requests, errors, squares]
    }

    const fn of(number: u64, [polls, slots, requests, errors, squares]: [u64; 5]) -> Self {
        Self { number, polls, slots, counts: Counts { requests, errors }, squares }
    }
}
