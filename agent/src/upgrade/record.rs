//! What a host remembers of its newest order: written down before anything is installed, and read by whichever agent runs then.

use crate::durable;
use baton_core::name::{PackageVersion, UpgradeId};
use baton_core::problem::Problem;
use baton_core::time::millis;
use baton_core::upgrade::Package;
use baton_core::upgrade::plan::Progress;
use baton_proto::convert::{UpgradeOrder, UpgradeReport};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One attempt to run the agent from another package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: UpgradeId,
    pub(super) attempt: u32,
    pub(super) package: Package,
    /// What was installed before: the way back.
    pub(super) from: PackageVersion,
    #[serde(with = "millis")]
    pub(super) back_within: Duration,
    pub(super) state: State,
}

/// How it ended, if it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Dpkg may be at work.
    Begun,
    Done,
    Failed(Problem),
}

/// The folder of the upgrade: what is fetched, what is kept, what is written down.
#[derive(Debug, Clone)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    /// Uses `upgrade` in the agent's state folder.
    pub(super) fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join("upgrade");
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// The package that is to be installed.
    pub(super) fn next(&self) -> PathBuf {
        self.0.join("next.deb")
    }

    /// The package that is gone back to.
    pub(super) fn way_back(&self) -> PathBuf {
        self.0.join("way-back.deb")
    }

    /// The package that was installed last from here.
    pub(super) fn given(&self) -> PathBuf {
        self.0.join("given.deb")
    }

    /// This program as it is, for the package replaces it.
    pub(super) fn program(&self) -> PathBuf {
        self.0.join("baton-agent-upgrade")
    }

    fn record(&self) -> PathBuf {
        self.0.join("record.json")
    }

    /// What was written down last.
    pub(super) fn read(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.record()).ok()?).ok()
    }

    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        durable::replace(&self.record(), &serde_json::to_vec(record)?)
    }
}

impl Record {
    pub(super) fn is_of(&self, order: &UpgradeOrder) -> bool {
        (&self.id, self.attempt, &self.package) == (&order.id, order.attempt, &order.package)
    }

    /// What the coordinator is told of it.
    pub(super) fn report(&self) -> UpgradeReport {
        let progress = match &self.state {
            State::Begun => Progress::Installing,
            State::Done => Progress::Done,
            State::Failed(problem) => Progress::Failed(problem.clone()),
        };
        UpgradeReport { id: self.id.clone(), attempt: self.attempt, progress }
    }
}
