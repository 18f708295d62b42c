//! What Baton costs a host on which nothing happens: before anything is deployed, and again when services run that nobody asks
//! anything, so that probes and balancers are looked at every second.

use super::fault::LINK;
use super::verdict::tenths;
use crate::fleet::host::Host;
use crate::fleet::provision::main_process;
use crate::fleet::record::{Fleet, Part};
use anyhow::Context as _;
use serde::Serialize;
use std::time::{Duration, Instant};

const AGENT_MIB: f64 = 12.0;
const COORDINATOR_MIB: f64 = 32.0;
const AGENT_CPU_PERCENT: f64 = 0.1;

/// Long enough that one report more or less does not matter: agents report every two seconds.
const WATCHED: Duration = Duration::from_secs(20);

/// The largest of each kind; an agent is both its halves.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    pub agent_mib: f64,
    pub coordinator_mib: f64,
    /// Of one core, on hosts that run services.
    pub agent_cpu_percent: f64,
    /// The same where the agent also watches a balancer.
    pub balancers_agent_cpu_percent: f64,
}

/// Measures a fleet that is left alone; takes twenty seconds.
///
/// # Errors
/// When a program does not run.
pub(super) fn measure(fleet: &Fleet) -> anyhow::Result<Idle> {
    let agents = fleet.hosts.iter().filter(|host| host.part != Part::Coordinator).collect::<Vec<_>>();
    let before = agents.iter().map(|host| spent(host)).collect::<anyhow::Result<Vec<_>>>()?;
    let begun = Instant::now();
    std::thread::sleep(WATCHED);
    let (mut agent_cpu_percent, mut balancers_agent_cpu_percent, mut agent_mib) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (host, before) in agents.iter().zip(before) {
        let percent = 100.0 * spent(host)?.saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
        let largest = if host.part == Part::Web { &mut agent_cpu_percent } else { &mut balancers_agent_cpu_percent };
        *largest = largest.max(percent);
        agent_mib = agent_mib.max(shared_out_mib(host, "baton-agent")? + shared_out_mib(host, LINK)?);
    }
    let coordinator_mib = resident_mib(fleet.coordinator()?, "baton-coordinator")?;
    Ok(Idle {
        agent_mib: tenths(agent_mib),
        coordinator_mib: tenths(coordinator_mib),
        agent_cpu_percent: thousandths(agent_cpu_percent),
        balancers_agent_cpu_percent: thousandths(balancers_agent_cpu_percent),
    })
}

impl Idle {
    /// What is more than promised; nothing where all is well.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        let bounds = [
            ("an idle agent's memory in MiB", self.agent_mib, AGENT_MIB),
            ("the coordinator's memory in MiB", self.coordinator_mib, COORDINATOR_MIB),
            ("an idle agent's share of a core in percent", self.agent_cpu_percent, AGENT_CPU_PERCENT),
        ];
        let more = bounds.into_iter().filter(|(_, found, most)| found > most);
        more.map(|(what, found, most)| format!("{what}: {found:.2}, {most} at most")).collect()
    }
}

fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Processor time of an agent since it started, over all threads of both its halves.
fn spent(host: &Host) -> anyhow::Result<Duration> {
    let halves = [main_process(host, "baton-agent")?, main_process(host, LINK)?];
    let files = halves.map(|process| format!("/proc/{process}/task/*/schedstat")).join(" ");
    let tasks = host.run(&["sh", "-c", &format!("cat {files}")])?;
    // The first number of a line: nanoseconds on a processor. See the kernel's `sched-stats.rst`.
    let spent = tasks.lines().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok()).sum();
    Ok(Duration::from_nanos(spent))
}

/// Resident memory, of which what other processes use as well counts in part: an agent's halves are one program.
fn shared_out_mib(host: &Host, unit: &str) -> anyhow::Result<f64> {
    mib(host, unit, "smaps_rollup", "Pss:")
}

fn resident_mib(host: &Host, unit: &str) -> anyhow::Result<f64> {
    mib(host, unit, "status", "VmRSS:")
}

fn mib(host: &Host, unit: &str, file: &str, label: &str) -> anyhow::Result<f64> {
    let text = host.run(&["cat", &format!("/proc/{}/{file}", main_process(host, unit)?)])?;
    let kib = text.lines().find_map(|line| line.strip_prefix(label)?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{unit} on {} does not run", host.name))? / 1024.0)
}
