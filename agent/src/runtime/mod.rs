//! Runtimes: how an instance becomes a process, and how it is found again.
//!
//! Plain data in, plain data out, so that the calls can cross a process boundary later. The agent is never the parent whose
//! death ends an application: whatever runs is found again by [`Runtime::list`].

pub mod command;
pub mod handing;
mod handle;
pub mod process;
pub(crate) mod sockets;
pub mod systemd;

pub(crate) use handle::age;
pub use sockets::hold;

use crate::config::RuntimeKind;
use crate::secrets::Hidden;
use baton_core::fleet::InstanceKey;
use baton_core::name::{ReleaseId, ServiceName};
use baton_core::problem::Problem;
use baton_core::release::{Signal, Stop};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

/// What a runtime's calls return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The mark in an instance's environment: which slot of which agent it is in. By it an instance is found even when the agent
/// died before it could write it down, and two agents of one host never touch each other's.
const MARK: &str = "BATON_INSTANCE";

/// Beside the mark: which start of its release the instance is.
const START: &str = "BATON_START";

/// Starts, finds, watches and stops instances.
pub trait Runtime: Send + Sync + fmt::Debug {
    /// Every instance of this host that an agent ever started and none has stopped or forgotten.
    fn list(&self) -> Answer<'_, Result<Vec<Found>, Problem>>;

    /// Starts an instance; its slot must be empty. Returns once its program runs.
    fn start(&self, launch: Launch) -> Answer<'_, Result<Running, Problem>>;

    /// Waits for an instance to end, whoever ends it. Nothing of it is left when this returns.
    fn ended<'a>(&'a self, running: &'a Running) -> Answer<'a, Exit>;

    /// Asks an instance to finish, and after the timeout makes it. Nothing of it is left when this returns.
    ///
    /// An instance that is gone, or replaced by another start, is not touched.
    fn stop<'a>(&'a self, running: &'a Running, stop: &'a Stop) -> Answer<'a, Exit>;

    /// Sends a signal to the first process of an instance.
    ///
    /// An instance that is gone, or replaced by another start, is not touched.
    fn signal<'a>(&'a self, running: &'a Running, signal: Signal) -> Answer<'a, ()>;

    /// The processes of an instance: the first it was started as, then all others.
    fn processes(&self, running: &Running) -> BTreeSet<u32>;

    /// The last lines an instance wrote.
    fn log<'a>(&'a self, running: &'a Running) -> Answer<'a, Vec<String>>;

    /// Whether an instance whose release names no user runs as root.
    fn unnamed_is_root(&self) -> bool {
        false
    }

    /// Removes what is kept about an instance that ended.
    fn forget<'a>(&'a self, key: &'a InstanceKey) -> Answer<'a, ()>;

    /// Closes the public sockets at all other addresses; those at these are kept for the next instance.
    fn keep_listening<'a>(&'a self, addresses: &'a BTreeSet<SocketAddr>) -> Answer<'a, Result<(), Problem>>;

    /// Services that this host may still hear of: of others nothing is kept once nothing of them runs. Where a system's own
    /// journal has the logs there is nothing to do.
    fn keep_logs(&self, _services: BTreeSet<ServiceName>) {}

    /// Keeps logs within bounds, and public sockets held; called every few seconds.
    fn tend(&self);
}

/// Everything needed to start one instance; all placeholders are filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    pub key: InstanceKey,
    pub release: ReleaseId,
    /// The spec's count, so that a later agent knows which start this was.
    pub start: u32,
    /// The unpacked release: the working directory, and where a relative program is looked up.
    pub folder: PathBuf,
    pub command: Vec<String>,
    pub user: Option<String>,
    pub env: BTreeMap<String, String>,
    /// Given as files, and in no other way.
    pub secrets: BTreeMap<String, Hidden>,
    pub stop: Stop,
    /// The service's public addresses: their sockets are handed over.
    pub listen: Vec<SocketAddr>,
}

/// One start of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub key: InstanceKey,
    pub release: ReleaseId,
    #[serde(default)]
    pub start: u32,
    /// Tells this start from every other: boot, process id and start time, or the unit's invocation.
    pub incarnation: String,
    /// The first process.
    pub pid: u32,
    pub folder: PathBuf,
    pub stop: Stop,
}

/// An instance an agent started earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub running: Running,
    /// False: it ended while no agent watched.
    pub alive: bool,
}

/// How an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub end: End,
    /// Processes it left behind, which were ended too.
    pub left_behind: usize,
}

/// The end of its first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Status(i32),
    Signal(i32),
    /// It ended while another agent, or none, was its parent.
    Unseen,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Status(status) => write!(f, "exited with status {status}")?,
            End::Signal(signal) => write!(f, "was ended by {}", command::signal_name(signal))?,
            End::Unseen => f.write_str("ended; its exit status was not seen, because the agent was restarted meanwhile")?,
        }
        match self.left_behind {
            0 => Ok(()),
            1 => f.write_str(" and left a process behind"),
            more => write!(f, " and left {more} processes behind"),
        }
    }
}

/// Opens the runtime a configuration asks for.
///
/// `parts` are the words that start a part of this agent: its executable, and what comes before the part's own word.
///
/// # Errors
/// The one that is asked for cannot be had here.
pub async fn open(kind: RuntimeKind, folder: &Path, parts: Vec<String>) -> Result<Arc<dyn Runtime>, Problem> {
    let uses_systemd = match kind {
        RuntimeKind::Process => false,
        RuntimeKind::Auto => systemd::runs_here(),
        RuntimeKind::Systemd => true,
    };
    match uses_systemd {
        false => Ok(Arc::new(process::ProcessRuntime::open(folder, parts)?)),
        true => Ok(Arc::new(systemd::SystemdRuntime::open(folder, parts).await?)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
