//! `baton completions SHELL`.

use crate::args::Cli;
use crate::exit::Exit;
use crate::output::Output;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// `baton completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    pub shell: Shell,
}

/// Prints the script; what a shell reads is no JSON, whatever was asked for.
#[must_use]
pub fn run(args: &CompletionsArgs, output: &Output) -> Exit {
    output.answers().write(&script(args.shell));
    Exit::Done
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "baton", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::script;
    use clap_complete::Shell;

    #[test]
    fn scripts_know_the_verbs_and_not_the_hidden_ones() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert!(script.contains("rollback"), "{shell}");
        }
    }
}
