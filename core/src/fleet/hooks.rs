//! Hooks that should have been run: what is remembered of each, what its host is told, and what the host says became of it.

use crate::hook::HookKey;
use crate::name::{HostName, ReleaseId, Slot};
use crate::problem::Problem;
use crate::time::{Moment, millis};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// The hooks of a service that were asked for, and may not be again.
pub type HookRuns = BTreeMap<HookKey, HookRun>;

/// One hook that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRun {
    /// The release whose hook it is.
    pub release: ReleaseId,
    /// Who runs it: decided once, and again only when people ask for another attempt and this one is not able to.
    pub host: HostName,
    /// The instance it is about, of a hook that every host has.
    pub slot: Option<Slot>,
    /// Counts up when people ask for it again; nobody else does.
    pub attempt: u32,
    /// The last attempt that a host was told of.
    pub issued: u32,
    pub state: HookState,
    /// When this attempt was asked for.
    pub since: Moment,
    /// What cannot be gone back to any more, by this attempt and those before it.
    #[serde(default, skip_serializing_if = "CutOff::is_nothing")]
    pub cuts_off: CutOff,
    /// What could not before this attempt: that stays so also where it never began.
    #[serde(default, skip_serializing_if = "CutOff::is_nothing")]
    pub earlier: CutOff,
}

/// Releases that cannot be gone back to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct CutOff {
    pub releases: BTreeSet<ReleaseId>,
    /// Nor can what was forgotten until then.
    pub until: Option<Moment>,
}

/// What stands in a store: only the releases, where nothing was ever forgotten.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Releases(BTreeSet<ReleaseId>),
    Whole { releases: BTreeSet<ReleaseId>, until: Option<Moment> },
}

impl From<Stored> for CutOff {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Releases(releases) => Self { releases, until: None },
            Stored::Whole { releases, until } => Self { releases, until },
        }
    }
}

impl CutOff {
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What either of them cuts off.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.releases.extend(&other.releases);
        self.until = self.until.max(other.until);
        self
    }
}

/// What is known of an attempt. Whatever is no longer asked stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HookState {
    Asked,
    Succeeded {
        output: Vec<String>,
    },
    Failed {
        problem: Problem,
    },
    /// It may have happened, or not, or in part.
    Unknown {
        problem: Problem,
    },
    /// A person says that it did happen.
    Vouched {
        by: String,
        why: String,
    },
}

/// A hook that a host should have run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookSpec {
    pub attempt: u32,
    /// A key of [`super::spec::HostSpec::releases`].
    pub release: ReleaseId,
    pub address: IpAddr,
    /// The slot and port of the instance it is about.
    pub instance: Option<(Slot, u16)>,
}

/// What a host says of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReport {
    pub attempt: u32,
    pub state: HookOutcome,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HookOutcome {
    Running {
        #[serde(with = "millis")]
        since: Duration,
    },
    /// With the last lines it wrote.
    Succeeded {
        output: Vec<String>,
    },
    Failed {
        problem: Problem,
    },
    /// It was begun, and how it ended was not seen.
    Unknown {
        problem: Problem,
    },
}

impl HookState {
    /// Whether what waits for it may go on.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Vouched { .. })
    }

    /// What went wrong, or may have.
    #[must_use]
    pub const fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Failed { problem } | Self::Unknown { problem } => Some(problem),
            _ => None,
        }
    }

    /// The word for a column.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
            Self::Vouched { .. } => "vouched for",
        }
    }
}

impl From<&HookOutcome> for HookState {
    fn from(outcome: &HookOutcome) -> Self {
        match outcome {
            HookOutcome::Running { .. } => Self::Asked,
            HookOutcome::Succeeded { output } => Self::Succeeded { output: output.clone() },
            HookOutcome::Failed { problem } => Self::Failed { problem: problem.clone() },
            HookOutcome::Unknown { problem } => Self::Unknown { problem: problem.clone() },
        }
    }
}
