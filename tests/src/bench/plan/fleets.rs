//! Large fleets with one rollout half way: the first half of its hosts has the new release, and the next host's turn has come.

use anyhow::Context as _;
use baton_core::fleet::report::{HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState};
use baton_core::fleet::spec::{Exchange, InstanceSpec, MemberSpec, MemberState, PoolSpec, Restart};
use baton_core::fleet::split::Side;
use baton_core::fleet::{BalancerPool, Fleet, Heard, Host, InstanceKey, MemberKey, Service};
use baton_core::name::{Digest, Epoch, Generation, HostName, PoolName, RolloutId, ServiceName, Slot, Version};
use baton_core::release::{Artifact, Health, Probe, Release, Run, Signal, Stop};
use baton_core::rollout::{Consent, Direction, Rollout, RolloutState};
use baton_core::strategy::{Amount, OnFailure, Placement, Strategy, Wave};
use baton_core::time::Moment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub(super) const NOW: Moment = Moment(1_000_000);
const PORT: u16 = 8101;
/// What a service of an ordinary fleet has.
const HOSTS_OF_A_SERVICE: u32 = 50;
/// Balancer hosts of the fleet with many services.
const BALANCERS: u32 = 20;

/// One service on every host, behind one balancer.
pub(super) fn one_service(hosts: u32) -> anyhow::Result<Fleet> {
    let mut fleet = Fleet { epoch: Epoch(1), ..Fleet::default() };
    add_service(&mut fleet, "shop", 0..hosts.saturating_sub(1), &host_name("lb", 0)?, true)?;
    settle(&mut fleet)?;
    Ok(fleet)
}

/// Services on fifty hosts each; one of them has a rollout.
pub(super) fn many_services(hosts: u32) -> anyhow::Result<Fleet> {
    let mut fleet = Fleet { epoch: Epoch(1), ..Fleet::default() };
    for first in (0..hosts.saturating_sub(BALANCERS)).step_by(HOSTS_OF_A_SERVICE as usize) {
        let service = first / HOSTS_OF_A_SERVICE;
        let last = (first + HOSTS_OF_A_SERVICE).min(hosts - BALANCERS);
        let balancer = host_name("lb", service % BALANCERS)?;
        add_service(&mut fleet, &format!("shop-{service}"), first..last, &balancer, service == 0)?;
    }
    settle(&mut fleet)?;
    Ok(fleet)
}

