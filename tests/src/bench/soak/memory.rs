//! The memory of one process from rollout to rollout, and the line through it.

use anyhow::Context as _;

/// Rollouts after which caches, arenas and histories have their size.
const WARM_UP: u32 = 40;
/// Fewer looks than this give no line.
const LOOKS: usize = 40;
/// What a process may grow by in a hundred rollouts, in KiB.
const LIMIT: f64 = 128.0;

pub(super) const FLAT: &str = "flat: after the first 40 rollouts, the line of least squares through the memory of its own (resident \
                               and anonymous: pages of the program are not) at the end of each rises by at most 128 KiB in 100 \
                               rollouts";

/// A process's own memory in KiB, by the number of the rollout that had just ended, and all that was resident last.
#[derive(Debug, Default)]
pub(super) struct Memory {
    own: Vec<(u32, f64)>,
    resident: f64,
}

impl Memory {
    pub(super) fn look(&mut self, rollout: u32, pid: u32) -> anyhow::Result<()> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<f64>().ok()
        };
        self.own.push((rollout, field("RssAnon:").context("no memory of its own")?));
        self.resident = field("VmRSS:").context("no resident memory")?;
        Ok(())
    }

    pub(super) const fn resident(&self) -> f64 {
        self.resident
    }

    pub(super) fn first(&self) -> f64 {
        self.own.first().map_or(0.0, |(_, kib)| *kib)
    }

    pub(super) fn last(&self) -> f64 {
        self.own.last().map_or(0.0, |(_, kib)| *kib)
    }

    /// KiB in a hundred rollouts, once there are enough of them.
    pub(super) fn slope(&self) -> Option<f64> {
        let looks = self.own.iter().filter(|(rollout, _)| *rollout > WARM_UP);
        let looks = looks.map(|(rollout, kib)| (f64::from(*rollout), *kib)).collect::<Vec<_>>();
        if looks.len() < LOOKS {
            return None;
        }
        let count = looks.len() as f64;
        let (x, y) = looks.iter().fold((0.0, 0.0), |(x, y), (rollout, kib)| (x + rollout / count, y + kib / count));
        let along = looks.iter().map(|(rollout, _)| (rollout - x).powi(2)).sum::<f64>();
        let both = looks.iter().map(|(rollout, kib)| (rollout - x) * (kib - y)).sum::<f64>();
        Some(both / along * 100.0)
    }

    /// None: there is no line to judge.
    pub(super) fn is_flat(&self) -> Option<bool> {
        self.slope().map(|slope| slope <= LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::Memory;

    fn of(kib: impl Fn(u32) -> f64) -> Memory {
        Memory { own: (1..=200).map(|rollout| (rollout, kib(rollout))).collect(), resident: 0.0 }
    }

    #[test]
    fn a_process_that_grows_with_every_rollout_is_not_flat() {
        assert_eq!(of(|rollout| 9_000.0 + 4.0 * f64::from(rollout)).is_flat(), Some(false));
    }

    #[test]
    fn one_that_grows_while_it_warms_up_and_then_stays_is() {
        assert_eq!(of(|rollout| 9_000.0 + 40.0 * f64::from(rollout.min(40))).is_flat(), Some(true));
        assert_eq!(of(|rollout| 9_000.0 + f64::from(rollout % 7) * 16.0).is_flat(), Some(true));
    }

    #[test]
    fn a_short_run_has_no_line() {
        let own = (1..=60).map(|rollout| (rollout, 9_000.0)).collect();
        assert_eq!(Memory { own, resident: 0.0 }.is_flat(), None);
    }
}
