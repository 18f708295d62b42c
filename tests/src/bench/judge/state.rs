//! What judging costs: the time from a poll to a verdict, and what is kept of each service.

use anyhow::Context as _;
use baton_core::analysis::growth::Growth;
use baton_core::analysis::history::History;
use baton_core::analysis::judgement::{Judgement, Settings};
use baton_core::analysis::meters::{Meters, Whose};
use baton_core::analysis::settings::{GateSettings, GuardSettings, NotEnough};
use baton_core::analysis::slowness::Pace;
use baton_core::fleet::MemberKey;
use baton_core::fleet::latency::Latency;
use baton_core::fleet::report::{InstanceReport, InstanceState, MemberReport, PoolReport};
use baton_core::fleet::spec::MemberState;
use baton_core::name::{Digest, HostName, ReleaseId, Slot};
use baton_core::time::Moment;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Promised.
const VERDICT_MS: f64 = 1.0;
const STATE_MIB: f64 = 16.0;

const SERVICES: usize = 10_000;
/// So many are held to see what all of them take: none shares anything with another but the names of its hosts.
const HELD: usize = 1000;
/// Of each of them.
const MEMBERS: usize = 4;
/// Of the one that is judged in time.
const MANY: usize = 1000;
/// Requests that a member answers between two looks.
const REQUESTS: u64 = 40;
/// Ten minutes of looks, and a rollout of five.
const RESTS: u64 = 300;
const LOOKS: u64 = 150;

/// What was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct State {
    members: usize,
    /// From a report of all of them to a verdict: the median look.
    verdict_ms: f64,
    promised_verdict_ms: f64,
    services: usize,
    members_each: usize,
    /// What is stored with a rollout under way of each, all answers timed.
    stored_mib: f64,
    promised_stored_mib: f64,
    /// What a coordinator holds in memory of them while nothing is on trial.
    at_rest: AtRest,
    promised_at_rest_mib: f64,
}

/// What is held in memory at rest, in MiB, by what it is for.
#[derive(Debug, Clone, Copy, Serialize)]
struct AtRest {
    all: f64,
    /// The last reading of every counter: a rollout begins where they are.
    readings: f64,
    /// How many requests were answered, how many of them failed and how long they took, in the last ten minutes.
    usual: f64,
    /// What the memory of every instance did in the last minutes.
    memory: f64,
}

/// A service's members, each of which answers.
struct Service {
    hosts: Vec<HostName>,
    balancer: HostName,
}

impl Service {
    fn of(members: usize) -> anyhow::Result<Self> {
        let hosts = (0..members).map(|number| format!("web{number}").parse());
        Ok(Self { hosts: hosts.collect::<Result<_, _>>()?, balancer: "lb1".parse()? })
    }

    fn member(&self, number: usize) -> Option<MemberKey> {
        Some(MemberKey { host: self.hosts.get(number)?.clone(), slot: Slot(0) })
    }

    /// What the balancer has counted after so many looks: a busy service's counters of a month.
    fn counted(&self, looks: u64) -> PoolReport {
        let took = |bucket: usize| if (4..16).contains(&bucket) { (1 << 28) + looks * REQUESTS / 12 } else { 0 };
        let report = |_| MemberReport {
            requests: (1 << 32) + looks * REQUESTS,
            errors: (1 << 20) + looks / 8,
            latency: Some(Latency::new(std::array::from_fn(took)).into()),
            ..MemberReport::quiet(MemberState::Ready)
        };
        let members = (0..self.hosts.len()).filter_map(|number| self.member(number));
        let balancer = "4242-1718000000".to_owned();
        PoolReport { balancer, members: members.map(|key| (key, report(()))).collect(), ..PoolReport::default() }
    }
}

/// What is held of a service at rest.
#[derive(Debug, Clone, Default)]
struct Rest {
    meters: Meters,
    history: History,
    pace: Pace,
    growth: Growth,
}

impl Rest {
    fn of(service: &Service) -> Self {
        let mut rest = Self::default();
        let release = ReleaseId(Digest::of(b"1.0"));
        for look in 0..RESTS {
            rest.meters.read(&service.balancer, &service.counted(look), Moment(look * 2000), |_| Some(Whose::Old));
            let traffic = rest.meters.take();
            rest.history.take(Moment(look * 2000), &traffic.of(Whose::Old));
            rest.pace.take(&traffic);
            let state = InstanceState::Ready { since: Duration::from_secs(look * 2) };
            let incarnation = "9c4ef0e2-6a53-4b0a-9e2c-0f8f4f3a7f10 4242 81234567".to_owned();
            let instance = InstanceReport { release, incarnation, start: 0, state };
            for member in (0..service.hosts.len()).filter_map(|number| service.member(number)) {
                rest.growth.see(&member, &instance, 64 << 20);
            }
        }
        rest
    }
}

