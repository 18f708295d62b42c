//! `kill -9` at every durable step: before the call and after it, for every part of a fleet and every strategy, one by one.
//!
//! A sweep is a stage with one strategy and one victim. Rollout after rollout, the victim is killed one step later, and started
//! again at once, as systemd would: until a rollout is over before its victim comes to the step. Nothing is drawn by chance.

pub mod instants;
mod operator;
pub mod point;
pub mod step;
pub mod sweep;
pub mod tracer;
pub mod watch;
mod witness;

use baton_cli::demo::stage::{BALANCER_HOST, COORDINATOR, Front, HAPROXY, Place};
use serde::Serialize;
use std::fmt;

/// How releases replace each other in a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    InPlace,
    SideBySide,
    BlueGreen,
    Canary,
    Recreate,
    Handover,
}

/// Who dies in a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    Coordinator,
    /// The agent of the first host
    Agent,
    /// The agent beside the built-in balancer
    BalancerAgent,
    /// The agent beside HAProxy
    HaproxyAgent,
    /// The built-in balancer itself, at the steps of its agent
    Balancer,
    /// HAProxy itself, at the steps of its agent
    Haproxy,
}

impl Strategy {
    pub const ALL: [Self; 6] =
        [Self::InPlace, Self::SideBySide, Self::BlueGreen, Self::Canary, Self::Recreate, Self::Handover];

    #[must_use]
    pub const fn place(self) -> Place {
        match self {
            Self::InPlace | Self::Recreate => Place::InPlace,
            Self::SideBySide | Self::BlueGreen | Self::Canary => Place::SideBySide,
            Self::Handover => Place::Handover,
        }
    }

    /// The manifest's lines in place of those of the stage.
    #[must_use]
    pub const fn lines(self) -> &'static str {
        match self {
            Self::InPlace | Self::SideBySide | Self::Handover => ROLLING,
            Self::BlueGreen => "strategy = \"blue-green\"\nkeep_old = \"50ms\"\n",
            Self::Canary => "strategy = \"canary\"\nsteps = [\"50% for 100ms\", \"100%\"]\n",
            Self::Recreate => "strategy = \"recreate\"\n",
        }
    }

    /// Whether requests find an instance at every moment: recreate stops the service.
    #[must_use]
    pub const fn serves_throughout(self) -> bool {
        !matches!(self, Self::Recreate)
    }

    /// Who takes part in its rollouts.
    pub fn victims(self) -> impl Iterator<Item = Victim> {
        Victim::ALL.into_iter().filter(move |victim| !victim.balances() || self != Self::Handover)
    }
}

/// As the stage's manifest has it.
pub const ROLLING: &str = "strategy = \"rolling\"\nmax_unavailable = 1\n";

impl Victim {
    pub const ALL: [Self; 6] =
        [Self::Coordinator, Self::Agent, Self::BalancerAgent, Self::HaproxyAgent, Self::Balancer, Self::Haproxy];

    const fn balances(self) -> bool {
        !matches!(self, Self::Coordinator | Self::Agent)
    }

    /// Whether it holds clients' connections: then those die with it, and no others.
    #[must_use]
    pub const fn holds_connections(self) -> bool {
        matches!(self, Self::Balancer | Self::Haproxy)
    }

    #[must_use]
    pub const fn front(self) -> Front {
        match self {
            Self::HaproxyAgent | Self::Haproxy => Front::Haproxy,
            _ => Front::Builtin,
        }
    }

    /// The part of the stage whose steps are counted.
    #[must_use]
    pub const fn watched(self) -> &'static str {
        match self {
            Self::Coordinator => COORDINATOR,
            Self::Agent => "web1",
            _ => BALANCER_HOST,
        }
    }

    /// The part that the stage starts again; None: its agent does.
    #[must_use]
    pub const fn restarted(self) -> Option<&'static str> {
        match self {
            Self::Balancer => None,
            Self::Haproxy => Some(HAPROXY),
            _ => Some(self.watched()),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InPlace => "rolling, in place",
            Self::SideBySide => "rolling, side by side",
            Self::BlueGreen => "blue-green",
            Self::Canary => "canary",
            Self::Recreate => "recreate",
            Self::Handover => "hand-over",
        })
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Agent => "agent",
            Self::BalancerAgent => "agent, built-in",
            Self::HaproxyAgent => "agent, haproxy",
            Self::Balancer => "built-in balancer",
            Self::Haproxy => "haproxy",
        })
    }
}

/// Whether this machine lets one process trace another that is not its child.
#[must_use]
pub fn may_trace() -> bool {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let scope = scope.ok().and_then(|scope| scope.trim().parse::<u8>().ok()).unwrap_or(0);
    scope == 0 || (scope < 3 && rustix::process::geteuid().is_root())
}

/// Whether anything of a process is there: while one of its threads is not gone, it still has its sockets.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut states = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    // The name stands in parentheses and may contain anything, so the state comes after the last one.
    states.any(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X'])))
}
