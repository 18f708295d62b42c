//! Why nothing more happens just now: a closed list, each with its numbers.

use crate::hook::Point;
use crate::name::{HostName, LabelKey, LabelValue, Version};
use crate::problem::Problem;
use crate::time::millis;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// One reason, for one host or for the whole rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// None: it concerns the rollout.
    pub host: Option<HostName>,
    pub reason: Reason,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Named by a manifest, never joined.
    NeverJoined,
    /// Nothing heard. Silence is not sickness: the host is judged as of the moment it last spoke.
    AgentSilent {
        #[serde(with = "millis")]
        silent_for: Duration,
    },
    /// The agent has not taken its newest spec yet.
    Echo,
    /// The release is on its way to the host.
    Artifact {
        done: u64,
        total: u64,
    },
    /// A balancer has not yet read back that the member is out, or requests are still open there.
    Draining {
        balancer: HostName,
        in_flight: u64,
        /// How long the oldest of them has been open, where the balancer can tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        oldest: Option<Duration>,
        #[serde(with = "millis")]
        out_for: Duration,
        #[serde(with = "millis")]
        deadline: Duration,
    },
    /// A balancer has not yet read back that a free slot is out: nothing starts where it might be routed to at once.
    Shutting {
        balancer: HostName,
    },
    /// The old instance has been asked to finish.
    Stopping {
        #[serde(with = "millis")]
        since: Duration,
    },
    /// The old instance fails its health check, so that balancers that cannot be told find out, and finishes then.
    Withdrawing {
        #[serde(with = "millis")]
        since: Duration,
        #[serde(with = "millis")]
        unready_for: Duration,
    },
    /// The instance does not answer its probe yet.
    Probe {
        #[serde(with = "millis")]
        since: Duration,
        #[serde(with = "millis")]
        deadline: Duration,
        last: Option<Problem>,
    },
    /// Ready, but not for long enough.
    Healthy {
        #[serde(with = "millis")]
        ready_for: Duration,
        #[serde(with = "millis")]
        needed: Duration,
    },
    /// A balancer has not yet read back that the member is in; the problem says why it will not, where it knows.
    Enrolling {
        balancer: HostName,
        problem: Option<Problem>,
        /// It is in, and gets its whole share of the traffic in so long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        full_in: Option<Duration>,
    },
    /// A balancer cannot be reached or does not do what it is told: it may still route.
    BalancerUnreachable {
        balancer: HostName,
        problem: Option<Problem>,
    },
    /// Taking this host out would leave too few.
    Floor {
        unavailable: u32,
        max_unavailable: u32,
    },
    /// Taking this host out would leave none of those of which a label says the same.
    Spread {
        label: LabelKey,
        value: LabelValue,
    },
    /// Its turn comes later: the wave before is under way.
    Turn {
        wave: u32,
    },
    /// Ready, and enters together with the others of its wave.
    Together {
        ready: u32,
        of: u32,
    },
    /// The releases cannot coexist, and the other one still runs somewhere, or not every host is able to begin.
    Exclusive {
        host: HostName,
    },
    /// Everything is ready, and a person says when it goes on.
    Approval {
        wave: u32,
        /// Whose requests alone reach the new release until then, where the wave is the switch after a preview.
        preview: Option<String>,
    },
    /// The wave is watched.
    Bake {
        #[serde(with = "millis")]
        left: Duration,
    },
    /// What is counted speaks against the new release, and not loudly enough yet: its wave is watched for longer.
    Doubt {
        #[serde(with = "millis")]
        left: Duration,
    },
    /// The gate has not seen enough requests of the new release to rule a regression out.
    Data {
        has: u64,
        needs: u64,
        #[serde(with = "millis")]
        left: Duration,
    },
    /// The host gave the release up, or somebody there did, and runs the one before.
    FellBack {
        version: Option<Version>,
    },
    /// A hook has to have been run first.
    Hook {
        point: Point,
        host: HostName,
        attempt: u32,
        /// None: its host has not said that it runs.
        #[serde(default, with = "millis::maybe")]
        since: Option<Duration>,
        #[serde(with = "millis")]
        timeout: Duration,
        /// Why it is not simply waited for: it failed, or nobody knows.
        problem: Option<Box<Problem>>,
    },
    /// The instance failed, and the rollout does not go on by itself.
    Failed {
        problem: Problem,
    },
    Paused {
        by: String,
        why: String,
    },
    /// Taken out of every balancer for work on it; it takes no part until it is taken back in.
    Drained {
        by: String,
        why: String,
    },
    /// Drained, told to leave its boot, and not seen in another one yet.
    Rebooting {
        by: String,
        why: String,
    },
    /// Left out of rollouts by name.
    Skipped {
        by: String,
        why: String,
    },
    /// Keeps another release than the committed one, because a rollout was ended where it stood.
    Kept {
        by: String,
    },
    /// A deploy waits until no freeze holds any more.
    Frozen {
        by: String,
        why: String,
    },
    /// A deploy whose turn has come cannot begin.
    Refused {
        problem: Problem,
    },
}

