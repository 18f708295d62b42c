//! Fleets from text, plans to text.

use baton_core::fleet::ability::{BalancerAbility, SplitAbility};
use baton_core::fleet::orders::Orders;
use baton_core::fleet::report::{HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState};
use baton_core::fleet::spec::{Exchange, HostSpec, InstanceSpec, MemberSpec, MemberState, PoolSpec, Restart};
use baton_core::fleet::split::Side;
use baton_core::fleet::{BalancerPool, Fleet, Heard, Host, InstanceKey, LiteMap, MemberKey, Service};
use baton_core::name::{
    Digest, Epoch, Generation, HostName, LabelKey, LabelValue, PoolName, ReleaseId, RolloutId, ServiceName, Slot, Version,
};
use baton_core::problem::{Code, Problem};
use baton_core::release::{Artifact, Health, Probe, Release, Run, Signal, Stop};
use baton_core::rollout::plan::Plan;
use baton_core::rollout::{Consent, Direction, Evidence, Rollout, RolloutState};
use baton_core::strategy::{Amount, OnFailure, Placement, Strategy, Wave};
use baton_core::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NOW: Moment = Moment(1_000_000);
const HEALTHY: Duration = Duration::from_secs(3);

pub(crate) struct World {
    pub(crate) fleet: Fleet,
}

pub(crate) fn shop() -> ServiceName {
    ServiceName::new("shop").expect("a name")
}

pub(crate) fn host(text: &str) -> HostName {
    HostName::new(text).expect("a name")
}

pub(crate) fn pool() -> PoolName {
    PoolName::new("shop").expect("a name")
}

fn slot(text: &str) -> Slot {
    Slot(text.bytes().next().expect("a letter") - b'a')
}

pub(crate) fn release(version: &str) -> Release {
    Release {
        service: shop(),
        version: Version::new(version).expect("a version"),
        artifact: Artifact { digest: Digest::of(version.as_bytes()), size: 100 },
        run: Run {
            command: vec!["bin/shop".into()],
            user: None,
            env: BTreeMap::new(),
            secrets: std::collections::BTreeMap::new(),
            stop: Stop { signal: Signal::Term, timeout: Duration::from_secs(30) },
            listen: Vec::new(),
        },
        health: Health {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            healthy_for: HEALTHY,
            start_timeout: Duration::from_secs(60),
        },
        hooks: Default::default(),
    }
}

/// Every balancer divides requests as it is told.
pub(crate) fn able() -> BalancerAbility {
    BalancerAbility { driver: "builtin".to_owned(), split: SplitAbility::Everything, ..BalancerAbility::default() }
}

impl World {
    pub(crate) fn parse(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let options = lines.next().expect("a line of options");
        let lines: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
        let names = |prefix: &str| -> Vec<HostName> {
            lines.iter().map(|words| words[0]).filter(|name| name.starts_with(prefix)).map(host).collect()
        };
        let mut fleet = Fleet { epoch: Epoch(1), ..Fleet::default() };
        fleet.releases.extend(["v1", "v2"].map(|version| (release(version).id(), release(version).into())));
        let service = service(options, names("web"), names("lb"));
        let rollout = rollout(options, &service);
        for (index, words) in lines.iter().enumerate() {
            let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(index).expect("few hosts")));
            fleet.hosts.insert(host(words[0]), parse_host(words, Host::new(address), &fleet));
        }
        if let Some(balancer) = &service.balancer {
            for words in lines.iter().filter(|words| words[0].starts_with("web")) {
                for name in &balancer.on {
                    enroll(&mut fleet, name, words);
                }
            }
        }
        fleet.services.insert(shop(), service);
        fleet.rollouts.extend(rollout.map(|rollout| (rollout.id.clone(), rollout)));
        let held: LiteMap<ReleaseId, Arc<Release>> = match fleet.rollouts.values().next() {
            Some(rollout) => rollout.from.into_iter().chain([rollout.to]).collect(),
            None => vec![release("v1").id()],
        }
        .into_iter()
        .map(|id| (id, fleet.releases[&id].clone()))
        .collect();
        for (_, web) in fleet.hosts.iter_mut().filter(|(name, _)| name.as_str().starts_with("web")) {
            web.issued.releases = held.clone();
        }
        Self { fleet }
    }

    /// What a plan changes and what it waits for, a line each.
    pub(crate) fn tell(&self, plan: &Plan) -> Vec<String> {
        let mut lines = Vec::new();
        for rollout in plan.rollouts.values() {
            let before = self.fleet.rollouts.get(&rollout.id);
            if before.map(|it| (it.state, it.wave)) != Some((rollout.state, rollout.wave)) {
                lines.push(format!("rollout {} wave {}", word(&rollout.state), rollout.wave));
            }
        }
        for (name, spec) in &plan.specs {
            let before = &self.fleet.hosts[name].issued;
            tell_instances(name, before, spec, &mut lines);
            tell_members(name, before, spec, &mut lines);
            if before.releases != spec.releases {
                lines.push(format!("{name} holds {} releases", spec.releases.len()));
            }
        }
        for waiting in plan.waiting.values().flatten() {
            let host = waiting.host.as_ref().map_or("rollout", |host| host.as_str());
            lines.push(format!("{host} waits: {}", waiting.reason.word()));
        }
        lines
    }
}

