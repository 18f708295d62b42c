use super::super::counts::Counts;
use super::super::history::Summary;
use super::super::judgement::{Judgement, Settings};
use super::super::meters::Whose;
use super::super::series::{Answer, Instances, Sample, Series, instances};
use super::super::settings::{GuardSettings, Sources};
use super::super::source::Slots;
use super::Chance;
use crate::name::{Digest, ReleaseId};
use crate::scrape::Totals;

fn release(version: &str) -> ReleaseId {
    ReleaseId(Digest::of(version.as_bytes()))
}

fn series(series: &[(&str, f64)]) -> Vec<Sample> {
    let labels = |instance: &str| [("instance", instance), ("job", "shop")].map(|(name, value)| (name.into(), value.into()));
    series.iter().map(|(instance, value)| (labels(instance).into(), *value)).collect()
}

fn said(found: &[(&str, u64, Option<u64>)]) -> Answer {
    let each = found
        .iter()
        .map(|(instance, requests, errors)| ((*instance).to_owned(), Totals { requests: *requests, errors: *errors }));
    Ok(each.collect::<Instances>())
}

fn slots(whose: Whose, counts: &[(&str, u64, u64)]) -> Slots {
    let mut slots = Slots::default();
    counts.iter().for_each(|(slot, requests, errors)| slots.add(whose, (*slot).into(), Counts::new(*requests, *errors)));
    slots
}

#[test]
fn series_are_added_up_by_instance_and_together_where_the_queries_do_not_agree() {
    let asked = series(&[("a", 10.0), ("a", 5.0), ("b", 7.9)]);
    assert_eq!(instances(&asked, &series(&[("b", 2.0)])), said(&[("a", 15, None), ("b", 7, Some(2))]));
    assert_eq!(instances(&asked, &series(&[("c", 2.0)])), said(&[("", 22, Some(2))]));
    let alone: Sample = (std::collections::BTreeMap::new(), 40.0);
    assert_eq!(instances(std::slice::from_ref(&alone), &series(&[("a", 1.0), ("b", 1.0)])), said(&[("", 40, Some(2))]));
    let many: Vec<Sample> = (0..2000).flat_map(|number| series(&[(&format!("i{number}"), 1.0)])).collect();
    assert_eq!(instances(&many, &[]), said(&[("", 2000, None)]));
}

#[test]
fn no_data_and_what_no_counter_can_be_are_reasons_and_no_numbers() {
    assert_eq!(instances(&[], &series(&[("a", 1.0)])), Err("the query for requests finds nothing".into()));
    for (bad, shown) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (-1.0, "-1"), (1e300, "1")] {
        for why in [instances(&series(&[("a", bad)]), &[]), instances(&series(&[("a", 1.0)]), &series(&[("a", bad)]))] {
            assert!(why.as_ref().is_err_and(|why| why.starts_with(&format!("a series is {shown}"))), "{why:?}");
        }
    }
}

#[test]
fn what_counts_is_the_difference_of_two_answers_about_one_instance() {
    let mut known = Series::default();
    let mut see = |answer| {
        known.see(release("2"), Whose::New, answer);
        known.take()
    };
    assert_eq!(see(said(&[("a", 100, None)])), Slots::default());
    assert_eq!(see(said(&[("a", 110, Some(2)), ("b", 50, Some(50))])), slots(Whose::New, &[("a", 10, 2)]));
    // One went back, one is gone; what comes back may have been another process meanwhile.
    assert_eq!(see(said(&[("a", 4, Some(0))])), Slots::default());
    assert_eq!(see(said(&[("a", 6, Some(0)), ("b", 90, Some(90))])), slots(Whose::New, &[("a", 2, 0)]));
    assert_eq!(see(Err("no connection".into())), Slots::default());
    assert_eq!(see(said(&[("a", 9, Some(1)), ("b", 91, Some(90))])), slots(Whose::New, &[("a", 3, 1), ("b", 1, 0)]));
}

#[test]
fn whoever_is_away_or_says_nothing_useful_is_evidence_for_nobody_and_it_is_said() {
    let mut known = Series::default();
    assert_eq!(known.doubts("2.0", "1.0"), ["nothing was asked of 2.0 yet", "nothing was asked of 1.0 yet"]);
    known.see(release("2"), Whose::New, Err("requests: no connection: refused".into()));
    known.see(release("1"), Whose::Old, said(&[("a", 9, None)]));
    let doubts = known.doubts("2.0", "1.0");
    assert_eq!(doubts[0], "2.0: requests: no connection: refused");
    assert!(doubts.len() == 2 && doubts[1].starts_with("nothing is there yet that counts errors"), "{doubts:?}");
    known.see(release("2"), Whose::New, said(&[("b", 9, Some(0))]));
    assert_eq!(known.doubts("2.0", "1.0"), [""; 0]);
    // A release that is no more is forgotten, and what stays is the old one of what comes next.
    known.keep(|known| *known == release("2"));
    known.relabel();
    assert_eq!(known.doubts("3.0", "2.0"), ["nothing was asked of 3.0 yet"]);
}

#[test]
fn a_release_that_fails_more_often_by_a_prometheus_is_taken_back_and_one_block_is_not_enough() {
    const GUARD: GuardSettings = GuardSettings {
        alpha_ppm: 10_000,
        ratio_percent: 120,
        margin_ppm: 1_000,
        memory: true,
        sources: Sources { metrics: false, prometheus: true },
    };
    let nothing = Summary { polls: 0, slots: 0, counts: Counts::default(), phi: 1.0 };
    let (mut chance, mut judgement, mut looks) = (Chance(1), Judgement::default(), 0);
    while judgement.verdict_of_prometheus("2.1.0", "2.0.4").is_none() {
        looks += 1;
        let (new, old) = (chance.counts(200, 0.5), chance.counts(200, 0.0));
        let mut slots = slots(Whose::New, &[("10.0.0.11:8101", new.requests, new.errors)]);
        slots.add(Whose::Old, "10.0.0.12:8101".into(), old);
        let settings = Settings { guard: &GUARD, gate: None, on_trial: true, alone: false };
        judgement.look_at_series(settings, &nothing, slots);
        assert!(looks <= 4);
    }
    assert!(looks >= 2);
    let problem = judgement.verdict_of_prometheus("2.1.0", "2.0.4").unwrap();
    assert_eq!(problem.code.0, 901);
    assert!(problem.seen[3].1.ends_with("by Prometheus, most of them at 10.0.0.11:8101"), "{problem:?}");
}
