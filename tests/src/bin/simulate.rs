//! `simulate --seeds N` runs N seeds on every core and stops at the first that breaks an invariant; `simulate --seed N`
//! replays one, event by event.

use baton_tests::simulation::{self, Outcome, SOMETIMES};
use clap::Parser;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One seed only, with its events.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => replay(seed),
        None => many(arguments.from, arguments.seeds),
    }
}

fn replay(seed: u64) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let outcome = simulation::replay(seed, &mut |line| drop(writeln!(out, "{line}")));
    let _ = writeln!(out, "seed {seed}: {} events, log {:016x}", outcome.events, outcome.log);
    verdict(seed, &outcome)
}

fn many(from: u64, seeds: u64) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let work = || {
        let mut done: Vec<(u64, Outcome)> = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds || stop.load(Ordering::Relaxed) {
                return done;
            }
            let outcome = simulation::run(seed);
            stop.fetch_or(outcome.violation.is_some(), Ordering::Relaxed);
            done.push((seed, outcome));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |it| it.get());
    let outcomes: Vec<(u64, Outcome)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    if let Some((seed, outcome)) = outcomes.iter().find(|(_, outcome)| outcome.violation.is_some()) {
        return verdict(*seed, outcome);
    }
    let mut sometimes: BTreeMap<&str, u64> = BTreeMap::new();
    for (what, count) in outcomes.iter().flat_map(|(_, outcome)| &outcome.sometimes) {
        *sometimes.entry(what).or_default() += count;
    }
    let events: u64 = outcomes.iter().map(|(_, outcome)| outcome.events).sum();
    let mut out = std::io::stdout().lock();
    for (what, count) in &sometimes {
        let _ = writeln!(out, "{count:>9}  {what}");
    }
    let seconds = began.elapsed().as_secs_f64();
    let _ = writeln!(out, "{} seeds, {events} events, {seconds:.1} s: every invariant held", outcomes.len());
    let missing: Vec<&&str> = SOMETIMES.iter().filter(|what| !sometimes.contains_key(**what)).collect();
    if !missing.is_empty() && seeds >= 1_000 {
        let _ = writeln!(out, "never happened: {missing:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn verdict(seed: u64, outcome: &Outcome) -> ExitCode {
    let Some(violation) = &outcome.violation else { return ExitCode::SUCCESS };
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "seed {seed}: {violation}");
    let _ = writeln!(err, "again: cargo run --release -p baton-tests --bin simulate -- --seed {seed}");
    ExitCode::FAILURE
}
