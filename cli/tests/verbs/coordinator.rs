//! A coordinator that does what a test says: it shows the views it is given, and keeps what it was sent.

use baton_core::problem::{Code, Problem};
use baton_proto::identity::Identity as Peer;
use baton_proto::problem::to_status;
use baton_proto::tls::local_incoming;
use baton_proto::v1::artifacts_server::{Artifacts, ArtifactsServer};
use baton_proto::v1::control_server::{Control, ControlServer};
use baton_proto::v1::upload_message::Kind;
use baton_proto::v1::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;

/// What it knows, and what it was sent.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// What `Deploy`, `Rollback` and `Abort` answer with.
    pub rollout: String,
    /// What they refuse with instead.
    pub refusal: Option<Problem>,
    /// What the views show once something was asked for.
    pub then: Option<FleetView>,
    pub releases: Vec<ReleaseView>,
    /// How many more times a watch breaks after its first view.
    pub watch_breaks: u32,
    /// An upload breaks off after this many bytes, once.
    pub upload_breaks_after: Option<usize>,
    pub artifacts: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where each upload began.
    pub uploads: Vec<u64>,
    pub deploys: Vec<DeployRequest>,
    /// What the agents' views show once an upgrade was asked for, one after the other.
    pub agents: Vec<AgentsView>,
    pub upgrades: Vec<UpgradeAgentsRequest>,
    /// What the reboots show, one after the other, and what was asked of them.
    pub reboot: Vec<RebootView>,
    pub reboots: Vec<RebootRequest>,
    pub reboot_steered: Vec<String>,
    pub audit: Vec<AuditEntry>,
    pub verdict: AuditVerdict,
}

/// The running double. Ends with the value.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) socket: PathBuf,
    pub(crate) script: Arc<Mutex<Script>>,
    views: watch::Sender<FleetView>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

#[derive(Clone)]
struct Double {
    script: Arc<Mutex<Script>>,
    views: watch::Sender<FleetView>,
}

impl Coordinator {
    pub(crate) fn start(view: FleetView, script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("coordinator.sock");
        let script = Arc::new(Mutex::new(script));
        let views = watch::Sender::new(view);
        let double = Double { script: Arc::clone(&script), views: views.clone() };
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = local_incoming(UnixListener::from_std(listener).unwrap(), |_, _| Peer::Anonymous);
                let server = Server::builder()
                    .add_service(ControlServer::new(double.clone()))
                    .add_service(ArtifactsServer::new(double))
                    .serve_with_incoming(incoming);
                tokio::select! {
                    ended = server => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { socket, script, views, stop: Some(stop), thread: Some(thread), _folder: folder }
    }

    pub(crate) fn show(&self, view: FleetView) {
        self.views.send_replace(view);
    }

    pub(crate) fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Double {
    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self) -> Answer<DeployReply> {
        let mut script = self.script();
        if let Some(refusal) = script.refusal.clone() {
            return Err(to_status(refusal));
        }
        if let Some(view) = script.then.take() {
            self.views.send_replace(view);
        }
        Ok(Response::new(DeployReply { rollout: script.rollout.clone(), ..DeployReply::default() }))
    }
}

#[tonic::async_trait]
impl Control for Double {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<FleetView, Status>> + Send>>;
    type ListAuditStream = Pin<Box<dyn Stream<Item = Result<AuditEntry, Status>> + Send>>;

    async fn who_am_i(&self, _: Request<WhoAmIRequest>) -> Answer<Identity> {
        Ok(Response::new(Identity { role: "admin".into(), name: "ana".into(), coordinator_version: "0.1.0".into() }))
    }

    async fn plan(&self, request: Request<DeployRequest>) -> Answer<PlanView> {
        let request = request.into_inner();
        Ok(Response::new(PlanView {
            service: "shop".into(),
            from_version: "2.0.4".into(),
            to_version: request.version,
            placement: "in-place".into(),
            max_unavailable: 1,
            waves: vec![PlannedWave { hosts: vec!["web2".into(), "web3".into()], ..PlannedWave::default() }],
            at_least_serving: 1,
            problems: self.script().refusal.iter().map(Into::into).collect(),
            ..PlanView::default()
        }))
    }

    async fn deploy(&self, request: Request<DeployRequest>) -> Answer<DeployReply> {
        self.script().deploys.push(request.into_inner());
        self.accept()
    }

