//! Release after release, by every strategy that serves throughout and back, under load behind a real HAProxy: nothing fails,
//! no order is executed twice or lost, and memory stays where it is.

mod memory;

use super::{Measured, SoakArgs, milliseconds, part};
use anyhow::{Context as _, ensure};
use baton_cli::demo::load::{Config, Failure, Load, executions};
use baton_cli::demo::stage::control::Control;
use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{COORDINATOR, Front, Place, SERVICE, Setup, Stage};
use baton_proto::v1::{FleetView, RolloutView, ServiceView};
use memory::Memory;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// The stage's own strategy, which the others take the place of.
const ROLLING: &str = "strategy = \"rolling\"\nmax_unavailable = 1\n";
/// A rollout that takes longer has got stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rollouts between two looks at the instances' logs.
const LOOK_EVERY: u32 = 20;
/// The first failures are said word for word.
const SAID_FAILURES: usize = 20;

/// What one turn asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    SideBySide,
    InPlace,
    BlueGreen,
    Canary,
    Rollback,
}

impl Turn {
    /// Every strategy after every kind of way back.
    const CYCLE: [Self; 8] = [
        Self::SideBySide,
        Self::BlueGreen,
        Self::Rollback,
        Self::InPlace,
        Self::Canary,
        Self::Rollback,
        Self::BlueGreen,
        Self::InPlace,
    ];

    /// The manifest's lines for it; None: nothing is deployed.
    const fn lines(self) -> Option<&'static str> {
        match self {
            Self::SideBySide => Some(ROLLING),
            Self::InPlace => Some("strategy = \"rolling\"\nplacement = \"in-place\"\nmax_unavailable = 1\n"),
            Self::BlueGreen => Some("strategy = \"blue-green\"\nkeep_old = \"2s\"\n"),
            Self::Canary => Some("strategy = \"canary\"\nsteps = [\"20% for 200ms\", \"1 host for 200ms\", \"100%\"]\n"),
            Self::Rollback => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::SideBySide => "rolling, side by side",
            Self::InPlace => "rolling, in place",
            Self::BlueGreen => "blue-green",
            Self::Canary => "canary",
            Self::Rollback => "rollback",
        }
    }
}

/// What clients met so far.
#[derive(Debug, Default)]
struct Traffic {
    requests: u64,
    failed: u64,
    sent: u64,
    twice: u64,
    lost: u64,
    failures: Vec<Failure>,
}

pub(super) async fn run(args: SoakArgs) -> anyhow::Result<Measured> {
    let healthy_for = Duration::from_millis(100);
    let setup = Setup {
        front: Front::Haproxy,
        place: Place::SideBySide,
        network: [127, 0, 4],
        healthy_for,
        start_timeout: Duration::from_secs(30),
        ..Setup::new(part()?)
    };
    let stage = Stage::raise(setup).await?;
    let control = stage.control().await?;
    // Two releases, so that the first turn may be a way back as well as any.
    for version in [0, 1] {
        ends(&stage, &control, &release(&stage, &control, version, ROLLING).await?).await?;
    }
    let mut parts = stage.agents();
    parts.push(COORDINATOR.to_owned());
    let mut memory = parts.iter().map(|part| (part.clone(), Memory::default())).collect::<BTreeMap<_, _>>();
    let mut took = BTreeMap::<Turn, Vec<f64>>::new();
    let mut traffic = Traffic::default();
    let load = Load::start(Config::new(stage.frontend(), args.rate))?;
    for number in 1..=args.rollouts {
        let turn = Turn::CYCLE[(number as usize - 1) % Turn::CYCLE.len()];
        let begun = Instant::now();
        let rollout = match turn.lines() {
            Some(lines) => release(&stage, &control, number + 1, lines).await?,
            None => control.rollback(SERVICE).await?,
        };
        ends(&stage, &control, &rollout).await?;
        took.entry(turn).or_default().push(milliseconds(begun.elapsed()));
        for (part, memory) in &mut memory {
            memory.look(number, stage.pid(part).with_context(|| format!("{part} does not run"))?)?;
        }
        if number % LOOK_EVERY == 0 || number == args.rollouts {
            traffic.add(&stage, &load).await?;
            // Nobody reads it: nothing to do about it.
            let _ = writeln!(
                std::io::stderr().lock(),
                "{number} of {} rollouts, {} requests, {} failed",
                args.rollouts,
                traffic.requests,
                traffic.failed
            );
        }
    }
    Ok(measured(&args, &traffic, &took, &memory))
}

