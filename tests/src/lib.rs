//! Tests that need more than one room: simulation, end-to-end, crash points, fleet, benches.

pub mod bench;
pub mod crash;
pub mod e2e;
pub mod fleet;
pub use baton_simulation as simulation;
