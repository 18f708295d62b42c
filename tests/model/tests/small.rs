//! One small scope in every `cargo test`; `explore` is the same in the large.

use baton_model::{Happening, explore, scopes};
use std::time::Duration;

/// Longer than it takes on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn every_state_of_a_small_fleet_keeps_the_invariants() {
    let found = explore(scopes::small(), 2, PATIENCE);
    assert_eq!(found.broken, None, "the interlock: {:?}", found.refusal);
    assert!(found.complete, "{} states, and not all", found.states);
    let missing: Vec<_> = Happening::ALL.into_iter().filter(|it| !found.happened.contains(it)).collect();
    assert_eq!(missing, [Happening::DeadlinePassed], "what never happened, nothing was proved about");
}

#[test]
fn two_coordinators_over_two_stores_are_found_out() {
    let found = explore(scopes::copied(), 2, PATIENCE);
    let (property, actions) = found.broken.expect("one of them starts what the other one routes to");
    assert!(property.starts_with("3: ") || property.starts_with("2: "), "{property}: {actions:?}");
}
