//! What is next of reboots, from what was decided and how the hosts are.

use super::look::{NOT_ALLOWED, Seen};
use super::{Course, Phase, Reboot};
use crate::name::HostName;
use crate::problem::{Code, Problem};
use crate::time::{Moment, earlier};
use crate::upgrade::{Paused, State};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where a host stands, in a word for scripts, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    pub word: &'static str,
    pub why: String,
    pub problem: Option<Problem>,
}

/// What should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// As it is to be kept, before anybody is told.
    pub reboot: Reboot,
    pub stands: BTreeMap<HostName, Stand>,
    /// Who is to be taken out of every balancer, and who is to be brought back.
    pub drains: BTreeSet<HostName>,
    pub returns: BTreeSet<HostName>,
    /// Who is to be told to leave which boot, where nothing leads to it: from then on it is out.
    pub tells: BTreeMap<HostName, String>,
    /// Of whom nobody waits for another boot any more.
    pub gives_up: BTreeSet<HostName>,
    /// Who was told, and should leave which boot now.
    pub orders: BTreeMap<HostName, String>,
    pub wake_at: Option<Moment>,
}

/// Decides.
#[must_use]
pub fn plan(reboot: &Reboot, seen: &BTreeMap<HostName, Seen>, now: Moment) -> Next {
    let mut next = reboot.clone();
    if reboot.is_open() {
        for host in &reboot.order {
            advance(&mut next, host, seen.get(host), now);
        }
        pause_on_failure(&mut next);
        while let Some(host) = turn(&next, seen) {
            let ours = seen.get(&host).is_some_and(|seen| !seen.in_maintenance);
            let course = Course { phase: Phase::Draining, since: now, ours, boot: String::new(), failed: None };
            next.courses.insert(host.clone(), course);
            advance(&mut next, &host, seen.get(&host), now);
            pause_on_failure(&mut next);
        }
        end(&mut next, seen, now);
    }
    let stands = next.order.iter().map(|host| (host.clone(), stand(&next, host, seen.get(host)))).collect();
    let (mut drains, mut returns) = (BTreeSet::new(), BTreeSet::new());
    let (mut tells, mut orders) = (BTreeMap::new(), BTreeMap::new());
    let mut wake_at = None;
    for (host, course) in next.courses.iter().filter(|_| next.is_open()) {
        let Some(seen) = seen.get(host) else { continue };
        let holds = course.failed.is_none();
        match course.phase {
            Phase::Draining if course.ours && !seen.in_maintenance && holds => {
                drains.insert(host.clone());
            }
            Phase::Draining if is_out(seen) && seen.connected && holds => {
                tells.extend(seen.boot.clone().map(|boot| (host.clone(), boot)));
            }
            Phase::Told if seen.told.as_ref() == Some(&course.boot) && holds => {
                orders.insert(host.clone(), course.boot.clone());
            }
            Phase::Untold | Phase::Returned if course.ours && seen.in_maintenance => {
                returns.insert(host.clone());
            }
            _ => {}
        }
        let ends = matches!(course.phase, Phase::Told | Phase::Returned) && holds;
        wake_at = earlier(wake_at, ends.then(|| course.since + next.back_within));
    }
    // One that comes back is out no more, and so needs no word of its own.
    let waits = |host: &HostName| {
        let course = next.courses.get(host).filter(|_| next.is_open());
        course.is_some_and(|course| course.phase == Phase::Told || (course.phase == Phase::Returned && course.ours))
    };
    let gives_up = seen.iter().filter(|(host, seen)| seen.told.is_some() && !waits(host)).map(|(host, _)| host.clone());
    let gives_up = gives_up.collect();
    Next { reboot: next, stands, drains, returns, tells, gives_up, orders, wake_at }
}

/// Takes one host as far as what is seen of it allows.
fn advance(reboot: &mut Reboot, host: &HostName, seen: Option<&Seen>, now: Moment) {
    let stopped = matches!(reboot.state, State::Aborted { .. });
    let within = reboot.back_within;
    let Some(course) = reboot.courses.get_mut(host) else { return };
    let Some(seen) = seen else {
        course.phase = Phase::Gone;
        return;
    };
    // What was not told yet need not be.
    if stopped && course.phase == Phase::Draining {
        (course.phase, course.since) = (Phase::Untold, now);
    }
    while course.failed.is_none() {
        let next = match course.phase {
            Phase::Untold | Phase::Done | Phase::Gone => return,
            Phase::Draining => leave(course, seen, host),
            Phase::Told => come_back(course, seen, host, within, now),
            Phase::Returned => be_back(course, seen, host, within, now),
        };
        match next {
            Ok(phase) if phase == course.phase => return,
            Ok(phase) => (course.phase, course.since) = (phase, now),
            Err(problem) => course.failed = Some(problem),
        }
    }
}

fn leave(course: &mut Course, seen: &Seen, host: &HostName) -> Result<Phase, Problem> {
    seen.allows.clone()?;
    match (&seen.told, &seen.boot) {
        // Who had drained it brought it back: its turn comes again.
        _ if !course.ours && !seen.in_maintenance => Ok(Phase::Untold),
        (Some(told), _) => {
            course.boot.clone_from(told);
            Ok(Phase::Told)
        }
        (None, None) if is_out(seen) && seen.connected => {
            Err(Problem::new(NOT_ALLOWED, format!("the agent of {host} does not say which boot its host is in"))
                .help("upgrade it: baton agents upgrade"))
        }
        _ => Ok(Phase::Draining),
    }
}

