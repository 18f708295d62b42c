//! placeholder
#![allow(clippy::expect_used)]

mod decide;
mod happen;
mod model;
mod scope;
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
    /// Questions core was asked: passes, acts of hosts; and documents that were made on the way.
    pub asked: (usize, usize, usize),
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
