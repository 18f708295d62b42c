//! What should happen somewhere in an exploration, so that no check of it is empty.

use baton_core::rollout::interlock::Violation;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock};

/// Something worth knowing that happened in some state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    Succeeded,
    Reverted,
    Paused,
    /// A rollback after the end: a rollout of its own, and that succeeded.
    BroughtBack,
    /// A spec of a coordinator that was taken over from came to a host that knows better.
    StaleRejected,
    LateRejected,
    /// A coordinator died while a rollout was under way.
    CrashedInRollout,
    /// A balancer restarted between the two writes of a member.
    RestartedBetweenWrites,
    /// A host lost power while it served.
    LostPower,
    DeadlinePassed,
}

impl Happening {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Succeeded,
        Self::Reverted,
        Self::Paused,
        Self::BroughtBack,
        Self::StaleRejected,
        Self::LateRejected,
        Self::CrashedInRollout,
        Self::RestartedBetweenWrites,
        Self::LostPower,
        Self::DeadlinePassed,
    ];
}

/// What happened so far, and the first refusal of the interlock.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    bits: AtomicU32,
    refusal: RwLock<Option<String>>,
}

impl Notes {
    pub(crate) fn note(&self, happening: Happening) {
        let bit = 1 << happening as u32;
        // Asked first, so that the threads do not fight for the line.
        if self.bits.load(Ordering::Relaxed) & bit == 0 {
            self.bits.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(crate) fn all(&self) -> Vec<Happening> {
        let bits = self.bits.load(Ordering::Relaxed);
        Happening::ALL.into_iter().filter(|it| bits & (1 << *it as u32) != 0).collect()
    }

    pub(crate) fn refuse(&self, violations: Vec<Violation>) {
        let mut refusal = self.refusal.write().unwrap_or_else(PoisonError::into_inner);
        *refusal = refusal.take().or_else(|| violations.into_iter().next().map(|it| it.to_string()));
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        self.refusal.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
