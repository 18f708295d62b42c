use super::super::counts::Counts;
use super::super::meters::{Meters, Whose};
use super::super::proof::{Capacity, Cut, Proof};
use crate::fleet::MemberKey;
use crate::fleet::report::{MemberReport, PoolReport};
use crate::fleet::spec::MemberState;
use crate::name::HostName;
use crate::problem::{Code, Problem};
use crate::time::Moment;
use std::time::Duration;

fn lb() -> HostName {
    "lb1".parse().unwrap()
}

fn report(process: &str, members: &[(&str, u64, u64, MemberState)]) -> PoolReport {
    let member = |(key, requests, errors, running): &(&str, u64, u64, MemberState)| {
        let report = MemberReport { requests: *requests, errors: *errors, ..MemberReport::quiet(*running) };
        (key.parse().unwrap(), report)
    };
    PoolReport { balancer: process.into(), members: members.iter().map(member).collect(), ..PoolReport::default() }
}

fn new(_: &MemberKey) -> Option<Whose> {
    Some(Whose::New)
}

fn old(_: &MemberKey) -> Option<Whose> {
    Some(Whose::Old)
}

#[test]
fn only_what_came_since_the_last_look_counts() {
    let mut meters = Meters::default();
    meters.read(&lb(), &report("p1", &[("web1/0", 100, 5, MemberState::Ready)]), Moment(0), old);
    assert_eq!(meters.take().sum(Whose::Old), Counts::default(), "what was before belongs to nobody");
    meters.read(&lb(), &report("p1", &[("web1/0", 130, 6, MemberState::Ready)]), Moment(0), old);
    meters.read(&lb(), &report("p1", &[("web1/0", 140, 6, MemberState::Ready)]), Moment(0), old);
    assert_eq!(meters.take().sum(Whose::Old), Counts::new(40, 1));
    assert_eq!(meters.take().sum(Whose::Old), Counts::default());
}

#[test]
fn what_a_member_answers_on_its_way_out_belongs_to_whoever_was_there() {
    let mut meters = Meters::default();
    meters.read(&lb(), &report("p1", &[("web1/0", 100, 0, MemberState::Ready)]), Moment(0), old);
    meters.read(&lb(), &report("p1", &[("web1/0", 110, 2, MemberState::Out)]), Moment(0), new);
    assert_eq!(meters.take().sum(Whose::Old), Counts::new(10, 2));
    meters.read(&lb(), &report("p1", &[("web1/0", 115, 3, MemberState::Ready)]), Moment(0), new);
    let traffic = meters.take();
    assert_eq!((traffic.sum(Whose::New), traffic.sum(Whose::Old)), (Counts::new(5, 1), Counts::default()));
}

#[test]
fn what_was_cut_is_known_by_host_and_as_old_as_it_was_when_it_was_last_seen() {
    let (mut meters, mut proof) = (Meters::default(), Proof::default());
    let mut read = |cut: [u64; 2], oldest: Option<u64>| {
        let mut report = report("p1", &[("web1/0", 9, 0, MemberState::Out), ("web2/1", 9, 0, MemberState::Out)]);
        for (member, cut) in report.members.values_mut().zip(cut) {
            (member.cut, member.oldest) = (cut, oldest.map(Duration::from_secs));
        }
        meters.read(&lb(), &report, Moment(0), old);
        proof.take(&meters.take(), None, Moment(0));
    };
    read([0, 0], Some(31));
    read([2, 0], None);
    read([2, 1], None);
    let cut = |requests, oldest: Option<u64>| Cut { requests, oldest: oldest.map(Duration::from_secs) };
    let expect = [("web1".parse().unwrap(), cut(2, Some(31))), ("web2".parse().unwrap(), cut(1, None))];
    assert_eq!((proof.cut, proof.cuts), (3, expect.into()));
}

