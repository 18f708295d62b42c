use super::super::counts::{Counts, Unit};
use super::super::history::Summary;
use super::super::judgement::{Judgement, Settings};
use super::super::meters::{Traffic, Whose};
use super::super::proof::Cut;
use super::super::settings::{GateSettings, GuardSettings, NotEnough, Sources};
use super::Chance;
use crate::fleet::MemberKey;
use crate::time::Moment;
use std::time::Duration;

const GUARD: GuardSettings =
    GuardSettings { alpha_ppm: 10_000, ratio_percent: 120, margin_ppm: 1_000, memory: true, sources: Sources::NONE };
const GATE: GateSettings =
    GateSettings { rule_out_ppm: 10_000, max_wait: Duration::ZERO, on_not_enough_data: NotEnough::Pause };
const ON_TRIAL: Settings<'_> = Settings { guard: &GUARD, gate: Some(&GATE), on_trial: true, alone: false };

fn traffic(chance: &mut Chance, new: (u64, f64), old: (u64, f64)) -> Traffic {
    let slot = |whose: Whose, host: &str| (whose, MemberKey { host: host.parse().unwrap(), slot: crate::name::Slot(0) });
    let slots = [
        (slot(Whose::New, "web1"), chance.counts(new.0, new.1)),
        (slot(Whose::Old, "web2"), chance.counts(old.0, old.1)),
        (slot(Whose::Old, "web3"), chance.counts(old.0, old.1)),
    ];
    Traffic { slots: slots.into(), ..Traffic::default() }
}

#[test]
fn a_release_that_fails_a_fifth_of_its_requests_is_noticed_within_three_looks() {
    let (mut chance, mut judgement) = (Chance(1), Judgement::default());
    let mut looks = 0;
    while judgement.verdict("2.1.0", "2.0.4").is_none() {
        looks += 1;
        judgement.look(ON_TRIAL, &traffic(&mut chance, (132, 0.2), (132, 0.0)), Moment(looks * 2000));
        assert!(looks <= 3);
    }
    let (host, problem) = judgement.verdict("2.1.0", "2.0.4").unwrap();
    assert_eq!((host.as_str(), judgement.failures.unit), ("web1", Some(Unit::Requests)));
    assert!(problem.seen[0].1.ends_with("requests failed") && problem.seen[1].1.starts_with("0 of"), "{problem:?}");
}

const ALONE: Settings<'_> = Settings { alone: true, gate: None, ..ON_TRIAL };

/// Three members of the new release, and nobody beside them.
fn switched(chance: &mut Chance, requests: u64, rate: f64) -> Traffic {
    let slot = |host: &str| (Whose::New, MemberKey { host: host.parse().unwrap(), slot: crate::name::Slot(1) });
    Traffic {
        slots: ["web1", "web2", "web3"].map(|host| (slot(host), chance.counts(requests, rate))).into(),
        ..Traffic::default()
    }
}

/// After an old release that failed at this rate for ten minutes.
fn known(chance: &mut Chance, requests: u64, rate: f64) -> Judgement {
    let counts = chance.counts(requests, rate);
    Judgement::begin(&Summary { counts, slots: 900, polls: 300, phi: 1.0 }, None)
}

#[test]
fn a_release_that_answers_alone_is_held_against_what_the_old_one_did_before() {
    let mut chance = Chance(3);
    for (requests, rate, at_most) in [(66, 0.2, 3), (66, 1.0, 3), (66, 0.05, 10), (5, 1.0, 5), (5, 0.2, 20)] {
        let mut judgement = known(&mut chance, 300 * 3 * requests, 0.001);
        // The switch is seen from both sides, in one look.
        judgement.look(ON_TRIAL, &traffic(&mut chance, (requests, rate), (requests, 0.001)), Moment(0));
        let mut looks = 0;
        while judgement.verdict("2.1.0", "2.0.4").is_none() {
            looks += 1;
            judgement.look(ALONE, &switched(&mut chance, requests, rate), Moment(looks * 2000));
            assert!(looks <= at_most, "{requests} {rate}");
        }
        let problem = judgement.verdict("2.1.0", "2.0.4").unwrap().1;
        assert!(problem.seen[1].0 == "2.0.4, before" && problem.seen[1].1.ends_with("requests failed"), "{problem:?}");
        let caught = judgement.would_have_caught(&GUARD).unwrap();
        assert!(caught < rate * 1.5, "{requests} {rate}: {caught}");
        assert_eq!(judgement.would_notice(&GUARD, 0.2).is_some(), judgement.proof.mixed() > Some(Duration::ZERO));
    }
}

#[test]
fn a_release_that_answers_alone_and_fails_up_to_twice_as_often_is_not_taken_back() {
    let mut chance = Chance(5);
    for before in [0.0, 0.001, 0.01, 0.05] {
        for (requests, remembered) in [(20, 100), (20, 300 * 60), (200, 300 * 600)] {
            for _ in 0..30 {
                let mut judgement = known(&mut chance, remembered, before);
                (0..300).for_each(|look| {
                    judgement.look(ALONE, &switched(&mut chance, requests, before * 2.0), Moment(look * 2000));
                });
                assert_eq!(judgement.verdict("2", "1"), None, "{before} {requests} {remembered}");
            }
        }
    }
}

