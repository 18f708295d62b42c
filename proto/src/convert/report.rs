//! Host reports.

use super::hooks;
use super::spec::member_state;
use super::split::{latency, side};
use super::{InvalidMessage, bytes, duration, keyed, millis, optional, parse, present, release_id, required};
use crate::v1;
use crate::v1::instance_counters::Reading as Counters;
use baton_core::fleet::report::{
    Correction, Fall, HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState,
};
use baton_core::fleet::split::Side;
use baton_core::fleet::{InstanceKey, MemberKey};
use baton_core::name::{PoolName, ReleaseId};
use baton_core::problem::Problem;
use baton_core::scrape::{Reading, Totals};

/// What is seen of a page that cannot be read is a line.
const TROUBLE_MAX: usize = 400;

impl From<&HostReport> for v1::HostReport {
    fn from(report: &HostReport) -> Self {
        Self {
            observed: Some((&report.observed).into()),
            boot: report.boot.clone(),
            instances: report.instances.iter().map(write_instance).collect(),
            pools: report.pools.iter().map(write_pool).collect(),
            releases: report.releases.iter().map(write_release).collect(),
            problems: report.problems.iter().map(Into::into).collect(),
            balancer: report.balancer.as_ref().map(Into::into),
            hooks: report.hooks.iter().map(hooks::write_report).collect(),
            memory: report.memory.iter().map(write_memory).collect(),
            counters: report.counters.iter().map(write_counters).collect(),
            falls: report.falls.iter().map(write_fall).collect(),
            room: report.room,
        }
    }
}

impl TryFrom<v1::HostReport> for HostReport {
    type Error = InvalidMessage;
    fn try_from(message: v1::HostReport) -> Result<Self, InvalidMessage> {
        let problem = |(index, problem): (usize, v1::Problem)| {
            Problem::try_from(problem).map_err(|error| error.inside(&format!("problems[{index}]")))
        };
        Ok(Self {
            observed: required("observed", message.observed)?,
            boot: message.boot,
            instances: keyed("instances", message.instances, read_instance)?,
            pools: keyed("pools", message.pools, read_pool)?,
            releases: keyed("releases", message.releases, read_release)?,
            problems: message.problems.into_iter().enumerate().map(problem).collect::<Result<_, _>>()?,
            balancer: optional("balancer", message.balancer)?,
            hooks: keyed("hooks", message.hooks, hooks::read_report)?,
            memory: keyed("memory", message.memory, |memory| Ok((parse("key", &memory.key)?, memory.bytes)))?,
            counters: keyed("counters", message.counters, read_counters)?,
            falls: keyed("falls", message.falls, read_fall)?,
            room: message.room,
        })
    }
}

fn write_memory((key, bytes): (&InstanceKey, &u64)) -> v1::InstanceMemory {
    v1::InstanceMemory { key: key.to_string(), bytes: *bytes }
}

fn write_counters((key, reading): (&InstanceKey, &Reading)) -> v1::InstanceCounters {
    let reading = match reading {
        Reading::Counted(totals) => Counters::Totals(v1::Totals { requests: totals.requests, errors: totals.errors }),
        Reading::Trouble(why) => Counters::Trouble(why.clone()),
    };
    v1::InstanceCounters { key: key.to_string(), reading: Some(reading) }
}

fn read_counters(message: v1::InstanceCounters) -> Result<(InstanceKey, Reading), InvalidMessage> {
    let reading = match present("reading", message.reading)? {
        Counters::Totals(totals) => Reading::Counted(Totals { requests: totals.requests, errors: totals.errors }),
        Counters::Trouble(why) => Reading::Trouble(why.chars().take(TROUBLE_MAX).collect()),
    };
    Ok((parse("key", &message.key)?, reading))
}

fn write_fall((key, fall): (&InstanceKey, &Fall)) -> v1::InstanceFall {
    let problem = Some((&fall.problem).into());
    v1::InstanceFall { key: key.to_string(), times: fall.times, ago_ms: millis(fall.ago), problem }
}

fn read_fall(message: v1::InstanceFall) -> Result<(InstanceKey, Fall), InvalidMessage> {
    let (ago, problem) = (duration("ago_ms", message.ago_ms)?, required("problem", message.problem)?);
    Ok((parse("key", &message.key)?, Fall { times: message.times, ago, problem }))
}

fn write_instance((key, report): (&InstanceKey, &InstanceReport)) -> v1::InstanceReport {
    use v1::instance_report::State;
    let state = match &report.state {
        InstanceState::Starting { since, last } => {
            State::Starting(v1::Starting { since_ms: millis(*since), last: last.as_ref().map(Into::into) })
        }
        InstanceState::Ready { since } => State::Ready(v1::Ready { since_ms: millis(*since) }),
        InstanceState::Unready { since, problem } => {
            State::Unready(v1::Unready { since_ms: millis(*since), problem: Some(problem.into()) })
        }
        InstanceState::Stopping { since } => State::Stopping(v1::Stopping { since_ms: millis(*since) }),
        InstanceState::Failed { problem } => State::Failed(v1::Failed { problem: Some(problem.into()) }),
    };
    v1::InstanceReport {
        key: key.to_string(),
        release_id: bytes(report.release.0),
        incarnation: report.incarnation.clone(),
        start: report.start,
        state: Some(state),
    }
}

