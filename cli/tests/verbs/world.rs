//! A folder with a manifest and an artifact, a fleet to look at, and the real `baton` run against the double.

use super::coordinator::{Coordinator, Script};
use baton_proto::v1::*;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

pub(crate) struct World {
    pub coordinator: Coordinator,
    folder: tempfile::TempDir,
}

/// What a run ended with.
#[derive(Debug)]
pub(crate) struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Larger than a few chunks.
const ARTIFACT: usize = 1_300_001;

impl World {
    pub(crate) fn new(view: FleetView, script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "service = \"shop\"\nhosts = [\"web2\", \"web3\"]\n\n[artifact]\npath = \"shop-{version}.tar.zst\"\n\n\
                        [run]\ncommand = \"bin/shop {port}\"\nports = [8101]\n\n[health]\nhttp = \"/healthz\"\n";
        std::fs::write(folder.path().join("baton.toml"), manifest).unwrap();
        std::fs::write(folder.path().join("shop-2.1.0.tar.zst"), artifact()).unwrap();
        Self { coordinator: Coordinator::start(view, script), folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env("BATON_SOCKET", &self.coordinator.socket)
            .env("BATON_CONFIG_DIR", self.folder.path().join("config"))
            .env_remove("NO_COLOR")
            .env_remove("GITHUB_ACTIONS")
            .env_remove("GITLAB_CI")
            .env_remove("TEAMCITY_VERSION")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        ran(self.command(line).output().unwrap())
    }

    pub(crate) fn start(&self, line: &str) -> Child {
        self.command(line).spawn().unwrap()
    }
}

pub(crate) fn ran(output: Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub(crate) fn artifact() -> Vec<u8> {
    // Nothing that could be compressed.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = std::iter::repeat_with(|| {
        // xorshift
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    let noise: Vec<u8> = noise.take(ARTIFACT).collect();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(noise.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/shop", noise.as_slice()).unwrap();
    // As `tar --zstd` does: with a checksum, so that damage is seen.
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    packed.include_checksum(true).unwrap();
    std::io::Write::write_all(&mut packed, &tar.into_inner().unwrap()).unwrap();
    packed.finish().unwrap()
}

/// A fleet at rest on 2.0.4, with a balancer that has counted so many requests.
pub(crate) fn at_rest(requests: u64) -> FleetView {
    let on_host = |host: &str| ServiceHostView {
        host: host.into(),
        versions: vec!["2.0.4".into()],
        step: "serving".into(),
        done: true,
        serves: true,
        requests,
        ..ServiceHostView::default()
    };
    let member = |key: &str| MemberView { key: key.into(), requests, ..MemberView::default() };
    let pool = PoolView {
        pool: "shop".into(),
        balancer: "pid 7".into(),
        members: vec![member("web2/0"), member("web3/0")],
        ..PoolView::default()
    };
    let host = |name: &str| HostView { name: name.into(), connected: true, ..HostView::default() };
    FleetView {
        services: vec![ServiceView {
            name: "shop".into(),
            health: "healthy".into(),
            committed_version: "2.0.4".into(),
            pool: "shop".into(),
            hosts: vec![on_host("web2"), on_host("web3")],
            ..ServiceView::default()
        }],
        hosts: vec![HostView { pools: vec![pool], ..host("lb1") }, host("web2"), host("web3")],
        epoch: 1,
        ..FleetView::default()
    }
}

/// The fleet with rollout `r-1` to 2.1.0 in the given state, after so many more requests.
pub(crate) fn rolling(state: &str, requests: u64) -> FleetView {
    let mut fleet = at_rest(requests);
    let service = &mut fleet.services[0];
    service.rollout = Some(RolloutView {
        id: "r-1".into(),
        state: state.into(),
        direction: "forward".into(),
        from_version: "2.0.4".into(),
        to_version: "2.1.0".into(),
        by: "ana".into(),
        hosts_total: 2,
        elapsed_ms: 4_000,
        placement: "in-place".into(),
        // Each of the two instances had been sent a thousand before.
        proof: (requests > 1_000).then(|| ProofView { new_requests: 2 * (requests - 1_000), ..ProofView::default() }),
        ..RolloutView::default()
    });
    fleet
}

pub(crate) fn succeeded(requests: u64) -> FleetView {
    let mut fleet = rolling("succeeded", requests);
    let service = &mut fleet.services[0];
    service.committed_version = "2.1.0".into();
    if let Some(rollout) = &mut service.rollout {
        rollout.hosts_done = 2;
    }
    fleet
}

/// Taken back by the evidence or by a person.
pub(crate) fn reverted(turned_by: &str) -> FleetView {
    let mut fleet = rolling("reverted", 1_500);
    if let Some(rollout) = &mut fleet.services[0].rollout {
        rollout.direction = "back".into();
        rollout.turned_by = turned_by.into();
        if turned_by == "evidence" {
            let seen = Seen { label: "last log".into(), evidence: "\u{1b}[2Jboom".into() };
            let problem = Problem {
                code: 210,
                what: "shop 2.1.0 did not become ready on web2".into(),
                seen: vec![seen],
                help: String::new(),
            };
            rollout.evidence.push(EvidenceView { host: "web2".into(), problem: Some(problem) });
        }
    }
    fleet
}
