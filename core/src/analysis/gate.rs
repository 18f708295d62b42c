//! The gate: evidence that the new release is not worse by a stated size. The guard's bet with the roles exchanged.

use super::bet::{Border, REMEMBERED, Rates, guess, logarithm};
use super::counts::{Counts, Poll};
use super::real::Real;
use super::settings::GateSettings;
use serde::{Deserialize, Serialize};

/// Passed once the bet is worth this: a regression of the stated size would pass in at most one of 20 rollouts.
pub const PASS: f64 = 20.0;

/// Bet at the start; the rest is spread, so that a bad first minute can be made good.
const FIRST: f64 = 0.8;
/// Over ten minutes of polls.
const SPREAD: u32 = 300;

/// What the bettor owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    wealth: Real,
    polls: u32,
    passed: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self { wealth: Real::new(FIRST), polls: 0, passed: false }
    }
}

impl Gate {
    /// Takes one poll. Null hypothesis: the new release fails more often than the old one, by `size` at least.
    ///
    /// Where the old release has no traffic any more, what it did before stands for it, if that was enough.
    pub fn look(&mut self, settings: &GateSettings, past: Counts, poll: Poll, phi: f64) {
        let known = poll.old.requests > 0 || past.requests >= REMEMBERED;
        if poll.new.requests == 0 || !known {
            return;
        }
        let size = settings.size();
        let old = guess(past).min(1.0 - size);
        let rates = Rates { old, new: old };
        let border = Border { ratio: 1.0, margin: size };
        let null = if poll.old.requests > 0 { border.nearest(rates, poll) } else { Rates { old, new: border.at(old) } };
        let temper = if phi.is_finite() && phi > 1.0 { 1.0 / phi } else { 1.0 };
        let factor = (logarithm(rates, null, poll) * temper).exp();
        let fresh = if self.polls < SPREAD { (1.0 - FIRST) / f64::from(SPREAD) } else { 0.0 };
        if factor.is_finite() {
            self.wealth = Real::new(((self.wealth.get() + fresh) * factor).min(1e12));
        }
        self.polls = self.polls.saturating_add(1);
        self.passed |= self.worth() >= PASS;
    }

    /// Whether the regression was ever ruled out.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.passed
    }

    /// How many more requests without a surplus of failures would rule it out.
    #[must_use]
    pub fn requests_to_go(&self, settings: &GateSettings, past: Counts) -> u64 {
        if self.passed {
            return 0;
        }
        let (p, size) = (guess(past), settings.size());
        let p = p.min(1.0 - size - 1e-6).max(0.0);
        let each = ((1.0 - p) / (1.0 - p - size)).ln();
        let missing = PASS.ln() - self.worth().max(1e-300).ln();
        (missing / each).ceil().clamp(1.0, 1e12) as u64
    }

    fn worth(&self) -> f64 {
        let unbet = (1.0 - FIRST) * (1.0 - f64::from(self.polls.min(SPREAD)) / f64::from(SPREAD));
        self.wealth.get() + unbet
    }
}
