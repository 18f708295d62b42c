use super::super::judgement::{Judgement, Settings};
use super::super::meters::{Traffic, Whose};
use super::super::quantiles::Marks;
use super::super::settings::{GuardSettings, Sources};
use super::super::slowness::Pace;
use super::Chance;
use crate::fleet::MemberKey;
use crate::fleet::latency::{BUCKETS, Latency, bucket};
use crate::problem::Code;
use crate::time::Moment;
use std::time::Duration;

const GUARD: GuardSettings =
    GuardSettings { alpha_ppm: 10_000, ratio_percent: 120, margin_ppm: 1_000, memory: true, sources: Sources::NONE };
const ON_TRIAL: Settings<'_> = Settings { guard: &GUARD, gate: None, on_trial: true, alone: false };

/// Answers of a service as they are: most quick, some slow; `factor` times as long as usual.
fn answers(chance: &mut Chance, number: usize, factor: f64) -> Latency {
    let mut counts = [0; BUCKETS];
    for _ in 0..number {
        // Log-normal, about: twelve even chances make a normal one.
        let normal = (0..12).map(|_| chance.unit()).sum::<f64>() - 6.0;
        let millis = 20.0 * (0.7 * normal).exp() * factor;
        counts[bucket(Duration::from_secs_f64(millis / 1000.0))] += 1;
    }
    Latency::new(counts)
}

fn traffic(chance: &mut Chance, number: usize, members: &[(Whose, &str, f64)]) -> Traffic {
    let slot = |(whose, host, factor): &(Whose, &str, f64)| {
        let member = MemberKey { host: host.parse().unwrap(), slot: crate::name::Slot(0) };
        ((*whose, member), answers(chance, number, *factor))
    };
    Traffic { latencies: members.iter().map(slot).collect(), ..Traffic::default() }
}

fn begun(chance: &mut Chance, hosts: &[(&str, f64)]) -> Judgement {
    begun_after(chance, 30, hosts)
}

/// After so many looks at the old release.
fn begun_after(chance: &mut Chance, looks: u64, hosts: &[(&str, f64)]) -> Judgement {
    let members: Vec<_> = hosts.iter().map(|(host, factor)| (Whose::Old, *host, *factor)).collect();
    let mut pace = Pace::default();
    (0..looks).for_each(|_| pace.take(&traffic(chance, 60, &members)));
    let history = super::super::history::History::default();
    Judgement::begin(&history.summary(Moment(0)), pace.frozen())
}

/// Looks until there is a verdict.
fn looks(judgement: &mut Judgement, most: u64, mut traffic: impl FnMut(u64) -> Traffic) -> Option<u64> {
    (1..=most).find(|look| {
        judgement.look(ON_TRIAL, &traffic(*look), Moment(look * 2000));
        judgement.verdict("2", "1").is_some()
    })
}

/// Where nothing leads to the old release any more: looks until a person is asked.
fn looks_alone(judgement: &mut Judgement, most: u64, mut traffic: impl FnMut(u64) -> Traffic) -> Option<(u64, String)> {
    (1..=most).find_map(|look| {
        judgement.look(Settings { alone: true, ..ON_TRIAL }, &traffic(look), Moment(look * 2000));
        assert_eq!(judgement.verdict("2", "1"), None, "it is no evidence");
        Some((look, judgement.slow.as_mut()?.ask(&GUARD, "2", "1")?))
    })
}

#[test]
fn a_release_that_answers_alone_and_takes_twice_as_long_is_asked_about_within_a_minute() {
    let mut slowest = 0;
    for seed in 0..50 {
        let mut chance = Chance(seed);
        let mut judgement = begun_after(&mut chance, 300, &[("web1", 1.0), ("web2", 1.0)]);
        let members = [(Whose::New, "web1", 2.0), (Whose::New, "web2", 2.0)];
        let mut slow = || traffic(&mut chance, 60, &members);
        let (noticed, why) = looks_alone(&mut judgement, 60, |_| slow()).expect("never noticed");
        slowest = slowest.max(noticed);
        assert!(why.starts_with("2 answers more slowly since nothing leads to 1 any more: "), "{why}");
        assert_eq!(looks_alone(&mut judgement, 60, |_| slow()), None, "once");
    }
    assert!(slowest <= 30, "{slowest}");
}

