//! A coordinator on loopback for tests, and everybody who talks to it.

// Every test program uses its part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod http2;
pub(crate) mod program;

use baton_coordinator::api::roles::Caller;
use baton_coordinator::config::Config;
use baton_coordinator::{Running, init, start};
use baton_core::fleet::report::{HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState};
use baton_core::fleet::spec::HostSpec;
use baton_core::problem::Problem;
use baton_proto::PROTOCOL;
use baton_proto::problem::from_status;
use baton_proto::tls::{Credentials, channel, client_config, hot, joining_config, local_channel};
use baton_proto::token::JoinToken;
use baton_proto::v1::agent_link_client::AgentLinkClient;
use baton_proto::v1::artifacts_client::ArtifactsClient;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use baton_proto::v1::{self, agent_message, coordinator_message, upload_message};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// For anything that must happen at all, on a machine that others use too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A coordinator that runs, and its admin.
pub(crate) struct Site {
    pub(crate) running: Running,
    pub(crate) admin: Channel,
    _folder: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        init(&config).await.unwrap();
        let running = start(&config).await.unwrap();
        Self { running, admin: admin(&config), _folder: folder }
    }

    pub(crate) async fn member(&self, role: &str, name: &str) -> Credentials {
        join(self.running.listen, &token(&self.admin, role, 1, &[name]).await, name).await.unwrap()
    }

    /// One of each kind, two hosts, by name. The admin comes last: what an admin may, ends hosts.
    pub(crate) async fn everybody(&self) -> Vec<(Caller, &'static str, Channel)> {
        let secret = token(&self.admin, "host", 1, &[]).await;
        let nobody = channel(&self.running.listen.to_string(), hot(joining_config(secret.pin).unwrap())).unwrap();
        let mut everybody = vec![(Caller::Anonymous, "anonymous", nobody)];
        for (caller, role, name) in [
            (Caller::Host, "host", "web1"),
            (Caller::Host, "host", "web2"),
            (Caller::Viewer, "viewer", "vera"),
            (Caller::Ci, "ci", "pipeline"),
            (Caller::Deployer, "deployer", "dora"),
            (Caller::Admin, "admin", "ana"),
        ] {
            everybody.push((caller, name, self.dial(&self.member(role, name).await)));
        }
        everybody
    }

    pub(crate) fn dial(&self, credentials: &Credentials) -> Channel {
        dial(self.running.listen, credentials)
    }
}

pub(crate) fn config(folder: &Path) -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        socket: folder.join("c.sock"),
        state: folder.join("state"),
        ..Config::default()
    }
}

pub(crate) fn admin(config: &Config) -> Channel {
    local_channel(&config.socket)
}

pub(crate) async fn token(admin: &Channel, role: &str, uses: u32, names: &[&str]) -> JoinToken {
    let request = v1::CreateTokenRequest {
        role: role.into(),
        uses,
        ttl_ms: 60_000,
        names: names.iter().map(|name| (*name).into()).collect(),
        ..v1::CreateTokenRequest::default()
    };
    let created = ControlClient::new(admin.clone()).create_token(request).await.unwrap().into_inner();
    created.token.parse().unwrap()
}

/// Joins as a machine does that has nothing but a token.
pub(crate) async fn join(listen: SocketAddr, token: &JoinToken, name: &str) -> Result<Credentials, Problem> {
    join_as(listen, token, name, false).await
}

/// The same, in somebody's place where `replace` says so.
pub(crate) async fn join_as(
    listen: SocketAddr,
    token: &JoinToken,
    name: &str,
    replace: bool,
) -> Result<Credentials, Problem> {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let channel = channel(&listen.to_string(), hot(joining_config(token.pin).unwrap()))?;
    let request = v1::JoinRequest {
        secret: token.secret.to_vec(),
        csr_pem: csr,
        name: name.into(),
        replace,
        ..v1::JoinRequest::default()
    };
    let reply = EnrollmentClient::new(channel).join(request).await.map_err(|status| from_status(&status))?.into_inner();
    Ok(Credentials {
        certificate_pem: reply.certificate_pem,
        key_pem: key.serialize_pem(),
        authority_pem: reply.authority_pem,
    })
}

pub(crate) fn dial(listen: SocketAddr, credentials: &Credentials) -> Channel {
    channel(&listen.to_string(), hot(client_config(credentials).unwrap())).unwrap()
}

