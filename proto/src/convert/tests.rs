//! Messages there and back, and messages that cannot be right.

use super::InvalidMessage;
use crate::v1;
use baton_core::fleet::ability::{BalancerAbility, PoolServers, SplitAbility};
use baton_core::fleet::hooks::{HookOutcome, HookReport, HookSpec};
use baton_core::fleet::latency::{BUCKETS, Latency};
use baton_core::fleet::report::{
    Correction, Fall, HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState, SplitReport,
};
use baton_core::fleet::spec::{Exchange, HostSpec, InstanceSpec, MemberSpec, MemberState, PoolSpec, Restart, Stamp};
use baton_core::fleet::split::{Share, Side, TrafficSplit};
use baton_core::fleet::withdraw::Withdrawal;
use baton_core::hook::{Hook, HookKey, Hooks, Point};
use baton_core::name::{Digest, Epoch, Generation, ReleaseId, Slot};
use baton_core::problem::{Code, Problem};
use baton_core::release::{Artifact, Health, Probe, Release, Run, Signal, Stop};
use baton_core::scrape::{Reading, Scrape, Totals};
use prost::Message;
use std::fmt::Debug;
use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn problem() -> Problem {
    Problem::new(Code(210), "not ready").saw("probe", "503").saw("log", "listening\non 3000").help("check {port}")
}

fn probes() -> [Probe; 3] {
    [
        Probe::Http { path: "/healthz?deep=1".into() },
        Probe::Tcp,
        Probe::Exec { command: vec!["bin/check".to_owned(), "{port}".to_owned()] },
    ]
}

