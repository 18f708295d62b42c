//! `cargo run --release -p baton-tests --bin bench -- rollout|handover|idle`: what Baton itself costs.
//!
//! Also the executable that benches and end-to-end tests start their processes from: `bench baton …` is the operator's
//! command, `bench demo-part …` one part of a stage, `bench tracer …` what kills one at a step. One executable that Cargo builds for both, so none is ever stale.

use baton_tests::crash::tracer;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words = std::env::args().collect::<Vec<_>>();
    match words.get(1).map(String::as_str) {
        Some("demo-part") => baton_cli::main_from(words),
        Some("baton") => baton_cli::main_from(words.into_iter().skip(1).collect::<Vec<_>>()),
        Some(tracer::TRACER) => told(tracer::main(&words[1..])),
        _ => baton_tests::bench::main(),
    }
}

fn told(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    // Nobody reads it: nothing to do about it.
    let _ = writeln!(std::io::stderr().lock(), "{error:#}");
    ExitCode::FAILURE
}
