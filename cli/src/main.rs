//! `baton`: the command line for operators and CI.

use std::process::ExitCode;

fn main() -> ExitCode {
    baton_cli::main()
}
