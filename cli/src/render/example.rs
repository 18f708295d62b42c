//! A fleet in the middle of a rollout, for tests of what is shown.

use baton_proto::v1::{
    EvidenceView, FleetView, HostView, InstanceView, MemberView, PoolView, Problem, RolloutView, Seen, ServiceHostView,
    ServiceView, Stamp, WaitingView,
};

pub(crate) fn rollout() -> RolloutView {
    RolloutView {
        id: "r-7f3".into(),
        state: "running".into(),
        direction: "forward".into(),
        from_version: "2.0.4".into(),
        to_version: "2.1.0".into(),
        by: "ana".into(),
        hosts_done: 1,
        hosts_total: 3,
        wave: 1,
        waves: 3,
        elapsed_ms: 108_000,
        placement: "in-place".into(),
        ..RolloutView::default()
    }
}

fn on_host(host: &str, versions: &[&str], step: &str, detail: &str, step_ms: u64) -> ServiceHostView {
    ServiceHostView {
        host: host.into(),
        versions: versions.iter().map(|&version| version.to_owned()).collect(),
        step: step.into(),
        detail: detail.into(),
        step_ms,
        requests: 1_000,
        serves: step != "draining",
        ..ServiceHostView::default()
    }
}

pub(crate) fn service() -> ServiceView {
    ServiceView {
        name: "shop".into(),
        health: "healthy".into(),
        committed_version: "2.0.4".into(),
        previous_version: "2.0.3".into(),
        pool: "shop".into(),
        rollout: Some(rollout()),
        hosts: vec![
            ServiceHostView { done: true, ..on_host("web2", &["2.1.0"], "serving", "", 42_000) },
            ServiceHostView {
                in_flight: 7,
                ..on_host("web3", &["2.0.4"], "draining", "7 open after 4.1 s (limit 30.0 s)", 6_000)
            },
            ServiceHostView { errors: 2, ..on_host("web4", &["2.0.4"], "waiting", "", 0) },
        ],
        waiting: vec![
            WaitingView {
                host: "web3".into(),
                reason: "draining".into(),
                text: "draining on lb1: 7 open after 4.1 s (limit 30.0 s)".into(),
                problem: None,
            },
            WaitingView {
                host: "web4".into(),
                reason: "waiting".into(),
                text: "its turn comes in wave 3".into(),
                problem: None,
            },
        ],
        ..ServiceView::default()
    }
}

pub(crate) fn never_ready() -> Problem {
    Problem {
        code: 210,
        what: "shop 2.1.0 did not become ready on web2 within 60 s".into(),
        seen: vec![
            Seen { label: "probe".into(), evidence: "GET http://127.0.0.1:8104/healthz: connection refused".into() },
            Seen { label: "last log".into(), evidence: "INFO \u{1b}[2Jshop: listening on 127.0.0.1:3000".into() },
        ],
        help: "the app ignores {port} (8104)".into(),
    }
}

/// The same service after the new release failed on its first host and was taken back.
pub(crate) fn taken_back() -> ServiceView {
    ServiceView {
        rollout: Some(RolloutView {
            state: "reverted".into(),
            direction: "back".into(),
            turned_by: "evidence".into(),
            evidence: vec![EvidenceView { host: "web2".into(), problem: Some(never_ready()) }],
            ..rollout()
        }),
        hosts: ["web2", "web3", "web4"]
            .map(|host| ServiceHostView { done: true, ..on_host(host, &["2.0.4"], "serving", "", 9_000) })
            .into(),
        waiting: Vec::new(),
        ..service()
    }
}

pub(crate) fn host(name: &str, version: &str) -> HostView {
    HostView {
        name: name.into(),
        address: "10.0.0.2".into(),
        connected: true,
        agent_version: "0.1.0".into(),
        issued: Some(Stamp { epoch: 3, generation: 12 }),
        observed: Some(Stamp { epoch: 3, generation: 12 }),
        instances: vec![InstanceView {
            key: "shop/0".into(),
            version: version.into(),
            state: "ready".into(),
            since_ms: 42_000,
            incarnation: "4f1c.4121".into(),
            ..InstanceView::default()
        }],
        ..HostView::default()
    }
}

pub(crate) fn balancer(members: &[(&str, u64, u64)], process: &str) -> HostView {
    let member = |&(key, requests, errors): &(&str, u64, u64)| MemberView {
        key: key.into(),
        address: "10.0.0.2:8101".into(),
        wanted: "ready".into(),
        running: "ready".into(),
        on_disk: "ready".into(),
        weight: 100,
        requests,
        errors,
        ..MemberView::default()
    };
    HostView {
        name: "lb1".into(),
        instances: Vec::new(),
        pools: vec![PoolView {
            pool: "shop".into(),
            balancer: process.into(),
            members: members.iter().map(member).collect(),
            ..PoolView::default()
        }],
        ..host("lb1", "")
    }
}

pub(crate) fn fleet() -> FleetView {
    let silent = HostView { connected: false, silent_ms: 130_000, ..host("web4", "2.0.4") };
    FleetView {
        services: vec![service()],
        hosts: vec![
            balancer(&[("web2/0", 1_000, 0), ("web3/0", 1_000, 0), ("web4/0", 1_000, 2)], "pid 77"),
            host("web2", "2.1.0"),
            host("web3", "2.0.4"),
            silent,
        ],
        epoch: 3,
        ..FleetView::default()
    }
}
