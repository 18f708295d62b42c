//! The simulation in the small: `simulate --seeds 10000` is the same in the large.

use baton_tests::simulation::{SOMETIMES, run};
use std::collections::BTreeSet;

#[test]
fn every_invariant_holds_after_every_event() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let outcome = run(seed);
        assert_eq!(outcome.violation, None, "again: cargo run --release -p baton-tests --bin simulate -- --seed {seed}");
        seen.extend(outcome.sometimes.into_keys());
    }
    let rare = [
        "drain deadline passed with requests in flight",
        "a balancer restarted between two writes",
        "a forgotten release came back",
        "a service was removed",
        "a host was removed for good",
        "a balancer was declared dead",
    ];
    // Each command comes true in some of thousands of seeds, and not all of them in so few.
    let is_rare = |it: &&&str| rare.contains(it) || it.starts_with("asked: ");
    let missing: Vec<_> = SOMETIMES.iter().filter(|it| !seen.contains(*it) && !is_rare(it)).collect();
    assert!(missing.is_empty(), "these never happened, so nothing was proved about them: {missing:?}");
}

#[test]
fn a_seed_is_a_run() {
    for seed in [3, 104, 207] {
        assert_eq!(run(seed).log, run(seed).log);
    }
}
