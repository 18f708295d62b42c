//! Whether a report is news: agents repeat what they see every few seconds, and a plan follows only from what changed.
//!
//! Durations grow and counters count in every report. They are no news, but where a plan asks how long something has lasted:
//! an instance that has not been ready for long enough yet, or not ready for too long, and requests that are open at a member
//! that is out. Everything else that is not what it was is news. Each report is taken apart by name, so that whoever adds a
//! field decides here what it is.

use super::Fleet;
use super::hooks::{HookOutcome, HookReport};
use super::report::{HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState, SplitReport};
use crate::name::HostName;
use crate::release::Health;
use std::collections::BTreeMap;
use std::time::Duration;

/// Whether what a host says now could change what is planned, after what it said before.
#[must_use]
pub fn is_news(fleet: &Fleet, host: &HostName, report: &HostReport) -> bool {
    let known = fleet.hosts.get(host).filter(|host| host.connected);
    let Some(before) = known.and_then(|host| host.report()) else { return true };
    let HostReport {
        observed,
        boot,
        instances,
        pools,
        releases,
        problems,
        balancer,
        hooks,
        memory: _,
        counters: _,
        falls: _,
    } = report;
    let repeats = *observed == before.observed
        && *boot == before.boot
        && *problems == before.problems
        && *balancer == before.balancer
        && all_alike(&before.instances, instances, |before, now| is_same_instance(fleet, before, now))
        && all_alike(&before.pools, pools, is_same_pool)
        && all_alike(&before.releases, releases, is_same_release)
        && all_alike(&before.hooks, hooks, is_same_hook);
    !repeats
}

fn all_alike<K: Eq, V>(before: &BTreeMap<K, V>, now: &BTreeMap<K, V>, alike: impl Fn(&V, &V) -> bool) -> bool {
    before.len() == now.len()
        && before.iter().zip(now).all(|((key, before), (other, now))| key == other && alike(before, now))
}

fn is_same_instance(fleet: &Fleet, before: &InstanceReport, now: &InstanceReport) -> bool {
    use InstanceState::{Failed, Ready, Starting, Stopping, Unready};
    let InstanceReport { release, incarnation, start, state } = now;
    let of_release = |bound: fn(&Health) -> Duration| fleet.releases.get(release).map(|release| bound(&release.health));
    let is_over = |bound: Option<Duration>, before: Duration, since: Duration| {
        before == since || before.min(since) >= bound.unwrap_or_default()
    };
    (*release, *start) == (before.release, before.start)
        && *incarnation == before.incarnation
        && match (&before.state, state) {
            (Starting { last: before, .. }, Starting { last, .. }) => last == before,
            (Ready { since: before }, Ready { since }) => is_over(of_release(|it| it.healthy_for), *before, *since),
            (Unready { since: before, problem: why_before }, Unready { since, problem }) => {
                problem == why_before && is_over(of_release(|it| it.start_timeout), *before, *since)
            }
            (Stopping { .. }, Stopping { .. }) => true,
            (Failed { problem: before }, Failed { problem }) => problem == before,
            _ => false,
        }
}

fn is_same_pool(before: &PoolReport, now: &PoolReport) -> bool {
    let PoolReport { balancer, members, problem, split } = now;
    let is_same_split = |before: &SplitReport, now: &SplitReport| {
        let SplitReport { split, on_disk, stable: _, trial: _, ruled: _ } = now;
        (split, on_disk) == (&before.split, &before.on_disk)
    };
    let is_split_alike = match (&before.split, split) {
        (Some(before), Some(now)) => is_same_split(before, now),
        (before, now) => before.is_none() && now.is_none(),
    };
    *balancer == before.balancer
        && *problem == before.problem
        && is_split_alike
        && all_alike(&before.members, members, is_same_member)
}

fn is_same_member(before: &MemberReport, now: &MemberReport) -> bool {
    let MemberReport {
        running,
        on_disk,
        in_flight: _,
        out_for: _,
        cut: _,
        requests: _,
        errors: _,
        side,
        latency: _,
        problem,
    } = now;
    (*running, *on_disk, *side) == (before.running, before.on_disk, before.side)
        && *problem == before.problem
        && drains(now) == drains(before)
}

/// What is open at a member that is out, and since when: it may be cut at a deadline.
fn drains(member: &MemberReport) -> Option<(u64, Duration)> {
    (member.is_out() && member.in_flight > 0).then_some((member.in_flight, member.out_for))
}

fn is_same_release(before: &ReleaseState, now: &ReleaseState) -> bool {
    match (before, now) {
        (ReleaseState::Fetching { total: before, .. }, ReleaseState::Fetching { total, .. }) => total == before,
        (before, now) => before == now,
    }
}

fn is_same_hook(before: &HookReport, now: &HookReport) -> bool {
    let HookReport { attempt, state } = now;
    let still_runs = matches!((&before.state, state), (HookOutcome::Running { .. }, HookOutcome::Running { .. }));
    *attempt == before.attempt && (still_runs || *state == before.state)
}
