//! What a rollout remembers of its judging, as it is stored.

#![allow(clippy::unwrap_used)]

use baton_core::analysis::counters::Counters;
use baton_core::analysis::counts::Counts;
use baton_core::analysis::history::History;
use baton_core::analysis::judgement::{Judgement, Settings};
use baton_core::analysis::memory::Memory;
use baton_core::analysis::meters::{Meters, Traffic, Whose};
use baton_core::analysis::proof::{Hole, Proof};
use baton_core::analysis::rows::Rows;
use baton_core::analysis::settings::{GateSettings, GuardSettings, NotEnough, Sources};
use baton_core::analysis::slowness::Pace;
use baton_core::fleet::MemberKey;
use baton_core::fleet::latency::{BUCKETS, Latency};
use baton_core::fleet::report::{InstanceReport, InstanceState, MemberReport, PoolReport};
use baton_core::fleet::spec::MemberState;
use baton_core::name::{Digest, HostName, ReleaseId};
use baton_core::scrape::{Reading, Totals};
use baton_core::time::Moment;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const GUARD: GuardSettings =
    GuardSettings { alpha_ppm: 10_000, ratio_percent: 120, margin_ppm: 1_000, memory: true, sources: Sources::NONE };
const GATE: GateSettings =
    GateSettings { rule_out_ppm: 10_000, max_wait: Duration::ZERO, on_not_enough_data: NotEnough::Pause };
const ON_TRIAL: Settings<'_> = Settings { guard: &GUARD, gate: Some(&GATE), on_trial: true, alone: false };

fn seen(look: u64) -> Traffic {
    let slot = |whose, host: &str, counts| ((whose, format!("{host}/0").parse::<MemberKey>().unwrap()), counts);
    let slots = [
        slot(Whose::New, "web1", Counts::new(30, u64::from(look.is_multiple_of(3)))),
        slot(Whose::Old, "web2", Counts::new(33, u64::from(look.is_multiple_of(7)))),
        slot(Whose::Old, "web3", Counts::new(31, 0)),
    ];
    let took = |number: u64| Latency::new(std::array::from_fn(|bucket| number % (bucket as u64 + 3)));
    let latencies = slots.iter().map(|(slot, counts)| (slot.clone(), took(counts.requests + look))).collect();
    Traffic { slots: slots.into(), latencies, ..Traffic::default() }
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
    assert!(judgement.verdict("2", "1").is_some(), "33 of 1000 against 2 of 1000");
}

/// What an instance says that is ready for so long.
fn ready_for(release: ReleaseId, since: Duration) -> InstanceReport {
    InstanceReport { release, incarnation: "b-1".into(), start: 0, state: InstanceState::Ready { since } }
}

#[test]
fn memory_that_grows_is_found_at_the_same_moment_though_the_state_was_stored_in_between() {
    let release = |name: &str| ReleaseId(Digest::of(name.as_bytes()));
    let (old, new) = (release("1.0"), release("2.0"));
    let (mut memory, mut again) = (Memory::default(), Memory::default());
    let mut found = None;
    for second in (0..2400).step_by(6) {
        for (host, release, begun, per_second) in
            [("web1", new, 1800, 1 << 20), ("web2", new, 1810, 1 << 20), ("web3", old, 0, 0)]
        {
            let Some(since) = u64::checked_sub(second, begun) else { continue };
            let (member, report) = (format!("{host}/0").parse().unwrap(), ready_for(release, Duration::from_secs(since)));
            for memory in [&mut memory, &mut again] {
                memory.growth.see(&member, &report, (64 << 20) + since * per_second);
            }
        }
        again = stored(&again);
        memory.look(new, old);
        again.look(new, old);
        assert_eq!(memory, again);
        found = found.or(memory.verdict("2.0", "1.0").map(|_| second));
    }
    assert!(found.is_some_and(|second| (1800 + 270..1800 + 360).contains(&second)), "{found:?}");
    let size = serde_json::to_string(&memory).unwrap().len();
    assert!(size <= 1600, "{size} bytes for three instances");
}