#[test]
fn counters_that_begin_anew_are_never_counted_twice_or_backwards() {
    let mut meters = Meters::default();
    meters.read(&lb(), &report("p1", &[("web1/0", 100, 5, MemberState::Ready)]), Moment(0), old);
    meters.read(&lb(), &report("p2", &[("web1/0", 7, 7, MemberState::Ready)]), Moment(0), old);
    let traffic = meters.take();
    assert_eq!((traffic.sum(Whose::Old), traffic.restarts), (Counts::default(), 1));
    meters.read(&lb(), &report("p2", &[("web1/0", 3, 7, MemberState::Ready)]), Moment(0), old);
    let traffic = meters.take();
    assert_eq!((traffic.sum(Whose::Old), traffic.restarts), (Counts::default(), 1), "back without a restart");
    meters.read(&lb(), &report("p2", &[("web1/0", 4, 9, MemberState::Ready)]), Moment(0), old);
    assert_eq!(
        meters.take().sum(Whose::Old),
        Counts::new(2, 2),
        "more failures than requests are at least as many requests"
    );
}

#[test]
fn a_member_that_vanished_begins_anew_and_a_broken_reading_changes_nothing() {
    let mut meters = Meters::default();
    let both = report("p1", &[("web1/0", 100, 0, MemberState::Ready), ("web2/0", 50, 0, MemberState::Ready)]);
    meters.read(&lb(), &both, Moment(0), old);
    meters.read(&lb(), &report("p1", &[("web1/0", 110, 0, MemberState::Ready)]), Moment(0), old);
    let broken = PoolReport { problem: Some(Problem::new(Code(401), "gone")), ..PoolReport::default() };
    meters.read(&lb(), &broken, Moment(0), old);
    meters.read(&lb(), &both, Moment(0), old);
    assert_eq!(
        meters.take().sum(Whose::Old),
        Counts::new(10, 0),
        "110 and back to 100 is no traffic; 50 is where web2 begins"
    );
}

#[test]
fn capacity_is_the_fewest_that_served_and_how_long_others_did_not() {
    let mut capacity = Capacity::default();
    for (at, serving) in [(0, 3), (1_000, 2), (1_500, 2), (3_000, 3), (3_500, 1), (4_000, 3)] {
        capacity.see(serving, 3, Moment(at));
    }
    capacity.close(Moment(9_000));
    assert_eq!(capacity.least, Some((1, 3)));
    assert_eq!(capacity.missed, Duration::from_millis(2_000 + 2 * 500));
    let seen = capacity.clone();
    capacity.close(Moment(99_000));
    assert_eq!(capacity, seen, "it is over");
}

#[test]
fn seeing_the_same_again_changes_nothing() {
    let mut capacity = Capacity::default();
    capacity.see(2, 3, Moment(1_000));
    let seen = capacity.clone();
    capacity.see(2, 3, Moment(2_000));
    assert_eq!(capacity, seen);
}

#[test]
fn a_hole_says_which_balancer_did_not_count_and_for_how_long_and_with_one_nothing_is_proven() {
    let ready = |process: &str, requests| report(process, &[("web1/0", requests, 0, MemberState::Ready)]);
    let broken = PoolReport { problem: Some(Problem::new(Code(401), "gone")), ..PoolReport::default() };
    let unproven = |reports: &[(u64, &PoolReport)]| {
        let (mut meters, mut proof) = (Meters::default(), Proof::default());
        for (at, report) in reports {
            meters.read(&lb(), report, Moment(*at), new);
            proof.take(&meters.take(), None, Moment(*at));
        }
        proof.unproven()
    };
    let (first, second, anew, later) = (ready("p1", 9), ready("p1", 40), ready("p2", 3), ready("p2", 50));
    let whole = [(0, &first), (2_000, &second)];
    assert_eq!(unproven(&whole), None);
    assert_eq!(unproven(&whole[..1]).unwrap(), "no request was counted, so nothing is proven");
    let once = "the counters of lb1 began anew once, and for up to 2s nobody counted, so nothing is proven";
    assert_eq!(unproven(&[whole[0], whole[1], (4_000, &anew), (6_000, &later)]).unwrap(), once);
    let back = "the counters of lb1 began anew 2 times, and for up to 9s nobody counted, so nothing is proven";
    assert_eq!(unproven(&[whole[1], (4_000, &first), (5_000, &second), (12_000, &anew)]).unwrap(), back);
    // One that cannot be read goes on counting: what it answered is known once it can be.
    let unread = "the counters of lb1 could not be read at last, for 4s, so nothing is proven";
    let gone = [whole[0], whole[1], (4_000, &broken), (6_000, &broken)];
    assert_eq!(unproven(&gone).unwrap(), unread);
    let healed = ready("p1", 90);
    assert_eq!(unproven(&[&gone[..], &[(8_000, &healed)]].concat()), None);
}
