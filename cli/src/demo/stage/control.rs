//! What an operator does, over the coordinator's socket.

use anyhow::{Context as _, bail};
use baton_core::problem::Problem;
use baton_proto::v1::artifacts_client::ArtifactsClient;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::upload_message::Kind;
use baton_proto::v1::{
    ArtifactStatRequest, CertificateView, Chunk, CreateTokenRequest, DeployRequest, FleetView, HostRequest,
    ListCertificatesRequest, RevokeCertificatesRequest, RollbackRequest, RolloutView, ServiceRequest, ServiceView,
    StatusRequest, UploadMessage, UploadOpen,
};
use std::path::Path;
use std::time::Duration;
use tonic::transport::Channel;

const CHUNK: usize = 64 * 1024;
const TOKEN_TTL: Duration = Duration::from_secs(300);

/// The Control API, as the tests use it: what it refuses is a [`Problem`].
#[derive(Debug, Clone)]
pub struct Control {
    channel: Channel,
}

impl Control {
    pub(super) fn over(socket: &Path) -> Self {
        Self { channel: baton_proto::tls::local_channel(socket) }
    }

    /// The calls themselves, for those that no method here makes.
    #[must_use]
    pub fn client(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }

    /// The coordinator's epoch: it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn epoch(&self) -> anyhow::Result<u64> {
        Ok(self.fleet().await?.epoch)
    }

    /// The fleet now.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub async fn fleet(&self) -> anyhow::Result<FleetView> {
        Ok(self.client().status(StatusRequest::default()).await?.into_inner())
    }

    /// One service now.
    ///
    /// # Errors
    /// When the coordinator does not answer or knows no such service.
    pub async fn service(&self, name: &str) -> anyhow::Result<ServiceView> {
        let fleet = self.fleet().await?;
        fleet.services.into_iter().find(|service| service.name == name).with_context(|| format!("no service {name}"))
    }

    /// Every certificate that has not ended.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub async fn certificates(&self) -> anyhow::Result<Vec<CertificateView>> {
        Ok(self.client().list_certificates(ListCertificatesRequest {}).await?.into_inner().certificates)
    }

    /// Accepts the certificates of an identity no more.
    ///
    /// # Errors
    /// A refusal.
    pub async fn revoke(&self, whose: &str) -> Result<(), Problem> {
        let request = RevokeCertificatesRequest { whose: whose.to_owned(), why: "test".to_owned() };
        self.client().revoke_certificates(request).await.map(drop).map_err(|status| problem(&status))
    }

    /// A token one host joins with, once.
    ///
    /// # Errors
    /// When the coordinator refuses.
    pub async fn host_token(&self, host: &str) -> anyhow::Result<String> {
        let request = CreateTokenRequest {
            role: "host".into(),
            uses: 1,
            ttl_ms: u64::try_from(TOKEN_TTL.as_millis())?,
            names: vec![host.to_owned()],
            ..CreateTokenRequest::default()
        };
        Ok(self.client().create_token(request).await.context("no token")?.into_inner().token)
    }

    /// Returns once every one of these hosts is connected.
    ///
    /// # Errors
    /// When the coordinator goes away.
    pub async fn wait_connected(&self, hosts: &[String]) -> anyhow::Result<()> {
        let connected =
            |fleet: &FleetView| hosts.iter().all(|name| fleet.hosts.iter().any(|host| host.name == *name && host.connected));
        self.wait_for(connected).await.map(drop)
    }

    /// The first view of the fleet that satisfies a condition. Without a bound of its own: the caller has one.
    ///
    /// # Errors
    /// When the coordinator goes away.
    pub async fn wait_for(&self, condition: impl Fn(&FleetView) -> bool) -> anyhow::Result<FleetView> {
        let mut views = self.client().watch(StatusRequest::default()).await?.into_inner();
        while let Some(view) = views.message().await? {
            if condition(&view) {
                return Ok(view);
            }
        }
        bail!("the coordinator ended the watch")
    }

    /// Uploads an artifact and asks for its release.
    ///
    /// # Errors
    /// A refusal.
    pub async fn deploy(&self, manifest: &str, version: &str, archive: &[u8]) -> Result<String, Problem> {
        let digest = blake3::hash(archive);
        self.upload(digest, archive).await?;
        self.deploy_uploaded(manifest, version, digest, archive.len() as u64).await
    }

    /// Asks for a release whose artifact should be there.
    ///
    /// # Errors
    /// A refusal.
    pub async fn deploy_uploaded(
        &self,
        manifest: &str,
        version: &str,
        digest: blake3::Hash,
        size: u64,
    ) -> Result<String, Problem> {
        let request = DeployRequest {
            manifest: manifest.to_owned(),
            manifest_path: "baton.toml".to_owned(),
            version: version.to_owned(),
            artifact_digest: digest.as_bytes().to_vec(),
            artifact_size: size,
            ..DeployRequest::default()
        };
        let reply = self.client().deploy(request).await.map_err(|status| problem(&status))?;
        Ok(reply.into_inner().rollout)
    }

    /// Uploads an archive under a digest, right or wrong.
    ///
    /// # Errors
    /// A refusal.
    pub async fn upload(&self, digest: blake3::Hash, archive: &[u8]) -> Result<(), Problem> {
        let mut artifacts = ArtifactsClient::new(self.channel.clone());
        let digest = digest.as_bytes().to_vec();
        let stat = artifacts
            .stat(ArtifactStatRequest { digest: digest.clone() })
            .await
            .map_err(|status| problem(&status))?
            .into_inner();
        if stat.complete {
            return Ok(());
        }
        let size = archive.len() as u64;
        let open = Kind::Open(UploadOpen { digest, size, offset: stat.have });
        let have = usize::try_from(stat.have).unwrap_or(usize::MAX).min(archive.len());
        let chunks = archive[have..].chunks(CHUNK).enumerate();
        let chunks = chunks.map(|(index, bytes)| {
            let offset = (have + index * CHUNK) as u64;
            Kind::Chunk(Chunk { offset, bytes: bytes.to_vec() })
        });
        let messages = std::iter::once(open).chain(chunks).map(|kind| UploadMessage { kind: Some(kind) });
        let messages = messages.collect::<Vec<_>>();
        artifacts.upload(tokio_stream::iter(messages)).await.map_err(|status| problem(&status))?;
        Ok(())
    }

    /// Turns the service's rollout back, or goes back to the release before.
    ///
    /// # Errors
    /// A refusal.
    pub async fn rollback(&self, service: &str) -> Result<String, Problem> {
        let request = RollbackRequest { service: service.to_owned(), why: "test".to_owned(), ..RollbackRequest::default() };
        Ok(self.client().rollback(request).await.map_err(|status| problem(&status))?.into_inner().rollout)
    }

    /// Lets a rollout go on that waits for a person's word.
    ///
    /// # Errors
    /// A refusal.
    pub async fn promote(&self, service: &str) -> Result<String, Problem> {
        let request = ServiceRequest { service: service.to_owned(), why: "test".to_owned() };
        Ok(self.client().promote(request).await.map_err(|status| problem(&status))?.into_inner().rollout)
    }

    /// Starts every instance of a service anew.
    ///
    /// # Errors
    /// A refusal.
    pub async fn restart(&self, service: &str) -> Result<String, Problem> {
        let request = ServiceRequest { service: service.to_owned(), why: "test".to_owned() };
        Ok(self.client().restart(request).await.map_err(|status| problem(&status))?.into_inner().rollout)
    }

    /// Takes a host out of every balancer, or brings it back.
    ///
    /// # Errors
    /// A refusal.
    pub async fn set_drained(&self, host: &str, drained: bool) -> Result<(), Problem> {
        let request = HostRequest { host: host.to_owned(), why: "test".to_owned(), ..HostRequest::default() };
        let reply = match drained {
            true => self.client().drain_host(request).await,
            false => self.client().undrain_host(request).await,
        };
        reply.map(drop).map_err(|status| problem(&status))
    }

    /// The rollout's last view, once it has ended or paused.
    ///
    /// # Errors
    /// When the coordinator goes away.
    pub async fn wait_ended(&self, rollout: &str) -> anyhow::Result<RolloutView> {
        let of = |fleet: &FleetView| {
            let rollouts = fleet.services.iter().filter_map(|service| service.rollout.clone());
            rollouts.into_iter().find(|seen| seen.id == rollout && has_ended(&seen.state))
        };
        let fleet = self.wait_for(|fleet| of(fleet).is_some()).await?;
        of(&fleet).context("the rollout is gone")
    }
}

fn has_ended(state: &str) -> bool {
    ["succeeded", "partial", "reverted", "failed", "paused"].contains(&state)
}

fn problem(status: &tonic::Status) -> Problem {
    baton_proto::problem::from_status(status)
}
