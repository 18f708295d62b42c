//! Real numbers in states that are compared and stored.

use serde::{Deserialize, Serialize};

/// A finite real number, equal bit by bit, stored as text that reads back as the very same number.
///
/// It has the digits of a single float, and what is beyond them is cut off: seven are more than a bet is good for, and a bettor
/// never owns more than it won. What is not finite becomes zero: a state that was stored is never a surprise to whoever loads it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Real(f32);

impl Real {
    #[must_use]
    pub fn new(number: f64) -> Self {
        if !number.is_finite() {
            return Self(0.0);
        }
        let nearest = (number as f32).clamp(f32::MIN, f32::MAX);
        let beyond = f64::from(nearest).abs() > number.abs();
        Self(if beyond { f32::from_bits(nearest.to_bits() - 1) } else { nearest })
    }

    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.0)
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
        // As a single float first: its text is the shortest that stands for it, and a little beside it as a double.
        text.parse().map(Self::exactly).unwrap_or_default()
    }
}

impl Real {
    const fn exactly(number: f32) -> Self {
        Self(if number.is_finite() { number } else { 0.0 })
    }
}

impl From<Real> for String {
    fn from(real: Real) -> Self {
        format!("{:e}", real.0)
    }
}