#[test]
fn what_fails_once_nobody_answers_beside_it_is_no_evidence_against_a_release_that_was_compared() {
    let mut chance = Chance(7);
    let mut judgement = known(&mut chance, 90_000, 0.001);
    for look in 0..30 {
        judgement.look(ON_TRIAL, &traffic(&mut chance, (60, 0.001), (60, 0.001)), Moment(look * 2000));
    }
    assert_eq!(judgement.failures.ask(&GUARD, "2", "1"), None);
    (30..60).for_each(|look| judgement.look(ALONE, &switched(&mut chance, 60, 0.5), Moment(look * 2000)));
    assert_eq!(judgement.verdict("2", "1"), None);
    let asked = judgement.failures.ask(&GUARD, "2", "1").unwrap();
    assert!(
        asked.starts_with("2 fails more often since nothing leads to 1 any more, ") && asked.contains("of 5400"),
        "{asked}"
    );
    assert_eq!(judgement.failures.ask(&GUARD, "2", "1"), None, "once");
    // Nor is anything where nobody knows what the old one did.
    let mut judgement = Judgement::default();
    (0..60).for_each(|look| judgement.look(ALONE, &switched(&mut chance, 60, 0.5), Moment(look * 2000)));
    assert_eq!((judgement.verdict("2", "1"), judgement.would_have_caught(&GUARD)), (None, None));
}

#[test]
fn a_rollout_that_goes_back_is_counted_and_not_judged() {
    let (mut chance, mut judgement) = (Chance(1), Judgement::default());
    for look in 0..100 {
        let settings = Settings { on_trial: false, ..ON_TRIAL };
        judgement.look(settings, &traffic(&mut chance, (100, 1.0), (100, 0.0)), Moment(look * 2000));
    }
    assert_eq!(judgement.verdict("2", "1"), None);
    assert_eq!(judgement.proof.new, Counts::new(10_000, 10_000));
}

#[test]
fn the_gate_says_how_many_requests_it_has_and_needs() {
    let mut judgement = Judgement::default();
    assert_eq!(judgement.missing(&GATE).unwrap().0, 0);
    let mut chance = Chance(1);
    for look in 0..40 {
        judgement.look(ON_TRIAL, &traffic(&mut chance, (3, 0.0), (300, 0.0)), Moment(look * 2000));
    }
    let (has, needs) = judgement.missing(&GATE).unwrap();
    assert_eq!(has, 120);
    assert!((280..=400).contains(&needs), "{needs}");
}

#[test]
fn nothing_counted_is_no_proof_and_a_quiet_time_is_known() {
    let mut judgement = Judgement::default();
    for look in 1..=5 {
        judgement.look(ON_TRIAL, &Traffic::default(), Moment(look * 2000));
    }
    assert_eq!(judgement.proof.all(), None);
    assert_eq!(judgement.proof.quiet, Duration::from_secs(8));
    let mut short = Judgement::default();
    for (at, requests) in [(0, 10), (1300, 0), (2000, 10), (4000, 0), (6000, 10)] {
        short.look(ON_TRIAL, &traffic(&mut Chance(1), (requests, 0.0), (requests, 0.0)), Moment(at));
    }
    assert_eq!(short.proof.quiet, Duration::ZERO, "a look that comes between two readings is no silence");
    judgement.look(ON_TRIAL, &traffic(&mut Chance(1), (10, 0.0), (10, 0.0)), Moment(12_000));
    assert_eq!(judgement.proof.all(), Some(Counts::new(30, 0)));
    assert_eq!(judgement.proof.mixed(), Some(Duration::ZERO));
}

#[test]
fn more_traffic_would_have_caught_less() {
    let mut judgement = Judgement::default();
    assert_eq!(judgement.would_have_caught(&GUARD), None);
    let mut chance = Chance(1);
    let mut before = 1.0;
    for look in 0..30 {
        judgement.look(ON_TRIAL, &traffic(&mut chance, (50, 0.0), (50, 0.0)), Moment(look * 2000));
        let now = judgement.would_have_caught(&GUARD).unwrap_or(1.0);
        assert!(now <= before + 1e-9, "{now} after {before}");
        before = now;
    }
    assert!(before < 0.05, "{before}");
}

#[test]
fn a_request_that_was_cut_and_counted_as_a_failure_is_one() {
    let look = |errors: u64, cut: u64| {
        let slot = (Whose::Old, "web2/0".parse().unwrap());
        let cuts = [("web2".parse().unwrap(), Cut { requests: cut, oldest: None })];
        let cuts = cuts.into_iter().filter(|_| cut > 0).collect();
        Traffic { slots: [(slot, Counts::new(20, errors))].into(), cut, cuts, ..Traffic::default() }
    };
    let failed = |looks: &[(u64, u64)]| {
        let mut judgement = Judgement::default();
        for (at, (errors, cut)) in (1..).zip(looks) {
            judgement.look(ON_TRIAL, &look(*errors, *cut), Moment(at * 2000));
        }
        judgement.proof.failed()
    };
    assert_eq!(failed(&[(1, 1)]), 1);
    assert_eq!(failed(&[(0, 1), (1, 0)]), 1, "it is counted a moment later");
    assert_eq!(failed(&[(0, 1), (0, 0), (1, 0)]), 2, "that is another one");
    assert_eq!(failed(&[(2, 1)]), 2);
    assert_eq!(failed(&[(1, 3), (1, 0)]), 3);
    assert_eq!(failed(&[(0, 2)]), 2, "nobody else counts a connection that was upgraded");
}
