//! Watching a process become ready, stay so, or not.

use super::witness::Witness;
use super::{Change, Life, Wanted, evidence};
use crate::probe::{Question, Refusal, Tally};
use crate::runtime::{Running, age};
use baton_core::problem::Problem;
use baton_core::release::{Health, Probe};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// While an instance starts, its probes come this fast at first: what they miss is time a slot stands empty.
const FIRST_INTERVAL: Duration = Duration::from_millis(10);
/// A command costs a process: a little slower.
const FIRST_INTERVAL_EXEC: Duration = Duration::from_millis(50);
/// For so long they stay that fast; then each wait is a hundredth of the time that passed.
const FAST_FOR: Duration = Duration::from_secs(1);
/// Between a probe that failed at rest and the one that confirms it.
const CONFIRM_AFTER: Duration = Duration::from_millis(100);
/// For so long a program that starts refuses its probes without a word about it.
const QUIET: Duration = Duration::from_secs(1);
/// How often at least an instance is looked at between its first ready and being proven.
const LOOKS_UNTIL_PROVEN: u32 = 4;

/// One watched process.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    life: &'a Life,
    running: &'a Running,
    started: Instant,
    /// How long the process ran before: another agent may have started it.
    before: Duration,
    was_ready: bool,
    witness: Witness,
    tally: Tally,
}

/// What a watch has seen so far: evidence, when the process ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// How long the process has been there.
    pub(super) age: Duration,
    pub(super) was_ready: bool,
    pub(super) tally: &'a Tally,
}

impl<'a> Watch<'a> {
    pub(super) fn new(life: &'a Life, running: &'a Running, was_ready: bool) -> Self {
        let (started, before) = (Instant::now(), age(running.pid).unwrap_or_default());
        let (witness, tally) = (Witness::default(), Tally::default());
        Self { life, running, started, before, was_ready, witness, tally }
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        Seen { age: self.before + self.started.elapsed(), was_ready: self.was_ready, tally: &self.tally }
    }

    /// Watches for ever, or until it is certain that the instance did not become ready in time.
    pub(super) async fn over(&mut self, tell: &impl Fn(Change)) -> Problem {
        let Some(wanted) = &self.life.wanted else { return std::future::pending().await };
        let question = wanted.question(&self.life.key, self.running);
        if self.was_ready {
            if let Err(refusal) = self.look(&question).await {
                tell(Change::Unready(evidence::unready(self.life, &question, &refusal)));
                self.until_ready_again(wanted, &question, tell).await;
            }
        } else if let Err(problem) = self.until_ready(wanted, &question, tell).await {
            return problem;
        }
        loop {
            tell(Change::Ready { at: Instant::now() });
            self.was_ready = true;
            self.tally = Tally::default();
            let refusal = self.while_ready(wanted, &question, tell).await;
            tell(Change::Unready(evidence::unready(self.life, &question, &refusal)));
            self.until_ready_again(wanted, &question, tell).await;
        }
    }

    async fn until_ready(&mut self, wanted: &Wanted, question: &Question, tell: &impl Fn(Change)) -> Result<(), Problem> {
        let limit = wanted.release.health.start_timeout;
        // Every program refuses in its first moments: that is no news.
        let quiet = QUIET.min(limit / 4);
        let mut told = None;
        loop {
            let Err(refusal) = self.look(question).await else { return Ok(()) };
            self.tally.count(&refusal);
            let passed = self.started.elapsed();
            if told.as_ref() != Some(&refusal) && passed >= quiet {
                tell(Change::Waiting(evidence::waiting(question, &refusal)));
                told = Some(refusal);
            }
            if passed >= limit {
                return Err(evidence::never_ready(self.life, wanted, self.running, question, self.seen()).await);
            }
            sleep(cadence(&wanted.release.health, passed).min(limit - passed)).await;
        }
    }

    /// Returns the answer that ended it. Before the instance is proven one is enough; afterwards a second confirms it.
    async fn while_ready(&mut self, wanted: &Wanted, question: &Question, tell: &impl Fn(Change)) -> Refusal {
        let health = &wanted.release.health;
        let since = Instant::now();
        let unproven_interval = (health.healthy_for / LOOKS_UNTIL_PROVEN).max(FIRST_INTERVAL).min(health.interval);
        while since.elapsed() < health.healthy_for {
            sleep(unproven_interval.min(health.healthy_for.saturating_sub(since.elapsed()))).await;
            if let Err(refusal) = self.look(question).await {
                return refusal;
            }
        }
        tell(Change::Proven);
        loop {
            sleep(health.interval).await;
            if self.look(question).await.is_err() {
                sleep(CONFIRM_AFTER.min(health.interval)).await;
                if let Err(refusal) = self.look(question).await {
                    return refusal;
                }
            }
        }
    }

    async fn until_ready_again(&mut self, wanted: &Wanted, question: &Question, tell: &impl Fn(Change)) {
        let mut told = None;
        loop {
            sleep(CONFIRM_AFTER.min(wanted.release.health.interval)).await;
            let Err(refusal) = self.look(question).await else { return };
            self.tally.count(&refusal);
            if told.as_ref() != Some(&refusal) {
                tell(Change::Unready(evidence::unready(self.life, question, &refusal)));
                told = Some(refusal);
            }
        }
    }

    pub(super) async fn look(&mut self, question: &Question) -> Result<(), Refusal> {
        let answer = self.answer(question).await;
        self.life.counters.probed(&answer);
        answer
    }

    async fn answer(&mut self, question: &Question) -> Result<(), Refusal> {
        question.ask().await?;
        match question.probe {
            Probe::Exec { .. } => Ok(()),
            _ => self.witness.confirm(self.life.runtime.as_ref(), self.running, question.address),
        }
    }
}

fn cadence(health: &Health, passed: Duration) -> Duration {
    let first = match health.probe {
        Probe::Exec { .. } => FIRST_INTERVAL_EXEC,
        _ => FIRST_INTERVAL,
    };
    let wait = if passed < FAST_FOR { first } else { first.max(passed / 100) };
    wait.min(health.interval.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_of_a_start_come_fast_and_then_slower_up_to_the_interval() {
        let millis = Duration::from_millis;
        let health = Health {
            probe: Probe::Tcp,
            interval: millis(500),
            timeout: millis(500),
            healthy_for: millis(0),
            start_timeout: millis(60_000),
        };
        assert_eq!(cadence(&health, millis(0)), millis(10));
        assert_eq!(cadence(&health, millis(999)), millis(10));
        assert_eq!(cadence(&health, millis(10_000)), millis(100));
        assert_eq!(cadence(&health, millis(90_000)), millis(500));
    }
}