#[test]
fn a_release_that_answers_alone_is_not_asked_about_for_a_cold_start_or_another_time_of_the_day() {
    for seed in 0..50 {
        let mut chance = Chance(seed);
        let mut judgement = begun_after(&mut chance, 300, &[("web1", 1.0), ("web2", 2.0)]);
        let asked = looks_alone(&mut judgement, 120, |look| {
            let factor = if look <= 8 { 10.0 } else { 1.3 };
            traffic(&mut chance, 60, &[(Whose::New, "web1", factor), (Whose::New, "web2", factor * 2.0)])
        });
        assert_eq!(asked, None, "seed {seed}");
    }
}

/// As an instance has that was just started.
#[test]
fn a_cold_start_of_two_looks_alone_is_no_verdict() {
    for seed in 0..50 {
        let mut chance = Chance(seed);
        let mut judgement = begun(&mut chance, &[("web1", 1.0), ("web2", 1.0)]);
        let noticed = looks(&mut judgement, 10, |look| {
            let cold = if look <= 2 { 10.0 } else { 1.0 };
            traffic(&mut chance, 200, &[(Whose::New, "web1", cold), (Whose::Old, "web2", 1.0)])
        });
        assert_eq!(noticed, None, "seed {seed}");
    }
}

#[test]
fn a_release_that_takes_twice_as_long_is_noticed_within_ten_looks() {
    let mut slowest = 0;
    for seed in 0..50 {
        let mut chance = Chance(seed);
        let mut judgement = begun(&mut chance, &[("web1", 1.0), ("web2", 1.0)]);
        let members = [(Whose::New, "web1", 2.0), (Whose::Old, "web2", 1.0)];
        let noticed = looks(&mut judgement, 30, |_| traffic(&mut chance, 60, &members)).expect("never noticed");
        slowest = slowest.max(noticed);
        let (host, problem) = judgement.verdict("2", "1").unwrap();
        assert_eq!((host.as_str(), problem.code), ("web1", Code(904)), "{problem:?}");
    }
    assert!(slowest <= 10, "{slowest}");
}

#[test]
fn releases_that_take_as_long_are_hardly_ever_taken_back() {
    let taken_back = (0..200).filter(|seed| {
        let mut chance = Chance(1000 + seed);
        let mut judgement = begun(&mut chance, &[("web1", 1.0), ("web2", 1.0), ("web3", 1.0)]);
        let members = [(Whose::New, "web1", 1.0), (Whose::Old, "web2", 1.0), (Whose::Old, "web3", 1.0)];
        looks(&mut judgement, 300, |_| traffic(&mut chance, 20, &members)).is_some()
    });
    assert!(taken_back.count() <= 2);
}

#[test]
fn an_incident_that_slows_both_speaks_against_neither() {
    for seed in 0..30 {
        let mut chance = Chance(seed);
        let mut judgement = begun(&mut chance, &[("web1", 1.0), ("web2", 1.0)]);
        let noticed = looks(&mut judgement, 120, |look| {
            let factor = if (30..90).contains(&look) { 8.0 } else { 1.0 };
            traffic(&mut chance, 60, &[(Whose::New, "web1", factor), (Whose::Old, "web2", factor)])
        });
        assert_eq!(noticed, None, "seed {seed}");
    }
}

#[test]
fn a_slow_machine_is_no_evidence_against_the_release_on_it() {
    for seed in 0..30 {
        let mut chance = Chance(seed);
        let mut judgement = begun(&mut chance, &[("web1", 3.0), ("web2", 1.0)]);
        let members = [(Whose::New, "web1", 3.0), (Whose::Old, "web2", 1.0)];
        assert_eq!(looks(&mut judgement, 120, |_| traffic(&mut chance, 60, &members)), None, "seed {seed}");
    }
}

