//! A fleet as text in, a plan as text out.
//!
//! ```text
//! in-place max=1 v1->v2            placement, limits, the rollout (none: at rest at v1)
//! web1 a=v1:ready:in               slot a (0) runs v1, is ready, and its member is in
//! web2 a=v2:starting:out behind    the newest spec was not answered yet
//! lb1 silent                       a balancer whose agent is not connected
//! ```

#![allow(clippy::expect_used, clippy::panic)]

mod commands;
mod dead;
mod divide;
mod fence;
mod judging;
mod orders;
mod reboot;
mod refusals;
mod rolling;
mod spread;
mod text;
mod upgrade;

use baton_core::rollout::interlock;
use baton_core::rollout::plan::plan;
use text::{NOW, World};

/// Plans the fleet in `input` and compares what changes, and what is waited for, with `expected`.
///
/// Every plan must pass the interlock, and planning again must change nothing.
#[track_caller]
fn check(input: &str, expected: &str) {
    let world = World::parse(input);
    let next = plan(&world.fleet, NOW);
    let seen = world.tell(&next);
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(seen, expected, "\nfor {input}");
    interlock::check(&world.fleet, &next).expect("the interlock agrees with the planner");
    let mut after = world.fleet;
    next.take(&mut after);
    assert!(!plan(&after, NOW).changes_anything(), "planning twice changed something for {input}");
}
