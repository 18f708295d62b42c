use super::super::bet::{Border, Rates, guess, logarithm, with_odds};
use super::super::counts::{Counts, Unit};
use super::super::gate::Gate;
use super::super::guard::Guard;
use super::super::history::History;
use super::super::meters::Traffic;
use super::super::proof::Proof;
use super::super::real::Real;
use super::super::settings::{GateSettings, GuardSettings, NotEnough, Share, Sources};
use super::{Chance, poll};
use crate::time::Moment;
use std::time::Duration;

/// Polls of 2 s with 18 requests to the old release and 2 to the new one, until the guard speaks; requests of the new one.
fn requests_until(settings: &GuardSettings, old: f64, new: f64, seed: u64, polls: u64) -> Option<u64> {
    let (mut chance, mut guard, mut past) = (Chance(seed), Guard::default(), Counts::default());
    for number in 1..=polls {
        let seen = super::Poll { new: chance.counts(2, new), old: chance.counts(18, old) };
        guard.look(settings, past, seen, 1.0);
        past += seen.old;
        if guard.speaks_against(settings) {
            return Some(number * 2);
        }
    }
    None
}

fn median(settings: &GuardSettings, old: f64, new: f64) -> u64 {
    let mut all: Vec<u64> =
        (0..101).map(|seed| requests_until(settings, old, new, seed, 2000).unwrap_or(u64::MAX)).collect();
    all.sort_unstable();
    all[50]
}

#[test]
fn a_release_that_always_fails_is_noticed_after_four_requests() {
    assert_eq!(median(&GuardSettings::default(), 0.0001, 1.0), 4);
    assert_eq!(median(&GuardSettings::strict(), 0.0001, 1.0), 4);
}

#[test]
fn a_release_that_fails_five_times_as_often_is_noticed_after_about_two_hundred_requests() {
    let (strict, tolerant) = (median(&GuardSettings::strict(), 0.01, 0.05), median(&GuardSettings::default(), 0.01, 0.05));
    assert!((130..=240).contains(&strict), "{strict}");
    assert!((170..=310).contains(&tolerant), "{tolerant}");
}

#[test]
fn an_incident_that_hits_both_speaks_against_neither() {
    for seed in 0..50 {
        let (mut chance, mut guard, mut past) = (Chance(seed), Guard::default(), Counts::default());
        for number in 0..300 {
            let rate = if (100..200).contains(&number) { 0.5 } else { 0.001 };
            let seen = super::Poll { new: chance.counts(20, rate), old: chance.counts(180, rate) };
            guard.look(&GuardSettings::strict(), past, seen, 1.0);
            past += seen.old;
        }
        assert!(!guard.speaks_against(&GuardSettings::strict()), "seed {seed}");
    }
}

#[test]
fn the_nearest_point_of_the_border_is_where_its_derivative_is_zero() {
    let rates = Rates { old: 0.01, new: 0.2 };
    let seen = poll((40, 0), (160, 0));
    let same = Border { ratio: 1.0, margin: 0.0 }.nearest(rates, seen);
    assert!((same.old - 0.048).abs() < 1e-12 && (same.new - same.old).abs() < 1e-12, "{same:?}");
    let almost = Border { ratio: 1.0, margin: 1e-15 }.nearest(rates, seen);
    assert!((almost.old - same.old).abs() < 1e-9, "{almost:?}");
    let border = Border { ratio: 1.2, margin: 0.001 };
    let nearest = border.nearest(rates, seen);
    let distance = |old: f64| {
        let kl = |p: f64, q: f64| p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
        160.0 * kl(rates.old, old) + 40.0 * kl(rates.new, border.at(old))
    };
    for step in [-1e-4, 1e-4] {
        assert!(distance(nearest.old) < distance(nearest.old + step), "{nearest:?}");
    }
}

/// The property everything hangs on: a bet on the border is worth its stake on average.
#[test]
fn a_bet_is_fair_under_the_null_hypothesis() {
    let (rates, seen) = (Rates { old: 0.1, new: with_odds(0.1, 4.0) }, poll((4, 0), (8, 0)));
    let border = Border { ratio: 1.2, margin: 0.001 };
    let null = border.nearest(rates, seen);
    let binomial = |n: u64, k: u64, p: f64| {
        let choose = (0..k).fold(1.0, |all, i| all * (n - i) as f64 / (i + 1) as f64);
        choose * p.powf(k as f64) * (1.0 - p).powf((n - k) as f64)
    };
    for old in [0.01, 0.05, 0.1, 0.2, 0.5, 0.8] {
        let new = border.at(old);
        let mut mean = 0.0;
        for e_new in 0..=4 {
            for e_old in 0..=8 {
                let chance = binomial(4, e_new, new) * binomial(8, e_old, old);
                mean += chance * logarithm(rates, null, poll((4, e_new), (8, e_old))).exp();
            }
        }
        assert!(mean <= 1.0 + 1e-9, "{mean} at {old}");
    }
}

