//! What may be asked for at once, and how much of it a second for ever: a bucket that time fills.

use std::time::Duration;
use tokio::time::Instant;

/// How much credit there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// That may be spent at once.
    pub(super) burst: u64,
    /// That time gives back, a second.
    pub(super) rate: u64,
}

/// One account.
#[derive(Debug)]
pub(super) struct Credit {
    terms: Terms,
    has: u64,
    /// Spent beyond what there was.
    debt: u64,
    refilled: Instant,
}

impl Credit {
    pub(super) fn new(terms: Terms, now: Instant) -> Self {
        Self { terms, has: terms.burst, debt: 0, refilled: now }
    }

    pub(super) fn spend(&mut self, units: u64) {
        self.debt += units.saturating_sub(self.has);
        self.has = self.has.saturating_sub(units);
    }

    pub(super) fn earn(&mut self, units: u64) {
        let paid = units.min(self.debt);
        self.debt -= paid;
        self.has = (self.has + (units - paid)).min(self.terms.burst);
    }

    /// When there is no debt any more; None: there is none.
    pub(super) fn paid_at(&mut self, now: Instant) -> Option<Instant> {
        self.refill(now);
        (self.debt > 0).then(|| self.refilled + Duration::from_micros((self.debt * 1_000_000).div_ceil(self.terms.rate)))
    }

    /// Whether it is as it was in the beginning.
    pub(super) fn is_whole(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.has == self.terms.burst
    }

    #[cfg(test)]
    pub(super) fn refilled(&self) -> Instant {
        self.refilled
    }

    fn refill(&mut self, now: Instant) {
        let passed = u64::try_from(now.saturating_duration_since(self.refilled).as_micros()).unwrap_or(u64::MAX);
        let earned = passed.saturating_mul(self.terms.rate) / 1_000_000;
        if earned > 0 {
            // What is no whole unit yet is not lost.
            self.refilled += Duration::from_micros(earned.saturating_mul(1_000_000) / self.terms.rate);
            self.earn(earned);
        }
    }
}
