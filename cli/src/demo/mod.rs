//! The demo: a fleet on loopback in processes of their own, under traffic that counts every failure.
//!
//! Everything in it is real: the coordinator, the agents, mutual TLS, the balancer, the operator's commands. Everything it
//! prints was measured, by the client that sent the requests and by the instances that executed them.

mod acts;
pub mod app;
mod clock;
mod document;
pub mod load;
mod part;
mod prompt;
mod show;
pub mod stage;
pub mod warden;

use crate::errors::Failure;
use crate::exit::Exit;
use crate::output::Output;
use clap::Args;
pub use part::PartArgs;
use stage::{Front, Place};

/// `baton demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// End by itself and print the numbers; `--json` does so, too
    #[arg(long)]
    pub ci: bool,
    /// Which load balancer stands in front of the hosts
    #[arg(long, value_enum, default_value_t = Front::Builtin)]
    pub balancer: Front,
    /// Where the new instance starts
    #[arg(long, value_enum, default_value_t = Place::SideBySide)]
    pub placement: Place,
    /// How many hosts run the service; two at least, so that two releases can be compared
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=50))]
    pub hosts: u8,
    /// Requests a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rate: u32,
}

/// Runs the demo. It makes its own runtime.
///
/// # Errors
/// A problem says what kept it from running.
pub fn run(args: DemoArgs, output: &Output) -> Result<Exit, Failure> {
    show::run(args, output)
}

/// Runs one of the demo's processes. It makes its own runtime.
///
/// # Errors
/// A problem says what kept it from running.
pub fn part(args: PartArgs, output: &Output) -> Result<Exit, Failure> {
    part::run(args, output)
}
