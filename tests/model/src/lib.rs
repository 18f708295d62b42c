//! Every state that a small fleet can get into, around the real `core`: where the seeded simulation draws long runs by chance,
//! this takes every turn of short ones.
//!
//! ```text
//! cargo run --release -p baton-model --bin explore       every scope: 24 million states, minutes on two cores
//! cargo test -p baton-model                              one small scope, and mistakes that it must find
//! ```
//!
//! **What is real.** `rollout::plan`, `interlock::check`, `command::apply` and the hosts' `host::plan`, over core's own `Fleet`,
//! `HostSpec` and `HostReport`. They are pure, so each question is put to them once and the answer is remembered
//! ([`decide`](crate)); that is all that makes the exploration quick. Agents' ledgers, balancers, processes and the network
//! are this crate's, as they are the simulation's in the large; what holds in them is asked under the same numbers.
//!
//! **What is explored**, in breadth first, so that what leads to a broken invariant is as short as it can be. A fleet that runs
//! a release everywhere deploys another, and somebody may ask once for a rollback, at any moment, the end included. Parties go
//! on in every order: a spec arrives, an agent does one thing (a host one plan, a balancer one write of one member), an
//! instance becomes ready or is gone, an agent reports, the coordinator hears it and plans. Between any two of these one of
//! the faults may fall: a coordinator dies and another takes over from the store; the same, and the old one repeats what it
//! sent for ever; a host loses power, or an instance exits; a balancer restarts, between two writes, too; a start of the new
//! release fails; a party falls silent; a deadline passes early; a message arrives arbitrarily late or twice, past newer ones.
//! [`scopes::all`] says how many of them in one run, and in how large a fleet: **one of every kind, never all at once**. With
//! three hosts and two balancers it is every single fault, with two and one every pair.
//!
//! **A message that is not delivered is lost.** The newest spec to a party may stay on its way for ever, until a newer one
//! takes its place. Reports arrive at the moment they are made or never, but for the one that is delayed; in the scopes that
//! say "under way" they travel as specs do, and both are lost outright as often as they like, so that it is seen, too, that
//! somebody sends them again.
//!
//! **What must hold** stands in [`properties`](stateright::Model::properties): invariants 1, 2, 3, 6, 8, 9, 13 and 22 from
//! outside, that the interlock never refuses, that planning twice changes nothing, and that where nothing can happen any more
//! the rollout has ended and everybody serves what is committed, or it is paused and says why. Those of the interlock (5, 7, 12,
//! 14, 18) are its own to ask, of every plan.
//!
//! **What is not explored.** More than one fault in the large fleet, more than two in the small one. Time as a number: a
//! deadline, a bake or the end of what is warm passes once nothing else can happen, or once early; nothing has to be ready for
//! long, and no drain runs into its deadline. Fetching, hooks, analysis, splits and weights, the host's own fallback, hosts that
//! are drained or skipped, fences after a restore, several services. A cycle without an end would not be seen: only states
//! without a way on are. A coordinator that was taken over from writes to the store that fences it; [`scopes::copied`] shows
//! what the fence is for.

// Names in a scope are constants, and numbers of documents come from their table.
#![allow(clippy::expect_used)]

mod decide;
mod happen;
mod model;
mod scope;
pub mod scopes;
mod state;
mod switch;
mod table;
mod truth;
mod world;

pub use happen::Happening;
pub use model::{Action, Baton};
pub use scope::{Manner, Reports, Scope, Store};
pub use state::{Budget, State};
pub use world::Driver;

use stateright::{Checker, HasDiscoveries, Model};
use std::time::{Duration, Instant};

/// What an exploration came to.
#[derive(Debug, Clone)]
pub struct Exploration {
    pub states: usize,
    pub transitions: usize,
    pub depth: usize,
    pub took: Duration,
    /// Different questions that core was asked.
    pub asked: usize,
    pub happened: Vec<Happening>,
    /// False: it was cut short.
    pub complete: bool,
    /// An invariant that does not hold, and what leads there.
    pub broken: Option<(&'static str, Vec<Action>)>,
    /// What the interlock refused first.
    pub refusal: Option<String>,
}

/// Looks at every state of a scope, until something is broken or the time is over.
#[must_use]
pub fn explore(scope: Scope, threads: usize, limit: Duration) -> Exploration {
    let began = Instant::now();
    let builder = Baton::new(scope).checker().threads(threads).timeout(limit).finish_when(HasDiscoveries::AnyFailures);
    let checker = builder.spawn_bfs().join();
    let broken = checker.discoveries().into_iter().next().map(|(name, path)| (name, path.into_actions()));
    let took = began.elapsed();
    let model = checker.model();
    Exploration {
        states: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        took,
        asked: model.decisions.asked(),
        happened: model.decisions.noted(),
        complete: broken.is_none() && took < limit,
        broken,
        refusal: model.decisions.refusal(),
    }
}
