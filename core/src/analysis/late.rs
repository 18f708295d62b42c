//! What is noticed once nothing leads to the old release any more, and is no evidence, since an incident would look the same: no
//! release is taken back for it. A person is asked, once.

use super::counts::Counts;
use super::guard::{Caution, Guard};
use super::settings::GuardSettings;
use serde::{Deserialize, Serialize};

/// A bet against what the old release did before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Late {
    guard: Guard,
    /// What the new one did meanwhile.
    pub new: Counts,
    pub asked: bool,
}

impl Late {
    /// Takes one poll in the unit that is bet on.
    pub fn look(&mut self, settings: &GuardSettings, past: Counts, poll: Counts, caution: Caution) {
        self.guard.look_alone(settings, past, poll, caution);
    }

    /// What the bet is worth now; it begins with 1.
    #[must_use]
    pub fn worth(&self) -> f64 {
        self.guard.worth()
    }

    /// Whether it ever was worth enough for itself.
    #[must_use]
    pub fn speaks_against(&self, settings: &GuardSettings) -> bool {
        self.guard.speaks_against(settings)
    }
}