/// Looks from the first one at which the new release fails until the guard speaks, at 1,000 requests a second, a tenth of them to
/// the new release, of which one in a thousand fails until then.
fn looks_until_noticed(settings: &GuardSettings, good: u64, fails: f64, seed: u64) -> Option<u64> {
    let (mut chance, mut guard, mut past) = (Chance(seed), Guard::default(), Counts::default());
    for look in 0..good + 300 {
        let new = if look < good { 0.001 } else { fails };
        let seen = super::Poll { new: chance.counts(200, new), old: chance.counts(1800, 0.001) };
        guard.look(settings, past, seen, 1.0);
        past += seen.old;
        if guard.speaks_against(settings) {
            return look.checked_sub(good).map(|before| before + 1);
        }
    }
    None
}

#[test]
fn a_release_that_turns_bad_after_two_hours_at_much_traffic_is_noticed_as_soon_as_one_that_does_after_half_of_one() {
    for settings in [GuardSettings::default(), GuardSettings::strict()] {
        for fails in [0.03, 0.2, 1.0] {
            for seed in 0..3 {
                let [soon, late] = [900, 3600].map(|good| looks_until_noticed(&settings, good, fails, seed));
                let (soon, late) = (soon.unwrap(), late.unwrap());
                assert!(late <= soon + 2 && late <= 9, "{fails}: {late} looks, and {soon} in the first hour");
            }
        }
    }
}

#[test]
fn whatever_is_bet_however_late_is_one_in_all() {
    // Where nothing may be bet on anything, what was bet stays as it is, and all of it can be seen.
    let nothing = GuardSettings { margin_ppm: 999_999, ratio_percent: 1_000, ..GuardSettings::default() };
    let mut guard = Guard::default();
    assert!((guard.worth() - 1.0).abs() < 1e-6);
    for look in 0..20_000 {
        guard.look(&nothing, Counts::default(), poll((10, 0), (10, 0)), 1.0);
        let worth = guard.worth();
        assert!(worth <= 1.0 && worth > 0.999, "{worth} after {look}");
    }
    assert!(!guard.speaks_against(&nothing));
}

#[test]
fn a_release_that_is_no_worse_is_hardly_ever_taken_back_in_three_hours() {
    let settings = GuardSettings::strict();
    let taken_back = (0..400).filter(|seed| {
        let (mut chance, mut guard, mut past) = (Chance(*seed), Guard::default(), Counts::default());
        for _ in 0..5400 {
            let seen = super::Poll { new: chance.counts(4, 0.05), old: chance.counts(16, 0.05) };
            guard.look(&settings, past, seen, 1.0);
            past += seen.old;
        }
        guard.speaks_against(&settings)
    });
    let taken_back = taken_back.count();
    assert!(taken_back <= 4, "{taken_back} of 400");
}

#[test]
fn without_traffic_on_both_sides_nothing_is_evidence() {
    let mut guard = Guard::default();
    for seen in [poll((0, 0), (1000, 0)), poll((1000, 1000), (0, 0)), poll((0, 0), (0, 0))] {
        (0..1000).for_each(|_| guard.look(&GuardSettings::strict(), Counts::default(), seen, 1.0));
    }
    assert_eq!(guard, Guard::default());
}

#[test]
fn one_poll_never_decides_alone_however_bad_it_is() {
    let mut guard = Guard::default();
    guard.look(&GuardSettings::strict(), Counts::default(), poll((1_000_000, 1_000_000), (1_000_000, 0)), 1.0);
    assert!(!guard.speaks_against(&GuardSettings::strict()));
    guard.look(&GuardSettings::strict(), Counts::default(), poll((1_000_000, 1_000_000), (1_000_000, 0)), 1.0);
    assert!(guard.speaks_against(&GuardSettings::strict()));
}

#[test]
fn absurd_numbers_neither_panic_nor_become_evidence() {
    let huge = Counts::new(u64::MAX, u64::MAX);
    for past in [Counts::default(), huge, Counts::new(u64::MAX, 0)] {
        for phi in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300] {
            for settings in [
                GuardSettings::default(),
                GuardSettings { alpha_ppm: 0, ratio_percent: 0, margin_ppm: u32::MAX, memory: true, sources: Sources::NONE },
                GuardSettings {
                    alpha_ppm: u32::MAX,
                    ratio_percent: u32::MAX,
                    margin_ppm: 999_999,
                    memory: true,
                    sources: Sources::NONE,
                },
            ] {
                let mut guard = Guard::default();
                let mut gate = Gate::default();
                for seen in [poll((u64::MAX, 0), (u64::MAX, u64::MAX)), poll((1, 1), (u64::MAX, 0)), poll((1, 0), (1, 1))] {
                    guard.look(&settings, past, seen, phi);
                    gate.look(&gate_of(u32::MAX), past, seen, phi);
                    gate.look(&gate_of(0), past, seen, phi);
                }
                assert!(guard.worth().is_finite());
                assert!(gate.requests_to_go(&gate_of(u32::MAX), past) < u64::MAX);
            }
        }
    }
}

fn gate_of(rule_out_ppm: u32) -> GateSettings {
    GateSettings { rule_out_ppm, max_wait: Duration::ZERO, on_not_enough_data: NotEnough::Pause }
}

