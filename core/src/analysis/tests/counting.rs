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
fn a_reading_that_fails_changes_nothing() {
    let mut meters = Meters::default();
    let ready = |requests| report("p1", &[("web1/0", requests, 0, MemberState::Ready)]);
    meters.read(&lb(), &ready(100), Moment(0), old);
    let broken = PoolReport { problem: Some(Problem::new(Code(401), "gone")), ..PoolReport::default() };
    meters.read(&lb(), &broken, Moment(0), old);
    meters.read(&lb(), &ready(110), Moment(0), old);
    assert_eq!(meters.take().sum(Whose::Old), Counts::new(10, 0));
}

/// What a load balancer says of one member, second by second: nothing, that it has no such server, or its state, requests in
/// flight and requests.
#[derive(Clone, Copy)]
enum Says {
    Nothing,
    NoServer,
    Has(MemberState, u64, u64),
}

/// What was counted of it, how often counters began anew, and why nothing is proven.
type Counted = (u64, u32, Option<String>);

/// Its name, what is said, what of that a rollout begins with, and what it comes to.
type Coming = (&'static str, Vec<(u64, Says)>, usize, Counted);

/// What it comes to, where a rollout begins with one of what is said.
fn coming_and_going(says: &[(u64, Says)], begins_with: usize) -> Counted {
    let (mut meters, mut proof) = (Meters::default(), Proof::default());
    for (number, (second, says)) in says.iter().enumerate() {
        let at = Moment(second * 1000);
        let mut report = report("p1", &[("web2/0", second * 10, 0, MemberState::Ready)]);
        let member = match *says {
            Says::Nothing => None,
            Says::NoServer => Some(MemberReport::quiet(MemberState::Out)),
            Says::Has(state, in_flight, requests) => {
                Some(MemberReport { requests, in_flight, ..MemberReport::quiet(state) })
            }
        };
        report.members.extend(member.map(|member| ("web1/0".parse().unwrap(), member)));
        if number == begins_with {
            meters.relabel();
        }
        meters.read(&lb(), &report, at, new);
        let traffic = meters.take();
        proof.take(&traffic, None, at);
    }
    let others = says.last().map_or(0, |(second, _)| second * 10);
    (proof.new.requests - others, proof.restarts, proof.unproven())
}

#[test]
fn a_member_that_is_gone_and_comes_back_goes_on_or_leaves_a_hole_and_while_it_is_away_nothing_is_proven() {
    use MemberState::{Out, Ready};
    use Says::{Has, NoServer, Nothing};
    const NEVER: usize = usize::MAX;
    let away = |seconds| Some(format!("lb1 no longer says what web1/0 answered, for {seconds}s, so nothing is proven"));
    let hole = |missing: &str| {
        Some(format!("the counters of lb1 began anew once, and for up to {missing} nobody counted, so nothing is proven"))
    };
    let has = |requests| Has(Ready, 0, requests);
    for gone in [Nothing, NoServer] {
        let cases: [Coming; 10] = [
            ("back in time", vec![(0, has(5)), (2, gone), (4, gone), (6, has(45))], NEVER, (40, 0, None)),
            ("still away", vec![(0, has(5)), (2, has(9)), (4, gone), (6, gone)], NEVER, (4, 0, away(4))),
            ("back with less", vec![(0, has(5)), (2, gone), (6, has(4)), (8, has(6))], NEVER, (2, 1, hole("6s"))),
            ("away too long", vec![(0, has(5)), (2, gone), (603, gone), (604, has(90))], NEVER, (0, 1, hole("10m 3s"))),
            ("out, and back in time", vec![(0, Has(Out, 0, 5)), (2, gone), (4, has(8))], NEVER, (3, 0, None)),
            ("out, still away", vec![(0, Has(Out, 0, 5)), (2, gone)], NEVER, (0, 0, None)),
            ("out, back with less", vec![(0, Has(Out, 0, 5)), (2, gone), (4, has(4)), (6, has(6))], NEVER, (2, 0, None)),
            ("out, but with a request in flight", vec![(0, Has(Out, 1, 5)), (2, gone)], NEVER, (0, 0, away(2))),
            ("away since before the rollout", vec![(0, has(5)), (2, gone), (4, gone)], 2, (0, 0, None)),
            ("back in another rollout", vec![(0, has(5)), (2, gone), (4, has(9)), (6, has(10))], 2, (1, 1, hole("4s"))),
        ];
        for (name, says, begins_with, expect) in cases {
            assert_eq!(coming_and_going(&says, begins_with), expect, "{name}");
        }
    }
}

#[test]
fn no_more_members_that_are_gone_are_waited_for_than_a_balancer_may_have() {
    let mut meters = Meters::default();
    for look in 0..3_u64 {
        let members = (0..900).map(|number| {
            let member = MemberReport { requests: 9, ..MemberReport::quiet(MemberState::Ready) };
            (format!("web{look}-{number}/0").parse().unwrap(), member)
        });
        let report = PoolReport { balancer: "p1".into(), members: members.collect(), ..PoolReport::default() };
        meters.read(&lb(), &report, Moment(look * 2000), new);
    }
    let traffic = meters.take();
    assert_eq!((traffic.restarts, traffic.gone.len()), (1, 0), "more than a thousand are a hole");
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