fn read_instance(message: v1::InstanceReport) -> Result<(InstanceKey, InstanceReport), InvalidMessage> {
    use v1::instance_report::State;
    let state = match present("state", message.state)? {
        State::Starting(starting) => InstanceState::Starting {
            since: duration("starting.since_ms", starting.since_ms)?,
            last: optional("starting.last", starting.last)?,
        },
        State::Ready(ready) => InstanceState::Ready { since: duration("ready.since_ms", ready.since_ms)? },
        State::Unready(unready) => InstanceState::Unready {
            since: duration("unready.since_ms", unready.since_ms)?,
            problem: required("unready.problem", unready.problem)?,
        },
        State::Stopping(stopping) => InstanceState::Stopping { since: duration("stopping.since_ms", stopping.since_ms)? },
        State::Failed(failed) => InstanceState::Failed { problem: required("failed.problem", failed.problem)? },
    };
    let report = InstanceReport {
        release: release_id("release_id", &message.release_id)?,
        incarnation: message.incarnation,
        start: message.start,
        state,
    };
    Ok((parse("key", &message.key)?, report))
}

fn write_pool((pool, report): (&PoolName, &PoolReport)) -> v1::PoolReport {
    v1::PoolReport {
        pool: pool.to_string(),
        balancer: report.balancer.clone(),
        members: report.members.iter().map(write_member).collect(),
        problem: report.problem.as_ref().map(Into::into),
        split: report.split.as_ref().map(Into::into),
    }
}

fn read_pool(message: v1::PoolReport) -> Result<(PoolName, PoolReport), InvalidMessage> {
    let report = PoolReport {
        balancer: message.balancer,
        members: keyed("members", message.members, read_member)?,
        problem: optional("problem", message.problem)?,
        split: optional("split", message.split)?,
    };
    Ok((parse("pool", &message.pool)?, report))
}

fn write_member((key, report): (&MemberKey, &MemberReport)) -> v1::MemberReport {
    v1::MemberReport {
        key: key.to_string(),
        running: v1::MemberState::from(report.running).into(),
        on_disk: v1::MemberState::from(report.on_disk).into(),
        in_flight: report.in_flight,
        out_for_ms: millis(report.out_for),
        cut: report.cut,
        requests: report.requests,
        errors: report.errors,
        problem: report.problem.as_ref().map(Into::into),
        trial: report.side == Side::Trial,
        latency: report.latency.as_deref().cloned().map(Into::into).unwrap_or_default(),
        oldest_ms: report.oldest.map(millis),
        full_in_ms: report.full_in.map(millis),
        corrected: report.corrected.as_deref().map(Into::into),
    }
}

impl From<&Correction> for v1::Correction {
    fn from(Correction { times, ago, was }: &Correction) -> Self {
        Self { times: *times, ago_ms: millis(*ago), was: was.clone() }
    }
}

fn read_correction(message: &v1::Correction) -> Result<Correction, InvalidMessage> {
    let was = message.was.chars().take(TROUBLE_MAX).collect();
    Ok(Correction { times: message.times, ago: duration("ago_ms", message.ago_ms)?, was })
}

fn read_member(message: v1::MemberReport) -> Result<(MemberKey, MemberReport), InvalidMessage> {
    let report = MemberReport {
        running: member_state("running", message.running)?,
        on_disk: member_state("on_disk", message.on_disk)?,
        in_flight: message.in_flight,
        out_for: duration("out_for_ms", message.out_for_ms)?,
        cut: message.cut,
        requests: message.requests,
        errors: message.errors,
        side: side(message.trial),
        full_in: message.full_in_ms.map(|left| duration("full_in_ms", left)).transpose()?,
        latency: latency(message.latency)?.map(Box::new),
        corrected: message.corrected.as_ref().map(read_correction).transpose()?.map(Box::new),
        oldest: message.oldest_ms.map(|oldest| duration("oldest_ms", oldest)).transpose()?,
        problem: optional("problem", message.problem)?,
    };
    Ok((parse("key", &message.key)?, report))
}

fn write_release((id, state): (&ReleaseId, &ReleaseState)) -> v1::ReleaseReport {
    use v1::release_report::State;
    let state = match state {
        ReleaseState::Fetching { done, total } => State::Fetching(v1::Fetching { done: *done, total: *total }),
        ReleaseState::Held => State::Held(v1::Held {}),
        ReleaseState::Rejected { problem } => State::Rejected(v1::Rejected { problem: Some(problem.into()) }),
    };
    v1::ReleaseReport { release_id: bytes(id.0), state: Some(state) }
}

fn read_release(message: v1::ReleaseReport) -> Result<(ReleaseId, ReleaseState), InvalidMessage> {
    use v1::release_report::State;
    let state = match present("state", message.state)? {
        State::Fetching(fetching) => ReleaseState::Fetching { done: fetching.done, total: fetching.total },
        State::Held(v1::Held {}) => ReleaseState::Held,
        State::Rejected(rejected) => ReleaseState::Rejected { problem: required("rejected.problem", rejected.problem)? },
    };
    Ok((release_id("release_id", &message.release_id)?, state))
}