fn add_service(
    fleet: &mut Fleet,
    name: &str,
    numbers: std::ops::Range<u32>,
    balancer: &HostName,
    rolls: bool,
) -> anyhow::Result<()> {
    let name = ServiceName::new(name)?;
    let (old, new) = (release(&name, "1")?, release(&name, "2")?);
    let pool = PoolName::new(name.as_str())?;
    let hosts = numbers.clone().map(|number| host_name("web", number)).collect::<anyhow::Result<Vec<_>>>()?;
    let strategy = strategy();
    let service = Service {
        hosts: hosts.clone(),
        ports: vec![PORT],
        balancer: Some(BalancerPool {
            on: vec![balancer.clone()],
            pool: pool.clone(),
            slow_start: std::time::Duration::ZERO,
            withdraw: None,
        }),
        strategy: strategy.clone(),
        committed: Some(old.id()),
        previous: None,
        warm: None,
        hooks: Default::default(),
        orders: Default::default(),
        past: Default::default(),
    };
    let mut told = PoolSpec {
        service: name.clone(),
        members: BTreeMap::new(),
        drain_deadline: strategy.drain_deadline,
        slow_start: Duration::ZERO,
        split: None,
        exchange: Exchange::Each,
    };
    let mut seen = PoolReport { balancer: "1".into(), ..PoolReport::default() };
    for (index, (host, number)) in hosts.iter().zip(numbers).enumerate() {
        let has_new = rolls && index < hosts.len() / 2;
        let (release, restart) = if has_new { (&new, Restart::Never) } else { (&old, Restart::Always) };
        let mut known = Host::new(IpAddr::V4(Ipv4Addr::from(0x0A00_0000 + number)));
        let instance = InstanceSpec {
            release: release.id(),
            address: known.endpoint(PORT),
            restart,
            start: 0,
            fallback: None,
            scrape: None,
            withdraw: None,
        };
        let ready = InstanceState::Ready { since: Duration::from_secs(60) };
        let runs = InstanceReport { release: release.id(), incarnation: "1".into(), start: 0, state: ready };
        let mut report = HostReport { boot: "1".into(), ..HostReport::default() };
        let key = InstanceKey { service: name.clone(), slot: Slot(0) };
        report.instances.insert(key.clone(), runs);
        for release in [&old, &new].into_iter().take(if rolls { 2 } else { 1 }) {
            report.releases.insert(release.id(), ReleaseState::Held);
            known.issued.releases.insert(release.id(), release.clone().into());
        }
        let member = MemberKey { host: host.clone(), slot: Slot(0) };
        told.members.insert(member.clone(), member_spec(&instance));
        seen.members.insert(member, MemberReport::quiet(MemberState::Ready));
        known.issued.instances.insert(key, instance);
        known.heard = Some(Heard { at: NOW, report });
        fleet.hosts.insert(host.clone(), known);
    }
    let lb = fleet.hosts.entry(balancer.clone()).or_insert_with(|| Host::new(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    lb.issued.pools.insert(pool.clone(), told);
    let heard = lb.heard.get_or_insert_with(|| Heard { at: NOW, report: HostReport::default() });
    heard.report.pools.insert(pool, seen);
    if rolls {
        let rollout = rollout(&name, &service, &new)?;
        fleet.rollouts.insert(rollout.id.clone(), rollout);
        fleet.releases.insert(new.id(), new.into());
    }
    fleet.releases.insert(old.id(), old.into());
    fleet.services.insert(name, service);
    Ok(())
}

/// Every host is connected and has answered the newest spec. What was stored and what was heard was read: nothing of it is shared.
fn settle(fleet: &mut Fleet) -> anyhow::Result<()> {
    for host in fleet.hosts.values_mut() {
        host.connected = true;
        (host.issued.epoch, host.issued.generation) = (Epoch(1), Generation(7));
        let stamp = host.issued.stamp();
        if let Some(heard) = &mut host.heard {
            heard.report.observed = stamp;
            heard.report = read(&heard.report)?;
        }
        host.issued = read(&host.issued)?;
    }
    for service in fleet.services.values_mut() {
        *service = read(service)?;
    }
    Ok(())
}

fn read<T: Serialize + DeserializeOwned>(written: &T) -> anyhow::Result<T> {
    Ok(serde_json::from_value(serde_json::to_value(written)?)?)
}

fn host_name(kind: &str, number: u32) -> anyhow::Result<HostName> {
    HostName::new(format!("{kind}{number:05}")).context("not a name")
}

fn member_spec(instance: &InstanceSpec) -> MemberSpec {
    let probe = Probe::Http { path: "/healthz".into() };
    MemberSpec { address: instance.address, state: MemberState::Ready, weight: 100, side: Side::Stable, probe }
}

fn release(service: &ServiceName, version: &str) -> anyhow::Result<Release> {
    Ok(Release {
        service: service.clone(),
        version: Version::new(version)?,
        artifact: Artifact { digest: Digest::of(version.as_bytes()), size: 10_000_000 },
        run: Run {
            command: vec!["bin/shop".into(), "--listen".into(), "{address}:{port}".into()],
            user: None,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            stop: Stop { signal: Signal::Term, timeout: Duration::from_secs(10) },
            listen: Vec::new(),
        },
        health: Health {
            probe: Probe::Http { path: "/healthz".into() },
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy_for: Duration::from_secs(5),
            start_timeout: Duration::from_secs(60),
        },
        hooks: Default::default(),
    })
}

/// One host at a time.
fn strategy() -> Strategy {
    Strategy {
        placement: Placement::InPlace,
        waves: vec![Wave::of(Amount::Percent(100))],
        max_unavailable: Amount::Hosts(1),
        parallel: None,
        spread_by: None,
        lockstep: false,
        keep_old: Duration::ZERO,
        exclusive: false,
        bake: Duration::ZERO,
        drain_deadline: Duration::from_secs(30),
        progress_deadline: Duration::from_secs(600),
        on_failure: OnFailure::Revert,
        users: Default::default(),
        guard: Default::default(),
        gate: None,
        max_failed: None,
        prober: None,
        scrape: None,
        prometheus: None,
        second_person: false,
    }
}

fn rollout(name: &ServiceName, service: &Service, new: &Release) -> anyhow::Result<Rollout> {
    Ok(Rollout {
        id: RolloutId::new("r-2")?,
        service: name.clone(),
        from: service.committed,
        to: new.id(),
        strategy: service.strategy.clone(),
        hosts: service.hosts.clone(),
        state: RolloutState::Running,
        direction: Direction::Forward,
        turned: None,
        pause: None,
        wave: 0,
        promoted: 0,
        wave_done: None,
        started: NOW,
        progressed: NOW,
        ended: None,
        by: "ana".into(),
        evidence: Vec::new(),
        judgement: Default::default(),
        starts: BTreeMap::new(),
        left_out: Vec::new(),
        anew: false,
        returns: false,
        kept: BTreeSet::new(),
        consent: Consent::NotNeeded,
    })
}
