//! Old mistakes of others, made again one by one: the model must find each, by the shortest way.

use baton_core_mutant::mutant::choose;
use baton_model_mutant::{Manner, Scope, explore, scopes};
use std::time::Duration;

/// What a mistake that acts on its own last step shows first: the next plan goes on without having heard anything.
const AGAIN: &str = "planning twice";

/// Every mistake that can be made in a scope this small, and how the properties begin that may see it first.
const MISTAKES: [(&str, Manner, &[&str]); 4] = [
    ("pending hosts are not counted", Manner::InPlace, &["1: ", "the interlock", AGAIN]),
    ("one more event starts one more batch", Manner::InPlace, &["1: ", "the interlock", AGAIN]),
    ("a stale snapshot is believed", Manner::InPlace, &["2: ", "3: ", "6: ", "the interlock", AGAIN]),
    ("a restarted balancer forgets", Manner::InPlace, &["6: ", "3: "]),
];

/// Those that no property saw.
pub(crate) fn survivors() -> Vec<String> {
    let mut survivors = Vec::new();
    for (mistake, manner, properties) in MISTAKES {
        choose(Some(mistake));
        let scope = Scope { manner, ..scopes::small() };
        let found = explore(scope, 2, Duration::from_secs(120));
        let right = |property: &str| properties.iter().any(|it| property.starts_with(it));
        match found.broken {
            Some((property, actions)) if right(property) => {
                println!("found  {mistake}: {property}, after {} actions", actions.len());
            }
            other => survivors.push(format!("{mistake}: {:?}, {:?}", other.map(|(property, _)| property), found.refusal)),
        }
    }
    choose(None);
    survivors
}
