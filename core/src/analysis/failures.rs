//! The bet on failures, whoever counts them: what it is worth, and in which unit they are counted.

use super::counts::{Counts, Unit};
use super::guard::Guard;
use super::history::Summary;
use super::real::Real;
use super::settings::GuardSettings;
use serde::{Deserialize, Serialize};

/// What is remembered of one source of failures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    pub guard: Guard,
    /// What is counted; None until both releases had traffic.
    pub unit: Option<Unit>,
    /// How burst-like the old release's failures were before.
    phi: Option<Real>,
    /// What the old release counted before the rollout and in it, in this unit.
    past: Counts,
    /// Requests of the old release and the members they went to, over all polls, those before the rollout among them.
    before: (u64, u64),
}

impl Failures {
    /// Begins with what is known of the old release.
    #[must_use]
    pub fn begin(history: &Summary) -> Self {
        let before = (history.counts.requests, history.slots);
        Self { phi: Some(Real::new(history.phi)), past: history.counts, before, ..Self::default() }
    }

    /// Takes one poll, from what each member counted.
    pub fn look(&mut self, settings: &GuardSettings, new: &[Counts], old: &[Counts]) {
        let raw = Unit::Requests.poll(new, old);
        if raw.new.requests > 0 && raw.old.requests > 0 {
            // How much traffic there is says nothing of how good it was, so the unit may follow it.
            self.before.0 = self.before.0.saturating_add(raw.old.requests);
            self.before.1 = self.before.1.saturating_add(old.len() as u64);
            self.unit = Some(Unit::for_traffic(self.before.0, self.before.1));
        }
        let poll = self.unit.unwrap_or(Unit::Requests).poll(new, old);
        let phi = if self.unit == Some(Unit::Slots) { 1.0 } else { self.phi() };
        self.guard.look(settings, self.past, poll, phi);
        self.past += poll.old;
    }

    /// How burst-like the old release's failures were before; 1: they were not.
    #[must_use]
    pub fn phi(&self) -> f64 {
        self.phi.map_or(1.0, Real::get)
    }
}
