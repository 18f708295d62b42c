//! Floods of a coordinator, one kind after the other: how long others wait meanwhile, and what memory it takes.
//!
//! The coordinator and whoever does nothing wrong share one core, those who flood have the others: on a machine of their own
//! they would take nothing of the coordinator's but what they make it do.

mod cores;
mod flood;
mod honest;

use super::idle::programs;
use super::{FloodsArgs, Measured, milliseconds, part};
use anyhow::{Context as _, ensure};
use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{COORDINATOR, Front, Place, Setup, Stage};
use cores::Cores;
pub(super) use flood::Flood;
use flood::Flooding;
use honest::{Honest, Waited};
use serde_json::{Value, json};
use std::time::Duration;

/// How many times longer others may wait.
const RATIO_MAX: f64 = 2.0;
const MEMORY_MAX_KIB: u64 = 16 * 1024;
/// What comes first is what everybody may send at once. After so long a flood goes on as it always will.
const BEGINNING: Duration = Duration::from_millis(500);
/// Handshakes that a flood asked for, and the credit it used, are behind the coordinator after so long.
const REST: Duration = Duration::from_millis(1500);

/// What one kind of flood did.
#[derive(Debug, Default)]
struct Found {
    /// Without the flood, and with it.
    kept: [Waited; 2],
    newcomers: [Waited; 2],
    sent: u64,
    flooded: Duration,
    /// More than before the first flood, at most.
    memory_kib: u64,
}

pub(super) async fn run(args: FloodsArgs) -> anyhow::Result<Measured> {
    let setup = Setup {
        programs: Some(programs(args.programs)?),
        front: Front::Builtin,
        place: Place::SideBySide,
        network: [127, 0, 5],
        ..Setup::new(part()?)
    };
    let stage = Stage::raise(setup).await?;
    let control = stage.control().await?;
    let archive = std::fs::read(stage.build("1", &Behaviour::good(Duration::ZERO))?)?;
    let rollout = control.deploy(&stage.manifest(), "1", &archive).await?;
    let ended = control.wait_ended(&rollout).await?;
    ensure!(ended.state == "succeeded", "the release ended {}", ended.state);
    let pid = stage.pid(COORDINATOR).context("no coordinator runs")?;
    let cores = Cores::find()?;
    cores.serve(pid)?;
    cores.serve(std::process::id())?;

    let coordinator = stage.places.coordinator;
    let token = honest::viewers(&control).await?;
    let mut honest = Honest::join(coordinator, &token, "vera").await?;
    let credentials = honest::join(coordinator, &token, "fred").await?;
    let window = Duration::from_secs(args.seconds);
    honest.kept(window).await;
    honest.newcomers(window).await;
    let before = resident_kib(pid)?;
    let kinds = if args.floods.is_empty() { Flood::ALL.to_vec() } else { args.floods };
    let mut found = Vec::new();
    for kind in kinds {
        let mut of = Found::default();
        for _ in 0..args.rounds {
            tokio::time::sleep(REST).await;
            of.kept[0].add(honest.kept(window).await);
            of.newcomers[0].add(honest.newcomers(window).await);
            let flooding = Flooding::start(kind, args.connections, coordinator, &credentials, pid, &cores)?;
            tokio::time::sleep(BEGINNING).await;
            of.kept[1].add(honest.kept(window).await);
            of.newcomers[1].add(honest.newcomers(window).await);
            let (sent, flooded, most) = flooding.stop()?;
            of.sent += sent;
            of.flooded += flooded;
            of.memory_kib = of.memory_kib.max(most.saturating_sub(before));
        }
        ensure!(of.sent > 0, "{kind:?}: nothing was sent");
        found.push((kind, of));
    }
    Ok(measured(args.connections, before, &found))
}

/// Resident memory of a process.
fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no resident memory")?;
    Ok(line.split_ascii_whitespace().next().context("no number")?.parse()?)
}

fn measured(connections: u16, before_kib: u64, found: &[(Flood, Found)]) -> Measured {
    let mut summary = "                         A CALL, ms                  WITH A NEW CONNECTION, ms\n\
                       FLOOD            SENT/S  QUIET P50/P99  FLOODED P50/P99  RATIO  QUIET P50/P99  FLOODED P50/P99  RATIO  MEMORY\n"
        .to_owned();
    let (mut floods, mut good) = (Vec::new(), true);
    for (kind, of) in found {
        let per_second = of.sent as f64 / of.flooded.as_secs_f64();
        let mut row = format!("{:<15} {per_second:>7.0}", kind.name());
        let mut document = json!({
            "flood": kind.name(),
            "sent_per_second": per_second.round(),
            "memory_kib": of.memory_kib,
        });
        for (which, [quiet, flooded]) in [("call", &of.kept), ("call_with_new_connection", &of.newcomers)] {
            let ratio = flooded.percentile(99).as_secs_f64() / quiet.percentile(99).as_secs_f64();
            good &= ratio <= RATIO_MAX && quiet.failed + flooded.failed == 0;
            row.push_str(&format!("  {}   {} {ratio:>6.2}", quiet.cell(), flooded.cell()));
            document[which] = json!({ "quiet": figures(quiet), "flooded": figures(flooded), "p99_ratio": (ratio * 100.0).round() / 100.0 });
        }
        good &= of.memory_kib <= MEMORY_MAX_KIB;
        summary.push_str(&format!("{row}  +{} KiB\n", of.memory_kib));
        floods.push(document);
    }
    let document = json!({
        "connections": connections,
        "coordinator_before_kib": before_kib,
        "promised": { "p99_ratio": RATIO_MAX, "memory_kib": MEMORY_MAX_KIB },
        "calls": "Status, over mutual TLS, by a viewer at another address than the flood; the coordinator and the viewer share one core, the flood has the others",
        "floods": floods,
    });
    Measured { document, summary, good }
}

fn figures(waited: &Waited) -> Value {
    json!({
        "calls": waited.calls(),
        "failed": waited.failed,
        "p50_ms": milliseconds(waited.percentile(50)),
        "p99_ms": milliseconds(waited.percentile(99)),
        "max_ms": milliseconds(waited.percentile(100)),
    })
}
