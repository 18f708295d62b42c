//! The third act: the operator's own commands, against the demo, with the traffic going on.

use super::acts::Theatre;
use super::show::say;
use super::stage::SERVICE;
use crate::output::Output;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// While a command runs, Ctrl-C is meant for it.
static COMMAND_RUNS: AtomicBool = AtomicBool::new(false);

pub(super) fn takes_interrupts() -> bool {
    COMMAND_RUNS.load(Ordering::Relaxed)
}

/// Reads commands until `exit` or the end of the input.
pub(super) async fn run(theatre: &Theatre, output: &Output) -> anyhow::Result<()> {
    say(output, "the fleet is yours");
    commands(output);
    say(output, &format!("in another terminal: export BATON_SOCKET={}", theatre.stage.socket().display()));
    theatre.load.mark().await?;
    let (ask, mut lines) = lines();
    loop {
        if ask.send(()).is_err() {
            return Ok(());
        }
        let Some(line) = lines.recv().await else { return Ok(()) };
        let words = line.split_whitespace().collect::<Vec<_>>();
        let words = words.strip_prefix(&["baton"]).unwrap_or(&words);
        match words {
            [] => {}
            ["exit" | "quit"] => return Ok(()),
            ["help"] => commands(output),
            words => {
                COMMAND_RUNS.store(true, Ordering::Relaxed);
                let status = theatre.command(words).args(output.plain.then_some("--plain")).status().await;
                COMMAND_RUNS.store(false, Ordering::Relaxed);
                let code = status?.code().unwrap_or(-1);
                let traffic = theatre.load.mark().await?;
                let (failed, requests) = (traffic.failed, traffic.requests);
                say(output, &format!("[exit code {code}; meanwhile {failed} failed of {requests} requests]"));
            }
        }
    }
}

/// What can be typed; with `--help` and no word of this prompt the whole command line answers.
fn commands(output: &Output) {
    let known = [
        ("status, watch", "how it is, and how it goes on"),
        ("deploy SERVICE 4", "a good release"),
        ("deploy SERVICE 3", "the broken one"),
        ("rollback SERVICE", "back to the release before"),
        ("why", "what it waits for"),
        ("--help", "every other command of baton"),
        ("help, exit", "these lines; the end"),
    ];
    for (words, meaning) in known {
        say(output, &format!("  {:<18}{meaning}", words.replace("SERVICE", SERVICE)));
    }
}

/// Lines of the standard input, each read when it is asked for: while a command runs, the terminal is the command's.
fn lines() -> (std::sync::mpsc::Sender<()>, mpsc::UnboundedReceiver<String>) {
    let (ask, asked) = std::sync::mpsc::channel();
    let (send, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let stdin = std::io::stdin();
        while asked.recv().is_ok() {
            if stdin.is_terminal() {
                let mut stderr = std::io::stderr().lock();
                let _ = write!(stderr, "baton> ").and_then(|()| stderr.flush());
            }
            let mut line = String::new();
            match stdin.lock().read_line(&mut line) {
                Ok(read) if read > 0 && send.send(line).is_ok() => {}
                _ => return,
            }
        }
    });
    (ask, lines)
}