impl Reason {
    /// The word for a column, a metric label, a log field.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NeverJoined => "never joined",
            Self::AgentSilent { .. } => "agent silent",
            Self::Echo => "agent",
            Self::Artifact { .. } => "artifact",
            Self::Draining { .. } => "draining",
            Self::Shutting { .. } => "balancer",
            Self::Stopping { .. } => "stopping",
            Self::Withdrawing { .. } => "withdrawing",
            Self::Probe { .. } => "probe",
            Self::Healthy { .. } => "healthy",
            Self::Enrolling { full_in: Some(_), .. } => "slow start",
            Self::Enrolling { .. } => "enrolling",
            Self::BalancerUnreachable { .. } => "balancer unreachable",
            Self::Floor { .. } => "floor",
            Self::Spread { .. } => "spread",
            Self::Turn { .. } => "waiting",
            Self::Together { .. } => "together",
            Self::Exclusive { .. } => "exclusive",
            Self::Approval { .. } => "approval",
            Self::Bake { .. } => "bake",
            Self::Doubt { .. } => "doubt",
            Self::Data { .. } => "data",
            Self::FellBack { .. } => "fell back",
            Self::Hook { .. } => "hook",
            Self::Failed { .. } => "failed",
            Self::Paused { .. } => "paused",
            Self::Drained { .. } => "drained",
            Self::Rebooting { .. } => "rebooting",
            Self::Skipped { .. } => "skipped",
            Self::Kept { .. } => "kept",
            Self::Frozen { .. } => "frozen",
            Self::Refused { .. } => "refused",
        }
    }
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverJoined => f.write_str("this host never joined"),
            Self::AgentSilent { silent_for } if silent_for.is_zero() => {
                f.write_str("its agent was not heard since the coordinator started")
            }
            Self::AgentSilent { silent_for } => write!(f, "its agent has been silent for {}", Seconds(*silent_for)),
            Self::Echo => f.write_str("its agent has not answered its newest spec yet"),
            Self::Artifact { done: 0, .. } => f.write_str("fetching the release"),
            Self::Artifact { done, total } => write!(f, "fetching the release, {done} of {total} bytes"),
            Self::Draining { balancer, in_flight, oldest, out_for, deadline } => {
                write!(f, "draining on {balancer}: {in_flight} open after {}", Seconds(*out_for))?;
                oldest.iter().try_for_each(|oldest| write!(f, ", the oldest for {}", Seconds(*oldest)))?;
                write!(f, " (limit {})", Seconds(*deadline))
            }
            Self::Shutting { balancer } => write!(f, "{balancer} has not read back yet that the free slot is out"),
            Self::Stopping { since } => write!(f, "the old instance has been stopping for {}", Seconds(*since)),
            Self::Withdrawing { since, unready_for } => write!(
                f,
                "a balancer cannot be told: the old instance has been finishing for {}, and fails its health check for {} first",
                Seconds(*since),
                Seconds(*unready_for)
            ),
            Self::Probe { since, deadline, last } => {
                write!(f, "not ready after {} (limit {})", Seconds(*since), Seconds(*deadline))?;
                last.iter().try_for_each(|problem| write!(f, ": {problem}"))
            }
            Self::Healthy { ready_for, needed } => {
                write!(f, "ready for {}, {} needed", Seconds(*ready_for), Seconds(*needed))
            }
            Self::Enrolling { balancer, full_in: Some(left), .. } => {
                write!(f, "{balancer} gives it more and more of the traffic: all of its share in {}", Seconds(*left))
            }
            Self::Enrolling { balancer, problem, full_in: None } => {
                write!(f, "{balancer} has not read back yet that it is in")?;
                problem.iter().try_for_each(|problem| write!(f, ": {problem}"))
            }
            Self::BalancerUnreachable { balancer, problem } => {
                write!(f, "the balancer on {balancer} does not answer")?;
                problem.iter().try_for_each(|problem| write!(f, ": {problem}"))
            }
            Self::Floor { unavailable, max_unavailable } => {
                let hosts = if *unavailable == 1 { "1 host does".to_owned() } else { format!("{unavailable} hosts do") };
                write!(f, "{hosts} not serve, or cannot be asked, and {max_unavailable} at most may be without")
            }
            Self::Spread { label, value } => write!(f, "it is the last host with {label}={value} that serves"),
            Self::Turn { wave } => write!(f, "its turn comes in wave {}", wave + 1),
            Self::Together { ready, of } => write!(f, "ready, and enters with the others: {ready} of {of} are"),
            Self::Exclusive { host } => {
                write!(f, "the two releases cannot coexist, and {host} is not that far")
            }
            Self::Approval { preview: Some(rule), .. } => {
                write!(
                    f,
                    "the switch waits for a person's word; until then {rule} leads to the new release, and nothing else does"
                )
            }
            Self::Approval { wave, preview: None } => write!(f, "wave {} waits for a person's word", wave + 1),
            Self::Bake { left } => write!(f, "the wave is watched for {} more", Seconds(*left)),
            Self::Doubt { left } => write!(
                f,
                "what is counted speaks against the new release, and not loudly enough yet: watched for {} more at most",
                Seconds(*left)
            ),
            Self::Data { has, needs, left } => {
                write!(f, "not enough data: has {has} of {needs} requests, and waits for {} more", Seconds(*left))
            }
            Self::FellBack { version: Some(version) } => write!(f, "the host gave the release up and runs {version}"),
            Self::FellBack { version: None } => f.write_str("the host gave the release up and runs another one"),
            Self::Hook { problem: Some(problem), .. } => problem.fmt(f),
            Self::Hook { point, host, attempt, since, timeout, problem: None } => {
                match since {
                    Some(since) => write!(f, "{point} has been running on {host} for {}", Seconds(*since)),
                    None => write!(f, "{point} is to run on {host}, which has not begun it"),
                }?;
                write!(f, " (limit {}", Seconds(*timeout))?;
                if *attempt > 1 { write!(f, ", attempt {attempt})") } else { f.write_str(")") }
            }
            Self::Failed { problem } => problem.fmt(f),
            Self::Paused { by, why } => write!(f, "paused by {by}: {why}"),
            Self::Drained { by, why } => write!(f, "drained by {by}: {why}"),
            Self::Rebooting { by, why } => write!(f, "told to reboot, and not back yet; drained by {by}: {why}"),
            Self::Skipped { by, why } => write!(f, "skipped by {by}: {why}"),
            Self::Kept { by } => write!(f, "{by} ended the rollout here, and it keeps its release"),
            Self::Frozen { by, why } => write!(f, "frozen by {by}: {why}"),
            Self::Refused { problem } => write!(f, "its deploy cannot begin: {problem}"),
        }
    }
}