fn come_back(course: &Course, seen: &Seen, host: &HostName, within: Duration, now: Moment) -> Result<Phase, Problem> {
    let is_another = seen.boot.as_ref().is_some_and(|boot| *boot != course.boot);
    if seen.connected && is_another {
        return Ok(Phase::Returned);
    }
    if let Some(problem) = seen.trouble.as_ref().filter(|_| seen.connected) {
        return Err(problem.clone());
    }
    if now.since(course.since) < within {
        return Ok(Phase::Told);
    }
    let stands = if seen.connected { "it is there, in the boot it was to leave" } else { "its agent is silent" };
    Err(Problem::new(Code(565), format!("{host} was told to reboot and is not back"))
        .saw("for", format!("{} s", now.since(course.since).as_secs()))
        .saw("seen", stands)
        .help(format!("look at its console; it stays out of the balancers. baton reboot --resume waits once more, --cancel ends it, then baton hosts undrain {host}")))
}

fn be_back(course: &Course, seen: &Seen, host: &HostName, within: Duration, now: Moment) -> Result<Phase, Problem> {
    let why = match (&seen.serves, seen.in_maintenance) {
        _ if !course.ours => return Ok(Phase::Done),
        (Ok(()), false) if seen.connected => return Ok(Phase::Done),
        (Err(why), false) => why.clone(),
        _ => "it is not back in the balancers".to_owned(),
    };
    if now.since(course.since) < within {
        return Ok(Phase::Returned);
    }
    Err(Problem::new(Code(566), format!("{host} has rebooted, and not everything serves there"))
        .saw("for", format!("{} s", now.since(course.since).as_secs()))
        .saw("waits for", why)
        .help(format!("baton why {host}; then baton reboot --resume, or --cancel")))
}

/// Nothing leads to it, and nobody is about to lead anything there.
fn is_out(seen: &Seen) -> bool {
    seen.in_maintenance && seen.drained.is_ok()
}

fn pause_on_failure(next: &mut Reboot) {
    let failed = next.order.iter().find_map(|host| {
        let problem = next.courses.get(host)?.failed.clone()?;
        Some((host.clone(), problem))
    });
    if let (State::Active, Some((host, problem))) = (&next.state, failed) {
        next.state = State::Paused(Paused::Failure { host, problem });
    }
}

/// Whose turn it is, if anybody may go. One that is to be drained is seen to be before the next is looked at: what is known of
/// the others is from before.
fn turn(next: &Reboot, seen: &BTreeMap<HostName, Seen>) -> Option<HostName> {
    let under_way = next.courses.values().filter(|course| course.phase.is_under_way()).count();
    if next.state != State::Active || under_way >= next.at_once {
        return None;
    }
    let unsettled = |(host, course): (&HostName, &Course)| {
        let in_maintenance = seen.get(host).is_some_and(|seen| seen.in_maintenance);
        match course.phase {
            Phase::Draining => course.ours && !in_maintenance,
            Phase::Returned => course.ours && in_maintenance,
            _ => false,
        }
    };
    if next.courses.iter().any(unsettled) {
        return None;
    }
    let waits = |host: &&HostName| next.courses.get(*host).is_none_or(|course| course.phase == Phase::Untold);
    next.order.iter().filter(waits).find(|host| seen.get(*host).is_some_and(|seen| seen.may_go.is_ok())).cloned()
}

fn end(next: &mut Reboot, seen: &BTreeMap<HostName, Seen>, now: Moment) {
    let phase = |host: &HostName| next.courses.get(host).map_or(Phase::Untold, |course| course.phase);
    if next.order.iter().all(|host| matches!(phase(host), Phase::Done | Phase::Gone) || !seen.contains_key(host)) {
        (next.state, next.ended) = (State::Succeeded, Some(now));
        return;
    }
    let goes_on = |(host, course): (&HostName, &Course)| {
        let comes_back = course.ours && seen.get(host).is_some_and(|seen| seen.in_maintenance);
        (course.phase.is_under_way() && course.failed.is_none()) || (course.phase == Phase::Untold && comes_back)
    };
    if matches!(next.state, State::Aborted { .. }) && !next.courses.iter().any(goes_on) {
        next.ended = Some(now);
    }
}

fn stand(reboot: &Reboot, host: &HostName, seen: Option<&Seen>) -> Stand {
    let says = |word, why: &str| Stand { word, why: why.to_owned(), problem: None };
    let course = reboot.courses.get(host);
    if let Some(problem) = course.and_then(|course| course.failed.as_ref()) {
        return Stand { word: "failed", why: problem.what.clone(), problem: Some(problem.clone()) };
    }
    let Some(seen) = seen else { return says("gone", "it is no host of this fleet any more") };
    let why = |seen: &Result<(), String>, otherwise: &str| seen.as_ref().err().map_or(otherwise.to_owned(), Clone::clone);
    match course.map_or(Phase::Untold, |course| course.phase) {
        Phase::Untold if !reboot.is_open() => says("untouched", ""),
        Phase::Untold => says("waiting", &why(&seen.may_go, "its turn has not come")),
        Phase::Draining => says("draining", &why(&seen.drained, "about to leave the balancers")),
        Phase::Told if seen.connected => says("told", "it was told to reboot"),
        Phase::Told => says("rebooting", "its agent is not back yet"),
        Phase::Returned => says("returning", &why(&seen.serves, "back in another boot, about to enter the balancers")),
        Phase::Done => says("done", ""),
        Phase::Gone => says("gone", "it is no host of this fleet any more"),
    }
}
