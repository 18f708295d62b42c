//! One host: what it was told, what it said, and whether it is there.

use super::{millis, version};
use crate::driver::Hello;
use baton_core::fleet::orders::Leaving;
use baton_core::fleet::report::{
    Correction, HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState, SplitReport,
};
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::{Side, TrafficSplit};
use baton_core::fleet::{Fleet, Host, InstanceKey, MemberKey};
use baton_core::name::{HostName, PoolName};
use baton_core::problem::{Code, Problem};
use baton_core::time::Moment;
use baton_proto::unit;
use baton_proto::v1::{HostView, InstanceView, MemberView, PoolView, SplitView};
use std::net::IpAddr;
use std::time::Duration;

pub(super) fn view(fleet: &Fleet, name: &HostName, host: &Host, hello: Option<&Hello>, now: Moment) -> HostView {
    let report = host.report();
    let silent = host.heard.as_ref().map_or(Duration::ZERO, |heard| now.since(heard.at));
    let problems = report.into_iter().flat_map(|report| &report.problems);
    // While it is still learnt what hosts were told, one that was told more is what is waited for.
    let learns = fleet.fence.as_ref().is_some_and(|fence| fence.stands);
    // One that nobody accepted yet goes on with what it was told elsewhere, until it is.
    let ahead = hello.filter(|hello| host.accepted && !learns && hello.ledger > host.issued.stamp());
    let fenced = ahead.map(|hello| fenced(name, host, hello));
    HostView {
        name: name.to_string(),
        address: address(host, hello).map(|address| address.to_string()).unwrap_or_default(),
        connected: host.connected,
        silent_ms: millis(silent),
        agent_version: hello.map(|hello| hello.agent_version.clone()).unwrap_or_default(),
        issued: Some((&host.issued.stamp()).into()),
        observed: report.map(|report| (&report.observed).into()),
        instances: report
            .into_iter()
            .flat_map(|it| &it.instances)
            .map(|(key, it)| instance(fleet, key, it, report))
            .collect(),
        pools: pools(host, report, silent),
        problems: problems.chain(fenced.iter()).chain(rejected(fleet, host)).map(Into::into).collect(),
        dead_balancer: host.dead_balancer.as_ref().map(|order| super::order(order, now)),
        maintenance: host.maintenance.as_ref().map(|maintenance| super::order(&maintenance.order, now)),
        waits_for_acceptance: !host.accepted,
        to_be_rebooted: host.maintenance.as_ref().is_some_and(|work| work.reboot == Some(Leaving::Ahead)),
        rebooting_ms: host.leaves().map(|told| millis(now.since(told))),
        labels: host.labels.iter().map(|(label, value)| (label.to_string(), value.to_string())).collect(),
        facts: hello.map(|hello| hello.facts.clone()).unwrap_or_default(),
        driver: report.and_then(|report| report.balancer.as_ref()).map(|it| it.driver.clone()).unwrap_or_default(),
    }
}

/// Why the host would not start again what is live there: what runs goes on, so nothing else shows it before it has ended.
fn rejected<'a>(fleet: &'a Fleet, host: &'a Host) -> impl Iterator<Item = &'a Problem> {
    let is_live = |release| fleet.services.values().any(|service| service.committed == Some(release));
    let releases = host.report().into_iter().flat_map(|report| &report.releases);
    releases.filter_map(move |(release, state)| match state {
        ReleaseState::Rejected { problem } if is_live(*release) => Some(problem),
        _ => None,
    })
}

/// Where the host is; None while that is not known: one that joined through the loopback has not said where others find it.
fn address(host: &Host, hello: Option<&Hello>) -> Option<IpAddr> {
    let was_met = host.heard.is_some() || hello.is_some();
    Some(host.address).filter(|address| was_met || !address.is_loopback())
}

/// A host that obeyed a newer coordinator than this one obeys this one no more, and should say why nothing happens.
fn fenced(name: &HostName, host: &Host, hello: &Hello) -> Problem {
    let stamp = |stamp: baton_core::fleet::spec::Stamp| format!("epoch {}, generation {}", stamp.epoch, stamp.generation);
    Problem::new(Code(1005), format!("{name} has already obeyed a newer coordinator than this one"))
        .saw("its ledger", stamp(hello.ledger))
        .saw("issued", stamp(host.issued.stamp()))
        .help(format!(
            "{}: it asks every host what it was told before it decides. Does another coordinator run, from this state or from a \
             backup of it? Stop that one first",
            unit::command("restart", "baton-coordinator")
        ))
}

