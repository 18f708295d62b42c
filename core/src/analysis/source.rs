//! A source of failures beside the load balancers' counters: a bet of its own, on what it counts.
//!
//! Who counts here looks at each instance at a time of its own, so a poll is what came together until both releases had answered
//! somebody: how many answers those are says nothing of how good they were.

use super::counts::Counts;
use super::failures::Failures;
use super::history::Summary;
use super::meters::Whose;
use super::settings::GuardSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What waited for the other release for more looks than this was no longer at the same time.
const WAITS: u8 = 8;

/// What was counted between two looks, by release and by who answered: an instance, as the source calls it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slots {
    pub new: BTreeMap<String, Counts>,
    pub old: BTreeMap<String, Counts>,
}

/// What a rollout remembers of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    pub failures: Failures,
    /// Everything that was compared.
    pub new: Counts,
    pub old: Counts,
    /// Where most failures of the new release were in one poll.
    worst: Option<(String, u64)>,
    /// Of only one release so far,
    waiting: Slots,
    /// for so many looks.
    waited: u8,
}

impl Slots {
    /// Counts for one of a rollout's releases; what belongs to neither is not compared.
    pub fn add(&mut self, whose: Whose, slot: String, counts: Counts) {
        let side = match whose {
            Whose::New => &mut self.new,
            Whose::Old => &mut self.old,
            Whose::Other => return,
        };
        if counts != Counts::default() {
            *side.entry(slot).or_default() += counts;
        }
    }

    fn extend(&mut self, other: Self) {
        other.new.into_iter().for_each(|(slot, counts)| self.add(Whose::New, slot, counts));
        other.old.into_iter().for_each(|(slot, counts)| self.add(Whose::Old, slot, counts));
    }
}

impl Source {
    /// Begins with what is known of the old release.
    #[must_use]
    pub fn begin(history: &Summary) -> Self {
        Self { failures: Failures::begin(history), ..Self::default() }
    }

    /// Takes what was counted since the last look.
    pub fn look(&mut self, settings: &GuardSettings, slots: Slots, alone: bool) {
        self.waiting.extend(slots);
        let alone = alone && self.waiting.old.is_empty();
        let is_one_sided = self.waiting.new.is_empty() || self.waiting.old.is_empty() && !alone;
        if is_one_sided && self.waited < WAITS {
            self.waited = if self.waiting == Slots::default() { 0 } else { self.waited + 1 };
            return;
        }
        self.waited = 0;
        let Slots { new, old } = std::mem::take(&mut self.waiting);
        if is_one_sided {
            return;
        }
        for (slot, counts) in &new {
            if counts.errors > self.worst.as_ref().map_or(0, |(_, most)| *most) {
                self.worst = Some((slot.clone(), counts.errors));
            }
        }
        let (new, old) = (new.into_values().collect::<Vec<_>>(), old.into_values().collect::<Vec<_>>());
        new.iter().for_each(|counts| self.new += *counts);
        old.iter().for_each(|counts| self.old += *counts);
        self.failures.look(settings, &new, &old, alone);
    }

    #[must_use]
    pub fn worth(&self) -> f64 {
        self.failures.guard.worth()
    }

    /// Who answered worst, as the source calls it.
    #[must_use]
    pub fn worst(&self) -> Option<&str> {
        self.worst.as_ref().map(|(slot, _)| slot.as_str())
    }
}
