//! What was started, one small file an instance: how an agent finds what another agent started.

use super::log;
use crate::connections::pids;
use crate::durable;
use crate::runtime::handle::start_time;
use crate::runtime::{MARK, Running, START};
use crate::text;
use baton_core::fleet::InstanceKey;
use baton_core::name::{Digest, ServiceName};
use baton_core::problem::{Code, Problem};
use baton_core::release::{Signal, Stop};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder of journals and logs, for one boot.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    boot: String,
}

/// How an instance is stopped that was found without its journal.
const STOP: Stop = Stop { signal: Signal::Term, timeout: Duration::from_secs(30) };

impl Journal {
    pub(super) fn open(folder: &Path) -> Result<Self, Problem> {
        let refuse = |error: std::io::Error| {
            Problem::new(Code(604), format!("`{}` cannot be used: {}", folder.display(), text::io_error(&error)))
        };
        fs::create_dir_all(folder).map_err(refuse)?;
        Ok(Self { folder: folder.canonicalize().map_err(refuse)?, boot: crate::boot::id().map_err(refuse)? })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Boot, process id and start time: unique for ever.
    pub(super) fn incarnation(&self, pid: u32, started: u64) -> String {
        format!("{}:{pid}:{started}", self.boot.get(..8).unwrap_or(&self.boot))
    }

    /// What stands in the environment of an instance: no two agents of one host mark alike.
    pub(super) fn mark(&self, key: &InstanceKey) -> String {
        format!("{key} of {}", self.folder.display())
    }

    pub(super) fn log(&self, key: &InstanceKey) -> PathBuf {
        self.file(key, "log")
    }

    /// Writes an instance down. Not being able to is no reason to stop it: the mark in its environment is the other way.
    pub(super) fn write(&self, running: &Running) {
        let written = serde_json::to_vec(running).map_err(Into::into);
        let written = written.and_then(|bytes| durable::replace_until_reboot(&self.file(&running.key, "json"), &bytes));
        if let Err(error) = written {
            tracing::warn!(instance = %running.key, %error, "could not be written down");
        }
    }

    pub(super) fn remove(&self, key: &InstanceKey) {
        let _ = durable::remove(&self.file(key, "json"));
    }

    /// What was started since this boot; what an earlier boot ended is forgotten.
    pub(super) fn read(&self) -> Vec<Running> {
        let boot = self.incarnation(0, 0);
        let boot = boot.split(':').next().unwrap_or_default();
        let (ours, past): (Vec<Running>, Vec<_>) = self
            .files()
            .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
            .partition(|running: &Running| running.incarnation.split(':').next() == Some(boot));
        past.iter().for_each(|running| self.remove(&running.key));
        ours
    }

    /// The instances there are files of.
    pub(super) fn keys(&self) -> BTreeSet<InstanceKey> {
        self.files().filter_map(|path| key_of(&path)).collect()
    }

    /// Instances that run with this folder's mark although nothing was written down: an agent died in between.
    pub(super) fn unwritten(&self) -> Vec<Running> {
        let suffix = format!(" of {}", self.folder.display());
        pids().filter_map(|pid| self.marked(pid, &suffix)).collect()
    }

    fn marked(&self, pid: u32, suffix: &str) -> Option<Running> {
        let env = environment(pid)?;
        let key: InstanceKey = env.get(MARK)?.strip_suffix(suffix)?.parse().ok()?;
        // The mark is inherited; the first process is the one that leads its group.
        let stat = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
        (stat.pgrp == stat.pid).then_some(())?;
        let release: Digest = env.get("BATON_RELEASE")?.parse().ok()?;
        Some(Running {
            incarnation: self.incarnation(pid, start_time(pid)?),
            pid,
            key,
            release: baton_core::name::ReleaseId(release),
            start: env.get(START).and_then(|start| start.parse().ok()).unwrap_or_default(),
            folder: fs::read_link(format!("/proc/{pid}/cwd")).ok()?,
            stop: STOP,
        })
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| key_of(path).is_some())
    }

    fn file(&self, key: &InstanceKey, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{}.{extension}", key.service, key.slot))
    }
}

/// `shop.0.json` is of `shop/0`: names hold no dot.
fn key_of(path: &Path) -> Option<InstanceKey> {
    let (service, slot) = path.file_name()?.to_str()?.strip_suffix(".json")?.split_once('.')?;
    format!("{service}/{slot}").parse().ok()
}

fn environment(pid: u32) -> Option<BTreeMap<String, String>> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let pairs = bytes.split(|byte| *byte == 0).filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='));
    Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

impl Journal {
    /// Removes logs of slots that nothing was started in since the boot.
    pub(super) fn sweep(&self) {
        let keys = self.keys();
        for path in self.logs().filter(|path| !keys.iter().any(|key| log::belongs(path, &self.log(key)))) {
            let _ = durable::remove(&path);
        }
    }

    /// Removes logs of all services but these, unless something of them runs.
    pub(super) fn forget_others(&self, services: &BTreeSet<ServiceName>) {
        let running: BTreeSet<_> = self.keys().into_iter().map(|key| key.service).collect();
        let is_kept = |service: &str| services.iter().chain(&running).any(|kept| kept.as_str() == service);
        for path in self.logs() {
            let service = path.file_name().and_then(|name| name.to_str()?.split('.').next());
            if !service.is_some_and(is_kept) {
                let _ = durable::remove(&path);
            }
        }
    }

    fn logs(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "log"))
    }
}
