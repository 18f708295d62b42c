use super::super::counts::Counts;
use super::super::guard::Guard;
use super::super::notice::within;
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
