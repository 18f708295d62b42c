//! What operators and CI ask.

use super::before::{fleet, state};
use super::look::{known, look};
use super::view::Now;
use super::{Api, audit, invalid, orders, preview, removed, view, wrong};
use crate::artifact::missing;
use crate::audit::call;
use crate::driver::{Ask, Picture, When};
use crate::identity::wall_time;
use crate::store::{About, Which};
use crate::upgrades::Steer;
use baton_core::fleet::{Fleet, Service};
use baton_core::manifest;
use baton_core::name::{Digest, HostName, InvalidName, ServiceName, Version};
use baton_core::problem::{Code, Problem};
use baton_core::release::{Artifact, Release};
use baton_core::rollout::command::{Busy, Command};
use baton_proto::identity::{Identity, Role};
use baton_proto::problem::{code, to_status};
use baton_proto::tls::peer;
use baton_proto::v1::control_server::Control;
use baton_proto::v1::{
    self, AgentsView, DeployReply, DeployRequest, FleetView, PlanView, ReleaseList, ServiceRequest, StatusRequest,
};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// How often somebody who watches is told: faster than that nobody reads.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// Rollouts in one answer, at most.
const HISTORY_MAX: u32 = 1000;

/// A deploy as it was asked for, read and not yet judged.
pub(super) struct Wish {
    pub(super) name: ServiceName,
    pub(super) shape: Service,
    pub(super) release: Release,
    /// What already speaks against it.
    pub(super) missing: Option<Problem>,
}

