//! The driver's own clock: goes on where the last driver's stopped.

use baton_core::time::Moment;
use tokio::time::Instant;

/// Moments since the fleet was first driven, from the machine's monotonic clock: the wall clock may jump as it likes.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Moment,
    started: Instant,
}

impl Clock {
    /// A clock that shows `base` now.
    #[must_use]
    pub fn from(base: Moment) -> Self {
        Self { base, started: Instant::now() }
    }

    #[must_use]
    pub fn now(&self) -> Moment {
        self.at(Instant::now())
    }

    /// What it showed then; never less than what it began with.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Moment {
        self.base + instant.saturating_duration_since(self.started)
    }

    /// When it will show this.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.started + moment.since(self.base)
    }
}
