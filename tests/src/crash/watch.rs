//! The near end of a tracer.

use super::step::{Moment, Note};
use super::tracer::TRACER;
use anyhow::{Context as _, bail};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// Whose steps are counted, and who dies at which of them.
#[derive(Debug, Clone)]
pub struct Aim {
    pub watched: u32,
    pub victims: Vec<u32>,
    pub at: u64,
    pub moment: Moment,
}

/// A tracer at work. It lets go when it is dropped.
#[derive(Debug)]
pub struct Watch {
    process: Child,
    notes: Lines<BufReader<ChildStdout>>,
    errors: ChildStderr,
}

impl Watch {
    /// Returns once no step of the process is missed any more.
    ///
    /// # Errors
    /// When it cannot be traced.
    pub async fn begin(bench: &str, aim: &Aim) -> anyhow::Result<Self> {
        let mut command = Command::new(bench);
        command.arg(TRACER).args(["--watched", &aim.watched.to_string(), "--at", &aim.at.to_string()]);
        command.args(["--moment", &aim.moment.to_string()]);
        for victim in &aim.victims {
            command.args(["--victim", &victim.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("cannot start a tracer")?;
        let (Some(notes), Some(errors)) = (process.stdout.take(), process.stderr.take()) else {
            bail!("the tracer has no pipes")
        };
        let mut watch = Self { process, notes: BufReader::new(notes).lines(), errors };
        match watch.next().await? {
            Some(Note::Attached) => Ok(watch),
            other => bail!("the tracer began with {other:?}"),
        }
    }

    /// What it says next; None: it has nothing more to say.
    ///
    /// # Errors
    /// When it failed.
    pub async fn next(&mut self) -> anyhow::Result<Option<Note>> {
        if let Some(line) = self.notes.next_line().await.context("the tracer's pipe")? {
            return Ok(Some(serde_json::from_str(&line)?));
        }
        let status = self.process.wait().await.context("the tracer's end")?;
        if !status.success() {
            let mut why = String::new();
            self.errors.read_to_string(&mut why).await?;
            bail!("the tracer failed: {}", why.trim());
        }
        Ok(None)
    }

    /// Lets go of the process, which goes on, and gives what was not read yet.
    ///
    /// # Errors
    /// When the tracer cannot be ended.
    pub async fn end(mut self) -> anyhow::Result<Vec<Note>> {
        self.process.kill().await.context("cannot end the tracer")?;
        let mut notes = Vec::new();
        while let Some(line) = self.notes.next_line().await? {
            // The last line may be cut off.
            notes.extend(serde_json::from_str::<Note>(&line).ok());
        }
        Ok(notes)
    }
}
