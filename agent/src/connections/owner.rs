//! Which process a socket belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// A process, as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub pid: u32,
    /// The kernel's short name, such as `nginx`.
    pub name: String,
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.name)
    }
}

/// The inodes of the sockets a process holds; none when it is gone or not ours to look into.
#[must_use]
pub fn sockets_of(pid: u32) -> BTreeSet<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    descriptors
        .flatten()
        .filter_map(|descriptor| {
            let target = fs::read_link(descriptor.path()).ok()?;
            let text = std::str::from_utf8(target.as_os_str().as_bytes()).ok()?;
            text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// The first process found that holds a socket. Looks through every process: only for failure texts.
#[must_use]
pub fn owner_of(inode: u64) -> Option<Program> {
    pids().find(|pid| sockets_of(*pid).contains(&inode)).map(program)
}

/// A process by its kernel name; one that is gone is called `?`.
#[must_use]
pub fn program(pid: u32) -> Program {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).map(|name| name.trim_end().to_owned());
    Program { pid, name: name.unwrap_or_else(|_| "?".to_owned()) }
}

/// A process, all of its process group and everything they started, that still exist.
#[must_use]
pub fn descendants(leader: u32) -> BTreeSet<u32> {
    let mut parents = BTreeMap::<u32, Vec<u32>>::new();
    let mut found = BTreeSet::from([leader]);
    for pid in pids() {
        let Some((parent, group)) = parent_and_group(pid) else { continue };
        parents.entry(parent).or_default().push(pid);
        if group == leader {
            found.insert(pid);
        }
    }
    let mut pending: Vec<u32> = found.iter().copied().collect();
    while let Some(pid) = pending.pop() {
        for child in parents.remove(&pid).unwrap_or_default() {
            found.insert(child);
            pending.push(child);
        }
    }
    found
}

/// A process and everything it and its children started, as long as those who started them live: cheap, unlike [`descendants`].
#[must_use]
pub fn tree(root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([root]);
    let mut pending = vec![root];
    while let Some(pid) = pending.pop() {
        pending.extend(children(pid).into_iter().filter(|child| found.insert(*child)));
    }
    found
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Every process id there is now.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    let folder = fs::read_dir("/proc").into_iter().flatten().flatten();
    folder.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent_and_group(pid: u32) -> Option<(u32, u32)> {
    let stat = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    Some((u32::try_from(stat.ppid).ok()?, u32::try_from(stat.pgrp).ok()?))
}
