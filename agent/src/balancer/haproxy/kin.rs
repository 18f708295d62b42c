//! Processes from before a reload, seen from outside: for a HAProxy whose master socket the agent does not know.
//!
//! All that can be seen is which processes are of the same HAProxy, and how many connections each has. Every one of them
//! counts as a request that may still reach any server: a drain right after a reload then takes until the old process is
//! gone, or until the drain's deadline. With `master_socket` configured it takes as long as the requests take.

use super::generations::Generation;
use crate::balancer::problem;
use baton_core::problem::Problem;
use procfs::net::TcpState;
use procfs::process::{FDTarget, Process, all_processes};
use std::collections::BTreeSet;

/// Every other process of the same HAProxy but its master.
///
/// # Errors
/// A younger one: a reload is under way.
pub(super) async fn old(current: u32) -> Result<Vec<Generation>, Problem> {
    tokio::task::spawn_blocking(move || old_now(current)).await.unwrap_or_else(|_| Ok(Vec::new()))
}

fn old_now(current: u32) -> Result<Vec<Generation>, Problem> {
    let Some(me) = i32::try_from(current).ok().and_then(Kin::of) else { return Ok(Vec::new()) };
    let Ok(processes) = all_processes() else { return Ok(Vec::new()) };
    let kin: Vec<Kin> = processes
        .flatten()
        .filter(|process| process.pid != me.process.pid && process.pid != me.parent)
        .filter_map(|process| Kin::of(process.pid))
        .filter(|other| other.is_of(&me))
        .collect();
    if let Some(younger) = kin.iter().find(|other| other.started > me.started) {
        return Err(problem::changing_hands(format!("{current} answers, {} is younger", younger.process.pid)));
    }
    if kin.is_empty() {
        return Ok(Vec::new());
    }
    let established = established();
    Ok(kin.iter().map(|other| Generation::opaque(other.process.pid.unsigned_abs(), other.count(&established))).collect())
}

#[derive(Debug)]
struct Kin {
    process: Process,
    name: String,
    parent: i32,
    started: u64,
    /// Without what a reload adds.
    arguments: Vec<String>,
}

impl Kin {
    fn of(pid: i32) -> Option<Self> {
        let process = Process::new(pid).ok()?;
        let stat = process.stat().ok()?;
        let arguments = process.cmdline().ok()?;
        let arguments = arguments.into_iter().take_while(|word| !["-sf", "-st", "-x"].contains(&word.as_str())).collect();
        Some(Self { process, name: stat.comm, parent: stat.ppid, started: stat.starttime, arguments })
    }

    /// Starts of one command line.
    fn is_of(&self, other: &Kin) -> bool {
        self.name == other.name && self.arguments == other.arguments
    }

    /// Its established connections; one when its files cannot be read: it is there, and that is all that is known.
    fn count(&self, established: &BTreeSet<u64>) -> u64 {
        let Ok(files) = self.process.fd() else { return 1 };
        let sockets = files.flatten().filter_map(|file| match file.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        });
        sockets.filter(|inode| established.contains(inode)).count() as u64
    }
}

fn established() -> BTreeSet<u64> {
    let entries = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    entries.filter(|entry| entry.state == TcpState::Established).map(|entry| entry.inode).collect()
}