    async fn rollback(&self, _: Request<RollbackRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn pause(&self, _: Request<ServiceRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn resume(&self, _: Request<ServiceRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn retry(&self, _: Request<PlaceRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn skip(&self, _: Request<PlaceRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn restart(&self, _: Request<ServiceRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn rehearse(&self, _: Request<PlaceRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn freeze(&self, _: Request<FreezeRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn unfreeze(&self, _: Request<FreezeRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn recover(&self, _: Request<baton_proto::v1::RecoverRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn remove_service(&self, _: Request<ServiceRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn drain_host(&self, _: Request<HostRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn undrain_host(&self, _: Request<HostRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn declare_dead(&self, _: Request<HostRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn revive(&self, _: Request<HostRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn label_host(&self, _: Request<LabelRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn accept_host(&self, _: Request<HostRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn remove_host(&self, _: Request<HostRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn promote(&self, _: Request<ServiceRequest>) -> Answer<DeployReply> {
        self.accept()
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Answer<RolloutList> {
        let asked = request.into_inner().service;
        let mut services = self.views.borrow().services.clone();
        services.retain(|service| asked.is_empty() || service.name == asked);
        let record =
            |service: ServiceView| RolloutRecord { service: service.name, rollout: service.rollout, ended_ago_ms: 0 };
        Ok(Response::new(RolloutList { rollouts: services.into_iter().map(record).collect() }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<FleetView> {
        let (asked, view) = (request.into_inner().service, self.views.borrow().clone());
        match asked.is_empty() || view.services.iter().any(|service| service.name == asked) {
            true => Ok(Response::new(view)),
            false => Err(to_status(Problem::new(Code(709), format!("there is no service {asked}")))),
        }
    }

    async fn watch(&self, _: Request<StatusRequest>) -> Answer<Self::WatchStream> {
        let views = WatchStream::new(self.views.subscribe()).map(Ok);
        let mut script = self.script();
        if script.watch_breaks > 0 {
            script.watch_breaks -= 1;
            let broken = tokio_stream::iter([Err(Status::unavailable("shutting down"))]);
            return Ok(Response::new(Box::pin(views.take(1).chain(broken))));
        }
        Ok(Response::new(Box::pin(views)))
    }

    async fn list_releases(&self, _: Request<ServiceRequest>) -> Answer<ReleaseList> {
        Ok(Response::new(ReleaseList { releases: self.script().releases.clone() }))
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Answer<CreatedToken> {
        let ttl_ms = request.into_inner().ttl_ms;
        Ok(Response::new(CreatedToken { id: "t-1".into(), token: "baton1.abc".into(), ttl_ms, port: 9443 }))
    }

    async fn list_tokens(&self, _: Request<ListTokensRequest>) -> Answer<TokenList> {
        Ok(Response::new(TokenList::default()))
    }

    async fn revoke_token(&self, _: Request<RevokeTokenRequest>) -> Answer<TokenList> {
        Ok(Response::new(TokenList::default()))
    }

    async fn list_audit(&self, _: Request<ListAuditRequest>) -> Answer<Self::ListAuditStream> {
        let entries = self.script().audit.clone();
        Ok(Response::new(Box::pin(tokio_stream::iter(entries.into_iter().map(Ok)))))
    }

    async fn verify_audit(&self, _: Request<VerifyAuditRequest>) -> Answer<AuditVerdict> {
        Ok(Response::new(self.script().verdict.clone()))
    }

    async fn accept_audit_loss(&self, request: Request<AcceptAuditLossRequest>) -> Answer<AuditVerdict> {
        let (AcceptAuditLossRequest { why, .. }, mut script) = (request.into_inner(), self.script());
        script.verdict.faults.clear();
        let accepted = script.verdict.lost.take().map(|lost| AuditLoss { entry: 60, by: "admin/ana".into(), why, ..lost });
        script.verdict.accepted.extend(accepted);
        Ok(Response::new(script.verdict.clone()))
    }

    async fn record_backup(&self, _: Request<RecordBackupRequest>) -> Answer<RecordBackupReply> {
        Ok(Response::new(RecordBackupReply {}))
    }

    async fn list_certificates(&self, _: Request<ListCertificatesRequest>) -> Answer<CertificateList> {
        Ok(Response::new(CertificateList::default()))
    }

    async fn agents_status(&self, _: Request<AgentsStatusRequest>) -> Answer<AgentsView> {
        let mut script = self.script();
        let begun = script.upgrades.iter().any(|request| !request.dry_run);
        Ok(Response::new(if begun { script.next_agents() } else { AgentsView::default() }))
    }

    async fn upgrade_agents(&self, request: Request<UpgradeAgentsRequest>) -> Answer<AgentsView> {
        let mut script = self.script();
        if let Some(problem) = &script.refusal {
            return Err(to_status(problem.clone()));
        }
        script.upgrades.push(request.into_inner());
        Ok(Response::new(script.agents.first().cloned().unwrap_or_default()))
    }

    async fn reboot_hosts(&self, request: Request<RebootRequest>) -> Answer<RebootView> {
        let mut script = self.script();
        script.reboots.push(request.into_inner());
        if let Some(refusal) = script.refusal.clone() {
            return Err(to_status(refusal));
        }
        Ok(Response::new(script.reboot.first().cloned().unwrap_or_default()))
    }

    async fn steer_reboot(&self, request: Request<SteerRebootRequest>) -> Answer<RebootView> {
        let mut script = self.script();
        script.reboot_steered.push(request.into_inner().to);
        if let Some(refusal) = script.refusal.clone() {
            return Err(to_status(refusal));
        }
        Ok(Response::new(script.next_reboot()))
    }

    async fn reboot_status(&self, _: Request<RebootStatusRequest>) -> Answer<RebootView> {
        Ok(Response::new(self.script().next_reboot()))
    }

    async fn pause_agents(&self, _: Request<SteerAgentsRequest>) -> Answer<AgentsView> {
        Ok(Response::new(self.script().next_agents()))
    }

    async fn resume_agents(&self, _: Request<SteerAgentsRequest>) -> Answer<AgentsView> {
        Ok(Response::new(self.script().next_agents()))
    }

    async fn abort_agents(&self, _: Request<SteerAgentsRequest>) -> Answer<AgentsView> {
        Ok(Response::new(self.script().next_agents()))
    }

    async fn authority_status(&self, _: Request<AuthorityStatusRequest>) -> Answer<AuthorityView> {
        Ok(Response::new(AuthorityView::default()))
    }

    async fn rotate_authority(&self, _: Request<RotateAuthorityRequest>) -> Answer<AuthorityView> {
        Ok(Response::new(AuthorityView::default()))
    }

    async fn retire_authority(&self, _: Request<RetireAuthorityRequest>) -> Answer<AuthorityView> {
        Ok(Response::new(AuthorityView::default()))
    }

    async fn revoke_certificates(&self, _: Request<RevokeCertificatesRequest>) -> Answer<CertificateList> {
        Ok(Response::new(CertificateList::default()))
    }
}

#[tonic::async_trait]
impl Artifacts for Double {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

    async fn stat(&self, request: Request<ArtifactStatRequest>) -> Answer<ArtifactStat> {
        Ok(Response::new(self.stat_of(request.into_inner().digest)))
    }

    async fn upload(&self, request: Request<Streaming<UploadMessage>>) -> Answer<ArtifactStat> {
        let mut messages = request.into_inner();
        let mut digest = Vec::new();
        let mut received = 0;
        while let Some(message) = messages.message().await? {
            match message.kind {
                Some(Kind::Open(open)) => {
                    digest = open.digest;
                    self.script().uploads.push(open.offset);
                }
                Some(Kind::Chunk(chunk)) => {
                    let mut script = self.script();
                    received += chunk.bytes.len();
                    let kept = script.artifacts.entry(digest.clone()).or_default();
                    assert_eq!(kept.len() as u64, chunk.offset, "chunks come in order, from where the last upload ended");
                    kept.extend(chunk.bytes);
                    if script.upload_breaks_after.is_some_and(|limit| received >= limit) {
                        script.upload_breaks_after = None;
                        return Err(Status::unavailable("broken off"));
                    }
                }
                None => {}
            }
        }
        Ok(Response::new(self.stat_of(digest)))
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Answer<Self::FetchStream> {
        Err(Status::unimplemented("nobody fetches here"))
    }
}

impl Script {
    /// The next view of reboots; the last one stays.
    fn next_reboot(&mut self) -> RebootView {
        if self.reboot.len() > 1 { self.reboot.remove(0) } else { self.reboot.first().cloned().unwrap_or_default() }
    }

    /// The next view of the agents; the last one stays.
    fn next_agents(&mut self) -> AgentsView {
        if self.agents.len() > 1 { self.agents.remove(0) } else { self.agents.first().cloned().unwrap_or_default() }
    }
}

impl Double {
    fn stat_of(&self, digest: Vec<u8>) -> ArtifactStat {
        let script = self.script();
        let kept = script.artifacts.get(&digest).map_or(&[][..], Vec::as_slice);
        let complete = !kept.is_empty() && blake3::hash(kept).as_bytes() == digest.as_slice();
        ArtifactStat { have: kept.len() as u64, complete, digest }
    }
}
