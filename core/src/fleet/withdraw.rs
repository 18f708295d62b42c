//! How an instance leaves a balancer that cannot be told: it fails its health check, and the balancer finds out by itself.

use crate::release::Signal;
use crate::time::millis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What people say of their service and its balancers: that each of them asks every member how it is, all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    /// Upon which the instance answers its health check with failure, and everything else as before.
    pub signal: Signal,
    /// How long a balancer takes at most until it has noticed.
    #[serde(with = "millis")]
    pub unready_for: Duration,
}

/// How a host ends what is in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    pub signal: Signal,
    #[serde(with = "millis")]
    pub unready_for: Duration,
    /// How long requests may go on after that.
    #[serde(with = "millis")]
    pub drain_deadline: Duration,
}

impl Withdraw {
    #[must_use]
    pub const fn within(self, drain_deadline: Duration) -> Withdrawal {
        Withdrawal { signal: self.signal, unready_for: self.unready_for, drain_deadline }
    }
}
