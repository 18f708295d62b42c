//! A process that cannot be confused with another: by pidfd, not by number.

use super::{End, Exit};
use crate::connections::{descendants, tree};
use procfs::Current;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal,
    test_kill_process_group, waitid,
};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One process, its start time in clock ticks since boot, and whether this agent is its parent.
#[derive(Debug)]
pub(super) struct Handle {
    pid: Pid,
    started: u64,
    fd: OwnedFd,
    parent: Parent,
}

/// The longest a process may take to vanish after it was killed before that is logged: it hangs in the kernel then.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at processes that were killed.
const CLEAR_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    This,
    Other,
}

impl Handle {
    /// A process just spawned and not waited for: its number is still its own.
    pub(super) fn of_child(pid: u32) -> io::Result<Self> {
        Self::open(pid, Parent::This)
    }

    /// A running process; none when it ended.
    pub(super) fn of_stranger(pid: u32) -> Option<Self> {
        let handle = Self::open(pid, Parent::Other).ok()?;
        // What was read of the number belongs to the descriptor when the process still runs afterwards.
        handle.runs().then_some(handle)
    }

    fn open(pid: u32, parent: Parent) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = pidfd_open(number, PidfdFlags::NONBLOCK)?;
        // A child that has ended already is still there to be asked how.
        let (_, started) = stat(pid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid: number, started, fd, parent })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    pub(super) const fn started(&self) -> u64 {
        self.started
    }

    fn runs(&self) -> bool {
        // Signal 0 by descriptor is not in rustix; readiness is the same answer.
        let mut waiting = [rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut waiting, Some(&now)), Ok(0))
    }

    pub(super) fn signal(&self, signal: Signal) {
        // One that has ended needs none.
        let _ = pidfd_send_signal(&self.fd, signal);
    }

    /// Waits for the end, then makes sure that nothing is left of it.
    pub(super) async fn ended(&self) -> Exit {
        self.exit().await;
        self.clear(&BTreeMap::new()).await
    }

    /// Asks it to finish, and after the timeout kills all of it.
    pub(super) async fn stop(&self, signal: Signal, timeout: Duration) -> Exit {
        let tree = self.family();
        let _ = pidfd_send_signal(&self.fd, signal);
        // A stopped process (SIGSTOP) would get the signal only once it goes on.
        let _ = pidfd_send_signal(&self.fd, Signal::CONT);
        if tokio::time::timeout(timeout, self.exit()).await.is_err() {
            tracing::warn!(pid = self.pid(), ?timeout, "did not finish in time: killed");
            let _ = pidfd_send_signal(&self.fd, Signal::KILL);
            let _ = kill_process_group(self.pid, Signal::KILL);
            while tokio::time::timeout(KILL_PATIENCE, self.exit()).await.is_err() {
                tracing::error!(pid = self.pid(), "killed, and does not end: it hangs in the kernel");
            }
        }
        self.clear(&tree).await
    }

    /// Its children and theirs, with their start times, so that no other process with the same number is ever meant.
    fn family(&self) -> BTreeMap<u32, u64> {
        tree(self.pid())
            .into_iter()
            .filter(|pid| *pid != self.pid())
            .filter_map(|pid| Some((pid, start_time(pid)?)))
            .collect()
    }

    /// Waits for the end, and leaves everything else to others.
    pub(super) async fn exit(&self) {
        let Ok(fd) = self.fd.try_clone().and_then(readable) else { return self.exit_by_looking().await };
        // Readable means ended; an error of the runtime itself leaves looking.
        if fd.readable().await.is_err() {
            self.exit_by_looking().await;
        }
    }

    async fn exit_by_looking(&self) {
        while self.runs() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Collects the exit status, then ends whatever the process left behind.
    async fn clear(&self, family: &BTreeMap<u32, u64>) -> Exit {
        let end = self.status();
        let orphans: Vec<_> = family.iter().filter(|(pid, started)| start_time(**pid) == Some(**started)).collect();
        orphans.iter().for_each(|(pid, _)| kill(**pid));
        let mut left_behind = orphans.len();
        if test_kill_process_group(self.pid).is_ok() {
            left_behind = left_behind.max(self.clear_group().await);
        }
        for (pid, started) in orphans {
            while start_time(*pid) == Some(*started) {
                tokio::time::sleep(CLEAR_INTERVAL).await;
            }
        }
        Exit { end, left_behind }
    }

    /// Kills the rest of its process group until none of it lives. Exit statuses nobody collects do not count.
    async fn clear_group(&self) -> usize {
        let mut most = 0;
        loop {
            let alive = descendants(self.pid()).into_iter().filter(|pid| start_time(*pid).is_some()).count();
            most = most.max(alive);
            if alive == 0 || kill_process_group(self.pid, Signal::KILL).is_err() {
                return most;
            }
            tokio::time::sleep(CLEAR_INTERVAL).await;
        }
    }

    fn status(&self) -> End {
        if self.parent == Parent::Other {
            return End::Unseen;
        }
        match waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => status
                .exit_status()
                .map(End::Status)
                .or_else(|| status.terminating_signal().map(End::Signal))
                .unwrap_or(End::Unseen),
            _ => End::Unseen,
        }
    }
}

/// An owned descriptor cannot be closed behind tokio's back, which is what the deprecation of this call is about; the one
/// that replaces it is `unsafe`.
#[allow(deprecated)]
fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

fn kill(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = pidfd_send_signal(fd, Signal::KILL);
    }
}

/// When a process started, in clock ticks since boot; none when it is gone or only its exit status is left.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    stat(pid).filter(|(state, _)| !matches!(state, 'Z' | 'X')).map(|(_, started)| started)
}

/// How long ago a process started; none when it is gone, or nobody can tell.
pub(crate) fn age(pid: u32) -> Option<Duration> {
    let ticks = u32::try_from(procfs::ticks_per_second()).ok()?;
    let started = Duration::from_millis(start_time(pid)?.saturating_mul(1000) / u64::from(ticks));
    let up = procfs::Uptime::current().ok()?.uptime_duration();
    Some(up.saturating_sub(started))
}

fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    Some((stat.state, stat.starttime))
}
