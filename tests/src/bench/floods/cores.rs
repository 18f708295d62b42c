//! Who runs where, so that what is measured is the coordinator's work and not the flood's own.

use anyhow::{Context as _, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of this machine, divided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cores {
    /// The coordinator's, and theirs who do nothing wrong.
    served: CpuSet,
    flooding: CpuSet,
}

impl Cores {
    pub(super) fn find() -> anyhow::Result<Self> {
        let all = sched_getaffinity(None)?;
        ensure!(all.count() > 1, "this takes two cores: one for the coordinator, one for those who flood it");
        let first = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).context("no core")?;
        let (mut served, mut flooding) = (CpuSet::new(), all);
        served.set(first);
        flooding.unset(first);
        Ok(Self { served, flooding })
    }

    /// Every thread of a process goes where people are served.
    pub(super) fn serve(&self, process: u32) -> anyhow::Result<()> {
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let task: i32 = task?.file_name().to_string_lossy().parse()?;
            sched_setaffinity(Pid::from_raw(task), &self.served)?;
        }
        Ok(())
    }

    /// The thread that calls goes where the flood comes from.
    pub(super) fn flood(&self) -> anyhow::Result<()> {
        Ok(sched_setaffinity(None, &self.flooding)?)
    }
}
