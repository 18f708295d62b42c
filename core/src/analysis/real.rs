//! Real numbers in states that are compared and stored.

use serde::{Deserialize, Serialize};

/// A finite real number, equal bit by bit, stored as text that reads back as the very same number.
///
/// What is not finite becomes zero: a state that was stored is never a surprise to whoever loads it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Real(f64);

impl Real {
    #[must_use]
    pub const fn new(number: f64) -> Self {
        if number.is_finite() { Self(number) } else { Self(0.0) }
    }

    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Real {}

impl From<String> for Real {
    fn from(text: String) -> Self {
        Self::new(text.parse().unwrap_or(0.0))
    }
}

impl From<Real> for String {
    fn from(real: Real) -> Self {
        format!("{:e}", real.0)
    }
}
