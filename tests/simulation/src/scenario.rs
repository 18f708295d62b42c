//! What a seed stands for: a fleet, a good or a bad release, a network, and what goes wrong when.

use super::people::{Which, Wish};
use super::process::HEALTHY_FOR;
use super::random::Random;
use super::strategies;
use baton_core::fleet::orders::Orders;
use baton_core::fleet::withdraw::Withdraw;
use baton_core::fleet::{BalancerPool, Service};
use baton_core::hook::{Hook, Hooks, Point};
use baton_core::name::{Digest, HostName, PoolName, ReleaseId, ServiceName, Version};
use baton_core::release::{Artifact, Health, Probe, Release, Run, Signal, Stop};
use baton_core::strategy::{Placement, Strategy};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long faults go on; afterwards nothing new breaks.
pub(super) const FAULTS_END: u64 = 90_000;
/// When the first release should be everywhere, and things begin to go wrong.
pub(super) const FAULTS_BEGIN: u64 = 30_000;

/// By then everything must have come to rest.
pub(super) const LAST: u64 = 600_000;

/// Longer than any run.
const FOR_EVER: u64 = 10_000_000;

#[derive(Debug, Clone)]
pub(super) struct Scenario {
    /// The services: the one that everything is about, and now and then another one on some of its hosts.
    pub(super) parts: Vec<Part>,
    /// A host that joins with the others, and that no service names at first.
    pub(super) spare: Option<HostName>,
    /// Percent of messages lost while faults go on.
    pub(super) loss: u64,
    /// The longest a message takes, in milliseconds.
    pub(super) delay: u64,
    /// What happens when, by millisecond.
    pub(super) script: Vec<(u64, Happening)>,
    /// Whether anything in the script takes capacity away that is not ours to take.
    pub(super) capacity_faults: bool,
    /// The one that is cut off and never comes back.
    pub(super) broken: Option<HostName>,
    /// Whether people say of it that it does not come back.
    pub(super) gives_up: bool,
}

/// A service, as its manifest says now, and its releases.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) name: ServiceName,
    pub(super) service: Service,
    pub(super) old: Release,
    pub(super) new: Release,
    /// A good one that takes the place of `new`, or comes after it.
    pub(super) third: Release,
    /// What `new` is like.
    pub(super) quality: Quality,
}

/// What the new release is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quality {
    Good,
    NeverReady,
    ExitsAtOnce,
    CrashesLater,
    RejectedArtifact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Happening {
    /// What people ask for of the service in this place.
    Wish(usize, Wish),
    AgentCrash(HostName, u64),
    Reboot(HostName, u64),
    /// The host's messages go nowhere, both ways, for so long.
    Cut(HostName, u64),
    InstanceCrash(HostName),
    BalancerRestart(HostName),
    CoordinatorCrash(u64),
}

impl Scenario {
    pub(super) fn new(random: &mut Random) -> Self {
        let hosts = random.between(2, 5);
        let web: Vec<HostName> = (1..=hosts).map(|it| name(&format!("web{it}"))).collect();
        let balancers = if random.chance(20) { 2 } else { 1 };
        let on: Vec<HostName> = (1..=balancers).map(|it| name(&format!("lb{it}"))).collect();
        let mut parts = vec![Part::new(random, "shop", 8101, &web, &on)];
        if random.chance(30) {
            let first = random.between(0, hosts - 2) as usize;
            parts.push(Part::new(random, "cart", 8201, web.get(first..).unwrap_or(&web), &on));
        }
        let spare = Some(name("web9")).filter(|_| random.chance(25));
        let capacity_faults = random.chance(50);
        let mut script = faults(random, &web, &on, capacity_faults);
        for (place, part) in parts.iter().enumerate() {
            script.extend(
                wishes(random, part, &on, spare.as_ref()).into_iter().map(|(at, it)| (at, Happening::Wish(place, it))),
            );
        }
        script.retain(|(at, _)| *at < FAULTS_END);
        let all: Vec<HostName> = web.iter().chain(&on).cloned().collect();
        let broken = random.pick(&all).cloned();
        let broken = broken.filter(|_| random.chance(10));
        let breaks = FAULTS_BEGIN + random.between(0, 30_000);
        script.extend(broken.iter().map(|it| (breaks, Happening::Cut(it.clone(), FOR_EVER))));
        let loss = if random.chance(50) { random.between(0, 30) } else { 0 };
        let delay = random.between(1, 300);
        if delay.is_multiple_of(4) {
            let pools = parts.iter_mut().filter_map(|part| part.service.balancer.as_mut());
            pools.for_each(|pool| pool.slow_start = Duration::from_secs(delay / 20));
        }
        if delay % 2 == 1 {
            let stay = |part: &&mut Part| {
                let strategy = &part.service.strategy;
                strategy.placement == Placement::InPlace && !strategy.exclusive
            };
            let pools = parts.iter_mut().filter(stay).filter_map(|part| part.service.balancer.as_mut());
            let withdraw = Withdraw { signal: Signal::Usr1, unready_for: Duration::from_millis(delay * 10) };
            pools.for_each(|pool| pool.withdraw = Some(withdraw));
        }
        Self { parts, spare, loss, delay, script, capacity_faults, broken, gives_up: random.chance(50) }
    }

