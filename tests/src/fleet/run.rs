//! Running a program to its end, with an error that says which, how it ended and what it wrote.

use anyhow::{Context as _, bail};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs a program; its standard output when it exits 0.
///
/// # Errors
/// When it cannot be started or exits otherwise: the error carries the command line and its standard error.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    output(Command::new(program).args(arguments))
}

/// The same for a command that was put together before.
///
/// # Errors
/// As [`run`].
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = collect(command)?;
    if !output.status.success() {
        bail!("{}: {}\n{}", shown(command), output.status, said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end, whatever it says.
///
/// # Errors
/// When it cannot be started.
pub fn collect(command: &mut Command) -> anyhow::Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", shown(command)))
}

/// What a program wrote, for an error text.
#[must_use]
pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    [text(&output.stdout), text(&output.stderr)].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Asks again and again until there is an answer; what is missing when there is none in time.
///
/// # Errors
/// When the deadline passes, or `ask` itself fails.
pub fn until<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begun.elapsed() > deadline {
            bail!("not within {deadline:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
