//! The life of one instance, from its start or its adoption to its end, told as changes.
//!
//! One task an instance. It acts on its own process only, and decides nothing but what is certain: that the instance is ready,
//! is not, or has failed.

mod evidence;
mod launch;
mod watch;
mod withdraw;
mod witness;

pub(crate) use evidence::ended_unseen;
pub(crate) use withdraw::Leave;

use crate::allow::Allow;
use crate::metrics::ServiceCounters;
use crate::probe::{Question, Surroundings};
use crate::runtime::{Running, Runtime};
use baton_core::fleet::InstanceKey;
use baton_core::name::ReleaseId;
use baton_core::problem::Problem;
use baton_core::release::{Placeholders, Probe, Release, Stop};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Something about an instance that others must know at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Its process runs.
    Started(Running),
    /// It does not answer as it should yet.
    Waiting(Problem),
    Ready {
        at: Instant,
    },
    /// It has been ready for as long as its release asks.
    Proven,
    /// It was ready and is not any more.
    Unready(Problem),
    /// It ended by itself, never became ready, or could not be started. Nothing of it is left.
    Failed(Problem),
    /// It was to fail its health check before it is stopped, and does not: it goes on.
    Stays(Problem),
    /// It was stopped as asked. Nothing of it is left.
    Gone,
}

/// What is known of an instance before its life begins.
#[derive(Debug)]
pub(crate) struct Life {
    pub key: InstanceKey,
    pub release_id: ReleaseId,
    /// None: an instance found here that no spec speaks of. It is only watched, until it is stopped.
    pub wanted: Option<Wanted>,
    pub origin: Origin,
    pub runtime: Arc<dyn Runtime>,
    pub allow: Arc<Allow>,
    pub counters: Arc<ServiceCounters>,
}

/// What the spec says of it.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub release: Arc<Release>,
    pub start: u32,
    pub address: SocketAddr,
    pub folder: PathBuf,
}

/// Where an instance comes from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Start,
    Adopted {
        running: Running,
        /// It was ready before; that it does not answer now is then no slow start.
        was_ready: bool,
    },
}

/// The longest a process that never became ready is asked politely.
const STOP_UNREADY_MAX: Duration = Duration::from_secs(2);

impl Life {
    /// Lives it. Dropping the future, or the sender of `leave`, ends the watching and leaves the instance alone.
    pub(crate) async fn live(self, changes: mpsc::UnboundedSender<Change>, mut leave: mpsc::UnboundedReceiver<Leave>) {
        let tell = |change| {
            // Nobody to tell: the agent is ending.
            let _ = changes.send(change);
        };
        let (running, was_ready) = match self.origin.clone() {
            Origin::Adopted { running, was_ready } => (running, was_ready),
            Origin::Start => match self.start().await {
                Ok(running) => (running, false),
                Err(problem) => return tell(Change::Failed(problem)),
            },
        };
        tell(Change::Started(running.clone()));
        let mut watch = watch::Watch::new(&self, &running, was_ready);
        let over = loop {
            let over = tokio::select! {
                biased;
                exit = self.runtime.ended(&running) => Over::Ended(exit),
                asked = leave.recv() => Over::Asked(asked),
                problem = watch.over(&tell) => Over::NeverReady(problem),
            };
            let Over::Asked(Some(Leave::Withdrawn(how, wanted))) = over else { break over };
            let withdrawn = tokio::select! {
                biased;
                exit = self.runtime.ended(&running) => break Over::Ended(exit),
                asked = leave.recv() => break Over::Asked(asked),
                withdrawn = watch.withdraw(&self, &running, how, &wanted) => withdrawn,
            };
            match withdrawn {
                Ok(()) => break Over::Asked(Some(Leave::Now)),
                Err(problem) => tell(Change::Stays(problem)),
            }
        };
        match over {
            Over::Ended(exit) => tell(Change::Failed(evidence::ended(&self, &running, exit, watch.seen()).await)),
            Over::Asked(Some(_)) => {
                self.runtime.stop(&running, &running.stop).await;
                tell(Change::Gone);
            }
            Over::Asked(None) => {}
            Over::NeverReady(problem) => {
                let timeout = running.stop.timeout.min(STOP_UNREADY_MAX);
                self.runtime.stop(&running, &Stop { timeout, ..running.stop.clone() }).await;
                tell(Change::Failed(problem));
            }
        }
    }

    /// `shop 2.1.0`.
    fn name(&self) -> String {
        match &self.wanted {
            Some(wanted) => format!("{} {}", self.key.service, wanted.release.version),
            None => self.key.service.to_string(),
        }
    }
}

enum Over {
    Ended(crate::runtime::Exit),
    Asked(Option<Leave>),
    NeverReady(Problem),
}

impl Wanted {
    fn question(&self, key: &InstanceKey, running: &Running) -> Question {
        let health = &self.release.health;
        let probe = match &health.probe {
            Probe::Exec { command } => Probe::Exec { command: self.fill(key, command) },
            other => other.clone(),
        };
        let surroundings = Surroundings {
            folder: self.folder.clone(),
            env: self.release.run.env.clone(),
            user: self.release.run.user.clone(),
            beside: Some(running.pid).filter(|pid| *pid != 0),
        };
        Question { probe, address: self.address, timeout: health.timeout, surroundings: Some(surroundings) }
    }

    fn fill(&self, key: &InstanceKey, command: &[String]) -> Vec<String> {
        let (address, port) = (self.address.ip(), self.address.port());
        let placeholders = Placeholders { address, port, slot: key.slot, version: &self.release.version };
        command.iter().map(|argument| placeholders.fill(argument)).collect()
    }
}