fn instance(fleet: &Fleet, key: &InstanceKey, instance: &InstanceReport, report: Option<&HostReport>) -> InstanceView {
    let fall = report.and_then(|report| report.falls.get(key));
    let (state, since, problem) = match &instance.state {
        InstanceState::Starting { since, last } => ("starting", *since, last.as_ref()),
        InstanceState::Ready { since } => ("ready", *since, None),
        InstanceState::Unready { since, problem } => ("unready", *since, Some(problem)),
        InstanceState::Stopping { since } => ("stopping", *since, None),
        InstanceState::Failed { problem } => ("failed", Duration::ZERO, Some(problem)),
    };
    InstanceView {
        key: key.to_string(),
        version: version(fleet, Some(instance.release)),
        state: state.to_owned(),
        since_ms: millis(since),
        incarnation: instance.incarnation.clone(),
        problem: problem.map(Into::into),
        falls: fall.map_or(0, |fall| fall.times),
        fell_ms: fall.map_or(0, |fall| millis(fall.ago)),
        fell: fall.map(|fall| (&fall.problem).into()),
    }
}

/// Every pool that is wanted or reported, every member likewise: what is only in one of them is drift.
fn pools(host: &Host, report: Option<&HostReport>, silent: Duration) -> Vec<PoolView> {
    let mut names: Vec<&PoolName> = host.issued.pools.keys().collect();
    names.extend(report.into_iter().flat_map(|report| report.pools.keys()));
    names.sort();
    names.dedup();
    let seen = |name| report.and_then(|report| report.pools.get(name));
    names.into_iter().map(|name| pool(name, host.issued.pools.get(name), seen(name), silent)).collect()
}

fn pool(name: &PoolName, wanted: Option<&PoolSpec>, seen: Option<&PoolReport>, silent: Duration) -> PoolView {
    let mut keys: Vec<&MemberKey> = wanted.into_iter().flat_map(|it| it.members.keys()).collect();
    keys.extend(seen.into_iter().flat_map(|it| it.members.keys()));
    keys.sort();
    keys.dedup();
    let member = |key: &MemberKey| {
        let spec = wanted.and_then(|it| it.members.get(key));
        let report: Option<&MemberReport> = seen.and_then(|it| it.members.get(key));
        let corrected = report.and_then(|report| report.corrected.as_deref());
        MemberView {
            key: key.to_string(),
            address: spec.map(|spec| spec.address.to_string()).unwrap_or_default(),
            wanted: spec.map(|spec| word(spec.state)).unwrap_or_default(),
            running: report.map(|report| word(report.running)).unwrap_or_default(),
            on_disk: report.map(|report| word(report.on_disk)).unwrap_or_default(),
            in_flight: report.map_or(0, |report| report.in_flight),
            requests: report.map_or(0, |report| report.requests),
            errors: report.map_or(0, |report| report.errors),
            problem: report.and_then(|report| report.problem.as_ref()).map(Into::into),
            weight: spec.map_or(0, |spec| spec.weight.into()),
            oldest_ms: report.and_then(|report| report.oldest).map(millis),
            full_in_ms: report.and_then(|report| report.full_in).map(millis),
            trial: spec.is_some_and(|spec| spec.side == Side::Trial),
            corrected: corrected.map(|it| Correction { ago: it.ago + silent, ..it.clone() }).as_ref().map(Into::into),
        }
    };
    PoolView {
        pool: name.to_string(),
        balancer: seen.map(|seen| seen.balancer.clone()).unwrap_or_default(),
        members: keys.into_iter().map(member).collect(),
        problem: seen.and_then(|seen| seen.problem.as_ref()).map(Into::into),
        split: split(wanted.and_then(|pool| pool.split.as_ref()), seen.and_then(|pool| pool.split.as_ref())),
    }
}

/// How requests are divided; None while they are not, and are not to be.
pub(super) fn split(wanted: Option<&TrafficSplit>, seen: Option<&SplitReport>) -> Option<SplitView> {
    if wanted.is_none() && seen.is_none() {
        return None;
    }
    Some(SplitView {
        wanted: wanted.map(ToString::to_string).unwrap_or_default(),
        running: seen.map(|seen| seen.split.to_string()).unwrap_or_default(),
        on_disk: seen.is_some_and(|seen| seen.on_disk),
        share: wanted.map_or(0, |split| split.share.places().into()),
        // What came of another split says nothing about this one.
        achieved: seen.filter(|seen| Some(&seen.split) == wanted).and_then(SplitReport::achieved),
        stable: seen.map_or(0, |seen| seen.stable),
        trial: seen.map_or(0, |seen| seen.trial),
        ruled: seen.map_or(0, |seen| seen.ruled),
    })
}

fn word(state: MemberState) -> String {
    match state {
        MemberState::Ready => "ready",
        MemberState::Drain => "drain",
        MemberState::Out => "out",
    }
    .to_owned()
}