    /// The service of this name.
    pub(super) fn part(&self, name: &ServiceName) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == *name)
    }

    /// The service that has a pool of this name.
    pub(super) fn part_of_pool(&self, pool: &PoolName) -> Option<&Part> {
        self.parts.iter().find(|part| part.service.balancer.as_ref().is_some_and(|it| it.pool == *pool))
    }

    /// What a release is like.
    pub(super) fn quality_of(&self, release: ReleaseId) -> Quality {
        self.parts.iter().find(|part| part.new.id() == release).map_or(Quality::Good, |part| part.quality)
    }
}

impl Part {
    fn new(random: &mut Random, name: &str, port: u16, web: &[HostName], on: &[HostName]) -> Self {
        let strategy = strategies::draw(random, web.len());
        let ports = match strategy.placement {
            Placement::SideBySide => vec![port, port + 1],
            Placement::InPlace => vec![port],
        };
        let quality = match random.between(0, 9) {
            0..=4 => Quality::Good,
            5 | 6 => Quality::NeverReady,
            7 => Quality::ExitsAtOnce,
            8 => Quality::CrashesLater,
            _ => Quality::RejectedArtifact,
        };
        let mut part = Self::of(name, ports, web, on, strategy, quality);
        if random.chance(50) {
            part.new.hooks = hooks(random);
        }
        part
    }

    pub(super) fn of(
        name: &str,
        ports: Vec<u16>,
        web: &[HostName],
        on: &[HostName],
        strategy: Strategy,
        quality: Quality,
    ) -> Self {
        let pool = PoolName::new(name).expect("a name");
        let service = Service {
            hosts: web.to_vec(),
            ports,
            balancer: Some(BalancerPool { on: on.to_vec(), pool, slow_start: std::time::Duration::ZERO, withdraw: None }),
            strategy,
            committed: None,
            previous: None,
            warm: None,
            hooks: Default::default(),
            orders: Orders::default(),
            past: Default::default(),
        };
        let [old, new, third] = ["1", "2", "3"].map(|version| release(name, version));
        Self { name: ServiceName::new(name).expect("a name"), service, old, new, third, quality }
    }
}

/// What people ask for of one service: the new release at half a minute, and whatever else they think of.
fn wishes(random: &mut Random, part: &Part, on: &[HostName], spare: Option<&HostName>) -> Vec<(u64, Wish)> {
    let mut wishes = vec![(FAULTS_BEGIN, Wish::Deploy(Which::New))];
    for _ in 0..random.between(0, 4) {
        let wish = Wish::draw(random, &part.service.hosts, on, spare);
        wishes.push((FAULTS_BEGIN + random.between(100, 40_000), wish));
    }
    if part.service.strategy.keeps_old() && random.chance(40) {
        wishes.push((FAULTS_BEGIN + random.between(8_000, 25_000), Wish::Rollback));
    }
    if !part.new.hooks.0.is_empty() && random.chance(30) {
        wishes.push((FAULTS_BEGIN + random.between(30_000, 50_000), Wish::Deploy(Which::New)));
    }
    wishes
}

/// Whatever goes wrong once the first release should be everywhere.
fn faults(random: &mut Random, web: &[HostName], on: &[HostName], capacity_faults: bool) -> Vec<(u64, Happening)> {
    let mut script = Vec::new();
    let all: Vec<HostName> = web.iter().chain(on).cloned().collect();
    for _ in 0..random.between(0, 4) {
        let at = FAULTS_BEGIN + random.between(0, 30_000);
        let lasts = random.between(100, 15_000);
        let Some(any) = random.pick(&all).cloned() else { continue };
        let Some(host) = random.pick(web).cloned() else { continue };
        let Some(balancer) = random.pick(on).cloned() else { continue };
        script.push((
            at,
            match random.between(0, if capacity_faults { 6 } else { 3 }) {
                0 => Happening::AgentCrash(any, lasts),
                1 => Happening::Cut(any, lasts),
                2 => Happening::CoordinatorCrash(lasts),
                3 => Happening::BalancerRestart(balancer),
                4 => Happening::InstanceCrash(host),
                5 => Happening::Reboot(any, lasts),
                _ => Happening::Cut(balancer, lasts),
            },
        ));
    }
    script
}

pub(super) fn name(text: &str) -> HostName {
    HostName::new(text).expect("a name")
}

/// Some hooks, now and then one after which there is no way back.
fn hooks(random: &mut Random) -> Hooks {
    let mut hooks = Hooks::default();
    for point in Point::ALL {
        if random.chance(60) {
            let no_way_back = point == Point::Migrate && random.chance(25);
            let command = vec![format!("bin/{point}")];
            hooks.0.insert(point, Hook { command, timeout: Duration::from_secs(20), no_way_back });
        }
    }
    hooks
}

fn release(name: &str, version: &str) -> Release {
    Release {
        service: ServiceName::new(name).expect("a name"),
        version: Version::new(version).expect("a version"),
        artifact: Artifact { digest: Digest::of(format!("{name} {version}").as_bytes()), size: 1_000_000 },
        run: Run {
            command: vec!["bin/shop".into()],
            user: None,
            env: BTreeMap::new(),
            secrets: std::collections::BTreeMap::new(),
            stop: Stop { signal: Signal::Term, timeout: Duration::from_secs(3) },
            listen: Vec::new(),
        },
        health: Health {
            probe: Probe::Tcp,
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            healthy_for: Duration::from_millis(HEALTHY_FOR),
            start_timeout: Duration::from_secs(8),
        },
        hooks: Default::default(),
    }
}
