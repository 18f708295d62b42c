//! Curves as real programs have them, and which of them speak against a release.

use super::super::growth::Growth;
use super::super::memory::Memory;
use super::Chance;
use crate::fleet::MemberKey;
use crate::fleet::report::{InstanceReport, InstanceState};
use crate::name::{Digest, ReleaseId};
use crate::problem::Code;
use std::time::Duration;

const OLD: ReleaseId = ReleaseId(Digest::from_bytes([1; 32]));
const NEW: ReleaseId = ReleaseId(Digest::from_bytes([2; 32]));
const MIB: f64 = 1024.0 * 1024.0;

/// MiB at a second since the instance is ready.
type Course = dyn Fn(f64) -> f64;

/// Filled up after some minutes: `e` times nearer to the end every `minutes`.
fn warms_up(minutes: f64) -> impl Fn(f64) -> f64 {
    move |second| 100.0 + 400.0 * (1.0 - (-second / 60.0 / minutes).exp())
}

fn leaks(per_minute: f64) -> impl Fn(f64) -> f64 {
    move |second| 100.0 + second / 60.0 * per_minute
}

/// A collector that takes away after some minutes what came together since.
fn saw(minutes: f64) -> impl Fn(f64) -> f64 {
    move |second| 150.0 + 300.0 * ((second / 60.0 / minutes) % 1.0)
}

struct Stage {
    memory: Memory,
    chance: Chance,
}

impl Stage {
    /// An old release whose two instances took this course from their start on, for half an hour.
    fn after(old: &Course) -> Self {
        let mut stage = Self { memory: Memory::default(), chance: Chance(7) };
        stage.run(0..1800, &[("web1", OLD, 0, old), ("web2", OLD, 0, old)]);
        stage.memory = begun(&stage.memory.growth);
        stage
    }

    /// Lets time pass; each instance says all eight seconds what it takes, a little more or less. `since`: when it was ready.
    fn run(&mut self, seconds: std::ops::Range<u64>, instances: &[(&str, ReleaseId, u64, &Course)]) -> Option<u64> {
        let (mut first, mut said) = (None, false);
        for second in seconds.step_by(8) {
            for (host, release, ready, course) in instances.iter().filter(|it| it.2 <= second) {
                let since = Duration::from_secs(second - ready);
                let mib = course(since.as_secs_f64()) + 0.5 * self.chance.unit();
                let member = MemberKey { host: host.parse().unwrap(), slot: crate::name::Slot(0) };
                self.memory.growth.see(&member, &ready_for(*release, since), (mib * MIB) as u64);
            }
            self.memory.look(NEW, OLD);
            said |= self.memory.ask("2.0", "1.0").is_some();
            if first.is_none() && (said || self.memory.verdict("2.0", "1.0").is_some()) {
                first = Some(second);
            }
        }
        first
    }
}

/// What a rollout begins with.
fn begun(growth: &Growth) -> Memory {
    let mut memory = Memory::default();
    memory.growth.clone_from(growth);
    memory
}

fn ready_for(release: ReleaseId, since: Duration) -> InstanceReport {
    let state = InstanceState::Ready { since };
    InstanceReport { release, incarnation: release.to_string(), start: 0, state }
}

/// A rollout whose new instances take a course on two hosts, with an old one beside them.
fn found(old: &Course, new: &Course) -> (Option<u64>, Stage) {
    let mut stage = Stage::after(old);
    let found = stage.run(1800..5400, &[("web1", NEW, 1800, new), ("web2", NEW, 1900, new), ("web3", OLD, 0, old)]);
    (found, stage)
}

#[test]
fn a_leak_is_evidence_within_six_minutes_and_says_its_numbers() {
    let (found, stage) = found(&|_| 100.0, &leaks(38.0));
    // Since both are ready.
    let after = found.unwrap() - 1900;
    assert!((270..=360).contains(&after), "{after}");
    let (host, problem) = stage.memory.verdict("2.0", "1.0").unwrap();
    assert_eq!(problem.code, Code(905));
    assert!(["web1", "web2"].contains(&host.as_str()));
    let said = problem.seen[0].1.as_str();
    assert!(said.starts_with("memory of 2 of 2 instances of 2.0 grew 38 MiB/min for 4 min, to "), "{said}");
    let (whose, said) = &problem.seen[2];
    assert!(whose == "1.0, meanwhile" && said.starts_with("at most 0."), "{whose}: {said}");
}

#[test]
fn who_warms_up_as_the_old_release_did_is_never_held() {
    for minutes in [0.2, 1.0, 3.0, 5.0, 10.0, 20.0, 60.0, 200.0] {
        let course = warms_up(minutes);
        let (found, _) = found(&course, &course);
        assert_eq!(found, None, "{minutes} min");
    }
}

#[test]
fn who_warms_up_and_the_old_release_did_not_is_not_held_where_it_comes_to_an_end() {
    for minutes in [0.2, 0.5, 1.0, 2.0, 4.0, 6.0] {
        assert_eq!(found(&|_| 100.0, &warms_up(minutes)).0, None, "{minutes} min");
    }
}