/// What a host reports that has done everything it was told.
pub(crate) fn obeyed(spec: &HostSpec) -> HostReport {
    let instance = |release| InstanceReport {
        release,
        incarnation: format!("boot.{release}"),
        start: 0,
        state: InstanceState::Ready { since: Duration::from_secs(60) },
    };
    let member = |state| MemberReport { requests: 7, ..MemberReport::quiet(state) };
    let pool = |pool: &baton_core::fleet::spec::PoolSpec| PoolReport {
        balancer: "77".into(),
        members: pool.members.iter().map(|(key, it)| (key.clone(), member(it.state))).collect(),
        ..PoolReport::default()
    };
    HostReport {
        observed: spec.stamp(),
        boot: "boot".into(),
        instances: spec.instances.iter().map(|(key, it)| (key.clone(), instance(it.release))).collect(),
        pools: spec.pools.iter().map(|(name, it)| (name.clone(), pool(it))).collect(),
        releases: spec.releases.keys().map(|id| (*id, ReleaseState::Held)).collect(),
        ..HostReport::default()
    }
}

/// An agent's end of its stream, by hand.
pub(crate) struct Line {
    pub(crate) say: mpsc::Sender<v1::AgentMessage>,
    pub(crate) hear: Streaming<v1::CoordinatorMessage>,
}

impl Line {
    pub(crate) async fn open(channel: &Channel) -> Result<Self, Problem> {
        Self::remembering(channel, Vec::new()).await
    }

    /// The same, of a host that remembers heads of the audit log.
    pub(crate) async fn remembering(channel: &Channel, audit_heads: Vec<v1::AuditHead>) -> Result<Self, Problem> {
        Self::speaking(channel, PROTOCOL, audit_heads).await
    }

    pub(crate) async fn speaking(
        channel: &Channel,
        protocol: u32,
        audit_heads: Vec<v1::AuditHead>,
    ) -> Result<Self, Problem> {
        let hello = v1::AgentHello { protocol, audit_heads, ..v1::AgentHello::default() };
        Self::saying(channel, hello).await
    }

    /// The same, of a host that was told something before, and does not say what.
    pub(crate) async fn following(channel: &Channel, ledger: Option<v1::Stamp>) -> Result<Self, Problem> {
        Self::saying(channel, v1::AgentHello { protocol: PROTOCOL, ledger, ..v1::AgentHello::default() }).await
    }

    /// The same, of a host that says what it knows of its agent's package.
    pub(crate) async fn packaged(channel: &Channel, package: v1::AgentPackage) -> Self {
        let hello = v1::AgentHello { protocol: PROTOCOL, package: Some(package), ..v1::AgentHello::default() };
        Self::saying(channel, hello).await.unwrap()
    }

    /// The same, of a host that says whether it may be rebooted.
    pub(crate) async fn rebooting(channel: &Channel, reboot: v1::RebootAbility) -> Result<Self, Problem> {
        let hello = v1::AgentHello { protocol: PROTOCOL, reboot: Some(reboot), ..v1::AgentHello::default() };
        Self::saying(channel, hello).await
    }

    /// The next order for the agent's own package; one that was taken back has no id.
    pub(crate) async fn upgrade(&mut self) -> v1::UpgradeOrder {
        loop {
            let message = timeout(PATIENCE, self.hear.message()).await.expect("no order came");
            if let Some(coordinator_message::Kind::Upgrade(order)) = message.unwrap().expect("the stream ended").kind {
                return order;
            }
        }
    }

    async fn saying(channel: &Channel, hello: v1::AgentHello) -> Result<Self, Problem> {
        let (say, said) = mpsc::channel(16);
        let facts = [("os".to_owned(), "test".to_owned())].into();
        let hello = v1::AgentHello { agent_version: "0.0.1-test".into(), facts, ..hello };
        say.send(v1::AgentMessage { kind: Some(agent_message::Kind::Hello(hello)) }).await.unwrap();
        let reply = AgentLinkClient::new(channel.clone()).connect(ReceiverStream::new(said)).await;
        Ok(Self { say, hear: reply.map_err(|status| from_status(&status))?.into_inner() })
    }

    /// The next spec; a refusal when the stream was ended with one.
    pub(crate) async fn spec(&mut self) -> Result<HostSpec, Problem> {
        loop {
            let message = timeout(PATIENCE, self.hear.message()).await.expect("no spec came");
            match message.map_err(|status| from_status(&status))?.expect("the stream ended").kind {
                Some(coordinator_message::Kind::Spec(spec)) => return Ok(spec.try_into().unwrap()),
                _ => continue,
            }
        }
    }

