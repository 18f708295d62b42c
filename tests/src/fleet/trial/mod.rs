//! The fleet's test: releases under load on real hosts, while what can die does.
//!
//! The truth is never Baton's own opinion: it is what clients met, joined with what instances wrote down, and which version
//! answers on every port at the end.

mod act;
mod agents;
mod client;
mod confined;
mod fault;
mod idle;
mod instances;
mod lifetime;
mod notice;
mod operator;
mod reboots;
mod rest;
mod sentinel;
mod service;
mod story;
mod verdict;

pub use idle::Idle;
pub use lifetime::{LifetimeArgs, live};
pub use notice::Notice;
pub use rest::Rest;
pub use verdict::{Answer, Summary};

use super::life::{self, UpArgs};
use super::record::Fleet;
use std::io::Write as _;
use story::Story;

/// What to try.
#[derive(Debug, Clone, clap::Args)]
pub struct TrialArgs {
    #[command(flatten)]
    pub fleet: UpArgs,
    /// Requests a second
    #[arg(long, default_value_t = 200)]
    pub rate: u32,
    /// Only acts, and what happens between them, whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Play on the fleet that is up, and leave it up
    #[arg(long, conflicts_with = "keep")]
    pub running: bool,
    /// Leave the fleet up, to look around; the next `fleet test` needs a `fleet down` first
    #[arg(long)]
    pub keep: bool,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Boots a fleet, plays every act on it, and ends it.
///
/// # Errors
/// When the fleet itself does not come up; what an act found is in the summary.
pub fn play(args: &TrialArgs) -> anyhow::Result<Summary> {
    if args.running {
        return Story::new(&Fleet::load()?, args).play();
    }
    let played = life::up(&args.fleet).and_then(|fleet| Story::new(&fleet, args).play());
    if args.keep {
        return played;
    }
    let down = life::down();
    let summary = played?;
    down?;
    Ok(summary)
}

/// What happens, as it happens.
fn tell(line: &str) {
    // Nobody listens: the summary still says it.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
