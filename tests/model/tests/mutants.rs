//! Old mistakes of others, made again one by one: the model must find each, by the shortest way.
//!
//! Empty unless it is built with `--cfg mutant`: `RUSTFLAGS="--cfg mutant" cargo test -p baton-model --test mutants`.
#![cfg(mutant)]

use baton_core::mutant::choose;
use baton_model::{Manner, Scope, explore, scopes};
use std::time::Duration;

/// Every mistake that can be made in a scope this small, and how the properties begin that may see it first.
const MISTAKES: [(&str, Manner, &[&str]); 5] = [
    ("pending hosts are not counted", Manner::InPlace, &["1: ", "the interlock"]),
    ("one more event starts one more batch", Manner::InPlace, &["1: ", "the interlock"]),
    ("a stale snapshot is believed", Manner::InPlace, &["2: ", "3: ", "6: ", "the interlock"]),
    ("a restarted balancer forgets", Manner::InPlace, &["6: "]),
    ("the old process answers for the new one", Manner::InPlace, &["3: ", "a host runs"]),
];

#[test]
fn every_old_mistake_is_found() {
    let mut survivors = Vec::new();
    for (mistake, manner, properties) in MISTAKES {
        choose(Some(mistake));
        let scope = Scope { manner, ..scopes::small() };
        let found = explore(scope, 2, Duration::from_secs(120));
        match found.broken.filter(|(property, _)| properties.iter().any(|it| property.starts_with(it))) {
            Some((property, actions)) => println!("found  {mistake}: {property}, after {} actions", actions.len()),
            None => survivors.push((mistake, found.states, found.complete)),
        }
    }
    choose(None);
    assert!(survivors.is_empty(), "these were not found: {survivors:#?}");
}
