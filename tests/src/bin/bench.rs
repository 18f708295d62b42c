//! `cargo run --release -p baton-tests --bin bench -- rollout|handover|idle`: what Baton itself costs.
//!
//! Also the executable that benches and end-to-end tests start their processes from: `bench baton …` is the operator's
//! command, `bench demo-part …` one part of a stage. One executable that Cargo builds for both, so none is ever stale.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words = std::env::args().collect::<Vec<_>>();
    match words.get(1).map(String::as_str) {
        Some("demo-part") => baton_cli::main_from(words),
        Some("baton") => baton_cli::main_from(words.into_iter().skip(1).collect::<Vec<_>>()),
        _ => baton_tests::bench::main(),
    }
}