#[test]
fn a_collector_that_cleans_up_is_no_leak_however_often_it_does() {
    for minutes in [0.1, 0.4, 1.0, 2.0, 3.7] {
        assert_eq!(found(&|_| 100.0, &saw(minutes)).0, None, "every {minutes} min, and the old one keeps still");
    }
    for minutes in [4.0, 6.0, 9.0, 15.0, 25.0] {
        assert_eq!(found(&saw(minutes), &saw(minutes)).0, None, "every {minutes} min, and so does the old one");
        let faster = saw(minutes / 1.5);
        assert_eq!(found(&saw(minutes), &faster).0, None, "more often than every {minutes} min");
    }
}

#[test]
fn a_leak_beneath_a_saw_is_found() {
    let collects = |second: f64| saw(0.37)(second) / 10.0;
    let new = move |second: f64| collects(second) + leaks(40.0)(second);
    let (found, stage) = found(&collects, &new);
    assert!(found.is_some() && stage.memory.verdict("2.0", "1.0").is_some());
}

#[test]
fn an_old_release_that_leaks_as_much_is_no_evidence_against_the_new_one() {
    assert_eq!(found(&leaks(38.0), &leaks(38.0)).0, None);
    assert_eq!(found(&leaks(38.0), &leaks(60.0)).0, None);
}

#[test]
fn growth_that_comes_from_what_hits_both_releases_is_no_evidence() {
    let mut stage = Stage::after(&|_| 100.0);
    // An old instance, grown up, takes more and more at the same time.
    let (crowd, new) = (|second: f64| 100.0 + (second - 1800.0).max(0.0) / 60.0 * 30.0, leaks(30.0));
    let found = stage.run(1800..3600, &[("web1", NEW, 1800, &new), ("web2", NEW, 1800, &new), ("web3", OLD, 0, &crowd)]);
    assert_eq!(found, None);
}

#[test]
fn nobody_is_asked_about_the_first_of_two_that_grow() {
    let (mut stage, new, old) = (Stage::after(&|_| 100.0), leaks(38.0), |_: f64| 100.0);
    let instances: [(&str, ReleaseId, u64, &Course); 3] =
        [("web1", NEW, 1800, &new), ("web2", NEW, 1860, &new), ("web3", OLD, 0, &old)];
    let mut asked = false;
    for second in (1800..2400).step_by(8) {
        stage.run(second..second + 8, &instances);
        asked |= stage.memory.ask("2.0", "1.0").is_some();
    }
    assert!(!asked && stage.memory.verdict("2.0", "1.0").is_some());
}

#[test]
fn one_instance_or_no_old_one_beside_it_asks_a_person_once() {
    for hosts in [&["web1"][..], &["web1", "web2"]] {
        let (mut stage, new) = (Stage::after(&|_| 100.0), leaks(38.0));
        for old in ["web1", "web2"] {
            stage.memory.growth.forget(&MemberKey { host: old.parse().unwrap(), slot: crate::name::Slot(0) });
        }
        let instances: Vec<_> = hosts.iter().map(|host| (*host, NEW, 1800, &new as &Course)).collect();
        assert!(stage.run(1800..2200, &instances).is_some());
        assert_eq!(stage.memory.verdict("2.0", "1.0"), None, "no evidence");
        let asked_again = (0..100).any(|_| stage.memory.ask("2.0", "1.0").is_some());
        assert!(!asked_again);
    }
}

#[test]
fn without_anything_to_compare_with_nothing_is_held_and_that_is_said() {
    let (mut stage, new) = (Stage { memory: Memory::default(), chance: Chance(7) }, leaks(100.0));
    let found = stage.run(0..3600, &[("web1", NEW, 0, &new), ("web2", NEW, 0, &new)]);
    assert_eq!(found, None);
    let said = stage.memory.words("1.0").unwrap();
    assert_eq!(said, "grew 100 MiB/min at most; not compared: no instance of 1.0 was seen at that age");
    assert_eq!(Memory::default().words("1.0"), None);
}

#[test]
fn lost_reports_are_no_growth_and_a_restart_begins_anew() {
    let mut growth = Growth::default();
    let member: MemberKey = "web1/0".parse().unwrap();
    let seen = |growth: &mut Growth, second: u64, mib: u64| {
        growth.see(&member, &ready_for(NEW, Duration::from_secs(second)), mib << 20);
    };
    for step in 0..17 {
        // Two steps of silence in between.
        if !(8..10).contains(&step) {
            seen(&mut growth, step * 30, 100 + step);
        }
    }
    assert_eq!(growth.of(NEW).map(|grown| (grown.by >> 10, grown.steadily)).collect::<Vec<_>>(), [(8, true)]);
    seen(&mut growth, 3, 500);
    assert_eq!(growth.of(NEW).count(), 0, "a new start has no window yet");
    for second in [u64::MAX, 0, 31, u64::MAX] {
        seen(&mut growth, second, u64::MAX >> 20);
    }
    assert!(growth.usual(NEW, u32::MAX).is_none_or(|by| by > 0));
}
