//! Upgrades of agents: hosts as they are in, who is told out.
//!
//! ```text
//! web1 old 60          runs the version before, its session is 60 s old
//! web1 new 3           runs the package since 3 s
//! web2 away            has no session
//! web3 refuses         says why it takes no package
//! web4 fails           says that what it was told failed
//! web5 busy            runs the package, and is not through with installing it
//! ```

#![allow(clippy::unwrap_used)]

use baton_core::name::{Digest, HostName};
use baton_core::problem::{Code, Problem};
use baton_core::release::Artifact;
use baton_core::strategy::Amount;
use baton_core::time::Moment;
use baton_core::upgrade::plan::{Next, Progress, Seen, Session, plan};
use baton_core::upgrade::{Package, Paused, State, Upgrade};
use std::collections::BTreeMap;
use std::time::Duration;

const NOW: Moment = Moment(10_000_000);

fn upgrade(hosts: usize) -> Upgrade {
    Upgrade {
        id: "u-1".parse().unwrap(),
        package: Package {
            artifact: Artifact { digest: Digest::of(b"deb"), size: 3 },
            version: "2.0.0".parse().unwrap(),
            architecture: "amd64".parse().unwrap(),
        },
        order: (1..=hosts).map(|nth| format!("web{nth}").parse().unwrap()).collect(),
        rings: vec![Amount::Hosts(1), Amount::Percent(50), Amount::Percent(100)],
        healthy_for: Duration::from_secs(10),
        back_within: Duration::from_secs(60),
        by: "ana".into(),
        begun: Moment(0),
        ended: None,
        state: State::Active,
        courses: BTreeMap::new(),
    }
}

