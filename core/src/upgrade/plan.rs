//! What is next in an upgrade of agents, from what was decided and what hosts say.

use super::{Paused, State, Step, Upgrade};
use crate::name::{Architecture, HostName, PackageVersion};
use crate::problem::{Code, Problem};
use crate::time::{Moment, earlier};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What installing takes beside the two waits, there and back, on a slow machine.
const INSTALLING: Duration = Duration::from_secs(120);

/// A host as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Here(Session),
    /// It has no session.
    Gone {
        since: Moment,
    },
}

/// What an agent says of its own package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub since: Moment,
    /// The package that the agent who speaks was started from, where it knows.
    pub runs: Option<PackageVersion>,
    /// What it can be given, or why nothing.
    pub takes: Result<Architecture, Problem>,
    /// What became of the order of an attempt of this upgrade.
    pub report: Option<(u32, Progress)>,
}

/// What a host does about its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    Fetching { done: u64, total: u64 },
    Installing,
    Done,
    Failed(Problem),
}

/// Where a host stands, and so why nothing more happens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    Done,
    Failed(Problem),
    /// It is not told: this is why.
    LeftOut(Problem),
    /// It is not here, and was not told: taken when it returns.
    Away,
    /// Its turn has not come.
    Waiting,
    Told,
    Fetching {
        done: u64,
        total: u64,
    },
    Installing,
    /// It was told, and is not back yet.
    Returning,
    /// It runs the package; its session is younger than asked for.
    Settling,
}

/// What should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The upgrade as it is to be kept, before anybody is told.
    pub upgrade: Upgrade,
    pub stands: BTreeMap<HostName, Stand>,
    /// The ring under way, counted from 0.
    pub ring: usize,
    /// Who should have an order now.
    pub orders: BTreeSet<HostName>,
    pub wake_at: Option<Moment>,
}

/// Decides.
#[must_use]
pub fn plan(upgrade: &Upgrade, seen: &BTreeMap<HostName, Seen>, now: Moment) -> Next {
    let mut next = upgrade.clone();
    let mut wake_at = None;
    let mut stands: BTreeMap<HostName, Stand> = BTreeMap::new();
    for host in &upgrade.order {
        let (stand, wake) = stand(upgrade, host, seen.get(host), now);
        wake_at = earlier(wake_at, wake);
        stands.insert(host.clone(), stand);
    }
    let ring = ring_under_way(upgrade, &stands);
    if !upgrade.state.is_open() {
        return Next { upgrade: next, stands, ring, orders: BTreeSet::new(), wake_at: None };
    }
    for (host, stand) in &stands {
        let course = match stand {
            Stand::Done => Step::Done,
            Stand::Failed(problem) => Step::Failed(problem.clone()),
            _ => continue,
        };
        next.courses.entry(host.clone()).or_default().step = course;
    }
    let failed = upgrade.order.iter().find_map(|host| match stands.get(host) {
        Some(Stand::Failed(problem)) => Some((host.clone(), problem.clone())),
        _ => None,
    });
    if let (State::Active, Some((host, problem))) = (&next.state, failed) {
        next.state = State::Paused(Paused::Failure { host, problem });
    }
    if stands.values().all(|stand| matches!(stand, Stand::Done | Stand::LeftOut(_))) {
        (next.state, next.ended) = (State::Succeeded, Some(now));
    }
    let mut orders = BTreeSet::new();
    if next.state == State::Active {
        for host in turn(upgrade, &stands, ring) {
            next.courses.entry(host.clone()).or_default().step = Step::Told;
            stands.insert(host, Stand::Told);
        }
        let may = |host: &&HostName| !matches!(stands.get(*host), Some(Stand::LeftOut(_)));
        orders = next.order.iter().filter(|host| *next.step(host) == Step::Told).filter(may).cloned().collect();
    }
    Next { upgrade: next, stands, ring, orders, wake_at }
}

/// Who is told now. Until one host runs the package, nobody beside one is.
fn turn(upgrade: &Upgrade, stands: &BTreeMap<HostName, Stand>, ring: usize) -> Vec<HostName> {
    let waits = |host: &HostName| stands.get(host) == Some(&Stand::Waiting);
    let reached = upgrade.rings_of_hosts().filter(|(host, of)| *of <= ring && waits(host)).map(|(host, _)| host.clone());
    let proven = stands.values().any(|stand| *stand == Stand::Done);
    let under_way = upgrade.order.iter().any(|host| *upgrade.step(host) == Step::Told);
    match (proven, under_way) {
        (true, _) => reached.collect(),
        (false, true) => Vec::new(),
        (false, false) => reached.take(1).collect(),
    }
}

