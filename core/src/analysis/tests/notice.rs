use super::super::counts::Counts;
use super::super::guard::Guard;
use super::super::history::Summary;
use super::super::notice::{foreseen, within};
use super::super::settings::GuardSettings;
use super::{Chance, Poll, poll};
use std::time::Duration;

/// Two requests of the new release and eighteen of the old one a look: the median time until the guard speaks.
fn median(old: f64, new: f64) -> Duration {
    let settings = GuardSettings { alpha_ppm: 8_000, ..GuardSettings::default() };
    let looks = |seed| {
        let (mut chance, mut guard, mut past) = (Chance(seed), Guard::default(), Counts::new(10_000, (old * 1e4) as u64));
        (1..5000u32).find(|_| {
            let seen = Poll { new: chance.counts(2, new), old: chance.counts(18, old) };
            guard.look(&settings, past, seen, 1.0);
            past += seen.old;
            guard.speaks_against(&settings)
        })
    };
    let mut all: Vec<u32> = (0..51).map(|seed| looks(seed).unwrap_or(u32::MAX)).collect();
    all.sort_unstable();
    Duration::from_secs(2) * all[25]
}

#[test]
fn what_is_promised_is_about_what_simulated_rollouts_take() {
    for (old, new) in [(0.01, 0.05), (0.001, 0.01), (0.0001, 0.2), (0.05, 0.3)] {
        let past = Counts::new(10_000, (old * 1e4) as u64);
        let promised =
            within(&GuardSettings::default(), past, poll((60, 0), (540, 0)), Duration::from_secs(60), new).unwrap();
        let takes = median(old, new);
        let ratio = promised.as_secs_f64() / takes.as_secs_f64();
        assert!((0.6..=2.5).contains(&ratio), "{old} to {new}: promised {promised:?}, takes {takes:?}");
    }
}

#[test]
fn nothing_is_promised_without_traffic_or_within_the_tolerance() {
    let (settings, minute) = (GuardSettings::default(), Duration::from_secs(60));
    for (traffic, over, share) in [
        (poll((0, 0), (100, 0)), minute, 0.5),
        (poll((100, 0), (0, 0)), minute, 0.5),
        (poll((100, 0), (100, 0)), Duration::ZERO, 0.5),
        (poll((100, 0), (100, 0)), minute, 0.001),
        (poll((1, 0), (1, 0)), Duration::from_secs(86_400), 0.01),
        (poll((u64::MAX, 0), (1, 0)), minute, f64::NAN),
    ] {
        assert_eq!(within(&settings, Counts::new(10_000, 100), traffic, over, share), None, "{traffic:?}");
    }
}

#[test]
fn what_is_foreseen_from_usual_traffic_is_what_a_rollout_at_that_traffic_is_promised() {
    let (settings, minute) = (GuardSettings::default(), Duration::from_secs(60));
    let usual = |requests| Summary { polls: 30, slots: 300, counts: Counts::new(requests, requests / 1000), phi: 1.0 };
    let promised = within(&settings, Counts::new(6_000, 6), poll((600, 0), (5_400, 0)), minute, 0.05);
    assert!(promised.is_some());
    assert_eq!(foreseen(&settings, &usual(6_000), 0.1, 0.05), promised);
    let (busy, idle) = (foreseen(&settings, &usual(60_000), 0.1, 0.05), foreseen(&settings, &usual(600), 0.1, 0.05));
    assert!(busy < promised && idle.is_none_or(|idle| Some(idle) > promised), "{busy:?} {promised:?} {idle:?}");
    assert_eq!(foreseen(&settings, &usual(6_000), 0.0, 0.05), None, "there is nothing to compare");
    // Alone it is held against what was before, with a wider tolerance.
    let alone = |share| foreseen(&settings, &usual(6_000), 1.0, share);
    assert!(alone(0.05) >= alone(0.2) && alone(0.2).is_some() && alone(0.01).is_none(), "{:?}", alone(0.05));
    assert_eq!(foreseen(&settings, &usual(60), 1.0, 0.5), None, "too little is known");
    assert_eq!(foreseen(&settings, &Summary { polls: 0, ..usual(0) }, 0.1, 0.05), None);
}
