//! Tests that need more than one room: simulation, end-to-end, fleet, benches.

pub mod bench;
pub mod e2e;
pub mod fleet;
pub use baton_simulation as simulation;
