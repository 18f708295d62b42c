//! `cargo run --release -p baton-tests --bin plan`: what a pass of the planner takes over ten thousand hosts, and a simulated rollout.
//!
//! Of its own, because it has the coordinator's allocator; agents, which a bench starts from its own executable, do not have that.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    baton_tests::bench::plan()
}
