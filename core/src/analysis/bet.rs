//! The arithmetic of one bet: how much likelier a poll is under an alternative than under the null hypothesis' best.

use super::counts::{Counts, Poll};

/// A pair of error rates: the old release's and the new one's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub old: f64,
    pub new: f64,
}

/// The border of the null hypothesis: `new = ratio * old + margin`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Border {
    pub ratio: f64,
    pub margin: f64,
}

/// Rates this close to 0 and 1 are not told apart from them.
const EDGE: f64 = 1e-12;
/// Each halves the interval.
const HALVINGS: usize = 60;
/// Relatively: the bet is fair to many more digits than anybody counts.
const CLOSE: f64 = 1e-11;

/// A guess of an error rate from what was counted before: 0.5 % where nothing was.
#[must_use]
pub fn guess(past: Counts) -> f64 {
    (0.5 + past.errors as f64) / (100.0 + past.requests as f64)
}

/// What an old release must have answered before it can stand for itself once it is gone.
pub const REMEMBERED: u64 = 100;
/// How surely what it failed at is not underestimated: standard deviations, one-sided 99.95 %.
const SURELY: f64 = 3.29;
/// Other times, other traffic: failures may be so many times as many as they were,
const OTHER_TIMES: f64 = 2.0;
/// and so many more.
const MORE: f64 = 0.01;

/// The most that a new release may fail at which is held against what the old one did before, where nobody answers beside it: the
/// upper end of what that may have been (Wilson's interval, for failures that come in bursts of `phi`), twice over, and one in a
/// hundred on top. None: that says nothing, as too little is known or too much failed.
#[must_use]
pub fn before(border: Border, past: Counts, phi: f64) -> Option<f64> {
    let share = past.share().filter(|_| past.requests >= REMEMBERED)?;
    let n = past.requests as f64 / if phi.is_finite() { phi.max(1.0) } else { 1.0 };
    let (z, own) = (SURELY * SURELY / n, share * (1.0 - share) / n);
    let upper = (share + z / 2.0 + SURELY * (own + z / (4.0 * n)).sqrt()) / (1.0 + z);
    Some(OTHER_TIMES * border.at(upper) + MORE).filter(|most| *most < 0.9)
}

/// The rate with `times` the odds.
#[must_use]
pub fn with_odds(rate: f64, times: f64) -> f64 {
    let odds = times * rate / (1.0 - rate);
    odds / (1.0 + odds)
}

impl Border {
    #[must_use]
    pub fn at(self, old: f64) -> f64 {
        self.ratio * old + self.margin
    }

    /// The point on the border that is hardest to tell from `rates` with this much traffic: it minimises
    /// `n_old kl(old‖·) + n_new kl(new‖·)`, whose derivative along the border grows.
    #[must_use]
    pub fn nearest(self, rates: Rates, poll: Poll) -> Rates {
        let (n_old, n_new) = (poll.old.requests as f64, poll.new.requests as f64);
        if self.ratio == 1.0 && self.margin == 0.0 {
            let both = (n_new * rates.new + n_old * rates.old) / (n_new + n_old);
            return Rates { old: both, new: both };
        }
        let highest = (((1.0 - self.margin) / self.ratio).min(1.0) - EDGE).max(EDGE);
        let other = (rates.new - self.margin) / self.ratio;
        let (mut low, mut high) = (rates.old.min(other).clamp(EDGE, highest), rates.old.max(other).clamp(EDGE, highest));
        for _ in 0..HALVINGS {
            let old = f64::midpoint(low, high);
            let new = self.at(old).clamp(EDGE, 1.0 - EDGE);
            let slope = n_old * (old - rates.old) / (old * (1.0 - old))
                + n_new * self.ratio * (new - rates.new) / (new * (1.0 - new));
            *(if slope < 0.0 { &mut low } else { &mut high }) = old;
            if high - low <= CLOSE * high {
                break;
            }
        }
        let old = f64::midpoint(low, high);
        Rates { old, new: self.at(old).clamp(EDGE, 1.0 - EDGE) }
    }
}

/// The logarithm of what a bet of 1 on `rates` against `null` becomes with this poll.
#[must_use]
pub fn logarithm(rates: Rates, null: Rates, poll: Poll) -> f64 {
    side(rates.new, null.new, poll.new) + side(rates.old, null.old, poll.old)
}

/// The same on average, where `rates` are the truth.
#[must_use]
pub fn expected(rates: Rates, null: Rates, traffic: Poll) -> f64 {
    let each = |rate: f64, null: f64| {
        let (rate, null) = (rate.clamp(EDGE, 1.0 - EDGE), null.clamp(EDGE, 1.0 - EDGE));
        rate * (rate / null).ln() + (1.0 - rate) * ((-rate).ln_1p() - (-null).ln_1p())
    };
    traffic.new.requests as f64 * each(rates.new, null.new) + traffic.old.requests as f64 * each(rates.old, null.old)
}

fn side(rate: f64, null: f64, counts: Counts) -> f64 {
    let (rate, null) = (rate.clamp(EDGE, 1.0 - EDGE), null.clamp(EDGE, 1.0 - EDGE));
    let (errors, good) = (counts.errors as f64, counts.requests.saturating_sub(counts.errors) as f64);
    errors * (rate / null).ln() + good * ((-rate).ln_1p() - (-null).ln_1p())
}
