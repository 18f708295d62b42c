//! Small fleets for this crate's tests.

use baton_core::fleet::orders::Orders;
use baton_core::fleet::spec::{HostSpec, InstanceSpec, Restart};
use baton_core::fleet::{BalancerPool, InstanceKey, Service};
use baton_core::name::{Digest, HostName, Slot};
use baton_core::problem::{Code, Problem};
use baton_core::reboot::{self, Phase, Reboot};
use baton_core::release::{Artifact, Health, Probe, Release, Run, Signal, Stop};
use baton_core::rollout::{Consent, Direction, Rollout, RolloutState};
use baton_core::strategy::{Amount, OnFailure, Placement, Strategy, Wave};
use baton_core::time::Moment;
use baton_core::upgrade::{Course, Package, Paused, State, Step, Upgrade};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

pub(crate) fn strategy() -> Strategy {
    Strategy {
        placement: Placement::InPlace,
        waves: vec![Wave::of(Amount::Percent(100))],
        max_unavailable: Amount::Hosts(1),
        parallel: None,
        lockstep: false,
        keep_old: Duration::ZERO,
        exclusive: false,
        spread_by: None,
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

pub(crate) fn service(hosts: &[&str]) -> Service {
    Service {
        hosts: hosts.iter().map(|name| host(name)).collect(),
        ports: vec![8101],
        balancer: None,
        strategy: strategy(),
        committed: None,
        previous: None,
        warm: None,
        hooks: Default::default(),
        orders: Orders::default(),
        past: Default::default(),
    }
}

pub(crate) fn upgrade(id: &str) -> Upgrade {
    let problem = Problem::new(Code(1001), "it fell back");
    Upgrade {
        id: id.parse().unwrap(),
        package: Package {
            artifact: Artifact { digest: Digest::of(b"deb"), size: 3 },
            version: "1:2.0.0-1~rc1".parse().unwrap(),
            architecture: "amd64".parse().unwrap(),
        },
        order: vec![host("web1"), host("web2")],
        rings: vec![Amount::Hosts(1), Amount::Percent(100)],
        healthy_for: Duration::from_secs(10),
        back_within: Duration::from_secs(60),
        by: "ana".into(),
        begun: Moment(5),
        ended: None,
        state: State::Paused(Paused::Failure { host: host("web1"), problem: problem.clone() }),
        courses: BTreeMap::from([(host("web1"), Course { attempt: 1, step: Step::Failed(problem) })]),
    }
}

pub(crate) fn reboot(id: &str) -> Reboot {
    let problem = Problem::new(Code(1001), "it is not back");
    let course = reboot::Course {
        phase: Phase::Told,
        since: Moment(9),
        ours: true,
        boot: "b0".into(),
        failed: Some(problem.clone()),
    };
    Reboot {
        id: id.parse().unwrap(),
        order: vec![host("web1"), host("web2")],
        at_once: 1,
        back_within: Duration::from_secs(60),
        by: "ana".into(),
        why: "a kernel".into(),
        begun: Moment(5),
        ended: None,
        state: State::Paused(Paused::Failure { host: host("web1"), problem }),
        courses: BTreeMap::from([(host("web1"), course)]),
    }
}

pub(crate) fn behind(mut service: Service, balancers: &[&str], pool: &str) -> Service {
    service.balancer = Some(BalancerPool {
        on: balancers.iter().map(|name| host(name)).collect(),
        pool: pool.parse().unwrap(),
        slow_start: std::time::Duration::ZERO,
        withdraw: None,
    });
    service
}

pub(crate) fn release(service: &str, version: &str) -> Release {
    Release {
        service: service.parse().unwrap(),
        version: version.parse().unwrap(),
        artifact: Artifact { digest: Digest::of(version.as_bytes()), size: 3 },
        run: Run {
            command: vec!["bin/shop".into()],
            user: None,
            env: BTreeMap::new(),
            secrets: std::collections::BTreeMap::new(),
            stop: Stop { signal: Signal::Term, timeout: Duration::from_secs(30) },
            listen: Vec::new(),
        },
        health: Health {
            probe: Probe::Http { path: "/healthz".into() },
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy_for: Duration::ZERO,
            start_timeout: Duration::from_secs(60),
        },
        hooks: Default::default(),
    }
}

pub(crate) fn spec(release: &Release) -> HostSpec {
    let key = InstanceKey { service: release.service.clone(), slot: Slot(0) };
    let address = "127.0.0.2:8101".parse().unwrap();
    HostSpec {
        instances: [(
            key,
            InstanceSpec {
                release: release.id(),
                address,
                restart: Restart::Always,
                start: 0,
                fallback: None,
                scrape: None,
                withdraw: None,
            },
        )]
        .into_iter()
        .collect(),
        releases: [(release.id(), release.clone().into())].into_iter().collect(),
        ..HostSpec::default()
    }
}

pub(crate) fn rollout(id: &str, service: &str, state: RolloutState) -> Rollout {
    Rollout {
        id: id.parse().unwrap(),
        service: service.parse().unwrap(),
        from: None,
        to: release(service, "2.1.0").id(),
        strategy: strategy(),
        hosts: vec![host("web1")],
        state,
        direction: Direction::Forward,
        turned: None,
        pause: None,
        wave: 0,
        promoted: 0,
        wave_done: None,
        started: Moment(0),
        progressed: Moment(0),
        ended: (!state.is_active()).then_some(Moment(1)),
        by: "ana".into(),
        evidence: Vec::new(),
        judgement: Default::default(),
        starts: BTreeMap::new(),
        left_out: Vec::new(),
        anew: false,
        returns: false,
        kept: BTreeSet::new(),
        consent: Consent::NotNeeded,
    }
}