#[tonic::async_trait]
impl Control for Api {
    type WatchStream = ReceiverStream<Result<FleetView, Status>>;
    type ListAuditStream = ReceiverStream<Result<v1::AuditEntry, Status>>;

    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::Identity>, Status> {
        let (role, name) = operator(&request)?;
        let coordinator_version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(v1::Identity { role, name, coordinator_version }))
    }

    async fn plan(&self, request: Request<DeployRequest>) -> Result<Response<PlanView>, Status> {
        let wish = self.read(&request.into_inner())?;
        let named = removed::hosts_of(&wish.shape);
        let picture = self.recall(Which::Called(wish.name.clone(), wish.release.version.clone())).await?;
        let (mut view, objections) = preview::preview(&picture, wish, self.access.now());
        for problem in objections {
            view.problems.push((&self.recalling(problem, &named).await).into());
        }
        Ok(Response::new(view))
    }

    async fn deploy(&self, request: Request<DeployRequest>) -> Result<Response<DeployReply>, Status> {
        let (role, by) = operator(&request)?;
        let request = request.into_inner();
        // Until it is known of which service.
        call::about(format!("{} {}", request.manifest_path, request.version));
        let when = when(&request)?;
        let Wish { name, shape, release, missing } = self.read(&request)?;
        call::about(format!("{name} {}", release.version));
        if let Some(problem) = missing {
            return Err(to_status(problem));
        }
        may_raise(&role, &release)?;
        may_lower(&role, &self.access.picture().fleet, &name, &shape)?;
        tracing::info!(service = %name, version = %release.version, %by, "deploy");
        self.ask(Ask::Deploy { service: name, shape: Box::new(shape), release: Box::new(release), by, when }).await
    }

    async fn rollback(&self, request: Request<v1::RollbackRequest>) -> Result<Response<DeployReply>, Status> {
        let v1::RollbackRequest { service, version, .. } = request.get_ref();
        match version.as_str() {
            "" => self.may_bring_back(service)?,
            version => self.may_bring(service, version).await?,
        }
        self.order(request, orders::rollback).await
    }

    async fn pause(&self, request: Request<ServiceRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::pause).await
    }

    async fn resume(&self, request: Request<ServiceRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::resume).await
    }

    async fn abort(&self, request: Request<v1::AbortRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::abort).await
    }

    async fn retry(&self, request: Request<v1::PlaceRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::retry).await
    }

    async fn skip(&self, request: Request<v1::PlaceRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::skip).await
    }

    async fn restart(&self, request: Request<ServiceRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::restart).await
    }

    async fn rehearse(&self, request: Request<v1::PlaceRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::rehearse).await
    }

    async fn freeze(&self, request: Request<v1::FreezeRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::freeze).await
    }

    async fn unfreeze(&self, request: Request<v1::FreezeRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::unfreeze).await
    }

    async fn recover(&self, request: Request<v1::RecoverRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::recover).await
    }

    async fn remove_service(&self, request: Request<ServiceRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::remove_service).await
    }

    async fn drain_host(&self, request: Request<v1::HostRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::drain_host).await
    }

    async fn undrain_host(&self, request: Request<v1::HostRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::undrain_host).await
    }

    async fn declare_dead(&self, request: Request<v1::HostRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::declare_dead).await
    }

    async fn revive(&self, request: Request<v1::HostRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::revive).await
    }

    async fn label_host(&self, request: Request<v1::LabelRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::label_host).await
    }

    async fn accept_host(&self, request: Request<v1::HostRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::accept_host).await
    }

    async fn remove_host(&self, request: Request<v1::HostRequest>) -> Result<Response<DeployReply>, Status> {
        let host = orders::host(&request.get_ref().host)?;
        let reply = self.order(request, orders::remove_host).await?;
        self.cut_off(&host).await?;
        Ok(reply)
    }

    async fn promote(&self, request: Request<ServiceRequest>) -> Result<Response<DeployReply>, Status> {
        self.order(request, orders::promote).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<FleetView>, Status> {
        let service = only(&request.get_ref().service)?;
        let mut view = self.tell_locked_out(look(&self.access, service.as_ref())?).await?;
        view.problems.extend(self.artifacts.shortage().map(|problem| (&problem).into()));
        Ok(Response::new(view))
    }

    async fn watch(&self, request: Request<StatusRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = only(&request.get_ref().service)?;
        let first = look(&self.access, service.as_ref())?;
        let (out, views) = mpsc::channel(1);
        let access = self.access.clone();
        tokio::spawn(async move {
            let mut pictures = access.pictures();
            pictures.mark_unchanged();
            let mut next = Ok(first);
            while out.send(next).await.is_ok() {
                tokio::select! {
                    () = out.closed() => return,
                    changed = pictures.changed() => if changed.is_err() { return },
                }
                tokio::time::sleep(WATCH_EVERY).await;
                pictures.mark_unchanged();
                next = look(&access, service.as_ref());
            }
        });
        Ok(Response::new(ReceiverStream::new(views)))
    }

    async fn history(&self, request: Request<v1::HistoryRequest>) -> Result<Response<v1::RolloutList>, Status> {
        let v1::HistoryRequest { service, rollout, limit } = request.into_inner();
        let rollout = Some(rollout).filter(|rollout| !rollout.is_empty()).map(|rollout| rollout.parse()).transpose();
        let rollout = rollout.map_err(|error: InvalidName| wrong("ROLLOUT", error))?;
        let about = About { service: only(&service)?, rollout, limit: limit.min(HISTORY_MAX) };
        let rollouts = self.past(&about).await?;
        if rollouts.is_empty() {
            known(&self.access.picture(), about.service.as_ref())?;
        }
        let (picture, now) = (self.recall_of(&rollouts).await?, Now { moment: self.access.now(), at: wall_time() });
        let rollouts = rollouts.iter().map(|rollout| view::record(&picture.fleet, rollout, now)).collect();
        Ok(Response::new(v1::RolloutList { rollouts }))
    }

    async fn list_releases(&self, request: Request<ServiceRequest>) -> Result<Response<ReleaseList>, Status> {
        let service = only(&request.get_ref().service)?;
        let about = About { service: service.clone(), rollout: None, limit: HISTORY_MAX };
        let history = self.past(&about).await?;
        let picture = self.recall(Which::Of(service.clone())).await?;
        if history.is_empty() {
            known(&picture, service.as_ref())?;
        }
        Ok(Response::new(view::releases(&picture.fleet, service.as_ref(), &history)))
    }

    async fn upgrade_agents(&self, request: Request<v1::UpgradeAgentsRequest>) -> Result<Response<AgentsView>, Status> {
        let (_, by) = operator(&request)?;
        Ok(Response::new(Api::upgrade_agents(self, request.into_inner(), by).await?))
    }

    async fn pause_agents(&self, request: Request<v1::SteerAgentsRequest>) -> Result<Response<AgentsView>, Status> {
        let (_, by) = operator(&request)?;
        Ok(Response::new(self.steer_agents(Steer::Pause, request.into_inner(), by).await?))
    }

    async fn resume_agents(&self, request: Request<v1::SteerAgentsRequest>) -> Result<Response<AgentsView>, Status> {
        let (_, by) = operator(&request)?;
        Ok(Response::new(self.steer_agents(Steer::Resume, request.into_inner(), by).await?))
    }

    async fn abort_agents(&self, request: Request<v1::SteerAgentsRequest>) -> Result<Response<AgentsView>, Status> {
        let (_, by) = operator(&request)?;
        Ok(Response::new(self.steer_agents(Steer::Abort, request.into_inner(), by).await?))
    }

    async fn agents_status(&self, _: Request<v1::AgentsStatusRequest>) -> Result<Response<AgentsView>, Status> {
        Ok(Response::new(self.agents(&self.upgrades.shown())))
    }

    async fn reboot_hosts(&self, request: Request<v1::RebootRequest>) -> Result<Response<v1::RebootView>, Status> {
        let (_, by) = operator(&request)?;
        Ok(Response::new(self.begin_reboot(request.into_inner(), by).await?))
    }

    async fn steer_reboot(&self, request: Request<v1::SteerRebootRequest>) -> Result<Response<v1::RebootView>, Status> {
        let (_, by) = operator(&request)?;
        Ok(Response::new(Api::steer_reboot(self, request.into_inner(), by).await?))
    }

    async fn reboot_status(&self, _: Request<v1::RebootStatusRequest>) -> Result<Response<v1::RebootView>, Status> {
        Ok(Response::new(self.reboot_view(&self.reboots.shown())))
    }

    async fn create_token(&self, request: Request<v1::CreateTokenRequest>) -> Result<Response<v1::CreatedToken>, Status> {
        Ok(Response::new(Api::create_token(self, request.into_inner()).await?))
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Result<Response<v1::TokenList>, Status> {
        Ok(Response::new(Api::list_tokens(self).await?))
    }

    async fn revoke_token(&self, request: Request<v1::RevokeTokenRequest>) -> Result<Response<v1::TokenList>, Status> {
        Ok(Response::new(Api::revoke_token(self, request.into_inner().id).await?))
    }

    async fn list_certificates(
        &self,
        _: Request<v1::ListCertificatesRequest>,
    ) -> Result<Response<v1::CertificateList>, Status> {
        Ok(Response::new(Api::list_certificates(self).await?))
    }

    async fn revoke_certificates(
        &self,
        request: Request<v1::RevokeCertificatesRequest>,
    ) -> Result<Response<v1::CertificateList>, Status> {
        Ok(Response::new(Api::revoke_certificates(self, request.into_inner()).await?))
    }

    async fn authority_status(&self, _: Request<v1::AuthorityStatusRequest>) -> Result<Response<v1::AuthorityView>, Status> {
        Ok(Response::new(Api::authority_status(self).await?))
    }

    async fn rotate_authority(
        &self,
        request: Request<v1::RotateAuthorityRequest>,
    ) -> Result<Response<v1::AuthorityView>, Status> {
        Ok(Response::new(Api::rotate_authority(self, request.into_inner().why).await?))
    }

    async fn retire_authority(
        &self,
        request: Request<v1::RetireAuthorityRequest>,
    ) -> Result<Response<v1::AuthorityView>, Status> {
        let caller = peer(&request);
        Ok(Response::new(Api::retire_authority(self, &caller, request.into_inner()).await?))
    }

    async fn list_audit(&self, request: Request<v1::ListAuditRequest>) -> Result<Response<Self::ListAuditStream>, Status> {
        Ok(Response::new(Api::list_audit(self, request.get_ref())))
    }

    async fn verify_audit(&self, _: Request<v1::VerifyAuditRequest>) -> Result<Response<v1::AuditVerdict>, Status> {
        Ok(Response::new(Api::verify_audit(self).await?))
    }

    async fn accept_audit_loss(
        &self,
        request: Request<v1::AcceptAuditLossRequest>,
    ) -> Result<Response<v1::AuditVerdict>, Status> {
        let caller = peer(&request);
        Ok(Response::new(Api::accept_audit_loss(self, &caller, request.into_inner()).await?))
    }

    async fn record_backup(
        &self,
        request: Request<v1::RecordBackupRequest>,
    ) -> Result<Response<v1::RecordBackupReply>, Status> {
        audit::record_backup(request.into_inner());
        Ok(Response::new(v1::RecordBackupReply {}))
    }
}

impl Api {
    async fn ask(&self, ask: Ask) -> Result<Response<DeployReply>, Status> {
        let service = ask.service().cloned();
        call::about(ask.about());
        call::may_command(service.as_ref()).map_err(to_status)?;
        let state = || {
            let picture = self.access.picture();
            service.as_ref().map_or_else(|| fleet(&picture.fleet), |name| state(&picture.fleet, name))
        };
        let before = state();
        let named = removed::named(&ask);
        let accepted = match self.access.ask(ask).await {
            Ok(accepted) => accepted,
            Err(problem) => return Err(to_status(self.recalling(problem, &named).await)),
        };
        call::changed(before, state());
        Ok(Response::new(orders::reply(accepted)))
    }

    /// Reads what is asked for and by whom, and asks the driver.
    async fn order<T>(
        &self,
        request: Request<T>,
        read: impl FnOnce(&Picture, &T, String) -> Result<Ask, Status>,
    ) -> Result<Response<DeployReply>, Status> {
        let (_, by) = operator(&request)?;
        let ask = read(&self.access.picture(), request.get_ref(), by)?;
        self.ask(ask).await
    }

    /// Makes sure that a host that was removed has no say any more: its certificates, its stream, its record.
    async fn cut_off(&self, host: &HostName) -> Result<(), Status> {
        let revoked = self
            .store
            .revoke(&Identity::Host(host.clone()).to_string())
            .await
            .map_err(|error| to_status(error.problem()))?;
        self.revoked.extend(revoked);
        self.access.links().cut(host);
        // Its agent may have come back in between; from here on it cannot.
        let again = Command::RemoveHost { host: host.clone(), force: true, by: String::new() };
        drop(self.access.ask(Ask::Order(Box::new(again))).await);
        Ok(())
    }

    /// Reads a manifest and what it is to be deployed with.
    fn read(&self, request: &DeployRequest) -> Result<Wish, Status> {
        let path = if request.manifest_path.is_empty() { "baton.toml" } else { &request.manifest_path };
        let manifest = manifest::parse(path, &request.manifest).map_err(|found| to_status(in_one(&found)))?;
        let version = Version::new(request.version.clone()).map_err(|error| wrong("VERSION", error))?;
        let digest: [u8; 32] = request
            .artifact_digest
            .as_slice()
            .try_into()
            .map_err(|_| invalid("artifact_digest", format!("{} bytes instead of 32", request.artifact_digest.len())))?;
        let artifact = Artifact { digest: Digest::from_bytes(digest), size: request.artifact_size };
        let stat = self.artifacts.stat(artifact.digest).map_err(to_status)?;
        let missing = match (stat.complete, stat.have == artifact.size) {
            (true, true) => None,
            (true, false) => Some(
                Problem::new(Code(606), format!("artifact {} has another size", artifact.digest.short()))
                    .saw("asked for", format!("{} bytes", artifact.size))
                    .saw("uploaded", format!("{} bytes", stat.have)),
            ),
            (false, _) => Some(missing(artifact.digest)),
        };
        let shape = manifest.service();
        Ok(Wish { name: manifest.service.clone(), shape, release: manifest.release(version, artifact), missing })
    }
}

/// Everything that is wrong with a manifest, as one problem: the first in its own words, the others beside it.
fn in_one(found: &[manifest::Diagnostic]) -> Problem {
    let errors: Vec<_> = found.iter().filter(|it| it.severity == manifest::Severity::Error).collect();
    let Some(first) = errors.first() else { return Problem::new(Code(100), "the manifest cannot be read") };
    let mut problem = Problem::from(*first);
    for other in errors.iter().skip(1).take(9) {
        problem = problem
            .saw(format!("{}:{}:{}", other.path, other.line, other.column), format!("[{}] {}", other.code, other.what));
    }
    problem
}

fn operator<T>(request: &Request<T>) -> Result<(String, String), Status> {
    match peer(request).identity {
        Identity::Operator { role, name } => Ok((role.to_string(), name.to_string())),
        other => Err(to_status(Problem::new(code::NOT_ALLOWED, format!("{other} is no operator")))),
    }
}

/// What raises privilege on the hosts is an admin's to deploy. Going back to it is not asked again.
fn may_raise(role: &str, release: &Release) -> Result<(), Status> {
    let is_root = |user: &str| user == "root" || user.trim_start_matches('+').parse::<u32>() == Ok(0);
    let raises = release.run.user.as_deref().is_some_and(is_root);
    if !raises || role == Role::Admin.to_string() {
        return Ok(());
    }
    let problem = Problem::new(code::NOT_ALLOWED, "a release that runs as root is an admin's to deploy")
        .saw("manifest", format!("run.user = {:?}", release.run.user.as_deref().unwrap_or_default()))
        .help("name a user of its own in run.user, or ask an admin to deploy this");
    Err(to_status(problem))
}

/// That a service asks for two people is an admin's to end: else one alone could.
fn may_lower(role: &str, fleet: &Fleet, name: &ServiceName, shape: &Service) -> Result<(), Status> {
    let asks = fleet.services.get(name).is_some_and(|service| service.strategy.second_person);
    if !asks || shape.strategy.second_person || role == Role::Admin.to_string() {
        return Ok(());
    }
    let problem = Problem::new(code::NOT_ALLOWED, format!("that {name} asks for two people is an admin's to end"))
        .saw("manifest", "rollout.second_person is not there any more")
        .help("put rollout.second_person = true back, or ask an admin to deploy this");
    Err(to_status(problem))
}

pub(super) fn only(service: &str) -> Result<Option<ServiceName>, Status> {
    if service.is_empty() {
        return Ok(None);
    }
    service.parse().map(Some).map_err(|error: baton_core::name::InvalidName| wrong("SERVICE", error))
}

fn when(request: &DeployRequest) -> Result<When, Status> {
    let busy = match (request.queue, request.supersede) {
        (true, true) => {
            return Err(wrong("--queue", "it is either queued or, with --supersede, takes the place of what is under way"));
        }
        (true, false) => Busy::Queue,
        (false, true) => Busy::Supersede,
        (false, false) => Busy::Refuse,
    };
    let if_plan = match request.if_plan.as_str() {
        "" => None,
        digest => Some(
            digest
                .parse::<Digest>()
                .map_err(|_| wrong("--if-plan", "it is `basis` of `baton plan --json`, 64 characters"))?,
        ),
    };
    Ok(When { busy, if_plan })
}
