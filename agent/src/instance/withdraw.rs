//! The end of an instance that some balancer cannot be told of: it fails its health check until that balancer has noticed.

use super::watch::Watch;
use super::{Life, Wanted};
use crate::connections::unanswered;
use crate::runtime::Running;
use baton_core::fleet::withdraw::Withdrawal;
use baton_core::problem::{Code, Problem};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How an instance is asked to leave.
#[derive(Debug, Clone)]
pub(crate) enum Leave {
    /// Nothing leads to it.
    Now,
    /// Somebody may, until it has failed its health check for long enough.
    Withdrawn(Withdrawal, Box<Wanted>),
}

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// For so long nobody may have waited for an answer: a balancer that asks how it is waits for one, too, now and then.
const QUIET: Duration = Duration::from_secs(1);
/// For so long it may go on to answer its health check: then it does not do what it was asked.
const PATIENCE: Duration = Duration::from_secs(10);

impl Watch<'_> {
    /// Has it fail its health check, and waits until that has lasted for long enough and everything is answered, or had its time.
    pub(super) async fn withdraw(
        &mut self,
        life: &Life,
        running: &Running,
        how: Withdrawal,
        wanted: &Wanted,
    ) -> Result<(), Problem> {
        tracing::info!(instance = %life.key, signal = how.signal.name(), "asked to fail its health check");
        life.runtime.signal(running, how.signal).await;
        let question = wanted.question(&life.key, running);
        let asked = Instant::now();
        let (mut unready, mut quiet) = (None, None);
        loop {
            let answer = self.look(&question).await;
            let now = Instant::now();
            since(&mut unready, answer.is_err(), now);
            since(&mut quiet, unanswered(wanted.address).is_ok_and(|open| open == 0), now);
            let lasts = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| now.duration_since(since));
            let noticed = unready.is_some() && lasts(unready) >= how.unready_for;
            if noticed && (lasts(quiet) >= QUIET || lasts(unready) >= how.unready_for + how.drain_deadline) {
                return Ok(());
            }
            if unready.is_none() && now.duration_since(asked) >= PATIENCE {
                return Err(answers_still(life, how, &question.to_string()));
            }
            sleep(INTERVAL).await;
        }
    }
}

/// Since when something is so, if it is.
fn since(start: &mut Option<Instant>, is_so: bool, now: Instant) {
    *start = is_so.then(|| start.unwrap_or(now));
}

fn answers_still(life: &Life, how: Withdrawal, question: &str) -> Problem {
    let (instance, signal) = (&life.key, how.signal.name());
    let what = format!("{instance} still answers its health check {} s after {signal}", PATIENCE.as_secs());
    Problem::new(Code(217), what).saw("health check", question).help(
        "a balancer cannot be told to take it out, and would go on sending it requests: make that balancer answer, declare it dead with \
         `baton balancers declare-dead`, or go back with `baton rollback`",
    )
}