/// The first ring with a host that is here, may be told, and is not done.
fn ring_under_way(upgrade: &Upgrade, stands: &BTreeMap<HostName, Stand>) -> usize {
    let passed = |stand: &Stand| matches!(stand, Stand::Done | Stand::LeftOut(_) | Stand::Away);
    let open = upgrade.rings_of_hosts().find(|(host, _)| stands.get(*host).is_some_and(|stand| !passed(stand)));
    open.map_or(upgrade.rings.len().saturating_sub(1), |(_, ring)| ring)
}

fn stand(upgrade: &Upgrade, host: &HostName, seen: Option<&Seen>, now: Moment) -> (Stand, Option<Moment>) {
    let step = upgrade.step(host);
    match (step, seen) {
        (Step::Done, _) => (Stand::Done, None),
        (Step::Failed(problem), _) => (Stand::Failed(problem.clone()), None),
        (_, None) => (Stand::LeftOut(removed(host)), None),
        (Step::Untold, Some(Seen::Gone { .. })) => (Stand::Away, None),
        (Step::Told, Some(Seen::Gone { since })) => {
            let allowed = upgrade.back_within * 2 + INSTALLING;
            if now.since(*since) < allowed {
                return (Stand::Returning, Some(*since + allowed));
            }
            (Stand::Failed(not_back(host, allowed)), None)
        }
        (step, Some(Seen::Here(session))) => here(upgrade, host, step, session, now),
    }
}

fn here(upgrade: &Upgrade, host: &HostName, step: &Step, session: &Session, now: Moment) -> (Stand, Option<Moment>) {
    let report = session.report.as_ref().filter(|(attempt, _)| *attempt == upgrade.attempt(host));
    let report = report.map(|(_, progress)| progress);
    if let (Step::Told, Some(Progress::Failed(problem))) = (step, report) {
        return (Stand::Failed(problem.clone()), None);
    }
    if session.runs.as_ref() == Some(&upgrade.package.version) {
        let settled = session.since + upgrade.healthy_for;
        return match report {
            Some(Progress::Installing | Progress::Fetching { .. }) => (Stand::Installing, None),
            _ if now >= settled => (Stand::Done, None),
            _ => (Stand::Settling, Some(settled)),
        };
    }
    match &session.takes {
        Err(problem) => return (Stand::LeftOut(problem.clone()), None),
        Ok(takes) if *takes != upgrade.package.architecture => {
            return (Stand::LeftOut(other_machine(takes, &upgrade.package.architecture)), None);
        }
        Ok(_) => {}
    }
    let stand = match (step, report) {
        (Step::Told, Some(Progress::Fetching { done, total })) => Stand::Fetching { done: *done, total: *total },
        (Step::Told, Some(Progress::Installing)) => Stand::Installing,
        (Step::Told, _) => Stand::Told,
        _ => Stand::Waiting,
    };
    (stand, None)
}

fn not_back(host: &HostName, allowed: Duration) -> Problem {
    Problem::new(Code(557), format!("{host} has not come back since its agent was to be upgraded"))
        .saw("silent for", format!("{} s", allowed.as_secs()))
        .help(format!("journalctl -u baton-agent -u baton-agent-upgrade on {host}; what runs there goes on serving"))
}

fn removed(host: &HostName) -> Problem {
    Problem::new(Code(558), format!("{host} is no host of this fleet any more"))
}

fn other_machine(takes: &Architecture, package: &Architecture) -> Problem {
    Problem::new(Code(559), format!("the package is for {package}, and this host is {takes}"))
        .help("baton agents upgrade once more with the package for these hosts, named with --hosts")
}

impl Stand {
    /// A word for scripts.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::LeftOut(_) => "left-out",
            Self::Away => "away",
            Self::Waiting => "waiting",
            Self::Told => "told",
            Self::Fetching { .. } => "fetching",
            Self::Installing => "installing",
            Self::Returning => "returning",
            Self::Settling => "settling",
        }
    }

    /// Why, where the word alone does not say it.
    #[must_use]
    pub fn why(&self) -> String {
        match self {
            Self::Failed(problem) | Self::LeftOut(problem) => problem.what.clone(),
            Self::Away => "it is not connected; it is taken when it returns".to_owned(),
            Self::Waiting => "its ring has not begun".to_owned(),
            Self::Told => "it was told".to_owned(),
            Self::Fetching { done, total } => format!("{done} of {total} bytes"),
            Self::Returning => "its agent restarts".to_owned(),
            Self::Settling => "its agent is back, and is watched for a moment".to_owned(),
            Self::Done | Self::Installing => String::new(),
        }
    }

    #[must_use]
    pub const fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Failed(problem) | Self::LeftOut(problem) => Some(problem),
            _ => None,
        }
    }
}
