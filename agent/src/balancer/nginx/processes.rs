//! nginx's processes: the master by its pid file, its workers, and those that outlived an earlier master.

use crate::balancer::problem;
use baton_core::problem::Problem;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The master, as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Master {
    pub(super) pid: u32,
    started: u64,
}

/// One worker: pid and start time are one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worker {
    pub(super) pid: u32,
    pub(super) started: u64,
}

impl Master {
    /// # Errors
    /// No nginx with a master process runs under that pid.
    pub(super) fn find(pid_file: &Path) -> Result<Self, Problem> {
        let text = fs::read_to_string(pid_file).map_err(|error| problem::nginx_not_running(pid_file, &error.to_string()))?;
        let gone = || problem::nginx_not_running(pid_file, &format!("{} is no nginx master process", text.trim()));
        let pid: u32 = text.trim().parse().map_err(|_| gone())?;
        let started = started(pid).ok_or_else(gone)?;
        title(pid).starts_with("nginx: master process").then_some(Self { pid, started }).ok_or_else(gone)
    }

    pub(super) fn identity(self) -> String {
        format!("{}@{}", self.pid, self.started)
    }

    /// Workers that serve, or finish what they have.
    pub(super) fn workers(self) -> BTreeSet<Worker> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap_or_default();
        children.split_ascii_whitespace().filter_map(|pid| Worker::of(pid.parse().ok()?)).collect()
    }
}

impl Worker {
    pub(super) fn of(pid: u32) -> Option<Self> {
        title(pid).starts_with(WORKER).then_some(Self { pid, started: started(pid)? })
    }

    pub(super) fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Whether it has closed its listeners: it serves what it has, and ends.
    pub(super) fn is_leaving(self) -> bool {
        title(self.pid).contains("shutting down")
    }
}

/// Workers whose master is gone: killed, it leaves them serving.
pub(super) fn orphans() -> BTreeSet<Worker> {
    let workers: Vec<Worker> = crate::connections::pids().filter_map(Worker::of).collect();
    workers
        .into_iter()
        .filter(|worker| parent(worker.pid).is_none_or(|parent| !title(parent).starts_with("nginx")))
        .collect()
}

const WORKER: &str = "nginx: worker process";

fn title(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// In clock ticks since boot.
fn started(pid: u32) -> Option<u64> {
    Some(procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?.starttime)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    u32::try_from(stat.ppid).ok()
}
