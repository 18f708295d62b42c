//! How fast releases that are worse are noticed, and how often ones that are not are taken back: the guard, beside what
//! others do, on simulated traffic.

mod judges;
mod state;
mod statistics;
mod world;

use super::{JudgeArgs, Measured};
use judges::{JUDGES, Judge};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Instant;
use world::World;

/// The medians that are promised, without and with the tolerance: requests of the new release until it is taken back.
const PROMISED: [(&str, u64, u64); 3] = [("0.01 % → 100 %", 4, 4), ("1 % → 5 %", 182, 232), ("0.1 % → 1 %", 538, 937)];
const WITHIN: f64 = 0.15;
/// Of releases that are no worse, at most so many are taken back within an hour.
const FALSE_REVERTS: f64 = 0.01;

const WORLDS: [World; 10] = [
    World::truth(PROMISED[0].0, 0.0001, 1.0, 10),
    World::truth(PROMISED[1].0, 0.01, 0.05, 120),
    World::truth(PROMISED[2].0, 0.001, 0.01, 180),
    World::clean("clean, 0.1 %", 0.001),
    World::clean("clean, 1 %", 0.01),
    World::clean("clean, 5 %", 0.05),
    World { incident: Some((20, 30, 0.3)), ..World::clean("incident on both", 0.01) },
    World { burst: 10, ..World::clean("clean, bursts of 10", 0.01) },
    World { burst: 20, rate: 400, ..World::clean("clean, busy, bursts of 20", 0.01) },
    World { burst: 20, rate: 400, ..World::truth("busy, bursts of 20, 1 % → 5 %", 0.01, 0.05, 30) },
];

/// What one judge made of one world.
#[derive(Debug, Clone, Serialize)]
struct Row {
    /// The share of runs it took back.
    reverted: f64,
    /// Requests of the new release until then; None when half of the runs were not taken back.
    median_requests: Option<u64>,
}

pub(super) fn run(args: &JudgeArgs) -> anyhow::Result<Measured> {
    let began = Instant::now();
    // First, while nothing else was allocated that could make room for it.
    let state = state::measured()?;
    if args.state {
        let (document, summary) = (json!({ "state": state, "violations": state.violations() }), state.to_string());
        return Ok(Measured { document, summary, good: state.violations().is_empty() });
    }
    let rows: Vec<(World, BTreeMap<Judge, Row>)> = WORLDS.iter().map(|world| (*world, judged(world, args.runs))).collect();
    let violations = [state.violations(), violations(&rows)].concat();
    let worlds: Vec<_> = rows
        .iter()
        .map(|(world, rows)| json!({ "truth": world.name, "minutes": world.minutes, "requests_per_s": world.rate, "judges": rows }))
        .collect();
    let document = json!({
        "runs": args.runs,
        "seconds": began.elapsed().as_secs_f64(),
        "promised": PROMISED.map(|(truth, strict, tolerant)| json!({ "truth": truth, "guard_strict": strict, "guard": tolerant })),
        "worlds": worlds,
        "state": state,
        "violations": violations,
    });
    let mut summary = format!("{:<30}", "TRUTH");
    for heading in ["NO TOLERANCE", "GUARD", "AS IT RUNS", "OVER 1 %", "OVER 5 %", "FISHER", "MANN-WHITNEY"] {
        summary.push_str(&format!(" {heading:>16}"));
    }
    summary.push('\n');
    for (world, rows) in &rows {
        summary.push_str(&format!("{:<30}", world.name));
        for judge in JUDGES {
            let text = rows.get(&judge).map_or_else(String::new, |row| row.text(world.is_clean()));
            summary.push_str(&format!(" {text:>16}"));
        }
        summary.push('\n');
    }
    summary.push_str(
        "\nworse releases: median requests until taken back (share noticed); others: share taken back in an hour\n",
    );
    summary.push_str(&format!("\n{state}"));
    violations.iter().for_each(|violation| summary.push_str(&format!("✗ {violation}\n")));
    Ok(Measured { document, summary, good: violations.is_empty() })
}

impl Row {
    fn text(&self, clean: bool) -> String {
        let share = format!("{:.1} %", self.reverted * 100.0);
        match (clean, self.median_requests) {
            (true, _) => share,
            (false, Some(median)) => format!("{median} ({share})"),
            (false, None) => format!("– ({share})"),
        }
    }
}

/// Every judge on the same runs, on every core.
fn judged(world: &World, runs: u64) -> BTreeMap<Judge, Row> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let of_thread = |first: u64| {
        let mut ends: BTreeMap<Judge, Vec<Option<u64>>> = BTreeMap::new();
        for seed in (first..runs).step_by(threads as usize) {
            let run = world.run(seed);
            for judge in JUDGES {
                ends.entry(judge).or_default().push(judge.says_no_after(&run));
            }
        }
        ends
    };
    let mut all: BTreeMap<Judge, Vec<Option<u64>>> = BTreeMap::new();
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|first| scope.spawn(move || of_thread(first))).collect();
        for thread in started {
            for (judge, ends) in thread.join().unwrap_or_default() {
                all.entry(judge).or_default().extend(ends);
            }
        }
    });
    let row = |mut ends: Vec<Option<u64>>| {
        ends.sort_by_key(|end| end.unwrap_or(u64::MAX));
        let reverted = ends.iter().flatten().count() as f64 / ends.len().max(1) as f64;
        Row { reverted, median_requests: ends.get(ends.len() / 2).copied().flatten() }
    };
    all.into_iter().map(|(judge, ends)| (judge, row(ends))).collect()
}

fn violations(rows: &[(World, BTreeMap<Judge, Row>)]) -> Vec<String> {
    let mut violations = Vec::new();
    for (world, rows) in rows {
        for (judge, row) in rows {
            let guarded = matches!(judge, Judge::GuardStrict | Judge::Guard | Judge::GuardLive);
            // Without its caution the guard is no better in bursts than any other test: that is what the caution is for.
            let answers = guarded && (world.burst == 1 || *judge == Judge::GuardLive);
            if answers && world.is_clean() && row.reverted > FALSE_REVERTS {
                violations.push(format!("{judge:?}: {:.2} % of `{}` taken back", row.reverted * 100.0, world.name));
            }
        }
        let Some((_, strict, tolerant)) = PROMISED.into_iter().find(|(name, _, _)| *name == world.name) else { continue };
        for (judge, promised) in [(Judge::GuardStrict, strict), (Judge::Guard, tolerant)] {
            let median = rows.get(&judge).and_then(|row| row.median_requests);
            let close = median.is_some_and(|median| (median as f64 / promised as f64 - 1.0).abs() <= WITHIN);
            if !close {
                violations.push(format!("{judge:?}: `{}` noticed after {median:?} requests, not {promised}", world.name));
            }
        }
    }
    violations
}
