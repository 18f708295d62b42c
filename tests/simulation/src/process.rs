//! One process as it really is, whatever anybody believes of it.

use super::random::Random;
use super::scenario::Quality;
use baton_core::fleet::report::{InstanceReport, InstanceState};
use baton_core::name::ReleaseId;
use baton_core::problem::Problem;
use std::time::Duration;

/// An instance that has been ready for so long has proven itself.
pub(super) const HEALTHY_FOR: u64 = 1_000;

#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) release: ReleaseId,
    /// Which start of it, as the spec counts.
    pub(super) start: u32,
    pub(super) incarnation: u64,
    pub(super) started: u64,
    pub(super) ready_at: Option<u64>,
    pub(super) exits_at: Option<u64>,
    /// Whether it really listens: not where another process still has its port.
    pub(super) owns_port: bool,
    pub(super) stopping: Option<(u64, u64)>,
    /// Since when it fails its health check, before it is stopped.
    pub(super) withdrawn: Option<u64>,
    pub(super) failed: Option<Problem>,
}

impl Process {
    pub(super) fn start(
        (release, start): (ReleaseId, u32),
        incarnation: u64,
        now: u64,
        quality: Quality,
        random: &mut Random,
    ) -> Self {
        let ready_at = now + random.between(100, 3_000);
        let (ready_at, exits_at) = match quality {
            Quality::Good | Quality::RejectedArtifact => (Some(ready_at), None),
            Quality::NeverReady => (None, None),
            Quality::ExitsAtOnce => (None, Some(now + random.between(10, 500))),
            Quality::CrashesLater => (Some(ready_at), Some(ready_at + random.between(500, 4_000))),
        };
        Self {
            release,
            start,
            incarnation,
            started: now,
            ready_at,
            exits_at,
            owns_port: true,
            stopping: None,
            withdrawn: None,
            failed: None,
        }
    }

    pub(super) fn stop(&mut self, now: u64, random: &mut Random) {
        self.stopping = Some((now, now + random.between(10, 1_000)));
    }

    /// How long it has failed its health check because it was asked to.
    pub(super) fn withdrawn_for(&self, now: u64) -> Duration {
        self.withdrawn.map_or(Duration::ZERO, |since| Duration::from_millis(now.saturating_sub(since)))
    }

    pub(super) fn is_ready(&self, now: u64) -> bool {
        let ended = self.failed.is_some() || self.exits_at.is_some_and(|at| at <= now);
        !ended && self.stopping.is_none() && self.withdrawn.is_none() && self.ready_at.is_some_and(|ready| ready <= now)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.failed.is_none()
    }

    /// When it changes by itself, or is ready for as long as it has to be.
    pub(super) fn changes_at(&self) -> impl Iterator<Item = u64> {
        let ready = self.ready_at.into_iter().flat_map(|at| [at, at + HEALTHY_FOR]);
        ready.chain(self.exits_at).chain(self.stopping.map(|(_, gone)| gone))
    }

    pub(super) fn is_moving(&self, now: u64) -> bool {
        let young = self.ready_at.is_none_or(|ready| now < ready + 2_000);
        self.stopping.is_some() || self.withdrawn.is_some() || (self.failed.is_none() && (young || self.exits_at.is_some()))
    }

    pub(super) fn report(&self, now: u64) -> InstanceReport {
        let millis = |since: u64| Duration::from_millis(now.saturating_sub(since));
        let leaving = self.withdrawn.or(self.stopping.map(|(since, _)| since));
        let state = match (&self.failed, leaving, self.ready_at) {
            (Some(problem), ..) => InstanceState::Failed { problem: problem.clone() },
            (None, Some(since), _) => InstanceState::Stopping { since: millis(since) },
            (None, None, Some(ready)) if ready <= now => InstanceState::Ready { since: millis(ready) },
            _ => InstanceState::Starting { since: millis(self.started), last: None },
        };
        let incarnation = self.incarnation.to_string();
        InstanceReport { release: self.release, incarnation, start: self.start, state }
    }
}
