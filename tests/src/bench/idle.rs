//! A fleet at rest: what its agents and its coordinator take.

use super::{IdleArgs, Measured, part};
use anyhow::{Context as _, ensure};
use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{BALANCER_HOST, COORDINATOR, Front, Place, Setup, Stage};
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

const AGENT_MIB: f64 = 12.0;
const COORDINATOR_MIB: f64 = 32.0;
/// Percent of one core.
const AGENT_CPU: f64 = 0.1;

/// What one process takes.
#[derive(Debug, Clone, Serialize)]
struct Rest {
    part: String,
    rss_mib: f64,
    /// Of that, memory of its own; the rest are pages of the program itself, which all processes of it share.
    anonymous_mib: f64,
    threads: u64,
    cpu_percent: f64,
}

pub(super) async fn run(args: IdleArgs) -> anyhow::Result<Measured> {
    let setup = Setup {
        programs: Some(programs(args.programs)?),
        hosts: args.hosts,
        front: Front::Builtin,
        place: Place::SideBySide,
        network: [127, 0, 2],
        ..Setup::new(part()?)
    };
    let stage = Stage::raise(setup).await?;
    let control = stage.control().await?;
    let archive = std::fs::read(stage.build("1", &Behaviour::good(Duration::ZERO))?)?;
    let rollout = control.deploy(&at_rest(&stage.manifest())?, "1", &archive).await?;
    let ended = control.wait_ended(&rollout).await?;
    ensure!(ended.state == "succeeded", "the release ended {}", ended.state);
    drop(control);
    tokio::time::sleep(Duration::from_secs(args.rest)).await;

    let mut parts = stage.agents();
    parts.push(COORDINATOR.to_owned());
    let before = parts.iter().map(|part| busy(&stage, part)).collect::<anyhow::Result<Vec<_>>>()?;
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let window = Duration::from_secs(args.seconds).as_secs_f64();
    let mut rests = Vec::new();
    for (part, before) in parts.iter().zip(before) {
        let cpu = (busy(&stage, part)? - before).as_secs_f64() / window * 100.0;
        rests.push(rest(&stage, part, cpu)?);
    }

    let is_agent = |rest: &&Rest| rest.part != COORDINATOR && rest.part != BALANCER_HOST;
    let agents = || rests.iter().filter(is_agent);
    let agent_mib = agents().map(|rest| rest.rss_mib).fold(0.0, f64::max);
    let agent_cpu = agents().map(|rest| rest.cpu_percent).sum::<f64>() / agents().count().max(1) as f64;
    let coordinator_mib = rests.iter().find(|rest| rest.part == COORDINATOR).map_or(0.0, |rest| rest.rss_mib);
    let good = agent_mib <= AGENT_MIB && coordinator_mib <= COORDINATOR_MIB && agent_cpu <= AGENT_CPU;
    let document = json!({
        "hosts": args.hosts,
        "seconds": args.seconds,
        "agent": { "rss_mib": agent_mib, "cpu_percent": percent(agent_cpu), "promised_rss_mib": AGENT_MIB, "promised_cpu_percent": AGENT_CPU },
        "coordinator": { "rss_mib": coordinator_mib, "promised_rss_mib": COORDINATOR_MIB },
        "programs": "baton-agent and baton-coordinator as they are shipped, after a deploy; every host runs the service, probed each second (the default)",
        "processes": rests,
    });
    let mut summary = "PART          RSS MiB  ANON MiB  THREADS   CPU %\n".to_owned();
    for rest in &rests {
        let Rest { part, rss_mib, anonymous_mib, threads, cpu_percent } = rest;
        summary.push_str(&format!("{part:<12} {rss_mib:>8.1} {anonymous_mib:>9.1} {threads:>8} {cpu_percent:>7.3}\n"));
    }
    Ok(Measured { document, summary, good })
}

/// The demo probes faster than a manifest that says nothing: it has something to show. Here nobody watches.
fn at_rest(manifest: &str) -> anyhow::Result<String> {
    let kept: Vec<_> = manifest.lines().filter(|line| !line.starts_with("interval = ")).collect();
    ensure!(kept.len() + 1 == manifest.lines().count(), "the demo's manifest has no interval of its own any more");
    Ok(kept.join("\n"))
}

/// What is measured are the programs people install, not the one executable that can be all of them.
pub(super) fn programs(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = named.or_else(|| this.parent().map(PathBuf::from)).context("this program is nowhere")?.canonicalize()?;
    for program in ["baton-agent", "baton-coordinator"] {
        ensure!(
            folder.join(program).exists(),
            "there is no {program} in {}: build it first, with cargo build --release -p baton-agent -p baton-coordinator, \
             or say --programs FOLDER",
            folder.display()
        );
    }
    Ok(folder)
}

fn rest(stage: &Stage, part: &str, cpu: f64) -> anyhow::Result<Rest> {
    let pid = stage.pid(part).with_context(|| format!("{part} does not run"))?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let mib = |name: &str| (field(name) / 1024.0 * 100.0).round() / 100.0;
    Ok(Rest {
        part: part.to_owned(),
        rss_mib: mib("VmRSS:"),
        anonymous_mib: mib("RssAnon:"),
        threads: field("Threads:") as u64,
        cpu_percent: percent(cpu),
    })
}

/// Time on a processor so far, over all threads, to the nanosecond.
fn busy(stage: &Stage, part: &str) -> anyhow::Result<Duration> {
    let pid = stage.pid(part).with_context(|| format!("{part} does not run"))?;
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split_ascii_whitespace().next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn percent(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
