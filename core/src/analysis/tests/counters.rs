use super::super::counters::Counters;
use super::super::counts::Counts;
use super::super::history::Summary;
use super::super::judgement::{Judgement, Settings};
use super::super::meters::Whose;
use super::super::settings::{GuardSettings, Sources};
use super::super::signals::weights;
use super::super::source::{Slots, Source};
use super::Chance;
use crate::fleet::MemberKey;
use crate::fleet::report::{InstanceReport, InstanceState};
use crate::name::{Digest, ReleaseId};
use crate::scrape::{Reading, Totals};
use std::time::Duration;

const GUARD: GuardSettings =
    GuardSettings { alpha_ppm: 10_000, ratio_percent: 120, margin_ppm: 1_000, memory: true, sources: METRICS };
const METRICS: Sources = Sources { metrics: true, prometheus: false };
const ON_TRIAL: Settings<'_> = Settings { guard: &GUARD, gate: None, on_trial: true, alone: false };
const NOTHING: Summary = Summary { polls: 0, slots: 0, counts: Counts { requests: 0, errors: 0 }, phi: 1.0 };

fn member(text: &str) -> MemberKey {
    text.parse().unwrap()
}

fn instance(incarnation: &str) -> InstanceReport {
    let state = InstanceState::Ready { since: Duration::from_secs(9) };
    InstanceReport { release: ReleaseId(Digest::of(b"shop")), incarnation: incarnation.into(), start: 0, state }
}

fn counted(requests: u64, errors: impl Into<Option<u64>>) -> Reading {
    Reading::Counted(Totals { requests, errors: errors.into() })
}

fn slots(new: &[(&str, u64, u64)], old: &[(&str, u64, u64)]) -> Slots {
    let mut slots = Slots::default();
    for (whose, counts) in [(Whose::New, new), (Whose::Old, old)] {
        counts.iter().for_each(|(slot, requests, errors)| slots.add(whose, (*slot).into(), Counts::new(*requests, *errors)));
    }
    slots
}

#[test]
fn what_counts_is_the_difference_of_two_readings_of_one_process() {
    let mut counters = Counters::default();
    let mut see = |incarnation, whose, reading| {
        counters.see(&member("web1/0"), &instance(incarnation), whose, &reading);
        counters.take()
    };
    // What it counted before anybody looked is nobody's.
    assert_eq!(see("1", Whose::Old, counted(5000, 70)), Slots::default());
    assert_eq!(see("1", Whose::Old, counted(5010, 71)), slots(&[], &[("web1/0", 10, 1)]));
    assert_eq!(see("1", Whose::Old, counted(5010, 71)), Slots::default());
    // It goes back: the process began to count anew, and so does whoever reads it.
    assert_eq!(see("1", Whose::Old, counted(40, 0)), Slots::default());
    assert_eq!(see("1", Whose::Old, counted(50, 0)), slots(&[], &[("web1/0", 10, 0)]));
    assert_eq!(see("1", Whose::Old, counted(60, None)), slots(&[], &[("web1/0", 10, 0)]));
    // A series that appears with the first failure began at nothing.
    assert_eq!(see("1", Whose::Old, counted(70, 3)), slots(&[], &[("web1/0", 10, 3)]));
    assert_eq!(see("1", Whose::Old, counted(80, None)), Slots::default(), "errors went back");
    // Another process in its place, although its counters are higher.
    assert_eq!(see("2", Whose::New, counted(9000, 900)), Slots::default());
    assert_eq!(see("2", Whose::New, counted(9001, 900)), slots(&[("web1/0", 1, 0)], &[]));
    // More errors than requests cannot be, and is made possible.
    assert_eq!(see("2", Whose::New, counted(9002, 905)), slots(&[("web1/0", 5, 5)], &[]));
    assert_eq!(see("2", Whose::Other, counted(9100, 905)), Slots::default());
}

