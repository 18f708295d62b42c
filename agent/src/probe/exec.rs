//! The exec probe: a command beside the instance; exit 0 is ready.

use super::{Kind, Refusal};
use crate::runtime::command::{self, Program};
use crate::text;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Command;

/// Where a probe's command runs: as the instance does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    pub folder: PathBuf,
    pub env: BTreeMap<String, String>,
    pub user: Option<String>,
    /// The instance's process: whose user it is, where none is named.
    pub beside: Option<u32>,
}

/// How much of what a probe wrote is shown.
const SHOWN: usize = 200;

/// Runs the command. Dropping the future, as a timeout does, kills it.
pub(super) async fn run(command: &[String], surroundings: Option<&Surroundings>) -> Result<(), Refusal> {
    let refuse = |seen: String| Refusal::new(Kind::Command, seen);
    let Some(surroundings) = surroundings else {
        return Err(refuse("a command cannot be run from here".to_owned()));
    };
    let Program { path, arguments } =
        command::resolve(command, &surroundings.folder).map_err(|problem| refuse(problem.what.clone()))?;
    let mut child = Command::new(path);
    child.args(arguments).current_dir(&surroundings.folder).env_clear().envs(command::environment(&surroundings.env));
    child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).process_group(0);
    let user = match (&surroundings.user, surroundings.beside) {
        (Some(name), _) => Some(command::user(name).map_err(|problem| refuse(problem.what.clone()))?),
        (None, Some(pid)) => Some(command::user_of(pid).map_err(|_| refuse("the instance has ended".to_owned()))?),
        (None, None) => None,
    };
    if let Some(user) = user.filter(|_| rustix::process::geteuid().is_root()) {
        child.uid(user.uid).gid(user.gid);
    }
    let output = child.output().await.map_err(|error| refuse(format!("could not be run: {}", text::io_error(&error))))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!(": \"{}\"", text::line(line, SHOWN)));
    Err(refuse(format!("{}{}", output.status, said.unwrap_or_default())))
}