#[test]
fn what_instances_count_is_judged_alike_though_the_state_was_stored_in_between() {
    let settings = GuardSettings { sources: Sources { metrics: true, prometheus: false }, ..GUARD };
    let on_trial = Settings { guard: &settings, gate: None, on_trial: true, alone: false };
    let summary = History::default().summary(Moment(0));
    let (mut counters, mut judgement, mut again) = (Counters::default(), Judgement::default(), Judgement::default());
    for look in 0..60_u64 {
        for (member, whose, errors) in [("web1/0", Whose::Old, look), ("web2/1", Whose::New, look * 6)] {
            let report = ready_for(ReleaseId(Digest::of(member.as_bytes())), Duration::from_secs(look));
            let reading = Reading::Counted(Totals { requests: look * 60, errors: Some(errors) });
            counters.see(&member.parse().unwrap(), &report, whose, &reading);
        }
        // A coordinator that begins again has the last readings, and what was not looked at is seen at the next report.
        let slots = counters.take();
        counters = stored(&counters);
        judgement.look_at_metrics(on_trial, &summary, slots.clone());
        again.look_at_metrics(on_trial, &summary, slots);
        again = stored(&again);
        assert_eq!(judgement, again);
    }
    assert_eq!(judgement.metrics.as_ref().unwrap().new, Counts::new(59 * 60, 59 * 6));
    assert!(judgement.verdict("2", "1").is_some(), "a tenth against a sixtieth");
}

#[test]
fn what_was_stored_before_there_were_other_sources_is_read_as_it_was() {
    let before = serde_json::to_value(Judgement::default()).unwrap();
    for key in ["guard", "unit", "phi", "past", "before"] {
        assert!(before.get(key).is_some(), "{key} stands where it stood: {before}");
    }
    let mut before = before.as_object().unwrap().clone();
    before["guard"] =
        serde_json::json!({ "wealth": ["1e-1", "2e-1", "3e-1", "4e-1", "5e-1"], "polls": 7, "highest": "2.5e0" });
    before["before"] = serde_json::json!([500, 50]);
    before["past"] = serde_json::json!({ "requests": 500, "errors": 5 });
    let readings = serde_json::json!({ "requests": 9, "errors": 2, "cut": 1, "whose": "new", "latency": vec![7; BUCKETS] });
    before["meters"] = serde_json::json!({ "balancers": { "lb1": { "process": "p", "members": { "web1/0": readings } } } });
    let (guard, past) = (&before["guard"], &before["past"]);
    let tail = serde_json::json!({
        "guard": guard, "new": past, "old": past, "squares": "3e0", "slots": 8, "worst": ["web1", 4],
    });
    let slow = serde_json::json!({
        "hosts": { "web1": [[9, 500, 40], [10, 500, 20], [12, 500, 3]] },
        "everywhere": null,
        "tails": [tail, tail, tail],
    });
    before.insert("slow".to_owned(), slow);
    let read: Judgement = serde_json::from_value(before.into()).unwrap();
    let again = serde_json::to_value(&read).unwrap();
    assert_eq!((&again["before"][0], &again["past"]), (&500.into(), &serde_json::json!([500, 5])));
    assert_eq!(again["guard"], serde_json::json!([["1e-1", "2e-1", "3e-1", "4e-1", "5e-1"], 7, "2.5e0"]));
    let reading = &again["meters"]["balancers"]["lb1"]["members"]["web1/0"];
    assert_eq!((&reading[0], &reading[1], &reading[3]), (&9.into(), &2.into(), &"new".into()));
    assert_eq!(again["slow"]["hosts"]["web1"], serde_json::json!([500, 9, 40, 10, 20, 12, 3]));
    assert_eq!(again["slow"]["tails"][2][5], serde_json::json!(["web1", 4]));
    assert_eq!(stored(&read), read);
}

