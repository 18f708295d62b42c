use super::super::counts::{Counts, Unit};
use super::super::judgement::{Judgement, Settings};
use super::super::meters::{Traffic, Whose};
use super::super::settings::{GateSettings, GuardSettings, NotEnough, Sources};
use super::Chance;
use crate::fleet::MemberKey;
use crate::time::Moment;
use std::time::Duration;

const GUARD: GuardSettings =
    GuardSettings { alpha_ppm: 10_000, ratio_percent: 120, margin_ppm: 1_000, memory: true, sources: Sources::NONE };
const GATE: GateSettings =
    GateSettings { rule_out_ppm: 10_000, max_wait: Duration::ZERO, on_not_enough_data: NotEnough::Pause };
const ON_TRIAL: Settings<'_> = Settings { guard: &GUARD, gate: Some(&GATE), on_trial: true };

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
