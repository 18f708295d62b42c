//! Whose datagrams count as HAProxy's: its worker's, and those of workers from before a reload.

use super::kin::Kin;
use super::line;
use crate::balancer::requests::{Said, Teller};
use crate::connections::sockets_of;
use procfs::process::{Process, all_processes};
use std::collections::BTreeSet;
use std::fs;

/// A process, whoever has its pid later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Born {
    pid: u32,
    started: u64,
}

/// The processes of one HAProxy.
#[derive(Debug)]
pub(super) struct Family {
    worker: Born,
    /// It has a child for each generation. None: a HAProxy without a master.
    master: Option<Born>,
    /// Those of the same command line and the same user, as they were when the worker was seen first.
    others: Vec<Born>,
}

impl Born {
    fn of(kin: &Kin) -> Self {
        Self { pid: kin.process.pid.unsigned_abs(), started: kin.started }
    }

    fn lives(self) -> bool {
        let stat = i32::try_from(self.pid).ok().and_then(|pid| Process::new(pid).ok()?.stat().ok());
        stat.is_some_and(|stat| stat.starttime == self.started)
    }
}

impl Family {
    /// The family of the worker with this pid; None when it is gone.
    pub(super) async fn find(worker: u32) -> Option<Self> {
        tokio::task::spawn_blocking(move || Self::find_now(worker)).await.ok()?
    }

    fn find_now(worker: u32) -> Option<Self> {
        let me = Kin::of(i32::try_from(worker).ok()?)?;
        let master = Kin::of(me.parent).filter(|parent| parent.is_of(&me));
        let user = user(&me)?;
        // A name and arguments are anybody's to choose; the user is not.
        let is_other = |other: &Kin| other.is_of(&me) && self::user(other) == Some(user);
        let processes = all_processes().into_iter().flatten().flatten();
        let others = processes.filter_map(|process| Kin::of(process.pid)).filter(is_other);
        Some(Self {
            worker: Born::of(&me),
            master: master.as_ref().map(Born::of),
            others: others.map(|it| Born::of(&it)).collect(),
        })
    }

    /// A worker that came with a reload is its master's child before anybody looked at it.
    fn children(&self) -> Vec<u32> {
        let Some(master) = self.master.filter(|master| master.lives()) else { return Vec::new() };
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", master.pid)).unwrap_or_default();
        children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Teller for Family {
    const NAME: &'static str = "haproxy-requests";
    type Member = String;

    fn is(&self, other: &Self) -> bool {
        self.worker == other.worker
    }

    /// None: HAProxy counts its requests itself, so what nobody heard is seen.
    fn elders(&self) -> BTreeSet<u32> {
        BTreeSet::new()
    }

    fn owner(&self, inode: u64) -> Option<u32> {
        let has = |pid: &u32| sockets_of(*pid).contains(&inode);
        let known = std::iter::once(&self.worker).chain(&self.others).filter(|born| born.lives()).map(|born| born.pid);
        known.into_iter().find(has).or_else(|| self.children().into_iter().find(has))
    }

    /// HAProxy logs much that is no request, and what is needed of a line stands in front.
    fn read(datagram: &[u8], _: bool) -> Said<'_, String> {
        line::parse(datagram).map_or(Said::Other, Said::Request)
    }
}

/// Whom it runs as.
fn user(kin: &Kin) -> Option<u32> {
    Some(kin.process.status().ok()?.euid)
}
