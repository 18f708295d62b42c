//! Cgroups for hosts: each gets one of its own, so that its processes can be listed and ended, all of them and no others.
//!
//! Hosts see cgroup v2, as any distribution boots today. A machine on which another init runs, or none, may have v1 or a mix:
//! systemd-nspawn then wants the named v1 hierarchy as well, and whatever of the two is missing is mounted for the fleet's life.

use anyhow::Context as _;
use rustix::fs::{StatFs, statfs};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run::{run, until};

const ROOT: &str = "/sys/fs/cgroup";
/// As statfs tells it: see `linux/magic.h`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The hierarchies in which every host has a folder.
#[derive(Debug, Clone)]
pub struct Hierarchies(Vec<PathBuf>);

impl Hierarchies {
    /// Finds them, mounting what is missing; the second value is what was mounted.
    ///
    /// # Errors
    /// When the kernel refuses a mount.
    pub fn ensure() -> anyhow::Result<(Self, Vec<PathBuf>)> {
        if is_cgroup2(Path::new(ROOT)) {
            return Ok((Self(vec![PathBuf::from(ROOT)]), Vec::new()));
        }
        let unified = Path::new(ROOT).join("unified");
        let named = Path::new(ROOT).join("systemd");
        let mut mounted = Vec::new();
        if !is_cgroup2(&unified) {
            mount(&unified, &["-t", "cgroup2", "cgroup2"])?;
            mounted.push(unified.clone());
        }
        if !named.join("cgroup.procs").exists() {
            mount(&named, &["-t", "cgroup", "-o", "none,name=systemd,xattr", "cgroup"])?;
            mounted.push(named.clone());
        }
        Ok((Self(vec![unified, named]), mounted))
    }

    /// The folders of a host, made now.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(&self, host: &str) -> anyhow::Result<Vec<PathBuf>> {
        let folders = self.0.iter().map(|root| root.join("baton-fleet").join(host)).collect::<Vec<_>>();
        for folder in &folders {
            fs::create_dir_all(folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        }
        Ok(folders)
    }
}

/// Every process in a host's cgroups, from the boot's first to the last application.
#[must_use]
pub fn processes(host: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    for root in roots() {
        walk(&root.join("baton-fleet").join(host), &mut |folder| {
            let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(listed.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw));
        });
    }
    found.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
    found.dedup();
    found
}

/// Ends every process of a host and removes its cgroups.
///
/// # Errors
/// When a process is still there after ten seconds.
pub fn clear(host: &str) -> anyhow::Result<()> {
    until(&format!("the end of every process of {host}"), Duration::from_secs(10), || {
        let left = processes(host);
        for pid in &left {
            // Gone already is as good.
            let _ = kill_process(*pid, Signal::KILL);
        }
        Ok(left.is_empty().then_some(()))
    })?;
    for root in roots() {
        remove(&root.join("baton-fleet").join(host));
    }
    Ok(())
}

/// Removes the fleet's own folder and unmounts what was mounted for it.
///
/// # Errors
/// When an unmount is refused.
pub fn release(mounted: &[PathBuf]) -> anyhow::Result<()> {
    for root in roots() {
        remove(&root.join("baton-fleet"));
    }
    for mount in mounted {
        run("umount", &[&mount.to_string_lossy()])?;
        let _ = fs::remove_dir(mount);
    }
    Ok(())
}

fn roots() -> impl Iterator<Item = PathBuf> {
    ["", "unified", "systemd"].into_iter().map(|name| Path::new(ROOT).join(name))
}

/// Deepest first: only an empty cgroup can be removed. One that something still holds stays, and `down` says so.
fn remove(folder: &Path) {
    let mut folders = Vec::new();
    walk(folder, &mut |folder| folders.push(folder.to_owned()));
    for folder in folders.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    visit(folder);
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        walk(&entry.path(), visit);
    }
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|found: StatFs| found.f_type == CGROUP2_MAGIC)
}

fn mount(point: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    fs::create_dir_all(point).with_context(|| format!("cannot make {}", point.display()))?;
    let point = point.to_string_lossy();
    run("mount", &[arguments, &[point.as_ref()]].concat())?;
    Ok(())
}
