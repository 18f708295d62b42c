//! What a manifest may ask of the guard and the gate. Whole numbers, so that a strategy stays comparable.

use crate::time::millis;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// When the guard speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardSettings {
    /// How many of a million releases that are no worse may be taken back.
    pub alpha_ppm: u32,
    /// How many times as many failures are no regression yet, in hundredths.
    pub ratio_percent: u32,
    /// And how many more on top, of a million requests.
    pub margin_ppm: u32,
    /// Whether memory of the new instances that grows speaks against them.
    #[serde(default = "yes")]
    pub memory: bool,
    #[serde(default)]
    pub sources: Sources,
}

/// Which sources of failures are named beside the load balancers' counters. They share what is bet on failures, so it has to
/// be known before the first look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sources {
    /// The instances' own metrics.
    pub metrics: bool,
    /// A Prometheus.
    pub prometheus: bool,
}

impl Sources {
    pub const NONE: Self = Self { metrics: false, prometheus: false };

    /// How many there are, the load balancers among them.
    #[must_use]
    pub fn all(self) -> u8 {
        1 + u8::from(self.metrics) + u8::from(self.prometheus)
    }
}

const fn yes() -> bool {
    true
}

/// What the gate must rule out, and for how long it may wait for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateSettings {
    /// The regression: how many more failures, of a million requests.
    pub rule_out_ppm: u32,
    /// From the end of the bake.
    #[serde(with = "millis")]
    pub max_wait: Duration,
    pub on_not_enough_data: NotEnough,
}

/// What becomes of a rollout whose gate has waited for as long as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotEnough {
    Pause,
    Promote,
    Revert,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { alpha_ppm: 10_000, ratio_percent: 120, margin_ppm: 1_000, memory: true, sources: Sources::NONE }
    }
}

impl GuardSettings {
    /// No tolerance at all: any regression counts.
    #[must_use]
    pub fn strict() -> Self {
        Self { ratio_percent: 100, margin_ppm: 0, ..Self::default() }
    }

    #[must_use]
    pub fn alpha(&self) -> f64 {
        f64::from(self.alpha_ppm.clamp(1, 999_999)) / 1e6
    }

    #[must_use]
    pub fn ratio(&self) -> f64 {
        f64::from(self.ratio_percent.max(1)) / 100.0
    }

    #[must_use]
    pub fn margin(&self) -> f64 {
        f64::from(self.margin_ppm.min(999_999)) / 1e6
    }
}

impl GateSettings {
    #[must_use]
    pub fn size(&self) -> f64 {
        f64::from(self.rule_out_ppm.clamp(1, 999_999)) / 1e6
    }
}

/// Millionths as people write them: `1.8 %`.
#[derive(Debug, Clone, Copy)]
pub struct Share(pub f64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        let digits = if percent >= 10.0 || percent == 0.0 {
            0
        } else if percent >= 0.995 {
            1
        } else if percent >= 0.1 {
            2
        } else {
            3
        };
        let text = format!("{percent:.digits$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        write!(f, "{text} %")
    }
}