    /// The next head of the audit log it is told.
    pub(crate) async fn audit_head(&mut self) -> v1::AuditHead {
        loop {
            let message = self.hear.message().await.unwrap().expect("the stream ended");
            if let Some(coordinator_message::Kind::AuditHead(head)) = message.kind {
                return head;
            }
        }
    }

    pub(crate) async fn report(&self, report: &HostReport) {
        let message = v1::AgentMessage { kind: Some(agent_message::Kind::Report(report.into())) };
        self.say.send(message).await.unwrap();
    }
}

/// An agent that does at once what it is told, until its stream ends; returns why that was.
pub(crate) fn obey(channel: Channel) -> JoinHandle<Problem> {
    tokio::spawn(async move {
        let mut line = match Line::open(&channel).await {
            Ok(line) => line,
            Err(problem) => return problem,
        };
        loop {
            match line.spec().await {
                Ok(spec) => line.report(&obeyed(&spec)).await,
                Err(problem) => return problem,
            }
        }
    })
}

/// Uploads in chunks, from `offset`.
pub(crate) async fn upload(channel: &Channel, bytes: &[u8], offset: usize) -> Result<v1::ArtifactStat, Problem> {
    let digest = blake3::hash(bytes).as_bytes().to_vec();
    let open = v1::UploadOpen { digest, size: bytes.len() as u64, offset: offset as u64 };
    let mut messages = vec![v1::UploadMessage { kind: Some(upload_message::Kind::Open(open)) }];
    let mut at = offset;
    for chunk in bytes[offset..].chunks(100_000) {
        let chunk = v1::Chunk { offset: at as u64, bytes: chunk.to_vec() };
        at += chunk.bytes.len();
        messages.push(v1::UploadMessage { kind: Some(upload_message::Kind::Chunk(chunk)) });
    }
    let reply = ArtifactsClient::new(channel.clone()).upload(tokio_stream::iter(messages)).await;
    Ok(reply.map_err(|status| from_status(&status))?.into_inner())
}

pub(crate) async fn fetch(channel: &Channel, bytes: &[u8], offset: usize) -> Result<Vec<u8>, Problem> {
    let request = v1::FetchRequest { digest: blake3::hash(bytes).as_bytes().to_vec(), offset: offset as u64 };
    let reply = ArtifactsClient::new(channel.clone()).fetch(request).await.map_err(|status| from_status(&status))?;
    let mut stream = reply.into_inner();
    let mut fetched = Vec::new();
    while let Some(chunk) = stream.message().await.map_err(|status| from_status(&status))? {
        assert_eq!(chunk.offset as usize, offset + fetched.len());
        assert!(chunk.bytes.len() <= 256 * 1024);
        fetched.extend(chunk.bytes);
    }
    Ok(fetched)
}

pub(crate) fn manifest(hosts: &[&str]) -> String {
    let hosts: Vec<_> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    format!(
        "service = \"shop\"\nhosts = [{}]\n[artifact]\npath = \"shop-{{version}}.tar.zst\"\n\
         [run]\ncommand = \"bin/shop --listen 0.0.0.0:{{port}}\"\nports = [8101]\n[health]\nhttp = \"/healthz\"\n",
        hosts.join(", ")
    )
}

pub(crate) fn wish(hosts: &[&str], version: &str, artifact: &[u8]) -> v1::DeployRequest {
    v1::DeployRequest {
        manifest: manifest(hosts),
        manifest_path: "baton.toml".into(),
        version: version.into(),
        artifact_digest: blake3::hash(artifact).as_bytes().to_vec(),
        artifact_size: artifact.len() as u64,
        ..v1::DeployRequest::default()
    }
}

pub(crate) async fn deploy(channel: &Channel, wish: v1::DeployRequest) -> Result<String, Problem> {
    let reply = ControlClient::new(channel.clone()).deploy(wish).await.map_err(|status| from_status(&status))?;
    Ok(reply.into_inner().rollout)
}

/// Watches until a view fits.
pub(crate) async fn until(channel: &Channel, fits: impl Fn(&v1::FleetView) -> bool) -> v1::FleetView {
    let request = v1::StatusRequest::default();
    let mut views = ControlClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
    let found = async {
        loop {
            let view = views.message().await.unwrap().expect("the views ended");
            if fits(&view) {
                return view;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("never came")
}

pub(crate) fn rollout_state(view: &v1::FleetView) -> &str {
    view.services.first().and_then(|service| service.rollout.as_ref()).map_or("", |rollout| &rollout.state)
}
