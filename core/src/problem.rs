//! What went wrong, as evidence: a stable code, what was seen, what helps.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Deref, DerefMut};

/// A stable code such as `B0210`, listed by `baton explain`.
///
/// Ranges: B01 manifest, B02 start and readiness, B03 drain, B04 balancer, B05 agent, network and TLS, B06 artifact and
/// space, B07 locks and policy, B08 hooks, B09 analysis, B10 coordinator and store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "B{:04}", self.0)
    }
}

/// One problem with its evidence: what people read, and what `--json` carries. Where there can be one there mostly is none, so it
/// takes the room of a pointer in what is known of thousands of hosts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problem(Box<Finding>);

/// What a problem is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub code: Code,
    /// One sentence: what is wrong.
    pub what: String,
    /// What was seen, in the order it should be read: `("probe", "GET http://127.0.0.1:8104/healthz: connection refused")`.
    pub seen: Vec<(String, String)>,
    /// One thing that helps.
    pub help: Option<String>,
}

impl Problem {
    #[must_use]
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Finding { code, what: what.into(), seen: Vec::new(), help: None }.into()
    }

    #[must_use]
    pub fn saw(mut self, label: impl Into<String>, evidence: impl Into<String>) -> Self {
        self.seen.push((label.into(), evidence.into()));
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<Finding> for Problem {
    fn from(finding: Finding) -> Self {
        Self(Box::new(finding))
    }
}

impl From<Problem> for Finding {
    fn from(problem: Problem) -> Self {
        *problem.0
    }
}

impl Deref for Problem {
    type Target = Finding;
    fn deref(&self) -> &Finding {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Finding {
        &mut self.0
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One line: code and sentence. The evidence is for whoever renders the whole.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.what)
    }
}

impl std::error::Error for Problem {}
