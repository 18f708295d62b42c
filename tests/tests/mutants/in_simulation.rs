//! Old mistakes of others, made again one by one: the simulation must catch each, and for the right reason.

use baton_core_mutant::mutant::choose;
use baton_simulation_mutant::run;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every mistake, and the invariants whose checks may see it first.
const MISTAKES: [(&str, &[&str]); 15] = [
    ("pending hosts are not counted", &["invariant 5"]),
    ("one more event starts one more batch", &["invariant 5"]),
    ("a failed instance is collected", &["invariant 1"]),
    ("healthy ones are killed because new ones fail", &["invariant 1"]),
    ("health is watched until its first success", &["invariant 13"]),
    ("what cannot recover is waited for", &["liveness"]),
    ("a stale snapshot is believed", &["invariant 2", "invariant 7", "invariant 3", " 2: ", " 3: ", " 6: "]),
    ("analysis passes because its targets vanished", &[" 15: "]),
    ("on the way back the old one leaves first", &[" 1: "]),
    ("the old process answers for the new one", &[" 3: "]),
    ("cleanup deletes what is live", &["invariant 12", "invariant 18"]),
    ("staleness is checked at the start and not at the write", &[" 2: ", " 3: ", " 6: ", " 9: "]),
    ("a host that was never updated goes unnoticed", &["invariant 13", " 13: "]),
    ("a restarted balancer forgets", &[" 6: "]),
    ("the tool dies and leaves a host out", &["liveness"]),
];

/// A mistake that is not seen in so many runs survives.
const SEEDS: u64 = 3_000;

/// Those that no check saw.
pub(crate) fn survivors() -> Vec<String> {
    let mut survivors = Vec::new();
    for (mistake, invariants) in MISTAKES {
        choose(Some(mistake));
        match first_violation(invariants) {
            Some((seed, violation)) => println!("caught  {mistake}: seed {seed}, {violation:.160}"),
            None => survivors.push(format!("{mistake}: not in {SEEDS} seeds")),
        }
    }
    choose(None);
    survivors
}

/// A seed that breaks one of these invariants, and how.
fn first_violation(invariants: &[&str]) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None::<(u64, String)>));
    let hunt = || {
        while found.lock().is_ok_and(|found| found.is_none()) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            let violation = run(seed).violation.filter(|violation| invariants.iter().any(|it| violation.contains(it)));
            if let (Some(violation), Ok(mut found)) = (violation, found.lock()) {
                found.get_or_insert((seed, violation));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |it| it.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(hunt))));
    found.into_inner().ok().flatten()
}