fn requests_to_pass(rule_out_ppm: u32) -> u64 {
    let (settings, mut gate) = (gate_of(rule_out_ppm), Gate::default());
    // A release that was watched before: nothing failed.
    let mut past = Counts::new(20_000, 0);
    let mut requests = 0;
    let announced = gate.requests_to_go(&settings, past);
    while !gate.passed() {
        gate.look(&settings, past, poll((2, 0), (18, 0)), 1.0);
        past += Counts::new(18, 0);
        requests += 2;
    }
    assert!(announced.abs_diff(requests) <= requests / 5 + 2, "announced {announced}, needed {requests}");
    requests
}

#[test]
fn three_hundred_clean_requests_rule_out_one_percent_and_sixty_rule_out_five() {
    let (one, five) = (requests_to_pass(10_000), requests_to_pass(50_000));
    assert!((280..=345).contains(&one), "{one}");
    assert!((55..=70).contains(&five), "{five}");
}

#[test]
fn a_release_that_is_worse_by_that_much_hardly_ever_passes_the_gate() {
    let settings = gate_of(10_000);
    let passed = (0..200).filter(|seed| {
        let (mut chance, mut gate, mut past) = (Chance(*seed), Gate::default(), Counts::default());
        for _ in 0..500 {
            let seen = super::Poll { new: chance.counts(4, 0.012), old: chance.counts(36, 0.002) };
            gate.look(&settings, past, seen, 1.0);
            past += seen.old;
        }
        gate.passed()
    });
    let passed = passed.count();
    assert!(passed <= 10, "{passed} of 200");
}

#[test]
fn the_gate_never_passes_without_requests_of_the_new_release() {
    let mut gate = Gate::default();
    (0..10_000).for_each(|_| gate.look(&gate_of(50_000), Counts::new(1_000_000, 0), poll((0, 0), (1000, 0)), 1.0));
    assert!(!gate.passed());
    let mut gate = Gate::default();
    (0..10_000).for_each(|_| gate.look(&gate_of(50_000), Counts::default(), poll((1000, 0), (0, 0)), 1.0));
    assert!(!gate.passed(), "and never without anything to compare with");
}

#[test]
fn failures_that_come_in_bursts_show_in_the_history() {
    let (mut even, mut bursts) = (History::default(), History::default());
    let mut chance = Chance(1);
    for number in 0..300 {
        let now = Moment(number * 2000);
        even.take(now, &[chance.counts(1000, 0.01)]);
        bursts.take(now, &[Counts::new(1000, if chance.unit() < 0.05 { 200 } else { 0 })]);
    }
    let now = Moment(600_000);
    assert!(even.summary(now).phi < 1.3, "{:?}", even.summary(now));
    assert!(bursts.summary(now).phi > 100.0, "{:?}", bursts.summary(now));
    assert_eq!(bursts.summary(Moment(3_600_000)).polls, 0, "an hour later nothing of it counts");
    assert_eq!(History::default().summary(now).counts, Counts::default());
    assert!(guess(Counts::default()) > 0.0);
}

#[test]
fn a_clock_that_jumps_either_way_makes_neither_traffic_nor_evidence() {
    let mut history = History::default();
    for now in [60_000, 62_000, u64::MAX - 1, 0, 4_000, u64::MAX] {
        history.take(Moment(now), &[Counts::new(10, 0)]);
        assert!(history.summary(Moment(now)).counts.requests <= 40, "{now}");
    }
    let mut proof = Proof::default();
    for (last, now) in [(10_000, 4_000), (4_000, u64::MAX), (u64::MAX, 0)] {
        proof.take(&Traffic::default(), Some(Moment(last)), Moment(now));
        assert_eq!((proof.all(), proof.mixed()), (None, None));
    }
}

#[test]
fn an_errored_slot_counts_once_and_a_busier_one_of_the_old_release_for_more() {
    let slots = Unit::Slots.poll(&[Counts::new(12, 11), Counts::new(2, 0)], &[Counts::new(70, 30), Counts::new(7, 7)]);
    assert_eq!(slots.new.errors, 1);
    assert_eq!(slots.old.errors, 10 + 1);
    assert_eq!((slots.new.requests, slots.old.requests), (14, 77));
    assert_eq!(Unit::for_traffic(10, 5), Unit::Slots);
    assert_eq!(Unit::for_traffic(1000, 5), Unit::Requests);
}

#[test]
fn numbers_are_stored_exactly() {
    for number in [0.1 + 0.2, 1e-300, -0.0, 123_456_789.123_456_78] {
        assert_eq!(Real::from(String::from(Real::new(number))), Real::new(number));
    }
    assert_eq!(Real::new(f64::NAN), Real::new(0.0));
    assert_eq!(Real::from("no number".to_owned()), Real::new(0.0));
    let shown = [0.018, 0.0082, 0.5, 0.00012, 0.0, 1.0].map(|share| Share(share).to_string());
    assert_eq!(shown, ["1.8 %", "0.82 %", "50 %", "0.012 %", "0 %", "100 %"]);
}
