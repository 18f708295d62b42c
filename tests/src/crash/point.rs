//! What came of one death.

use super::step::{Moment, Step};
use serde::Serialize;

/// How a rollout ended, or paused.
#[derive(Debug, Clone, Serialize)]
pub struct Ended {
    pub state: String,
    /// What `baton why` says then.
    #[serde(skip)]
    pub page: String,
}

/// One rollout in which somebody died.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub step: Step,
    pub moment: Moment,
    /// None: it did not end in time.
    pub ended: Option<Ended>,
    pub requests: u64,
    pub failed: u64,
    /// Of these, at the instant of the death, on connections that died with it.
    pub cut: u64,
    /// What must not have happened.
    pub violations: Vec<String>,
}

impl Ended {
    /// What is wrong with an end like this.
    #[must_use]
    pub fn objection(&self) -> Option<String> {
        match self.state.as_str() {
            "succeeded" | "reverted" | "partial" => None,
            "paused" if names_a_command(&self.page) => None,
            "paused" => Some(format!("paused, and nothing says how to go on: {}", self.page)),
            other => Some(format!("ended {other}: {}", self.page)),
        }
    }
}

fn names_a_command(page: &str) -> bool {
    page.lines().any(|line| line.trim_start().starts_with("you can:") && line.contains("baton "))
}

#[cfg(test)]
mod tests {
    use super::Ended;

    fn ended(state: &str, page: &str) -> Option<String> {
        Ended { state: state.into(), page: page.into() }.objection()
    }

    #[test]
    fn a_pause_is_an_end_only_where_it_names_a_command() {
        assert_eq!(ended("succeeded", ""), None);
        assert_eq!(ended("paused", "shop r-2 is paused\n  you can: baton resume shop\n"), None);
        assert!(ended("paused", "shop r-2 is paused\n").is_some());
        assert!(ended("failed", "  you can: baton rollback shop\n").is_some());
    }
}
