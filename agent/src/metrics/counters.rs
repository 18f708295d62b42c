//! What an agent counts while it works. Whoever does it counts it; nobody is woken by that.

use baton_core::name::ServiceName;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The counts of one agent since it was started.
#[derive(Debug, Default)]
pub struct Counters {
    connected: AtomicBool,
    sessions: AtomicU64,
    services: Mutex<BTreeMap<ServiceName, Arc<ServiceCounters>>>,
}

/// The counts of one service on this host, over its slots and releases.
#[derive(Debug, Default)]
pub struct ServiceCounters {
    passed: AtomicU64,
    failed: AtomicU64,
    failures: AtomicU64,
    restarts: AtomicU64,
}

impl Counters {
    /// A session with the coordinator begins.
    pub fn session_began(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.connected.store(true, Ordering::Relaxed);
    }

    /// There is no session now.
    pub fn session_ended(&self) {
        self.connected.store(false, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// The counts of a service, from zero where there are none.
    #[must_use]
    pub fn of(&self, service: &ServiceName) -> Arc<ServiceCounters> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(services.entry(service.clone()).or_default())
    }
}

impl ServiceCounters {
    /// A probe was answered: as it should be, or not.
    pub fn probed<T, E>(&self, answer: &Result<T, E>) {
        let count = if answer.is_ok() { &self.passed } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// An instance ended by itself, never became ready, or could not be started.
    pub fn instance_failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// An instance that failed is started once more.
    pub fn instance_restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }
}