fn release(probe: Probe, signal: Signal) -> Release {
    Release {
        service: "shop".parse().unwrap(),
        version: "2.1.0".parse().unwrap(),
        artifact: Artifact { digest: Digest::of(b"archive"), size: 31_200_000 },
        run: Run {
            command: vec!["bin/shop".to_owned(), String::new(), "--listen={address}:{port}".to_owned()],
            user: matches!(signal, Signal::Term).then(|| "shop".to_owned()),
            env: [("RUST_LOG", "debug"), ("EMPTY", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            secrets: std::collections::BTreeMap::new(),
            stop: Stop { signal, timeout: ms(30_000) },
            listen: ["0.0.0.0:8100", "[::1]:80"].map(|address| address.parse().unwrap()).to_vec(),
        },
        health: Health { probe, interval: ms(1_000), timeout: ms(900), healthy_for: ms(3_000), start_timeout: ms(60_000) },
        hooks: Hooks(hooks(signal).collect()),
    }
}

fn hooks(signal: Signal) -> impl Iterator<Item = (Point, Hook)> {
    let hook = |point: Point| Hook {
        command: vec![format!("bin/{point}"), "{version}".to_owned()],
        timeout: ms(600_000),
        no_way_back: point == Point::Migrate,
    };
    Point::ALL.into_iter().filter(move |_| signal == Signal::Quit).map(move |point| (point, hook(point)))
}

fn hook_key(text: &str) -> HookKey {
    text.replace("RELEASE", &Digest::of(b"v1").to_string()).parse().unwrap()
}

fn releases() -> impl Iterator<Item = Release> {
    let signals = [Signal::Term, Signal::Int, Signal::Quit, Signal::Usr1, Signal::Usr2];
    signals.into_iter().flat_map(|signal| probes().map(|probe| release(probe, signal)))
}

fn scrape() -> Scrape {
    let errors = "http_requests_total{code=~\"5..\"}".parse().unwrap();
    Scrape { path: "/metrics".into(), requests: "http_requests_total".parse().unwrap(), errors }
}

fn spec() -> HostSpec {
    let releases: Vec<Release> = releases().collect();
    let unready_for = Duration::from_secs(5);
    let instance = |index: usize, restart| InstanceSpec {
        release: releases[index].id(),
        address: "[fd00::7]:8101".parse().unwrap(),
        restart,
        start: u32::try_from(index).unwrap(),
        fallback: (index == 0).then(|| releases[1].id()),
        scrape: (index == 0).then(|| scrape().into()),
        withdraw: (index == 1).then_some(Withdrawal { signal: Signal::Usr1, unready_for, drain_deadline: unready_for * 6 }),
    };
    let member = |state, weight, probe| MemberSpec {
        address: "10.0.0.7:8101".parse().unwrap(),
        state,
        weight,
        side: if weight == 100 { Side::Trial } else { Side::Stable },
        probe,
    };
    let [http, tcp, exec] = probes();
    HostSpec {
        epoch: Epoch(3),
        generation: Generation(u64::MAX),
        instances: [
            ("shop/0".parse().unwrap(), instance(0, Restart::Always)),
            ("shop/1".parse().unwrap(), instance(1, Restart::Never)),
        ]
        .into_iter()
        .collect(),
        pools: [
            (
                "shop".parse().unwrap(),
                PoolSpec {
                    service: "shop".parse().unwrap(),
                    members: [
                        ("web1/0".parse().unwrap(), member(MemberState::Ready, 1, http)),
                        ("web1/1".parse().unwrap(), member(MemberState::Drain, 100, tcp)),
                        ("web2.example.net/0".parse().unwrap(), member(MemberState::Out, 256, exec)),
                    ]
                    .into(),
                    drain_deadline: ms(30_000),
                    slow_start: Duration::from_secs(30),
                    split: Some(split()),
                    exchange: Exchange::All,
                },
            ),
            (
                "empty".parse().unwrap(),
                PoolSpec {
                    service: "mail".parse().unwrap(),
                    members: [].into(),
                    drain_deadline: Duration::ZERO,
                    slow_start: Duration::ZERO,
                    split: None,
                    exchange: Exchange::Each,
                },
            ),
        ]
        .into(),
        hooks: [("shop/migrate/RELEASE", None), ("shop/before_drain/r-7/web1", Some((Slot(1), 8102)))]
            .map(|(key, instance)| {
                let (release, address) = (ReleaseId(Digest::of(b"v1")), "10.0.0.7".parse().unwrap());
                (hook_key(key), HookSpec { attempt: 2, release, address, instance })
            })
            .into(),
        releases: releases.into_iter().map(|release| (release.id(), release.into())).collect(),
    }
}

fn split() -> TrafficSplit {
    TrafficSplit {
        share: Share::of_places(501),
        sticky: Some("cookie uid".parse().unwrap()),
        rules: vec!["header X-Beta = 1".parse().unwrap(), "cookie cohort = staff".parse().unwrap()],
    }
}

fn report() -> HostReport {
    let instance = |state| InstanceReport {
        release: ReleaseId(Digest::of(b"v1")),
        incarnation: "boot:41:7".to_owned(),
        start: 3,
        state,
    };
    let member = |running, on_disk, problem: Option<Problem>| MemberReport {
        running,
        on_disk,
        in_flight: 7,
        oldest: problem.is_some().then(|| ms(31_000)),
        full_in: problem.is_none().then(|| ms(12_000)),
        out_for: ms(4_100),
        cut: 2,
        requests: 41_208,
        errors: 1,
        side: if problem.is_some() { Side::Trial } else { Side::Stable },
        corrected: problem.is_some().then(|| Correction { times: 2, ago: ms(9_000), was: "Out weight 1".into() }.into()),
        latency: problem.is_some().then(|| Latency::new([3; BUCKETS]).into()),
        problem,
    };
    let hook = |key: &str, state| (hook_key(key), HookReport { attempt: 3, state });
    let servers =
        PoolServers { stable: ["10.0.0.7:8101".parse().unwrap()].into(), trial: ["[::1]:8101".parse().unwrap()].into() };
    HostReport {
        hooks: [
            hook("shop/before_rollout/r-7", HookOutcome::Running { since: ms(9) }),
            hook("shop/migrate/RELEASE", HookOutcome::Succeeded { output: vec!["done".to_owned(), String::new()] }),
            hook("shop/before_drain/r-7/web1", HookOutcome::Failed { problem: problem() }),
            hook("shop/after_rollout/r-7", HookOutcome::Unknown { problem: problem() }),
        ]
        .into(),
        observed: Stamp { epoch: Epoch(3), generation: Generation(9) },
        boot: "b3b1".to_owned(),
        memory: [("shop/2".parse().unwrap(), u64::MAX)].into(),
        room: Some(0),
        counters: [
            ("shop/0".parse().unwrap(), Reading::Counted(Totals { requests: u64::MAX, errors: None })),
            ("shop/1".parse().unwrap(), Reading::Counted(Totals { requests: 7, errors: Some(0) })),
            ("shop/2".parse().unwrap(), Reading::Trouble("no answer within 1 s".into())),
        ]
        .into(),
        falls: [("shop/2".parse().unwrap(), Fall { times: 3, ago: ms(120_000), problem: problem() })].into(),
        instances: [
            ("shop/0".parse().unwrap(), instance(InstanceState::Starting { since: ms(1), last: None })),
            ("shop/1".parse().unwrap(), instance(InstanceState::Starting { since: ms(2), last: Some(problem()) })),
            ("shop/2".parse().unwrap(), instance(InstanceState::Ready { since: ms(3) })),
            ("shop/3".parse().unwrap(), instance(InstanceState::Unready { since: ms(4), problem: problem() })),
            ("shop/4".parse().unwrap(), instance(InstanceState::Stopping { since: ms(5) })),
            ("shop/5".parse().unwrap(), instance(InstanceState::Failed { problem: problem() })),
        ]
        .into_iter()
        .collect(),
        pools: [
            (
                "shop".parse().unwrap(),
                PoolReport {
                    balancer: "812:99".to_owned(),
                    members: [
                        ("web1/0".parse().unwrap(), member(MemberState::Ready, MemberState::Out, None)),
                        ("web2/0".parse().unwrap(), member(MemberState::Drain, MemberState::Ready, Some(problem()))),
                    ]
                    .into(),
                    problem: None,
                    split: Some(SplitReport { split: split(), on_disk: true, stable: 9_500, trial: 501, ruled: 1 }),
                },
            ),
            ("mail".parse().unwrap(), PoolReport { problem: Some(problem()), ..PoolReport::default() }),
        ]
        .into(),
        releases: [
            (ReleaseId(Digest::of(b"1")), ReleaseState::Fetching { done: 5, total: 10 }),
            (ReleaseId(Digest::of(b"2")), ReleaseState::Held),
            (ReleaseId(Digest::of(b"3")), ReleaseState::Rejected { problem: problem() }),
        ]
        .into_iter()
        .collect(),
        problems: vec![problem(), Problem::new(Code(0), "")],
        balancer: Some(BalancerAbility {
            driver: "haproxy".to_owned(),
            split: SplitAbility::Prepared([("shop".parse().unwrap(), split().needs())].into()),
            pools: Some(["shop".parse().unwrap(), "mail".parse().unwrap()].into()),
            servers: [("shop".parse().unwrap(), servers)].into(),
        }),
    }
}

/// Over the wire and back, as bytes.
fn comes_back<T, M>(value: &T)
where
    T: PartialEq + Debug + TryFrom<M, Error = InvalidMessage>,
    M: Message + Default + for<'a> From<&'a T>,
{
    let bytes = M::from(value).encode_to_vec();
    assert_eq!(&T::try_from(M::decode(&*bytes).unwrap()).unwrap(), value);
}

#[test]
fn every_message_comes_back_as_it_went() {
    comes_back::<_, v1::HostSpec>(&spec());
    comes_back::<_, v1::HostSpec>(&HostSpec::default());
    comes_back::<_, v1::HostReport>(&report());
    comes_back::<_, v1::HostReport>(&HostReport::default());
    comes_back::<_, v1::Stamp>(&spec().stamp());
    comes_back::<_, v1::Problem>(&problem());
    releases().for_each(|release| comes_back::<_, v1::Release>(&release));
    probes().iter().for_each(comes_back::<_, v1::Probe>);
    comes_back::<_, v1::TrafficSplit>(&TrafficSplit::default());
    for split in [SplitAbility::None, SplitAbility::Everything] {
        comes_back::<_, v1::BalancerAbility>(&BalancerAbility {
            driver: "builtin".to_owned(),
            split,
            pools: None,
            ..BalancerAbility::default()
        });
    }
}

#[test]
fn a_release_keeps_its_id() {
    for release in releases() {
        let read = Release::try_from(v1::Release::from(&release)).unwrap();
        assert_eq!(read.id(), release.id());
    }
}

/// Changes a good message and says which field is blamed.
fn blamed<T, M>(good: &T, change: impl FnOnce(&mut M)) -> String
where
    T: Debug + TryFrom<M, Error = InvalidMessage>,
    M: for<'a> From<&'a T>,
{
    let mut message = M::from(good);
    change(&mut message);
    T::try_from(message).unwrap_err().field
}

#[test]
fn a_release_that_cannot_be_right_names_the_field() {
    let good = release(probes()[0].clone(), Signal::Term);
    let check = |change: fn(&mut v1::Release)| blamed::<Release, v1::Release>(&good, change);
    assert_eq!(check(|m| m.service = "../etc".to_owned()), "service");
    assert_eq!(check(|m| m.version.clear()), "version");
    assert_eq!(check(|m| m.artifact_digest.truncate(31)), "artifact_digest");
    assert_eq!(check(|m| m.command.clear()), "command");
    assert_eq!(check(|m| m.command[0].clear()), "command");
    assert_eq!(check(|m| m.command[1].push('\0')), "command");
    assert_eq!(check(|m| drop(m.env.insert("A=B".to_owned(), String::new()))), "env[A=B]");
    assert_eq!(check(|m| drop(m.env.insert("A".to_owned(), "\0".to_owned()))), "env[A]");
    assert_eq!(check(|m| m.stop_signal = "SIGKILL".to_owned()), "stop_signal");
    assert_eq!(check(|m| m.stop_timeout_ms = u64::MAX), "stop_timeout_ms");
    assert_eq!(check(|m| m.probe_interval_ms = u64::MAX), "probe_interval_ms");
    assert_eq!(check(|m| m.probe_timeout_ms = u64::MAX), "probe_timeout_ms");
    assert_eq!(check(|m| m.healthy_for_ms = u64::MAX), "healthy_for_ms");
    assert_eq!(check(|m| m.start_timeout_ms = u64::MAX), "start_timeout_ms");
    assert_eq!(check(|m| m.probe = None), "probe");
    assert_eq!(check(|m| m.probe = Some(v1::Probe { kind: None })), "probe.kind");
    for path in ["", "healthz", "/a b", "/a\r\nHost: b", "http://x/"] {
        let wrong: v1::Probe = (&Probe::Http { path: path.into() }).into();
        assert_eq!(blamed::<Release, v1::Release>(&good, |m| m.probe = Some(wrong)), "probe.http.path");
    }
    assert_eq!(check(|m| m.probe = Some((&Probe::Exec { command: vec![] }).into())), "probe.exec.command");
}

#[test]
fn a_spec_that_cannot_be_right_names_the_field() {
    let good = spec();
    let check = |change: fn(&mut v1::HostSpec)| blamed::<HostSpec, v1::HostSpec>(&good, change);
    // Pools are in the order of their names: `empty`, `shop`.
    assert_eq!(check(|m| m.stamp = None), "stamp");
    assert_eq!(check(|m| m.instances[1].key = "shop".to_owned()), "instances[1].key");
    assert_eq!(check(|m| m.instances[1].key = "shop/0".to_owned()), "instances[1]");
    assert_eq!(check(|m| m.instances[0].release_id.push(0)), "instances[0].release_id");
    assert_eq!(check(|m| m.instances[0].release_id = vec![0; 32]), "instances[shop/0].release_id");
    assert_eq!(check(|m| m.instances[0].address = "web1:8101".to_owned()), "instances[0].address");
    assert_eq!(check(|m| m.pools[0].pool.push('\n')), "pools[0].pool");
    assert_eq!(check(|m| m.pools[0].pool = "shop".to_owned()), "pools[1]");
    assert_eq!(check(|m| m.pools[0].service = "x/y".to_owned()), "pools[0].service");
    assert_eq!(check(|m| m.pools[0].drain_deadline_ms = u64::MAX), "pools[0].drain_deadline_ms");
    assert_eq!(check(|m| m.pools[1].members[0].key = "web1/256".to_owned()), "pools[1].members[0].key");
    assert_eq!(check(|m| m.pools[1].members[1].key = "web1/0".to_owned()), "pools[1].members[1]");
    assert_eq!(check(|m| m.pools[1].members[0].address.clear()), "pools[1].members[0].address");
    assert_eq!(check(|m| m.pools[1].members[0].state = 0), "pools[1].members[0].state");
    assert_eq!(check(|m| m.pools[1].members[0].state = 4), "pools[1].members[0].state");
    assert_eq!(check(|m| m.pools[1].members[0].weight = 0), "pools[1].members[0].weight");
    assert_eq!(check(|m| m.pools[1].members[0].weight = 257), "pools[1].members[0].weight");
    assert_eq!(check(|m| m.pools[1].members[0].weight = 65_537), "pools[1].members[0].weight");
    assert_eq!(check(|m| m.pools[1].members[2].probe = None), "pools[1].members[2].probe");
    assert_eq!(check(|m| m.releases[2].command.clear()), "releases[2].command");
    let twice = |m: &mut v1::HostSpec| m.releases.push(m.releases[0].clone());
    assert_eq!(check(twice), format!("releases[{}]", good.releases.len()));
}

#[test]
fn a_report_that_cannot_be_right_names_the_field() {
    use v1::instance_report::State;
    let good = report();
    let check = |change: fn(&mut v1::HostReport)| blamed::<HostReport, v1::HostReport>(&good, change);
    assert_eq!(check(|m| m.observed = None), "observed");
    assert_eq!(check(|m| m.instances[0].key = "/0".to_owned()), "instances[0].key");
    assert_eq!(check(|m| m.instances[0].release_id.clear()), "instances[0].release_id");
    assert_eq!(check(|m| m.instances[0].state = None), "instances[0].state");
    let starting = |m: &mut v1::HostReport| {
        let last = Some(v1::Problem { code: 70_000, ..v1::Problem::default() });
        m.instances[0].state = Some(State::Starting(v1::Starting { since_ms: 0, last }));
    };
    assert_eq!(check(starting), "instances[0].starting.last.code");
    let unready = |m: &mut v1::HostReport| m.instances[0].state = Some(State::Unready(v1::Unready::default()));
    assert_eq!(check(unready), "instances[0].unready.problem");
    let failed = |m: &mut v1::HostReport| m.instances[0].state = Some(State::Failed(v1::Failed::default()));
    assert_eq!(check(failed), "instances[0].failed.problem");
    let ready = |m: &mut v1::HostReport| m.instances[0].state = Some(State::Ready(v1::Ready { since_ms: u64::MAX }));
    assert_eq!(check(ready), "instances[0].ready.since_ms");
    assert_eq!(check(|m| m.pools[1].members[0].running = -1), "pools[1].members[0].running");
    assert_eq!(check(|m| m.pools[1].members[0].on_disk = 0), "pools[1].members[0].on_disk");
    assert_eq!(check(|m| m.pools[1].members[0].out_for_ms = u64::MAX), "pools[1].members[0].out_for_ms");
    assert_eq!(check(|m| m.pools[1].members[1].key.clear()), "pools[1].members[1].key");
    assert_eq!(check(|m| m.releases[0].release_id.clear()), "releases[0].release_id");
    assert_eq!(check(|m| m.releases[0].state = None), "releases[0].state");
    assert_eq!(check(|m| m.problems[1].code = 65_536), "problems[1].code");
}

#[test]
fn an_endless_duration_is_written_as_the_longest_there_is() {
    let mut spec = spec();
    spec.pools.values_mut().for_each(|pool| pool.drain_deadline = Duration::MAX);
    let read = HostSpec::try_from(v1::HostSpec::from(&spec)).unwrap();
    let longest = read.pools.values().next().unwrap().drain_deadline;
    assert_eq!(longest, super::LONGEST);
    assert!(std::time::Instant::now().checked_add(longest).is_some(), "and no clock overflows with it");
}

/// Bytes flipped and cut at every place either fail to decode, or read as something, or name a field: never a panic.
#[test]
fn broken_bytes_do_no_harm() {
    let good = v1::HostSpec::from(&spec()).encode_to_vec();
    let mut refused = 0;
    for at in 0..good.len() {
        for bytes in [good[..at].to_vec(), flipped(&good, at, 0x01), flipped(&good, at, 0x80), flipped(&good, at, 0xff)] {
            let Ok(message) = v1::HostSpec::decode(&*bytes) else { continue };
            if let Err(error) = HostSpec::try_from(message) {
                refused += 1;
                assert!(!error.field.is_empty() && !error.what.is_empty(), "{error:?}");
            }
        }
    }
    assert!(refused > good.len() / 10, "only {refused} of {} were refused", 4 * good.len());
}

fn flipped(bytes: &[u8], at: usize, bits: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= bits;
    bytes
}
