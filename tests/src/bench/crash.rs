//! The whole enumeration of crash points, and one table of it.

use super::{CrashArgs, Measured, part};
use crate::crash::point::Point;
use crate::crash::sweep::{Sweep, Swept};
use crate::crash::{Strategy, Victim, may_trace};
use anyhow::{Context as _, ensure};
use baton_cli::demo::stage::Setup;
use futures_util::StreamExt as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

pub(super) async fn run(args: CrashArgs) -> anyhow::Result<Measured> {
    ensure!(may_trace(), "no process may trace another here: sysctl kernel.yama.ptrace_scope=0, or run it as root");
    let chosen = |strategy: &Strategy| args.strategies.is_empty() || args.strategies.contains(strategy);
    let dies = |victim: &Victim| args.victims.is_empty() || args.victims.contains(victim);
    let strategies = Strategy::ALL.into_iter().filter(chosen);
    let pairs = strategies.flat_map(|strategy| strategy.victims().map(move |victim| (strategy, victim)));
    let sweeps = pairs.filter(|(_, victim)| dies(victim)).enumerate().map(|(index, (strategy, victim))| {
        let sweep = Sweep { stride: args.stride, ..Sweep::whole(strategy, victim) };
        // A network of its own: sweeps run at once.
        swept(sweep, [127, 100, u8::try_from(index + 1).unwrap_or(u8::MAX)])
    });
    let sweeps = futures_util::stream::iter(sweeps).buffered(usize::from(args.jobs));
    let (mut done, mut broken) = (Vec::new(), Vec::new());
    for sweep in sweeps.collect::<Vec<_>>().await {
        match sweep {
            Ok(swept) => done.push(swept),
            Err(error) => broken.push(format!("{error:#}")),
        }
    }
    Ok(measured(&done, &broken))
}

async fn swept(sweep: Sweep, network: [u8; 3]) -> anyhow::Result<Swept> {
    let whose = format!("the sweep of {} with {} killed", sweep.strategy, sweep.victim);
    let part = part()?;
    let setup = || Setup {
        network,
        healthy_for: Duration::from_millis(50),
        start_timeout: Duration::from_secs(10),
        drain: Duration::from_secs(10),
        ..Setup::new(part.clone())
    };
    sweep.run(setup, told).await.context(whose)
}

/// A line for each death: a run takes many minutes.
fn told(sweep: &Sweep, point: &Point) {
    let Point { step, moment, ended, violations, .. } = point;
    let state = ended.as_ref().map_or("no end", |ended| ended.state.as_str());
    let mut line = format!("{} · {} · {moment} {} {} · {state}\n", sweep.strategy, sweep.victim, step.number, step.path);
    violations.iter().for_each(|violation| line.push_str(&format!("  VIOLATION {violation}\n")));
    // Nobody reads it: nothing to do about it.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

fn measured(sweeps: &[Swept], broken: &[String]) -> Measured {
    let mut summary =
        "STRATEGY               VICTIM             STEPS DEATHS REQUESTS FAILED    CUT VIOLATIONS  ENDED\n".to_owned();
    let (mut deaths, mut violations) = (0, 0);
    for Swept { strategy, victim, steps, points, requests, failed, .. } in sweeps {
        let cut = points.iter().map(|point| point.cut).sum::<u64>();
        let wrong = points.iter().filter(|point| !point.violations.is_empty()).count();
        let mut ends = BTreeMap::<&str, u64>::new();
        for point in points {
            *ends.entry(point.ended.as_ref().map_or("no end", |ended| &ended.state)).or_default() += 1;
        }
        let ends = ends.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ");
        let (strategy, victim) = (strategy.to_string(), victim.to_string());
        summary.push_str(&format!(
            "{strategy:<22} {victim:<18} {steps:>5} {:>6} {requests:>8} {:>6} {cut:>6} {wrong:>10}  {ends}\n",
            points.len(),
            failed - cut
        ));
        deaths += points.len();
        violations += wrong;
    }
    summary.push_str(&format!("\n{deaths} deaths, {violations} of them with something that must not happen\n"));
    broken.iter().for_each(|why| summary.push_str(&format!("error: {why}\n")));
    let document = json!({ "deaths": deaths, "violations": violations, "errors": broken, "sweeps": sweeps });
    Measured { document, summary, good: violations == 0 && broken.is_empty() && deaths > 0 }
}
