//! What instances take of their host: added up over their processes, as the kernel counts it.

use crate::connections::tree;
use crate::reconciler::View;
use baton_core::fleet::InstanceKey;
use procfs::process::Process;
use std::collections::BTreeMap;

/// Of one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    pub resident_bytes: u64,
    /// Of no file, in memory or swapped out: what it has for itself.
    pub own_bytes: u64,
    /// Of the processes that live.
    pub cpu_seconds: f64,
}

/// Looks at every instance that runs.
pub(super) fn of_all(view: &View) -> BTreeMap<InstanceKey, Usage> {
    let running = view.instances.iter().filter_map(|(key, instance)| Some((key, instance.pid?)));
    running.filter_map(|(key, pid)| Some((key.clone(), of(pid)?))).collect()
}

/// A process and what it started; none when it is gone.
fn of(pid: u32) -> Option<Usage> {
    let looked = tree(pid).into_iter().filter_map(of_process);
    looked.reduce(|one, other| Usage {
        resident_bytes: one.resident_bytes.saturating_add(other.resident_bytes),
        own_bytes: one.own_bytes.saturating_add(other.own_bytes),
        cpu_seconds: one.cpu_seconds + other.cpu_seconds,
    })
}

fn of_process(pid: u32) -> Option<Usage> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let (stat, memory) = (process.stat().ok()?, process.status().ok()?);
    let own = memory.rssanon.or(memory.vmrss).unwrap_or_default().saturating_add(memory.vmswap.unwrap_or_default());
    let ticks = stat.utime.saturating_add(stat.stime);
    Some(Usage {
        // One that ended and is not looked after yet has no memory any more.
        resident_bytes: memory.vmrss.unwrap_or_default().saturating_mul(1024),
        // Kernels before 4.5 do not say which of it is of files.
        own_bytes: own.saturating_mul(1024),
        cpu_seconds: ticks as f64 / procfs::ticks_per_second() as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::of;
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_counted_with_what_it_started_until_it_is_gone() {
        let own = of(std::process::id()).unwrap();
        assert!(own.resident_bytes > 1 << 20 && own.own_bytes > 0, "{own:?}");
        // It ends with its input, whatever becomes of this test.
        let script = "echo ready; exec cat";
        let mut child =
            Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        assert!(of(child.id()).is_some_and(|child| child.resident_bytes > 0));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of(child.id()), None);
    }
}