pub(super) fn measured() -> anyhow::Result<State> {
    let at_rest = at_rest()?;
    let few = Service::of(MEMBERS)?;
    let (judgement, _) = judged(&few, &Rest::of(&few))?;
    let stored = serde_json::to_string(&judgement)?.len();
    let many = Service::of(MANY)?;
    let (_, mut looks) = judged(&many, &Rest::of(&many))?;
    looks.sort();
    let median = looks.get(looks.len() / 2).copied().unwrap_or_default();
    Ok(State {
        members: MANY,
        verdict_ms: (median.as_secs_f64() * 1e6).round() / 1e3,
        promised_verdict_ms: VERDICT_MS,
        services: SERVICES,
        members_each: MEMBERS,
        stored_mib: mib(stored * SERVICES),
        promised_stored_mib: STATE_MIB,
        at_rest,
        promised_at_rest_mib: STATE_MIB,
    })
}

/// A rollout of a service: what is remembered of it, and how long each look took.
fn judged(service: &Service, rest: &Rest) -> anyhow::Result<(Judgement, Vec<Duration>)> {
    let guard = GuardSettings::default();
    let max_wait = Duration::from_secs(1800);
    let gate = GateSettings { rule_out_ppm: 10_000, max_wait, on_not_enough_data: NotEnough::Pause };
    let settings = Settings { guard: &guard, gate: Some(&gate), on_trial: true, alone: false };
    let mut judgement = Judgement::begin(&rest.history.summary(Moment(RESTS * 2000)), rest.pace.frozen());
    let mut meters = rest.meters.clone();
    let middle = service.member(service.hosts.len() / 2).context("a service without members")?;
    let whose = |member: &MemberKey| Some(if *member < middle { Whose::New } else { Whose::Old });
    let mut took = Vec::new();
    for look in RESTS..RESTS + LOOKS {
        let report = service.counted(look);
        let began = Instant::now();
        meters.read(&service.balancer, &report, Moment(look * 2000), whose);
        // As the driver does.
        judgement.meters = meters.settled();
        judgement.look(settings, meters.pending(), Moment(look * 2000));
        let verdict = judgement.verdict("2.0", "1.0");
        took.push(began.elapsed());
        anyhow::ensure!(verdict.is_none(), "{verdict:?}: both releases answer alike");
        meters.take();
    }
    Ok((judgement, took))
}

fn at_rest() -> anyhow::Result<AtRest> {
    let services: Vec<Service> = (0..HELD).map(|_| Service::of(MEMBERS)).collect::<Result<_, _>>()?;
    // Whatever is needed on the way is there once one was made.
    let first = services.first().map(Rest::of);
    // All are kept until the end: what is given back would be taken anew, and not be seen. What is in holes between the parts
    // is of all together only.
    let (all, rests) = held(&services, |rest| rest)?;
    let (readings, meters) = held(&services, |rest| rest.meters)?;
    let (usual, past) = held(&services, |rest| (rest.history, rest.pace))?;
    let (memory, growth) = held(&services, |rest| rest.growth)?;
    drop((first, rests, meters, past, growth));
    Ok(AtRest { all, readings, usual, memory })
}

/// What a part of all services takes, and the parts of some.
fn held<T>(services: &[Service], part: impl Fn(Rest) -> T) -> anyhow::Result<(f64, Vec<T>)> {
    let before = anonymous()?;
    let parts: Vec<T> = services.iter().map(|service| part(Rest::of(service))).collect();
    let taken = anonymous()?.saturating_sub(before);
    Ok((mib(taken / HELD * SERVICES), parts))
}

/// Memory of this process's own, in bytes.
fn anonymous() -> anyhow::Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

fn mib(bytes: usize) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

impl State {
    pub(super) fn violations(&self) -> Vec<String> {
        let measured = [
            (self.verdict_ms, VERDICT_MS, "ms from a poll of a thousand members to a verdict"),
            (self.stored_mib, STATE_MIB, "MiB are stored of ten thousand services"),
            (self.at_rest.all, STATE_MIB, "MiB are held in memory of ten thousand services at rest"),
        ];
        let beyond = measured.into_iter().filter(|(measured, promised, _)| measured > promised);
        beyond.map(|(measured, promised, what)| format!("{measured} {what}, not {promised}")).collect()
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:.2} ms from a poll of {} members to a verdict (promised: {VERDICT_MS})",
            self.verdict_ms, self.members
        )?;
        let Self { services, members_each, stored_mib, at_rest, .. } = self;
        let AtRest { all, readings, usual, memory } = at_rest;
        writeln!(
            f,
            "{services} services of {members_each} members, every answer timed: {stored_mib} MiB stored with a rollout each \
             (promised: {STATE_MIB}); {all} MiB held at rest (promised: {STATE_MIB}): {readings} of readings, {usual} of what is usual \
             and {memory} of the instances' memory"
        )
    }
}