async fn release(stage: &Stage, control: &Control, version: u32, lines: &str) -> anyhow::Result<String> {
    let version = version.to_string();
    let archive = std::fs::read(stage.build(&version, &Behaviour::good(Duration::from_millis(50)))?)?;
    let manifest = stage.manifest();
    ensure!(manifest.contains(ROLLING), "the stage's manifest has another strategy");
    Ok(control.deploy(&manifest.replace(ROLLING, lines), &version, &archive).await?)
}

/// Waits for the success, and until nobody waits for anything.
async fn ends(stage: &Stage, control: &Control, rollout: &str) -> anyhow::Result<RolloutView> {
    let ended = tokio::time::timeout(PATIENCE, control.wait_ended(rollout));
    let ended = ended.await.with_context(|| format!("{rollout} got stuck\n{}", stage.last_words()))??;
    ensure!(ended.state == "succeeded", "{rollout} ended {}\n{ended:#?}\n{}", ended.state, stage.last_words());
    let rests = |service: &ServiceView| service.waiting.is_empty() && service.health == "healthy";
    let at_rest = |fleet: &FleetView| fleet.services.iter().all(rests);
    let rest = tokio::time::timeout(PATIENCE, control.wait_for(at_rest));
    rest.await.with_context(|| format!("no rest after {rollout}\n{}", stage.last_words()))??;
    Ok(ended)
}

impl Traffic {
    async fn add(&mut self, stage: &Stage, load: &Load) -> anyhow::Result<()> {
        let report = load.mark().await?;
        let orders = executions::join(&report.posts, &stage.logs())?;
        self.requests += report.requests;
        self.failed += report.failed;
        self.sent += orders.sent;
        self.twice += orders.twice;
        self.lost += orders.lost;
        let room = SAID_FAILURES.saturating_sub(self.failures.len());
        self.failures.extend(report.failures.into_iter().take(room));
        Ok(())
    }
}

fn measured(
    args: &SoakArgs,
    traffic: &Traffic,
    took: &BTreeMap<Turn, Vec<f64>>,
    memory: &BTreeMap<String, Memory>,
) -> Measured {
    let median = |times: &Vec<f64>| {
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let mut summary = "TURN                    COUNT  MEDIAN MS\n".to_owned();
    for (turn, times) in took {
        summary.push_str(&format!("{:<23} {:>5} {:>10.0}\n", turn.name(), times.len(), median(times)));
    }
    summary.push_str(&format!(
        "\n{} rollouts, {} requests, {} failed; {} orders, {} executed twice, {} lost\n\n\
         PART           RSS KIB    OWN KIB  FIRST KIB  KIB/100 ROLLOUTS\n",
        args.rollouts, traffic.requests, traffic.failed, traffic.sent, traffic.twice, traffic.lost
    ));
    let mut documents = Vec::new();
    for (part, memory) in memory {
        let (resident, first, last, slope) = (memory.resident(), memory.first(), memory.last(), memory.slope());
        let said = slope.map_or_else(|| "too few rollouts".to_owned(), |slope| format!("{slope:.0}"));
        summary.push_str(&format!("{part:<12} {resident:>9.0} {last:>10.0} {first:>10.0} {said:>17}\n"));
        documents.push(json!({
            "part": part,
            "resident_kib": resident,
            "first_own_kib": first,
            "last_own_kib": last,
            "slope_kib_per_100_rollouts": slope.map(f64::round),
            "flat": memory.is_flat(),
        }));
    }
    summary.push_str(&format!("\n{}\n", memory::FLAT));
    for failure in &traffic.failures {
        summary.push_str(&format!("  {:.3} s  {:?}  {}\n", failure.at_s, failure.kind, failure.text));
    }
    let turns =
        took.iter().map(|(turn, times)| json!({ "turn": turn.name(), "count": times.len(), "median_ms": median(times) }));
    let document = json!({
        "rollouts": args.rollouts,
        "turns": turns.collect::<Vec<_>>(),
        "requests": traffic.requests,
        "failed": traffic.failed,
        "orders": { "sent": traffic.sent, "twice": traffic.twice, "lost": traffic.lost },
        "failures": traffic.failures,
        "memory": documents,
        "flat_means": memory::FLAT,
    });
    let clean = (traffic.failed, traffic.twice, traffic.lost) == (0, 0, 0) && traffic.requests > 0;
    // A run too short for a slope says nothing about memory, and is judged by its traffic alone.
    let flat = memory.values().all(|memory| memory.is_flat() != Some(false));
    Measured { document, summary, good: clean && flat }
}
