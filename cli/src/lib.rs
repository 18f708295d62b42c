//! The command line: one file per verb ([`verbs`]), what people see ([`render`]), and how it ends ([`exit`], [`errors`]).
//!
//! Answers go to stdout, progress and hints to stderr. Exit codes are an interface.

pub mod args;
pub mod demo;
pub mod errors;
pub mod exit;
pub mod outcome;
pub mod output;
pub mod render;
pub mod traffic;

use args::{Cli, Verb};
use clap::Parser;
use errors::Failure;
use exit::Exit;
use output::Output;
use std::ffi::OsString;
use std::process::ExitCode;

/// Parses the arguments, runs the verb, prints what went wrong, and ends with the code that says how it went.
#[must_use]
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// The same with these words, the program's name first: for executables that are this program among other things.
#[must_use]
pub fn main_from<W: Into<OsString> + Clone>(words: impl IntoIterator<Item = W>) -> ExitCode {
    let cli = Cli::parse_from(words);
    let output = Output::new(&cli.format);
    let exit = run(cli, &output).unwrap_or_else(|failure| failure.report(&output));
    exit.into()
}

fn run(cli: Cli, output: &Output) -> Result<Exit, Failure> {
    match cli.verb {
        // The demo and its parts are processes with a runtime of their own.
        Verb::Demo(args) => demo::run(args, output),
        Verb::DemoPart(args) => demo::part(args, output),
    }
}