fn seen(text: &str, attempt: u32) -> BTreeMap<HostName, Seen> {
    let host = |line: &str| {
        let mut words = line.split_whitespace();
        let name: HostName = words.next().unwrap().parse().unwrap();
        let (state, seconds) = (words.next().unwrap(), words.next().map_or(600, |age| age.parse().unwrap()));
        let since = Moment(NOW.0 - seconds * 1000);
        let version = if matches!(state, "new" | "busy") { "2.0.0" } else { "1.0.0" };
        let problem = || Problem::new(Code(553), "it fell back");
        let report = match state {
            "fails" => Some((attempt, Progress::Failed(problem()))),
            "busy" => Some((attempt, Progress::Installing)),
            _ => None,
        };
        let takes = match state {
            "refuses" => Err(Problem::new(Code(550), "this host refuses")),
            "arm" => Ok("arm64".parse().unwrap()),
            _ => Ok("amd64".parse().unwrap()),
        };
        let here = Session { since, runs: Some(version.parse().unwrap()), takes, report };
        (name, if state == "away" { Seen::Gone { since } } else { Seen::Here(here) })
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(host).collect()
}

/// Plans, checks that planning again changes nothing, and gives what is next.
#[track_caller]
fn planned(upgrade: &Upgrade, text: &str) -> Next {
    let seen = seen(text, upgrade.courses.values().map(|course| course.attempt).max().unwrap_or(0));
    let next = plan(upgrade, &seen, NOW);
    let again = plan(&next.upgrade, &seen, NOW);
    assert_eq!(again.upgrade, next.upgrade, "planning twice changed something for {text}");
    next
}

/// Who should have an order, and where everybody stands.
#[track_caller]
fn check(upgrade: &Upgrade, text: &str, told: &str, stands: &str) -> Upgrade {
    let next = planned(upgrade, text);
    let orders: Vec<&str> = next.orders.iter().map(HostName::as_str).collect();
    let words: Vec<&str> = next.upgrade.order.iter().map(|host| next.stands[host].word()).collect();
    assert_eq!((orders.join(" ").as_str(), words.join(" ").as_str()), (told, stands), "for {text}");
    next.upgrade
}

#[test]
fn one_host_comes_first_and_a_ring_begins_when_every_host_of_the_one_before_is_healthy() {
    let begun = check(&upgrade(4), "web1 old\nweb2 old\nweb3 old\nweb4 old", "web1", "told waiting waiting waiting");
    let gone = check(&begun, "web1 away 5\nweb2 old\nweb3 old\nweb4 old", "web1", "returning waiting waiting waiting");
    check(&gone, "web1 busy 60\nweb2 old\nweb3 old\nweb4 old", "web1", "installing waiting waiting waiting");
    let back = check(&gone, "web1 new 9\nweb2 old\nweb3 old\nweb4 old", "web1", "settling waiting waiting waiting");
    let second = check(&back, "web1 new 10\nweb2 old\nweb3 old\nweb4 old", "web2", "done told waiting waiting");
    let third = check(&second, "web1 new\nweb2 new\nweb3 old\nweb4 old", "web3 web4", "done done told told");
    let last = check(&third, "web1 new\nweb2 new\nweb3 new\nweb4 away 5", "web4", "done done done returning");
    let over = check(&last, "web1 new\nweb2 new\nweb3 new\nweb4 new", "", "done done done done");
    assert_eq!((over.state, over.ended), (State::Succeeded, Some(NOW)));
}

#[test]
fn a_session_that_will_be_old_enough_is_looked_at_then() {
    let begun = planned(&upgrade(2), "web1 old\nweb2 old").upgrade;
    assert_eq!(planned(&begun, "web1 new 4\nweb2 old").wake_at, Some(NOW + Duration::from_secs(6)));
}

#[test]
fn one_failing_host_pauses_it_and_nothing_else_is_touched_until_somebody_resumes() {
    let begun = planned(&upgrade(3), "web1 old\nweb2 old\nweb3 old").upgrade;
    let text = "web1 fails\nweb2 old\nweb3 old";
    let paused = check(&begun, text, "", "failed waiting waiting");
    let State::Paused(Paused::Failure { host, problem }) = &paused.state else { panic!("{:?}", paused.state) };
    assert_eq!((host.as_str(), problem.code), ("web1", Code(553)));
    check(&paused, text, "", "failed waiting waiting");
    let resumed = paused.resumed();
    assert_eq!(resumed.attempt(&"web1".parse().unwrap()), 1);
    let (old, mut seen) = ("web1 old\nweb2 old\nweb3 old", seen(text, 0));
    assert_eq!(plan(&resumed, &seen, NOW).orders.len(), 1, "what is said of the attempt before counts no more");
    seen.clear();
    check(&resumed, old, "web1", "told waiting waiting");
}

#[test]
fn what_was_told_may_still_end_while_it_is_paused() {
    let mut paused = planned(&upgrade(3), "web1 old\nweb2 old\nweb3 old").upgrade;
    paused.state = State::Paused(Paused::By("ana".into()));
    let done = check(&paused, "web1 new\nweb2 old\nweb3 old", "", "done waiting waiting");
    check(&done.resumed(), "web1 new\nweb2 old\nweb3 old", "web2", "done told waiting");
}

#[test]
fn hosts_that_are_away_are_passed_over_and_taken_when_they_return() {
    let begun = check(&upgrade(4), "web1 away\nweb2 old\nweb3 old\nweb4 away", "web2", "away told waiting away");
    let proven = check(&begun, "web1 away\nweb2 new\nweb3 old\nweb4 away", "web3", "away done told away");
    let waits = check(&proven, "web1 away\nweb2 new\nweb3 new\nweb4 away", "", "away done done away");
    assert_eq!(waits.state, State::Active, "it waits for those that are away");
    check(&waits, "web1 old\nweb2 new\nweb3 new\nweb4 old", "web1", "told done done waiting");
    check(&waits, "web1 away\nweb2 new\nweb3 new\nweb4 old", "web4", "away done done told");
}

#[test]
fn a_host_that_does_not_come_back_fails_after_the_time_that_going_back_would_take() {
    let begun = planned(&upgrade(2), "web1 old\nweb2 old").upgrade;
    check(&begun, "web1 away 239\nweb2 old", "web1", "returning waiting");
    let failed = check(&begun, "web1 away 240\nweb2 old", "", "failed waiting");
    let State::Paused(Paused::Failure { problem, .. }) = failed.state else { panic!() };
    assert_eq!(problem.code, Code(557));
}

#[test]
fn hosts_that_take_no_package_are_left_out_with_their_reason_and_do_not_hold_the_others_up() {
    let begun = check(&upgrade(3), "web1 refuses\nweb2 arm\nweb3 old", "web3", "left-out left-out told");
    let over = check(&begun, "web1 refuses\nweb2 arm\nweb3 new", "", "left-out left-out done");
    assert_eq!(over.state, State::Succeeded);
    check(&upgrade(2), "web1 old", "web1", "told left-out");
}

#[test]
fn a_host_that_runs_the_package_already_is_done_and_proves_it() {
    check(&upgrade(4), "web1 new\nweb2 old\nweb3 old\nweb4 old", "web2", "done told waiting waiting");
}

#[test]
fn what_was_aborted_tells_nobody_anything() {
    let mut aborted = planned(&upgrade(2), "web1 old\nweb2 old").upgrade;
    aborted.state = State::Aborted { by: "ana".into() };
    check(&aborted, "web1 old\nweb2 old", "", "told waiting");
}