fn word<T: std::fmt::Debug>(value: &T) -> String {
    format!("{value:?}").to_lowercase()
}

fn version_of(id: ReleaseId) -> &'static str {
    if id == release("v1").id() { "v1" } else { "v2" }
}

fn letter(slot: Slot) -> char {
    char::from(b'a' + slot.0)
}

fn tell_instances(name: &HostName, before: &HostSpec, after: &HostSpec, lines: &mut Vec<String>) {
    for (key, instance) in &after.instances {
        if before.instances.get(key).map(|it| it.release) != Some(instance.release) {
            lines.push(format!("{name} starts {}={}", letter(key.slot), version_of(instance.release)));
        }
    }
    for key in before.instances.keys().filter(|key| !after.instances.contains_key(key)) {
        lines.push(format!("{name} stops {}", letter(key.slot)));
    }
}

fn tell_members(name: &HostName, before: &HostSpec, after: &HostSpec, lines: &mut Vec<String>) {
    for (member, spec) in after.pools.values().flat_map(|pool| &pool.members) {
        let was = before.pools.values().find_map(|pool| pool.members.get(member)).map(|it| it.state);
        if was != Some(spec.state) {
            lines.push(format!("{name} takes {}/{} {}", member.host, letter(member.slot), word(&spec.state)));
        }
    }
}

fn service(options: &str, hosts: Vec<HostName>, on: Vec<HostName>) -> Service {
    let side_by_side = options.contains("side-by-side");
    let number = |key: &str| options.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse::<u32>().ok());
    let percent = options.split_whitespace().find_map(|word| word.strip_prefix("max=")?.strip_suffix('%'));
    let waves = match number("first=") {
        Some(first) => vec![Wave::of(Amount::Hosts(first)), Wave::of(Amount::Percent(100))],
        None => vec![Wave::of(Amount::Percent(100))],
    };
    let strategy = Strategy {
        placement: if side_by_side { Placement::SideBySide } else { Placement::InPlace },
        waves,
        max_unavailable: match percent {
            Some(percent) => Amount::Percent(percent.parse().expect("a number")),
            None => Amount::Hosts(number("max=").unwrap_or(1)),
        },
        parallel: None,
        lockstep: false,
        keep_old: Duration::from_secs(if options.contains("keep-old") { 600 } else { 0 }),
        exclusive: false,
        spread_by: options.contains("spread").then(|| LabelKey::new("rack").expect("a label")),
        bake: Duration::from_secs(number("bake=").unwrap_or(0).into()),
        drain_deadline: Duration::from_secs(30),
        progress_deadline: Duration::from_secs(600),
        on_failure: if options.contains("on-failure-pause") { OnFailure::Pause } else { OnFailure::Revert },
        users: Default::default(),
        guard: Default::default(),
        gate: None,
        max_failed: None,
        prober: None,
        scrape: None,
        prometheus: None,
        second_person: false,
    };
    let first = options.contains("none->");
    Service {
        hosts,
        ports: if side_by_side { vec![8101, 8102] } else { vec![8101] },
        balancer: (!on.is_empty()).then(|| BalancerPool { on, pool: pool(), slow_start: Duration::ZERO, withdraw: None }),
        strategy,
        committed: (!first).then(|| release("v1").id()),
        previous: None,
        warm: None,
        hooks: Default::default(),
        orders: Orders::default(),
        past: Default::default(),
    }
}

fn rollout(options: &str, service: &Service) -> Option<Rollout> {
    if !options.contains("->") {
        return None;
    }
    let back = options.contains("back");
    let paused = options.contains("paused");
    let state = match (paused, back) {
        (true, _) => RolloutState::Paused,
        (_, true) => RolloutState::Reverting,
        _ => RolloutState::Running,
    };
    let evidence = options
        .contains("evidence")
        .then(|| Evidence { host: host("web1"), problem: Problem::new(Code(210), "did not become ready") });
    Some(Rollout {
        id: RolloutId::new("r-1").expect("an id"),
        service: shop(),
        from: service.committed,
        to: release("v2").id(),
        strategy: service.strategy.clone(),
        hosts: service.hosts.clone(),
        state,
        direction: if back { Direction::Back } else { Direction::Forward },
        turned: None,
        pause: None,
        wave: 0,
        promoted: 0,
        wave_done: None,
        started: NOW,
        progressed: NOW,
        ended: None,
        by: "ana".into(),
        evidence: evidence.into_iter().collect(),
        judgement: Default::default(),
        starts: BTreeMap::new(),
        left_out: Vec::new(),
        anew: false,
        returns: false,
        kept: BTreeSet::new(),
        consent: Consent::NotNeeded,
    })
}

