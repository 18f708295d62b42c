//! The proxy's own checks: who no longer answers gets no new requests, however long the agent is silent.
//!
//! They only ever take away: a member that its pool does not want in is not asked. And they never take the last one: when no
//! member answers, the check is what is wrong, or nothing can be made worse.

use super::members::Pool;
use crate::probe::Question;
use baton_core::release::Probe;
use futures_util::future::join_all;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// From the end of a round to the next.
const EVERY: Duration = Duration::from_secs(1);

/// For one question and its answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Of one member: its failures in a row, and what was seen last.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    seen: String,
}

impl Health {
    /// Takes an answer down.
    pub(super) fn hear(&mut self, answer: Result<(), String>) {
        match answer {
            Ok(()) => *self = Self::default(),
            Err(seen) => *self = Self { failures: self.failures.saturating_add(1), seen },
        }
    }

    /// Whether it failed so often in a row.
    pub(super) fn is_down(&self, fall: Option<NonZeroU32>) -> bool {
        fall.is_some_and(|fall| self.failures >= fall.get())
    }

    /// What was seen of a member that is down.
    pub(super) fn down(&self, fall: Option<NonZeroU32>) -> Option<String> {
        self.is_down(fall).then(|| format!("{} ({} times in a row)", self.seen, self.failures))
    }
}

/// Asks every member that its pool wants in, round after round.
pub(super) async fn run(pools: Vec<Arc<Pool>>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let questions = pools.iter().flat_map(|pool| {
            pool.to_check().into_iter().map(move |(address, probe)| async move {
                let question = Question { probe, address, timeout: TIMEOUT, surroundings: None };
                let answer = question.ask().await.map_err(|refusal| format!("{question}: {refusal}"));
                pool.hear(address, answer);
            })
        });
        join_all(questions).await;
    }
}

/// What is asked of the members of a pool, from outside their hosts: of an exec probe's member, whether it listens.
pub(super) fn from_outside(probe: &Probe) -> Probe {
    match probe {
        Probe::Exec { .. } => Probe::Tcp,
        probe => probe.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_down_after_failures_in_a_row_and_up_with_one_answer() {
        let (limit, mut health) = (NonZeroU32::new(2), Health::default());
        let refused = || Err("refused".to_owned());
        health.hear(refused());
        assert_eq!(health.down(limit), None);
        health.hear(Ok(()));
        health.hear(refused());
        assert_eq!(health.down(limit), None);
        health.hear(refused());
        assert_eq!(health.down(limit).as_deref(), Some("refused (2 times in a row)"));
        assert_eq!(health.down(None), None);
        health.hear(Ok(()));
        assert_eq!(health.down(limit), None);
    }
}
