//! What a machine needs for a fleet, each with the package that brings it.

use anyhow::bail;
use std::env;
use std::path::Path;

const PROGRAMS: [(&str, &str); 6] = [
    ("debootstrap", "debootstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// Everything that is missing here, in words; empty when a fleet can be booted.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root: run it as root (namespaces, mounts, cgroups)".to_owned());
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for needed in ["overlay", "cgroup2"] {
        if !filesystems.split_whitespace().any(|name| name == needed) {
            missing.push(format!("the kernel's {needed} file system"));
        }
    }
    let absent = PROGRAMS.iter().filter(|(program, _)| !installed(program)).collect::<Vec<_>>();
    if !absent.is_empty() {
        let programs = absent.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ");
        let packages = absent.iter().map(|(_, package)| *package).collect::<Vec<_>>().join(" ");
        missing.push(format!("{programs}: apt-get install {packages}"));
    }
    missing
}

/// Refuses with the list of what is missing.
///
/// # Errors
/// When anything is.
pub fn check() -> anyhow::Result<()> {
    let missing = missing();
    if !missing.is_empty() {
        bail!("a fleet needs\n  {}", missing.join("\n  "));
    }
    Ok(())
}

fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Root's programs are not on everybody's path.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| Path::new(&folder).join(program).is_file())
}