#[test]
fn readings_survive_a_restart_of_the_coordinator() {
    let lb: HostName = "lb1".parse().unwrap();
    let mut meters = Meters::default();
    meters.read(&lb, &pool(100, 1), Moment(0), |_| Some(Whose::New));
    let mut again = stored(&meters);
    again.read(&lb, &pool(200, 1), Moment(2000), |_| None);
    assert_eq!(again.take().sum(Whose::New), Counts::new(100, 1));
    // And when they were read: a balancer that began anew meanwhile was not counted since then.
    let anew = PoolReport { balancer: "4243-1718000001".into(), ..pool(7, 1) };
    let mut later = stored(&again);
    later.read(&lb, &anew, Moment(5000), |_| None);
    assert_eq!(later.take().holes, BTreeMap::from([(lb, Hole { times: 1, missing: Duration::from_secs(3) })]));
}

/// As it was stored when a process and the start of an instance were stored by their names.
fn with_names(judgement: &Judgement) -> Judgement {
    let mut value = serde_json::to_value(judgement).unwrap();
    let named = |place: &mut serde_json::Value, name: &str| {
        assert!(place.as_str().is_some_and(|mark| mark.starts_with('#')), "{place}");
        *place = name.into();
    };
    named(&mut value["meters"]["balancers"]["lb1"]["process"], "4242-1718000000");
    for track in value["memory"]["growth"]["tracks"].as_object_mut().unwrap().values_mut() {
        named(&mut track["incarnation"], "b-1");
    }
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_rollout_under_way_in_an_upgrade_of_the_coordinator_goes_on_from_what_the_version_before_stored() {
    let lb: HostName = "lb1".parse().unwrap();
    let whose = |member: &MemberKey| Some(if member.host.as_str() == "web0" { Whose::New } else { Whose::Old });
    let release = |name: &str| ReleaseId(Digest::of(name.as_bytes()));
    let look = |judgement: &mut Judgement, look: u64| {
        let mut counted = pool(look * 60, 2);
        counted.members.values_mut().next().unwrap().errors = look * 2;
        judgement.meters.read(&lb, &counted, Moment(look * 2000), whose);
        for (host, version) in [("web0", "2.0"), ("web1", "1.0")] {
            let (member, since) = (format!("{host}/0").parse().unwrap(), Duration::from_secs(look * 2));
            judgement.memory.growth.see(&member, &ready_for(release(version), since), (64 << 20) + (look << 10));
        }
        let traffic = judgement.meters.take();
        judgement.look(ON_TRIAL, &traffic, Moment(look * 2000));
        judgement.verdict("2.0", "1.0").is_some()
    };
    let mut judgement = Judgement::default();
    let mut verdict = (0..400).filter(|at| look(&mut judgement, *at));
    let first = verdict.next().unwrap();
    assert!(first > 9, "{first}");
    let mut judgement = Judgement::default();
    assert!(!(0..first - 4).any(|at| look(&mut judgement, at)));
    let mut upgraded = with_names(&judgement);
    assert_eq!(upgraded, judgement);
    assert!(!(first - 4..first).any(|at| look(&mut upgraded, at)) && look(&mut upgraded, first), "at the same look");
    assert_eq!((upgraded.proof.restarts, upgraded.proof.hole()), (0, None));
    // A balancer that began anew meanwhile is said to have.
    let anew = PoolReport { balancer: "4243-1718000001".into(), ..pool(7, 2) };
    let mut upgraded = with_names(&judgement);
    upgraded.meters.read(&lb, &anew, Moment(first * 2000), whose);
    assert_eq!(upgraded.meters.pending().restarts, 1);
}

#[test]
fn a_member_that_is_away_while_the_coordinator_begins_again_is_still_waited_for_and_one_that_was_out_is_not() {
    let lb: HostName = "lb1".parse().unwrap();
    let mut both = pool(100, 2);
    for (member, state) in both.members.values_mut().zip([MemberState::Ready, MemberState::Out]) {
        member.running = state;
    }
    let mut meters = Meters::default();
    meters.read(&lb, &both, Moment(0), |_| Some(Whose::New));
    let mut meters = stored(&meters);
    meters.read(&lb, &pool(0, 0), Moment(2000), |_| Some(Whose::New));
    let waited_for = BTreeMap::from([(lb.clone(), BTreeMap::from([("web0/0".parse().unwrap(), Moment(0))]))]);
    assert_eq!(meters.pending().gone, waited_for);
    let again = stored(&meters);
    assert_eq!(again, meters.settled());
    let mut meters = again;
    meters.read(&lb, &pool(170, 1), Moment(4000), |_| Some(Whose::New));
    let traffic = meters.take();
    assert_eq!((traffic.sum(Whose::New).requests, traffic.restarts, traffic.gone), (70, 0, BTreeMap::new()));
}

#[test]
fn what_was_not_counted_is_stored() {
    let mut traffic = seen(1);
    let hole = Hole { times: 1, missing: Duration::from_millis(2_100) };
    traffic.holes.insert("lb1".parse().unwrap(), hole);
    traffic.unread.insert("lb2".parse().unwrap(), Some(Moment(2000)));
    traffic.gone.insert("lb1".parse().unwrap(), BTreeMap::from([("web9/0".parse().unwrap(), Moment(3000))]));
    traffic.unread.insert("lb1".parse().unwrap(), None);
    traffic.restarts = 1;
    let mut proof = Proof::default();
    proof.take(&traffic, None, Moment(6000));
    assert_eq!(stored(&proof), proof);
    let said = "the counters of lb1 began anew once, and for up to 3s nobody counted; \
                the counters of lb2 could not be read at last, for 4s; \
                lb1 no longer says what web9/0 answered, for 3s, so nothing is proven";
    assert_eq!(stored(&proof).unproven().unwrap(), said);
}

/// How many bytes are stored with a rollout of a service of four members, after many looks.
fn stored_size(pool: &PoolReport, seen: impl Fn(u64) -> Traffic) -> usize {
    let (mut history, mut pace) = (History::default(), Pace::default());
    for look in 0..600 {
        history.take(Moment(look * 2000), &[Counts::new(1 << 20, 1 << 10); 4]);
        pace.take(&seen(look));
    }
    let mut judgement = Judgement::begin(&history.summary(Moment(1_200_000)), pace.frozen());
    judgement.meters.read(&"lb1".parse().unwrap(), pool, Moment(0), |_| Some(Whose::Old));
    (0..50).for_each(|look| judgement.look(ON_TRIAL, &seen(look), Moment(look * 2000)));
    serde_json::to_string(&judgement).unwrap().len()
}

#[test]
fn ten_thousand_services_fit_into_sixteen_mebibytes() {
    let size = stored_size(&pool(1 << 40, 4), |look| Traffic { latencies: Rows::none(), ..seen(look) });
    assert!(size <= 16 * 1024 * 1024 / 10_000, "{size} bytes");
}

#[test]
fn they_fit_also_where_every_answer_is_timed_and_a_member_has_answered_a_thousand_a_second_for_two_years() {
    let mut pool = pool(1 << 36, 4);
    for member in pool.members.values_mut() {
        let in_bucket = |bucket| if (5..17).contains(&bucket) { (1 << 36) / 12 } else { 0 };
        member.latency = Some(Latency::new(std::array::from_fn(in_bucket)).into());
    }
    let size = stored_size(&pool, seen);
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
        meters.read(&lb, &seen, Moment(look * 2000), whose);
        judgement.look(ON_TRIAL, &meters.take(), Moment(look * 2000));
        best = best.min(began.elapsed());
    }
    // An unoptimised build takes some ten times as long.
    let limit = if cfg!(debug_assertions) { 20 } else { 1 };
    assert!(best <= Duration::from_millis(limit), "{best:?}");
}
