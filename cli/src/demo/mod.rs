//! The demo: a fleet on loopback in processes of their own, under traffic that counts every failure.

pub mod app;
mod clock;
pub mod load;
mod part;
pub mod stage;
pub mod warden;

use crate::errors::Failure;
use crate::exit::Exit;
use crate::output::Output;
use baton_core::problem::{Code, Problem};
use clap::Args;
pub use part::PartArgs;

/// `baton demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Runs the demo. It makes its own runtime.
///
/// # Errors
/// A problem says what kept it from running.
pub fn run(_args: DemoArgs, _output: &Output) -> Result<Exit, Failure> {
    Err(Problem::new(Code(1001), "this build has no demo").into())
}

/// Runs one of the demo's processes. It makes its own runtime.
///
/// # Errors
/// A problem says what kept it from running.
pub fn part(args: PartArgs, output: &Output) -> Result<Exit, Failure> {
    part::run(args, output)
}
