//! Durable steps, and what a tracer tells of them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// One call after which something is on the disk: `fsync`, `fdatasync` or a rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// From 1, since the tracing began.
    pub number: u64,
    pub call: String,
    pub path: String,
}

impl Step {
    /// What it does to which file of a stage.
    #[must_use]
    pub fn told(&self, folder: &Path) -> String {
        let path = Path::new(&self.path);
        let path = if path == folder { Path::new(".") } else { path.strip_prefix(folder).unwrap_or(path) };
        format!("{} {}", self.call, path.display())
    }
}

/// Where in a step somebody dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// The call is made and was not carried out
    Before,
    /// It was carried out, and its caller does not know yet
    After,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// What a tracer says, a line each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// From now on no step is missed.
    Attached,
    Step(Step),
    /// At this step and now, in seconds since 1970.
    Kills {
        step: Step,
        at_s: f64,
    },
    /// The killed are gone.
    Killed,
    /// The process ended by itself.
    Gone,
}

/// Seconds since 1970: what two processes agree on.
#[must_use]
pub fn clock_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
