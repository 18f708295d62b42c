//! The folder that every host starts from: Debian with systemd and HAProxy, made once and kept.

use super::CACHE;
use super::run::run;
use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const SUITE: &str = "bookworm";

/// What a host needs from the first boot on: nothing is fetched later, so that a fleet comes up without a network.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,haproxy,procps,ca-certificates,rpm";

/// Where Debian comes from, unless `BATON_FLEET_MIRROR` names a nearer place.
const MIRROR: &str = "http://deb.debian.org/debian";

/// The base folder; made now when it is not there, which takes a minute or two.
///
/// # Errors
/// When debootstrap fails: its own last lines are in the error.
pub fn ensure() -> anyhow::Result<PathBuf> {
    let cache = Path::new(CACHE);
    fs::create_dir_all(cache).with_context(|| format!("cannot make {CACHE}"))?;
    let lock = File::create(cache.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let base = cache.join(format!("{SUITE}-{}", fingerprint()));
    if !base.is_dir() {
        let unfinished = cache.join("unfinished");
        remove(&unfinished)?;
        debootstrap(&unfinished).or_else(|first| {
            // A mirror in mid-update answers with files that do not match its index; a minute later they do.
            remove(&unfinished)?;
            debootstrap(&unfinished).with_context(|| format!("twice; the first time: {first:#}"))
        })?;
        settle(&unfinished)?;
        fs::rename(&unfinished, &base)?;
    }
    Ok(base)
}

fn debootstrap(folder: &Path) -> anyhow::Result<()> {
    let mirror = env::var("BATON_FLEET_MIRROR").unwrap_or_else(|_| MIRROR.to_owned());
    let include = format!("--include={PACKAGES}");
    let folder = folder.to_string_lossy();
    run("debootstrap", &["--variant=minbase", &include, SUITE, &folder, &mirror]).context("cannot make the base folder")?;
    Ok(())
}

/// Takes out what would make hosts alike or slow: a shared machine id, downloaded packages, a HAProxy nobody configured.
fn settle(folder: &Path) -> anyhow::Result<()> {
    for file in ["etc/machine-id", "etc/hostname", "etc/systemd/system/multi-user.target.wants/haproxy.service"] {
        match fs::remove_file(folder.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    for list in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        remove(&folder.join(list))?;
        fs::create_dir_all(folder.join(list).join("partial"))?;
    }
    // Timers of a desktop's life have no place in a test of two minutes.
    for unit in ["apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "dpkg-db-backup.timer"] {
        let masked = folder.join("etc/systemd/system").join(unit);
        if fs::symlink_metadata(&masked).is_err() {
            std::os::unix::fs::symlink("/dev/null", masked)?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Changes whenever a base made earlier would not be this one.
fn fingerprint() -> String {
    let made_from = format!("{SUITE} {PACKAGES} 1");
    baton_core::name::Digest::of(made_from.as_bytes()).short()
}
