//! The bet on failures, whoever counts them: what it is worth, and in which unit they are counted.

use super::bet::{REMEMBERED, guess};
use super::counts::{Counts, Poll, Unit};
use super::guard::{Caution, Guard};
use super::history::Summary;
use super::judgement::{catches, is_default};
use super::late::Late;
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
    /// Requests of both in polls in which both answered,
    #[serde(skip_serializing_if = "is_default")]
    beside: (u64, u64),
    /// and of the new one while nothing led to the old one any more.
    #[serde(skip_serializing_if = "is_default")]
    alone: u64,
    /// What came later than the comparison.
    #[serde(skip_serializing_if = "is_default")]
    late: Late,
}

/// A release that would have been caught at this share of failures beside the old one was compared with it: what fails later,
/// when nobody answers beside it, may be anybody's fault.
const COMPARED: f64 = 0.05;

impl Failures {
    /// Begins with what is known of the old release.
    #[must_use]
    pub fn begin(history: &Summary) -> Self {
        let before = (history.counts.requests, history.slots);
        Self { phi: Some(Real::new(history.phi)), past: history.counts, before, ..Self::default() }
    }

    /// Takes one poll, from what each member counted. `alone`: nothing leads to the old release any more.
    pub fn look(&mut self, settings: &GuardSettings, new: &[Counts], old: &[Counts], alone: bool) {
        let raw = Unit::Requests.poll(new, old);
        if alone && raw.old.requests == 0 {
            return self.look_alone(settings, new, raw.new);
        }
        if raw.new.requests > 0 && raw.old.requests > 0 {
            self.beside.0 = self.beside.0.saturating_add(raw.new.requests);
            self.beside.1 = self.beside.1.saturating_add(raw.old.requests);
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

    fn look_alone(&mut self, settings: &GuardSettings, new: &[Counts], sum: Counts) {
        if sum.requests == 0 || self.past.requests < REMEMBERED {
            return;
        }
        let (answered, slots) = self.before;
        let unit = *self.unit.get_or_insert(Unit::for_traffic(answered, slots));
        let phi = if unit == Unit::Slots { 1.0 } else { self.phi() };
        let poll = unit.poll(new, &[]).new;
        let compared = catches(settings, guess(self.past), self.compared()).is_some_and(|share| share <= COMPARED);
        if compared {
            self.late.new += sum;
            self.late.look(settings, self.past, poll, Caution::about(phi));
        } else {
            self.alone = self.alone.saturating_add(sum.requests);
            self.guard.look_alone(settings, self.past, poll, Caution::about(phi));
        }
    }

    /// What is too little to go back for, and enough to ask a person: once.
    pub fn ask(&mut self, settings: &GuardSettings, new: &str, old: &str) -> Option<String> {
        if self.late.asked || !self.late.speaks_against(settings) {
            return None;
        }
        self.late.asked = true;
        let Counts { requests, errors } = self.late.new;
        let before = format!("{} of {}", self.past.errors, self.past.requests);
        Some(format!(
            "{new} fails more often since nothing leads to {old} any more, {errors} of {requests} requests, than {old} did before, \
             {before}; an incident would look the same"
        ))
    }

    /// What both releases answered while both did.
    #[must_use]
    pub fn compared(&self) -> Poll {
        let requests = |requests| Counts::new(requests, 0);
        Poll { new: requests(self.beside.0), old: requests(self.beside.1) }
    }

    /// What the new release answered while it was held against what the old one did before; and that.
    #[must_use]
    pub const fn alone(&self) -> Option<(u64, Counts)> {
        if self.alone > 0 { Some((self.alone, self.past)) } else { None }
    }

    /// How burst-like the old release's failures were before; 1: they were not.
    #[must_use]
    pub fn phi(&self) -> f64 {
        self.phi.map_or(1.0, Real::get)
    }
}