#[test]
fn pauses_that_slow_many_answers_at_once_are_not_taken_for_many_events() {
    let taken_back = (0..100).filter(|seed| {
        let mut chance = Chance(*seed);
        let mut judgement = begun(&mut chance, &[("web1", 1.0), ("web2", 1.0), ("web3", 1.0)]);
        looks(&mut judgement, 300, |_| {
            let mut pause = |whose, host| (whose, host, if chance.unit() < 0.03 { 10.0 } else { 1.0 });
            let members = [pause(Whose::New, "web1"), pause(Whose::Old, "web2"), pause(Whose::Old, "web3")];
            traffic(&mut chance, 40, &members)
        })
        .is_some()
    });
    let taken_back = taken_back.count();
    assert!(taken_back <= 3, "{taken_back}");
}

#[test]
fn without_a_history_the_first_answers_of_the_old_release_say_what_is_usual() {
    let (mut chance, mut judgement) = (Chance(1), Judgement::default());
    let members = [(Whose::New, "web1", 2.0), (Whose::Old, "web2", 1.0)];
    let noticed = looks(&mut judgement, 30, |_| traffic(&mut chance, 60, &members)).unwrap();
    assert!((3..=12).contains(&noticed), "{noticed}");
}

#[test]
fn nothing_timed_is_no_evidence_and_absurd_counts_do_no_harm() {
    let mut judgement = begun(&mut Chance(1), &[("web1", 1.0)]);
    let before = judgement.worth(&GUARD);
    assert_eq!(looks(&mut judgement, 100, |_| Traffic::default()), None);
    assert!((judgement.worth(&GUARD) - before).abs() < 1e-9);
    let member = |host: &str| MemberKey { host: host.parse().unwrap(), slot: crate::name::Slot(0) };
    let huge = |_| Traffic {
        latencies: [((Whose::New, member("web1")), Latency::new([u64::MAX; BUCKETS]))].into(),
        ..Traffic::default()
    };
    assert_eq!(looks(&mut judgement, 10, huge), None, "nothing to compare with");
    assert!(judgement.worth(&GUARD).is_finite());
    assert_eq!(Marks::of(&Latency::default()), None);
}

/// Some fifty requests a second of the new release, as a fourth of two hundred are: the first look begins in mid-poll.
#[test]
fn twice_as_slow_is_noticed_by_the_third_whole_look_and_half_of_the_time_by_the_fourth_where_answers_vary() {
    let mut varied: Vec<u64> = Vec::new();
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let mut judgement = paced();
        let first = 5 + (chance.unit() * 95.0) as usize;
        let noticed = looks(&mut judgement, 10, |look| {
            let number = if look == 1 { first } else { 100 };
            steady(&[(Whose::New, "web1", number, 41), (Whose::Old, "web2", 100, 21), (Whose::Old, "web3", 100, 21)])
        });
        assert!(noticed.is_some_and(|looks| looks <= 4), "seed {seed}: {noticed:?}");

        let mut judgement = begun(&mut chance, &[("web1", 1.0), ("web2", 1.0)]);
        let members = [(Whose::New, "web1", 2.0), (Whose::Old, "web2", 1.0)];
        varied.push(looks(&mut judgement, 30, |_| traffic(&mut chance, 100, &members)).expect("never noticed"));
    }
    varied.sort_unstable();
    assert!(varied[varied.len() / 2] <= 4, "{varied:?}");
}

/// Answers that all take as long: by release and host, how many and how many milliseconds.
fn steady(members: &[(Whose, &str, usize, u64)]) -> Traffic {
    let slot = |(whose, host, number, millis): &(Whose, &str, usize, u64)| {
        let mut counts = [0; BUCKETS];
        counts[bucket(Duration::from_millis(*millis))] = *number as u64;
        ((*whose, MemberKey { host: host.parse().unwrap(), slot: crate::name::Slot(0) }), Latency::new(counts))
    };
    Traffic { latencies: members.iter().map(slot).collect(), ..Traffic::default() }
}

fn paced() -> Judgement {
    let mut pace = Pace::default();
    let members = ["web1", "web2", "web3"].map(|host| (Whose::Old, host, 90, 21));
    (0..10).for_each(|_| pace.take(&steady(&members)));
    Judgement::begin(&super::super::history::History::default().summary(Moment(0)), pace.frozen())
}
