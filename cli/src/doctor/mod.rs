//! What `baton doctor` looks at: this machine first, which needs nobody's answer, then the coordinator, then the fleet.
//!
//! Each check is one question with an answer, and where the answer is bad, with what mends it.

mod coordinator;
mod fleet;
mod machine;

use crate::connection::ConnectArgs;
use baton_core::problem::Problem;
use serde::Serialize;
use std::path::PathBuf;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// There is nothing to look at on this machine, or what it needs was not to be had.
    Skipped,
    Good,
    /// It works, and will not for ever, or not as it should.
    Warning,
    Bad,
}

/// One question, answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub state: State,
    /// What was seen.
    pub seen: String,
    /// What mends it; nothing where nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, seen: impl Into<String>, fix: Option<String>) -> Self {
        Self { name, state, seen: seen.into(), fix }
    }

    fn good(name: &'static str, seen: impl Into<String>) -> Self {
        Self::new(name, State::Good, seen, None)
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, State::Skipped, why, None)
    }

    fn warning(name: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, State::Warning, seen, Some(fix.into()))
    }

    fn bad(name: &'static str, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, State::Bad, seen, Some(fix.into()))
    }

    /// Bad where something speaks against it, good otherwise.
    fn unless(name: &'static str, wrong: impl IntoIterator<Item = String>, good: impl Into<String>, fix: &str) -> Self {
        let wrong: Vec<String> = wrong.into_iter().collect();
        match wrong.is_empty() {
            true => Self::good(name, good),
            false => Self::bad(name, wrong.join("; "), fix),
        }
    }
}

/// A problem in one line, with what was seen.
fn told(problem: &Problem) -> String {
    let seen: Vec<String> = problem.seen.iter().map(|(label, seen)| format!("{label}: {seen}")).collect();
    match seen.is_empty() {
        true => problem.to_string(),
        false => format!("{problem} ({})", seen.join("; ")),
    }
}

/// What mends a problem, as it says itself.
fn mends(problem: &Problem) -> String {
    problem.help.clone().unwrap_or_else(|| format!("baton explain {}", problem.code))
}

/// Where to look: `/`, or in a test a folder that stands for it.
#[derive(Debug, Clone)]
pub struct Places {
    pub root: PathBuf,
    /// The operator's own folder, where there can be one.
    pub login: Option<PathBuf>,
    pub manifest: PathBuf,
}

impl Places {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// Asks every question there is, in their order.
pub async fn examine(places: &Places, connect: &ConnectArgs) -> Vec<Check> {
    let mut checks = machine::checks(places);
    let (reached, mut more) = coordinator::checks(connect).await;
    checks.append(&mut more);
    checks.extend(fleet::checks(reached).await);
    checks
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