#[test]
fn what_cannot_be_read_is_evidence_for_nobody_and_is_said() {
    let mut counters = Counters::default();
    assert_eq!(counters.doubts("2.0", "1.0"), ["no agent has read those of 2.0 yet", "no agent has read those of 1.0 yet"]);
    counters.see(&member("web1/0"), &instance("1"), Whose::Old, &counted(10, 0));
    counters.see(&member("web2/1"), &instance("1"), Whose::New, &counted(10, 0));
    assert_eq!(counters.doubts("2.0", "1.0"), [""; 0]);
    counters.see(&member("web2/1"), &instance("1"), Whose::New, &Reading::Trouble("no answer within 1 s".into()));
    assert_eq!(
        (counters.take(), counters.doubts("2.0", "1.0")),
        (Slots::default(), vec!["web2/1: no answer within 1 s".into()])
    );
    // What was counted meanwhile is not lost, since the process is the same.
    counters.see(&member("web2/1"), &instance("1"), Whose::New, &counted(30, 20));
    assert_eq!(counters.take(), slots(&[("web2/1", 20, 20)], &[]));

    let mut counters = Counters::default();
    for slot in 0..6 {
        let trouble = Reading::Trouble("the page has no metrics".into());
        counters.see(&member(&format!("web{slot}/0")), &instance("1"), Whose::New, &trouble);
    }
    counters.see(&member("web9/1"), &instance("1"), Whose::Old, &counted(7, None));
    let doubts = counters.doubts("2.0", "1.0");
    assert_eq!(doubts.len(), 5, "{doubts:?}");
    assert_eq!(doubts[3], "and 3 instances more that cannot be read");
    assert!(doubts[4].starts_with("nothing is there yet that counts errors"));
}

#[test]
fn a_poll_is_what_came_together_until_both_had_answered_and_nothing_older() {
    let mut source = Source::default();
    source.look(&GUARD, slots(&[("a", 5, 0)], &[]), false);
    source.look(&GUARD, slots(&[("a", 5, 5)], &[]), false);
    assert_eq!((source.new, source.failures.guard.polls()), (Counts::default(), 0));
    source.look(&GUARD, slots(&[], &[("b", 7, 0)]), false);
    assert_eq!((source.new, source.old, source.failures.guard.polls()), (Counts::new(10, 5), Counts::new(7, 0), 1));
    // What failed long before the other release answered anybody is not compared with what it answers now.
    source.look(&GUARD, slots(&[("a", 1000, 1000)], &[]), false);
    (0..20).for_each(|_| source.look(&GUARD, Slots::default(), false));
    source.look(&GUARD, slots(&[], &[("b", 1000, 0)]), false);
    assert_eq!((source.new, source.failures.guard.polls()), (Counts::new(10, 5), 1));
    assert_eq!(source.worst(), Some("a"));
}

#[test]
fn a_release_whose_own_metrics_count_more_failures_is_taken_back_without_any_load_balancer() {
    let (mut chance, mut judgement) = (Chance(1), Judgement::default());
    let mut looks = 0;
    while judgement.verdict("2.1.0", "2.0.4").is_none() {
        looks += 1;
        let (new, old) = (chance.counts(132, 0.2), chance.counts(264, 0.0));
        let slots = slots(&[("web1/1", new.requests, new.errors)], &[("web2/0", old.requests, old.errors)]);
        judgement.look_at_metrics(ON_TRIAL, &NOTHING, slots);
        assert!(looks <= 3);
    }
    let (host, problem) = judgement.verdict("2.1.0", "2.0.4").unwrap();
    assert_eq!((host.as_str(), problem.code.0), ("web1", 901));
    assert!(problem.seen[3].1.ends_with("by its own metrics"), "{problem:?}");
}

#[test]
fn a_rollout_that_goes_back_is_not_judged_by_its_metrics() {
    let mut judgement = Judgement::default();
    for _ in 0..50 {
        let settings = Settings { on_trial: false, ..ON_TRIAL };
        judgement.look_at_metrics(settings, &NOTHING, slots(&[("web1/1", 100, 100)], &[("web2/0", 100, 0)]));
    }
    assert_eq!(judgement.verdict("2", "1"), None);
}

#[test]
fn all_sources_share_one_bet() {
    for sources in [Sources::NONE, METRICS, Sources { metrics: true, prometheus: true }] {
        let all: f64 = weights(sources).map(|(_, weight)| weight).sum();
        assert!((all - 1.0).abs() < 1e-12, "{sources:?}: {all}");
    }
    // Releases that are no worse, in bursts or not: at most one in a hundred is taken back, whoever counts.
    let taken_back = (0..400).filter(|run| {
        let (mut chance, mut judgement) = (Chance(*run), Judgement::default());
        (0..300).any(|_| {
            let (new, old) = (chance.counts(30, 0.01), chance.counts(60, 0.01));
            let slots = slots(&[("web1/1", new.requests, new.errors)], &[("web2/0", old.requests, old.errors)]);
            judgement.look_at_metrics(ON_TRIAL, &NOTHING, slots);
            judgement.verdict("2", "1").is_some()
        })
    });
    assert!(taken_back.count() <= 4);
}
