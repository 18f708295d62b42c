//! A secret that every release of the services has: it is looked for where none may be.

use super::confined::named;
use crate::fleet::cgroups;
use crate::fleet::host::Host;
use crate::fleet::pool::Pool;
use crate::fleet::record::{Fleet, Part};
use anyhow::ensure;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Nobody else writes this.
const SENTINEL: &str = "zq-sentinel-5b1e07-do-not-find-me";
/// What the manifest calls it.
pub(super) const NAME: &str = "SENTINEL";

/// Where somebody could find what somebody else left. What the kernel makes up is looked at by process.
const FOLDERS: [&str; 7] = ["/etc", "/var", "/run", "/tmp", "/root", "/home", "/dev/shm"];
/// Where it belongs: the host's own copy, and what systemd and the agent give one instance.
const BELONGS: [&str; 2] = ["/etc/credstore/", "/run/credentials/"];
/// Processes that could be made to leave what they know in a core dump.
const UNITS: [&str; 3] = ["baton-agent.service", "baton-agent-link.service", "baton-coordinator.service"];
/// What operators are told, as whole as it is told to anybody.
const TOLD: [&[&str]; 6] = [
    &["baton", "status", "--json"],
    &["baton", "hosts", "list", "--json"],
    &["baton", "releases", "--json"],
    &["baton", "history", "--json"],
    &["baton", "balancers", "--json"],
    &["baton", "audit", "export"],
];

/// Where a host has the secret of a service.
pub(super) fn path(pool: &Pool) -> String {
    format!("/etc/credstore/{}.sentinel", pool.name)
}

/// Gives it to every host that runs the service.
///
/// # Errors
/// When a host's files cannot be written.
pub(super) fn lay_down(fleet: &Fleet, pool: &Pool) -> anyhow::Result<()> {
    fleet.every(Part::Web).try_for_each(|host| host.write(&path(pool), SENTINEL))
}

/// Looks for it on every host: in files, in what processes were started with, in journals, in what could be dumped, and in what
/// operators are told.
///
/// # Errors
/// When it is anywhere but where it belongs, or not where it belongs.
pub(super) fn search(fleet: &Fleet, pool: &Pool) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for host in &fleet.hosts {
        let at = |what: &dyn std::fmt::Display| format!("{what} on {}", host.name);
        let files = in_files(host)?;
        let (right, wrong): (Vec<_>, Vec<_>) =
            files.iter().partition(|path| BELONGS.iter().any(|belongs| path.starts_with(belongs)));
        found.extend(wrong.iter().map(|path| at(&path.display())));
        let runs = host.part == Part::Web;
        // The host's own, and that of each instance.
        ensure!(!runs || right.len() >= 2, "{} has not what its service was given: {right:?}", host.name);
        found.extend(in_processes(host).iter().map(|process| at(process)));
        let journal = host.collect(&["journalctl", "--output=export", "--no-pager"])?;
        ensure!(journal.status.success() && !journal.stdout.is_empty(), "the journal of {} cannot be read", host.name);
        found.extend(holds(&journal.stdout).then(|| at(&"the journal")));
        let mut units: Vec<String> = UNITS.iter().map(|&unit| unit.to_owned()).collect();
        units.extend(named(host, pool)?);
        for unit in units {
            let limits = host.run(&["systemctl", "show", "--property=LoadState,LimitCORE", &unit])?;
            let dumps = limits.contains("LoadState=loaded") && !limits.lines().any(|line| line == "LimitCORE=0");
            found.extend(dumps.then(|| at(&format!("{unit} may leave a core dump"))));
        }
    }
    let coordinator = fleet.coordinator()?;
    for words in TOLD {
        let told = coordinator.run(words)?;
        found.extend(holds(told.as_bytes()).then(|| words.join(" ")));
    }
    ensure!(found.is_empty(), "a secret is where none may be: {found:#?}");
    Ok(())
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(SENTINEL.len()).any(|window| window == SENTINEL.as_bytes())
}

/// The files of a host, as they are called there, that hold it.
fn in_files(host: &Host) -> anyhow::Result<Vec<PathBuf>> {
    let Some(leader) = host.leader() else { anyhow::bail!("{} does not run", host.name) };
    // As its processes see it: with what lies in memory.
    let root = PathBuf::from(format!("/proc/{}/root", leader.as_raw_nonzero()));
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    while let Some(folder) = folders.pop() {
        let inside = root.join(folder.strip_prefix("/").unwrap_or(&folder));
        for entry in fs::read_dir(inside).into_iter().flatten().flatten() {
            let path = folder.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() && contains(&entry.path()) => found.push(path),
                _ => {}
            }
        }
    }
    Ok(found)
}

fn contains(path: &Path) -> bool {
    let mut bytes = Vec::new();
    // What is gone meanwhile holds nothing.
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).is_ok() && holds(&bytes)
}

/// The processes of a host that were started with it, among their arguments or in their environment.
fn in_processes(host: &Host) -> Vec<String> {
    let knows =
        |process: &String| ["cmdline", "environ"].iter().any(|of| contains(&Path::new("/proc").join(process).join(of)));
    cgroups::processes(&host.name).into_iter().map(|pid| pid.as_raw_nonzero().to_string()).filter(knows).collect()
}
