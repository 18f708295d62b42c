//! A seeded world with virtual time around the real `core` code: messages are lost, late and out of order, agents fall
//! silent, processes crash, releases are bad, and after every event the invariants are looked at from outside.
//!
//! A run is a safety phase (faults happen) and a liveness phase (faults stop, what is broken stays broken). The same seed
//! gives the same run, event by event.

// Names in a scenario are constants: one that is not a name is a mistake in the test.
#![allow(clippy::expect_used)]

mod agenda;
mod calm;
mod coordinator;
mod errands;
mod happen;
mod host;
mod news;
mod notes;
mod people;
mod process;
mod random;
mod reboots;
mod rest;
mod scenario;
mod strategies;
mod truth;
mod world;

pub use calm::{Calm, Order, Rolled};
use std::collections::BTreeMap;

/// What one seed led to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The hash over every event: two runs of a seed must agree.
    pub log: u64,
    pub events: u64,
    /// Things that should happen in some run, so that no check is empty.
    pub sometimes: BTreeMap<&'static str, u64>,
    /// The first invariant that did not hold, with the moment.
    pub violation: Option<String>,
}

/// What must have happened at least once over many seeds.
pub const SOMETIMES: [&str; 60] = [
    "a drained host came back",
    "a skipped host caught up",
    "hosts that kept a release came back",
    "a balancer restarted between two writes",
    "a part broke for ever in a rollout",
    "rollout succeeded",
    "rollout reverted by evidence",
    "rollout turned back by an operator",
    "rollout paused by itself",
    "agent crashed in a drain",
    "balancer restarted with a member out",
    "coordinator crashed in a rollout",
    "a spec of the past was rejected",
    "message lost",
    "host rebooted in a rollout",
    "drain deadline passed with requests in flight",
    "in place",
    "side by side",
    "a wave entered together",
    "a preview ended with the switch",
    "a balancer's agent crashed in a switch",
    "the release before stayed warm",
    "rolled back to what was warm",
    "an approval was waited for",
    "traffic was shared by weight",
    "a share was waited for",
    "an instance failed its health check because a balancer could not be told",
    "nobody served between two that exclude each other",
    "a hook with unknown outcome",
    "an agent crashed in a migration",
    "a hook was run again by a person's word",
    "a release was deployed again after its migration",
    "a release was forgotten",
    "a forgotten release came back",
    "two services on the same hosts were rolled out at once",
    "a service was removed",
    "a host was removed for good",
    "a balancer was declared dead",
    "asked: deploy",
    "asked: rollback",
    "asked: rollback to a version",
    "asked: pause",
    "asked: resume",
    "asked: promote",
    "asked: abort",
    "asked: end where it stands",
    "asked: retry",
    "asked: skip",
    "asked: restart",
    "asked: rehearse",
    "asked: freeze",
    "asked: drain",
    "asked: label",
    "asked: remove a service",
    "asked: reboot",
    "a host was rebooted by command",
    "a host was rebooted by command in a rollout",
    "every host was rebooted by command",
    "reboots went on by a person's word",
    "reboots were cancelled",
];

/// Runs one seed.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    world::World::new(seed, &mut |_| {}).run()
}

/// Runs one seed and hands every event to `tell`.
#[must_use]
pub fn replay(seed: u64, tell: &mut dyn FnMut(&str)) -> Outcome {
    world::World::new(seed, tell).run()
}
