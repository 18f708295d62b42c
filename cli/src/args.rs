//! The command line's grammar.

use crate::demo::{DemoArgs, PartArgs};
use clap::{Args, Parser, Subcommand};

/// Replaces the version of a service on servers you own, without one failed request.
#[derive(Debug, Parser)]
#[command(name = "baton", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub format: FormatArgs,
    #[command(subcommand)]
    pub verb: Verb,
}

/// How the answer is written.
#[derive(Debug, Clone, Default, Args)]
pub struct FormatArgs {
    /// One JSON document on stdout
    #[arg(long, global = true, conflicts_with = "json_lines")]
    pub json: bool,
    /// One JSON document a line on stdout, as things happen
    #[arg(long, global = true)]
    pub json_lines: bool,
    /// No colour, no boxes, no redrawing
    #[arg(long, global = true)]
    pub plain: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// A fleet on this machine, a rolling release, a broken one taken back: nothing to set up, nothing left behind
    Demo(DemoArgs),
    /// One process of the demo
    #[command(hide = true)]
    DemoPart(PartArgs),
}
