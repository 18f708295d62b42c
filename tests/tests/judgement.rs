//! What a rollout remembers of its judging, as it is stored.

#![allow(clippy::unwrap_used)]

use baton_core::analysis::counts::Counts;
use baton_core::analysis::history::History;
use baton_core::analysis::judgement::{Judgement, Settings};
use baton_core::analysis::meters::{Meters, Traffic, Whose};
use baton_core::analysis::settings::{GateSettings, GuardSettings, NotEnough};
use baton_core::fleet::MemberKey;
use baton_core::fleet::report::{MemberReport, PoolReport};
use baton_core::fleet::spec::MemberState;
use baton_core::name::HostName;
use baton_core::time::Moment;
use std::time::{Duration, Instant};

const GUARD: GuardSettings = GuardSettings { alpha_ppm: 10_000, ratio_percent: 120, margin_ppm: 1_000 };
const GATE: GateSettings =
    GateSettings { rule_out_ppm: 10_000, max_wait: Duration::ZERO, on_not_enough_data: NotEnough::Pause };
const ON_TRIAL: Settings<'_> = Settings { guard: &GUARD, gate: Some(&GATE), on_trial: true };

fn seen(look: u64) -> Traffic {
    let slot = |whose, host: &str, counts| ((whose, format!("{host}/0").parse::<MemberKey>().unwrap()), counts);
    let slots = [
        slot(Whose::New, "web1", Counts::new(30, u64::from(look.is_multiple_of(3)))),
        slot(Whose::Old, "web2", Counts::new(33, u64::from(look.is_multiple_of(7)))),
        slot(Whose::Old, "web3", Counts::new(31, 0)),
    ];
    Traffic { slots: slots.into(), ..Traffic::default() }
}

fn pool(requests: u64, members: usize) -> PoolReport {
    let member = |number: usize| {
        let state = MemberState::Ready;
        let report = MemberReport { requests, errors: requests / 100, ..MemberReport::quiet(state) };
        (format!("web{number}/0").parse().unwrap(), report)
    };
    PoolReport { balancer: "4242-1718000000".into(), members: (0..members).map(member).collect(), ..PoolReport::default() }
}

fn stored<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

#[test]
fn the_same_looks_give_the_same_verdict_though_the_state_was_stored_in_between() {
    let (mut judgement, mut again) = (Judgement::default(), Judgement::default());
    for look in 0..400 {
        judgement.look(ON_TRIAL, &seen(look), Moment(look * 2000));
        again = stored(&again);
        again.look(ON_TRIAL, &seen(look), Moment(look * 2000));
        assert_eq!(judgement, again);
    }
    assert!(judgement.verdict(&GUARD, "2", "1").is_some(), "33 of 1000 against 2 of 1000");
}

#[test]
fn readings_survive_a_restart_of_the_coordinator() {
    let lb: HostName = "lb1".parse().unwrap();
    let mut meters = Meters::default();
    meters.read(&lb, &pool(100, 1), |_| Some(Whose::New));
    let mut again = stored(&meters);
    again.read(&lb, &pool(200, 1), |_| None);
    assert_eq!(again.take().sum(Whose::New), Counts::new(100, 1));
}

#[test]
fn ten_thousand_services_fit_into_sixteen_mebibytes() {
    let mut history = History::default();
    (0..600).for_each(|n| history.take(Moment(n * 2000), &[Counts::new(1 << 20, 1 << 10); 4]));
    let mut meters = Meters::default();
    meters.read(&"lb1".parse().unwrap(), &pool(1 << 40, 4), |_| Some(Whose::Old));
    let mut judgement = Judgement::begin(&history.summary(Moment(1_200_000)), meters);
    (0..50).for_each(|look| judgement.look(ON_TRIAL, &seen(look), Moment(look * 2000)));
    let size = serde_json::to_string(&judgement).unwrap().len();
    assert!(size <= 16 * 1024 * 1024 / 10_000, "{size} bytes");
}

#[test]
fn a_rollout_of_before_there_was_any_judging_can_be_read() {
    let judgement: Judgement = serde_json::from_str("{}").unwrap();
    assert_eq!(judgement, Judgement::default());
}

#[test]
fn a_thousand_members_are_judged_in_a_millisecond() {
    let lb: HostName = "lb1".parse().unwrap();
    let whose = |key: &MemberKey| Some(if key.host.as_str() < "web5" { Whose::New } else { Whose::Old });
    let (mut meters, mut judgement) = (Meters::default(), Judgement::default());
    let mut best = Duration::MAX;
    for look in 0..20 {
        let seen = pool(look * 1000, 1000);
        let began = Instant::now();
        meters.read(&lb, &seen, whose);
        judgement.look(ON_TRIAL, &meters.take(), Moment(look * 2000));
        best = best.min(began.elapsed());
    }
    // An unoptimised build takes some ten times as long.
    let limit = if cfg!(debug_assertions) { 20 } else { 1 };
    assert!(best <= Duration::from_millis(limit), "{best:?}");
}
