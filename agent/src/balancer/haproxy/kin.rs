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
pub(super) struct Kin {
    pub(super) process: Process,
    name: String,
    pub(super) parent: i32,
    pub(super) started: u64,
    /// Without what a reload adds.
    arguments: Vec<String>,
}

impl Kin {
    pub(super) fn of(pid: i32) -> Option<Self> {
        let process = Process::new(pid).ok()?;
        let stat = process.stat().ok()?;
        let arguments = process.cmdline().ok()?;
        let arguments = lasting(arguments);
        Some(Self { process, name: stat.comm, parent: stat.ppid, started: stat.starttime, arguments })
    }

    /// Starts of one command line.
    pub(super) fn is_of(&self, other: &Kin) -> bool {
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

/// A command line without what a reload adds to it, by a master in front and by people at the end: `-sf PID…`, `-x SOCKET`.
fn lasting(arguments: Vec<String>) -> Vec<String> {
    let mut lasting = Vec::new();
    let mut words = arguments.into_iter().peekable();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-sf" | "-st" => while words.next_if(|word| word.parse::<u32>().is_ok()).is_some() {},
            "-x" => drop(words.next()),
            _ => lasting.push(word),
        }
    }
    lasting
}

fn established() -> BTreeSet<u64> {
    let entries = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    entries.filter(|entry| entry.state == TcpState::Established).map(|entry| entry.inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_does_not_change_whose_process_it_is() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let first = words("haproxy -W -S m.sock -f b.cfg");
        assert_eq!(lasting(words("haproxy -sf 29664 29665 -x sockpair@3 -W -S m.sock -f b.cfg")), first);
        assert_eq!(lasting(words("haproxy -W -S m.sock -f b.cfg -x /run/s -sf 1")), first);
        assert_eq!(lasting(first.clone()), first);
    }
}
