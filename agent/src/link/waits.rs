//! How long until this host tries again: soon where the coordinator is away, and less and less often where it refuses who this is.

use crate::session::{WAIT_MAX, backoff};
use backon::{BackoffBuilder, ExponentialBuilder};
use baton_core::problem::Problem;
use baton_proto::problem::code;
use baton_proto::tls::refuses_identity;
use std::time::Duration;

/// The longest wait when the coordinator's machine itself says that nobody listens: it is about to be back.
pub(crate) const WAIT_REFUSED_MAX: Duration = Duration::from_millis(700);

/// The first and the longest wait where this host's identity is refused, before jitter, which at most doubles it: a person has to
/// do something, and each refusal is an entry in somebody's log.
const UNWELCOME_MIN: Duration = Duration::from_secs(1);
const UNWELCOME_MAX: Duration = Duration::from_secs(30);

type Growing = Box<dyn Iterator<Item = Duration> + Send>;

/// The waits between tries of one kind.
pub(super) struct Waits {
    away: Growing,
    unwelcome: Growing,
}

impl Waits {
    pub(super) fn new() -> Self {
        let growing =
            ExponentialBuilder::default().with_min_delay(UNWELCOME_MIN).with_max_delay(UNWELCOME_MAX).with_factor(2.0);
        Self { away: Box::new(backoff()), unwelcome: Box::new(growing.with_jitter().without_max_times().build()) }
    }

    /// The wait where there was an answer until now.
    pub(super) fn soon(&mut self) -> Duration {
        self.away.next().unwrap_or(WAIT_MAX)
    }

    /// The wait after a try that came to nothing.
    pub(super) fn after(&mut self, problem: &Problem) -> Duration {
        if refuses_identity(problem) {
            return self.unwelcome.next().unwrap_or(UNWELCOME_MAX);
        }
        let wait = self.soon();
        if problem.code == code::UNREACHABLE { wait.min(WAIT_REFUSED_MAX) } else { wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_refused_asks_less_and_less_often_and_one_whose_coordinator_is_away_soon() {
        let mut waits = Waits::new();
        let refused = Problem::new(code::REFUSED, "revoked");
        let growing: Vec<Duration> = (0..20).map(|_| waits.after(&refused)).collect();
        let all: Duration = growing.iter().sum();
        assert!(growing[0] >= UNWELCOME_MIN && growing[0] <= UNWELCOME_MIN * 2, "{growing:?}");
        assert!(growing[5..].iter().all(|wait| *wait >= UNWELCOME_MAX && *wait <= UNWELCOME_MAX * 2), "{growing:?}");
        assert!(all > Duration::from_secs(8 * 60), "{growing:?}");
        for code in [code::UNREACHABLE, code::NO_ANSWER, code::BROKEN] {
            let away = Problem::new(code, "away");
            assert!((0..20).all(|_| waits.after(&away) <= WAIT_MAX * 2), "{code}");
        }
        // The coordinator's certificate is the one that is outside its dates: it has not refused this host.
        let clocks = Problem::new(code::CERTIFICATE_TIME, "off").saw("valid until", "yesterday");
        assert!(waits.after(&clocks) <= WAIT_MAX * 2);
    }
}