fn parse_host(words: &[&str], mut host: Host, fleet: &Fleet) -> Host {
    host.issued.epoch = Epoch(1);
    host.issued.generation = Generation(7);
    host.connected = !words.contains(&"silent");
    let behind = words.contains(&"behind");
    let observed = if behind { HostSpec::default().stamp() } else { host.issued.stamp() };
    let rack = words.iter().find_map(|word| word.strip_prefix("rack="));
    let label = |rack| (LabelKey::new("rack").expect("a label"), LabelValue::new(rack).expect("a value"));
    host.labels.extend(rack.map(label));
    let mut report = HostReport { observed, ..HostReport::default() };
    let unheld = words.iter().find_map(|word| word.strip_prefix("fetching="));
    for (id, release) in &fleet.releases {
        let state = match unheld {
            Some(version) if release.version.as_str() == version => ReleaseState::Fetching { done: 10, total: 100 },
            _ => ReleaseState::Held,
        };
        report.releases.insert(*id, state);
    }
    for (letter, parts) in slots(words) {
        let key = InstanceKey { service: shop(), slot: slot(letter) };
        let release = release(parts[0]).id();
        let address = host.endpoint(8101 + u16::from(key.slot.0));
        let restart = if parts[0] == "v1" { Restart::Always } else { Restart::Never };
        if parts[1] == "none" {
            continue;
        }
        if parts[1] != "leftover" {
            host.issued.instances.insert(
                key.clone(),
                InstanceSpec { release, address, restart, start: 0, fallback: None, scrape: None, withdraw: None },
            );
        }
        report
            .instances
            .insert(key, InstanceReport { release, incarnation: "1".into(), start: 0, state: instance(parts[1]) });
    }
    host.heard = Some(Heard { at: NOW, report });
    host
}

/// The words of the form `a=v1:ready:in`.
fn slots<'a>(words: &[&'a str]) -> Vec<(&'a str, Vec<&'a str>)> {
    let slots = words.iter().filter_map(|word| word.split_once('=')).filter(|(letter, _)| letter.len() == 1);
    slots.map(|(letter, rest)| (letter, rest.split(':').collect())).collect()
}

fn instance(word: &str) -> InstanceState {
    let since = Duration::from_secs(1);
    match word {
        "ready" => InstanceState::Ready { since: HEALTHY },
        "young" => InstanceState::Ready { since },
        "starting" => InstanceState::Starting { since, last: None },
        "stopping" | "leftover" => InstanceState::Stopping { since },
        "unready" => InstanceState::Unready { since, problem: Problem::new(Code(211), "no answer") },
        "failed" => InstanceState::Failed { problem: Problem::new(Code(210), "did not become ready") },
        other => panic!("`{other}` is not a state"),
    }
}

fn enroll(fleet: &mut Fleet, balancer: &HostName, words: &[&str]) {
    let web = host(words[0]);
    let address = fleet.hosts[&web].address;
    for (letter, parts) in slots(words) {
        let member = MemberKey { host: web.clone(), slot: slot(letter) };
        let (told, in_flight) = match parts.get(2).copied().unwrap_or("none") {
            "none" => continue,
            "in" => (MemberState::Ready, 0),
            "out" => (MemberState::Out, 0),
            busy => (MemberState::Out, busy.strip_prefix("busy").and_then(|it| it.parse().ok()).expect("busyN")),
        };
        let port = 8101 + u16::from(member.slot.0);
        let side = Side::Stable;
        let spec = MemberSpec { address: (address, port).into(), state: told, weight: 100, side, probe: Probe::Tcp };
        let host = fleet.hosts.get_mut(balancer).expect("a balancer");
        let pool_spec = host.issued.pools.entry(pool()).or_insert_with(|| PoolSpec {
            service: shop(),
            members: BTreeMap::new(),
            drain_deadline: Duration::from_secs(30),
            slow_start: Duration::ZERO,
            split: None,
            exchange: Exchange::Each,
        });
        pool_spec.members.insert(member.clone(), spec);
        let full_in = (parts.get(3) == Some(&"growing")).then(|| Duration::from_secs(12));
        let report = MemberReport { in_flight, full_in, out_for: Duration::from_secs(1), ..MemberReport::quiet(told) };
        let heard = host.heard.as_mut().expect("a report");
        let pool: &mut PoolReport = heard.report.pools.entry(pool()).or_default();
        pool.members.insert(member, report);
    }
}
