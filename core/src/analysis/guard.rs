//! The guard: evidence that the new release is worse.
//!
//! A block e-process for 2×2 tables (Turner, Ly, Grünwald: Generic E-variables for exact sequential k-sample tests,
//! arXiv 2106.02693) with a mixture of alternatives. Null hypothesis: in every poll the new release fails at most as often
//! as the tolerance allows, whatever the old one does. So an incident that hits both proves nothing.

use super::bet::{Border, Rates, before, guess, logarithm, with_odds};
use super::counts::{Counts, Poll};
use super::real::Real;
use super::settings::GuardSettings;
use serde::{Deserialize, Serialize};

/// The alternatives, by how much worse the odds of a failure are, and how much is bet on each.
pub const ALTERNATIVES: [(f64, f64); 5] = [(2.0, 0.2), (4.0, 0.3), (10.0, 0.3), (30.0, 0.1), (1000.0, 0.1)];

/// Bet at the start.
const FIRST: f64 = 0.49;
/// As much is spread over this many polls, an hour of them: a fault that starts late is caught, too.
pub const SPREAD: u32 = 1800;
/// And the rest over all that follow, less and less. What was bet on a release that is no worse is soon worth nothing, at much
/// traffic within half a minute, and would win nothing back; this is the floor that it never falls below: after two hours three
/// millionths, after a day twenty billionths. All three together are 1, however many polls there are, so the floor is paid out of
/// `alpha`, and a release that is no worse is taken back no more often.
const LATER: f64 = 1.0 - 2.0 * FIRST;

/// What a single poll may multiply a bet by at most: however bad it is, one poll never decides alone.
const MOST: f64 = 30.0;

/// Beyond this evidence is overwhelming, and a double keeps its precision.
const ENOUGH: f64 = 1e12;

/// How little one poll may prove.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Caution {
    /// How much what is counted comes in bursts; 1: it does not.
    pub phi: f64,
    /// What a poll may multiply a bet by.
    pub most: f64,
}

impl Caution {
    /// For failures that come in bursts so much.
    #[must_use]
    pub const fn about(phi: f64) -> Self {
        Self { phi, most: MOST }
    }
}

/// What the bettor owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "([Real; 5], u32, Real)")]
pub struct Guard {
    /// By alternative.
    wealth: [Real; 5],
    /// Polls that were bet on.
    polls: u32,
    /// The most it was ever worth.
    highest: Real,
}

/// As it is written now, and as it once was.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Row([Real; 5], u32, Real),
    Named { wealth: [Real; 5], polls: u32, highest: Real },
}

impl From<Stored> for Guard {
    fn from(stored: Stored) -> Self {
        let (Stored::Row(wealth, polls, highest) | Stored::Named { wealth, polls, highest }) = stored;
        Self { wealth, polls, highest }
    }
}

impl From<Guard> for ([Real; 5], u32, Real) {
    fn from(guard: Guard) -> Self {
        (guard.wealth, guard.polls, guard.highest)
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self { wealth: ALTERNATIVES.map(|(_, weight)| Real::new(weight * FIRST)), polls: 0, highest: Real::new(1.0) }
    }
}

impl Guard {
    /// Takes one poll. `past` is what the old release counted before it; `phi` is how much its failures come in bursts
    /// (1: they do not). Both are known before the poll.
    pub fn look(&mut self, settings: &GuardSettings, past: Counts, poll: Poll, phi: f64) {
        self.bet(settings, past, poll, Caution::about(phi));
    }

    /// The same with a bound of its own on what one poll may do.
    pub fn bet(&mut self, settings: &GuardSettings, past: Counts, poll: Poll, caution: Caution) {
        let Caution { phi, most } = caution;
        if poll.new.requests == 0 || poll.old.requests == 0 {
            return;
        }
        let border = Border { ratio: settings.ratio(), margin: settings.margin() };
        let old = guess(past);
        self.play(Caution { phi, most }, |odds| {
            let rates = Rates { old, new: with_odds(old, odds) };
            (rates.new > border.at(old)).then(|| logarithm(rates, border.nearest(rates, poll), poll))
        });
    }

    /// Takes a poll in which nobody but the new release answered, since nothing leads to the old one any more. It is held against
    /// what the old one may have failed at before: null hypothesis: at most at that rate, with more tolerance than beside it.
    pub fn look_alone(&mut self, settings: &GuardSettings, past: Counts, new: Counts, caution: Caution) {
        let border = Border { ratio: settings.ratio(), margin: settings.margin() };
        let Some(most) = before(border, past, caution.phi) else { return };
        if new.requests > 0 {
            let poll = Poll { new, old: Counts::default() };
            let rates = |new| Rates { old: most, new };
            self.play(caution, |odds| Some(logarithm(rates(with_odds(most, odds)), rates(most), poll)));
        }
    }

    /// One poll: what each bet is multiplied by, as a logarithm; None: it was not made.
    fn play(&mut self, caution: Caution, won: impl Fn(f64) -> Option<f64>) {
        let Caution { phi, most } = caution;
        let fresh = unbet(self.polls) - unbet(self.polls.saturating_add(1));
        let temper = if phi.is_finite() && phi > 1.0 { 1.0 / phi } else { 1.0 };
        for (wealth, (odds, weight)) in self.wealth.iter_mut().zip(ALTERNATIVES) {
            let bet = wealth.get() + weight * fresh;
            let factor = won(odds).map_or(1.0, |won| (won * temper).exp().min(most));
            *wealth = Real::new((bet * if factor.is_finite() { factor } else { 1.0 }).min(ENOUGH));
        }
        self.polls = self.polls.saturating_add(1);
        self.highest = Real::new(self.highest.get().max(self.worth()));
    }

    /// `M`: what all bets and what is not bet yet are worth now.
    #[must_use]
    pub fn worth(&self) -> f64 {
        self.wealth.iter().map(|wealth| wealth.get()).sum::<f64>() + unbet(self.polls)
    }

    /// Whether it ever was worth what releases that are no worse reach in at most `alpha` of all rollouts.
    #[must_use]
    pub fn speaks_against(&self, settings: &GuardSettings) -> bool {
        self.highest.get() >= 1.0 / settings.alpha()
    }

    /// In which share of rollouts a gap like this would appear if both releases were equally good; at most 1.
    #[must_use]
    pub fn chance(&self) -> f64 {
        (1.0 / self.highest.get().max(1.0)).min(1.0)
    }

    /// Polls that were bet on.
    #[must_use]
    pub const fn polls(&self) -> u32 {
        self.polls
    }
}

/// What is not bet yet after so many polls.
fn unbet(polls: u32) -> f64 {
    let (polls, spread) = (f64::from(polls), f64::from(SPREAD));
    if polls < spread { FIRST * (1.0 - polls / spread) + LATER } else { LATER * spread / polls }
}
