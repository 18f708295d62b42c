//! When it is time for a look at what was counted.
//!
//! Whoever counts speaks every two seconds, and in between when something changes. A look is due by the time of what was counted. By
//! that of the look before, one that came between two heartbeats would have each heartbeat after it wait. And it is due when a
//! heartbeat's time is over and nothing newer came: what nobody adds to is looked at, too.

use super::POLL;
use crate::time::Moment;
use std::time::Duration;

/// Heartbeats come a little earlier or later.
const JITTER: Duration = Duration::from_millis(150);
/// From one look to the next, by what was counted,
const LEAST: Duration = POLL.saturating_sub(JITTER);
/// and until what there is has to do.
const MOST: Duration = POLL.saturating_add(JITTER);

/// What one source said, and what of it was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// The newest that was not looked at yet.
    heard: Option<Moment>,
    /// The newest that was.
    looked: Option<Moment>,
}

impl Turn {
    /// Goes on where an earlier one was.
    #[must_use]
    pub const fn after(looked: Option<Moment>) -> Self {
        Self { heard: None, looked }
    }

    pub fn hear(&mut self, at: Moment) {
        self.heard = self.heard.max(Some(at));
    }

    /// When what was not looked at yet was counted; None: there is nothing.
    #[must_use]
    pub const fn heard(&self) -> Option<Moment> {
        self.heard
    }

    /// Whether what was heard is due by when it was counted, or late.
    #[must_use]
    pub fn is_due(&self, now: Moment) -> bool {
        let enough = |heard: Moment| self.looked.is_none_or(|looked| heard.since(looked) >= LEAST);
        self.heard.is_some_and(enough) || self.is_late(now)
    }

    /// Whether what was heard was never looked at, or not for longer than a heartbeat.
    #[must_use]
    pub fn is_late(&self, now: Moment) -> bool {
        // One that lies ahead of a clock that was set back says nothing.
        let late = |looked: Moment| now.since(looked) >= MOST || looked > now;
        self.heard.is_some() && self.looked.is_none_or(late)
    }

    /// When what was heard is late; None: there is nothing.
    #[must_use]
    pub fn late_at(&self) -> Option<Moment> {
        self.heard.map(|heard| self.looked.map_or(heard, |looked| looked + MOST))
    }

    /// It was looked at.
    pub fn take(&mut self) {
        self.looked = self.heard.take().or(self.looked);
    }

    /// It was looked at beside what others said, whatever there was. The first that comes waits for nobody all the same.
    pub const fn pass(&mut self, now: Moment) {
        if self.heard.is_some() || self.looked.is_some() {
            *self = Self::after(Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was counted up to each look at a source that speaks at these moments, if the driver wakes every hundred milliseconds.
    fn looks(speaks: &[u64], until: u64) -> Vec<(u64, u64)> {
        let (mut turn, mut looks) = (Turn::default(), Vec::new());
        for now in (0..=until).step_by(100) {
            if speaks.contains(&now) {
                turn.hear(Moment(now));
            }
            if turn.is_due(Moment(now)) {
                looks.push((now, turn.heard().unwrap().0));
                turn.take();
            }
        }
        looks
    }

    #[test]
    fn a_look_is_due_by_the_time_of_what_was_counted_and_when_nothing_newer_came() {
        for (speaks, expected) in [
            // Every heartbeat, at once, and a little jitter.
            (vec![0, 2000, 4000, 6000], vec![(0, 0), (2000, 2000), (4000, 4000), (6000, 6000)]),
            (vec![0, 1900, 4000, 5900], vec![(0, 0), (1900, 1900), (4000, 4000), (5900, 5900)]),
            // Something changed in mid-heartbeat: one look is short, and the next heartbeats are looked at when they come.
            (vec![0, 1000, 3000, 5000], vec![(0, 0), (2200, 1000), (3000, 3000), (5000, 5000)]),
            (vec![0, 300, 2300, 4300], vec![(0, 0), (2200, 300), (2300, 2300), (4300, 4300)]),
            // Changes all the time are no more looks.
            ((0..50).map(|at| at * 100).collect(), vec![(0, 0), (1900, 1900), (3800, 3800), (6000, 4900)]),
            // Nobody adds to it: it is looked at all the same, once.
            (vec![0, 500], vec![(0, 0), (2200, 500)]),
            (vec![3000], vec![(3000, 3000)]),
            (vec![], vec![]),
        ] {
            assert_eq!(looks(&speaks, 6000), expected, "{speaks:?}");
        }
    }

    #[test]
    fn what_follows_other_looks_waits_for_them_for_a_heartbeat_and_not_for_ever() {
        let mut turn = Turn::default();
        turn.pass(Moment(400));
        turn.hear(Moment(500));
        assert!(turn.is_late(Moment(500)), "the first is looked at when it comes");
        turn.pass(Moment(600));
        for (at, late) in [(700, false), (2600, false), (2749, false), (2750, true), (9000, true)] {
            turn.hear(Moment(at));
            assert_eq!(turn.is_late(Moment(at)), late, "{at}");
        }
        assert_eq!(turn.late_at(), Some(Moment(2750)));
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_waiting() {
        let mut turn = Turn::after(Some(Moment(1_000_000)));
        assert!(!turn.is_due(Moment(2000)), "there is nothing");
        turn.hear(Moment(2000));
        assert!(turn.is_due(Moment(2000)));
        turn.take();
        turn.hear(Moment(4000));
        assert!(turn.is_due(Moment(4000)));
    }
}
