//! The half that faces the network: everything that needs this host's certificate, and nothing that touches the host.

use super::fetches::Fetches;
use super::remote::Remote;
use super::renewal::{self, Life};
use super::socket::{LOST_FOR_GOOD, carried};
use super::stream::{Said, Streams};
use super::waits::Waits;
use super::{NetworkEnd, WAITING_MAX};
use crate::config::{self, Config};
use crate::session::{WAIT_MAX, backoff};
use baton_core::problem::Problem;
use baton_proto::problem::from_status;
use baton_proto::tls::{self, Credentials, Hot};
use baton_proto::v1::enrollment_client::EnrollmentClient;
use baton_proto::v1::{GreetRequest, HostMessage, LinkCertificate, LinkClock, LinkMessage, host_message, link_message};
use rustls::ClientConfig;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

/// How often two clocks are compared: one that drifts takes days.
const COMPARE_EVERY: Duration = Duration::from_secs(600);

/// What this host got when it joined, and the way to the coordinator.
#[derive(Debug)]
pub struct Network {
    endpoint: String,
    identity: PathBuf,
    certificate: Hot<ClientConfig>,
    channel: Channel,
    authorities: watch::Sender<Vec<[u8; 32]>>,
    life: watch::Sender<Option<Life>>,
}

/// Runs the link as a process of its own until `shutdown`; the other half has this socket.
///
/// # Errors
/// This host never joined, or what it has of joining cannot be read.
pub async fn run(config: &Config, socket: &Path, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let network = Network::open(config)?;
    tracing::info!(coordinator = network.endpoint, socket = %socket.display(), "the link of baton-agent {}", env!("CARGO_PKG_VERSION"));
    tokio::select! {
        () = network.renew() => {}
        () = network.beside(socket) => {}
        () = shutdown => {}
    }
    Ok(())
}

impl Network {
    /// Reads what joining left.
    ///
    /// # Errors
    /// B0531: this host never joined. Or its certificate cannot be used.
    pub fn open(config: &Config) -> Result<Self, Problem> {
        let endpoint = config.endpoint()?;
        let identity = config.identity();
        let certificate = tls::hot(tls::client_config(&credentials(&identity)?)?);
        Ok(Self {
            channel: tls::channel(&endpoint, certificate.clone())?,
            endpoint,
            identity,
            certificate,
            authorities: watch::Sender::default(),
            life: watch::Sender::default(),
        })
    }

    #[cfg(test)]
    pub(crate) fn plain(channel: Channel) -> Self {
        let certificate = tls::hot(tls::joining_config([0; 32]).unwrap());
        let (authorities, life) = (watch::Sender::default(), watch::Sender::default());
        Self { endpoint: String::new(), identity: PathBuf::new(), certificate, channel, authorities, life }
    }

    #[cfg(test)]
    pub(crate) fn believed(&self) -> watch::Receiver<Vec<[u8; 32]>> {
        self.authorities.subscribe()
    }

    /// Where the coordinator is.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Keeps the certificate good for ever.
    pub async fn renew(&self) {
        let (endpoint, folder) = (self.endpoint.clone(), self.identity.clone());
        renewal::run(endpoint, folder, self.certificate.clone(), self.authorities.subscribe(), &self.life).await;
    }

    /// Works for the other half for as long as it is there.
    pub async fn serve(&self, end: NetworkEnd) {
        let NetworkEnd { out, heard } = end;
        let (saying, says) = mpsc::channel(WAITING_MAX);
        let streams = Streams { out: out.clone(), says, authorities: &self.authorities, identity: &self.identity };
        let fetches = Fetches::new(Arc::new(Remote(self.channel.clone())), out.clone());
        tokio::select! {
            _alone = streams.keep(self.channel.clone()) => {}
            () = hear(heard, saying, fetches) => {}
            () = self.compare_clocks(&out) => {}
            () = self.tell_life(&out) => {}
        }
    }

    async fn beside(&self, socket: &Path) {
        let mut waits = backoff();
        let mut told = false;
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => {
                    (waits, told) = (backoff(), false);
                    let (end, carrying) = carried(stream);
                    tokio::select! {
                        () = self.serve(end) => {}
                        why = carrying => tracing::warn!(%why, "{LOST_FOR_GOOD}"),
                    }
                }
                Err(error) if !told => {
                    tracing::warn!(%error, socket = %socket.display(), "the agent is not there; it is waited for");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(waits.next().unwrap_or(WAIT_MAX)).await;
        }
    }

    /// Says what the coordinator's clock says, for ever.
    async fn compare_clocks(&self, out: &mpsc::Sender<LinkMessage>) {
        let mut waits = Waits::new();
        loop {
            let mut coordinator = EnrollmentClient::new(self.channel.clone());
            let wait = match coordinator.greet(GreetRequest {}).await {
                Ok(greeting) => {
                    let clock = LinkClock { seconds: greeting.into_inner().clock_seconds };
                    if out.send(LinkMessage { kind: Some(link_message::Kind::Clock(clock)) }).await.is_err() {
                        return;
                    }
                    waits = Waits::new();
                    COMPARE_EVERY
                }
                Err(status) => waits.after(&from_status(&status)),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Says how long the certificate is good, now and whenever it is another one.
    async fn tell_life(&self, out: &mpsc::Sender<LinkMessage>) {
        let mut life = self.life.subscribe();
        life.mark_changed();
        while life.changed().await.is_ok() {
            let Some(Life { not_before, not_after }) = *life.borrow_and_update() else { continue };
            let certificate = LinkCertificate { not_before, not_after };
            if out.send(LinkMessage { kind: Some(link_message::Kind::Certificate(certificate)) }).await.is_err() {
                return;
            }
        }
    }
}

/// Hands on what the other half says. Never waits for anybody: the other half may be waiting for this.
async fn hear(mut heard: mpsc::Receiver<HostMessage>, saying: mpsc::Sender<Said>, mut fetches: Fetches) {
    while let Some(message) = heard.recv().await {
        let said = match message.kind {
            Some(host_message::Kind::Say(message)) => Said::Say(Box::new(message)),
            Some(host_message::Kind::HangUp(problem)) => match Problem::try_from(problem) {
                Ok(problem) => Said::HangUp(Box::new(problem)),
                Err(_) => return,
            },
            Some(host_message::Kind::Fetch(asked)) => {
                fetches.begin(asked);
                continue;
            }
            Some(host_message::Kind::More(asked)) => {
                fetches.more(asked.fetch);
                continue;
            }
            None => continue,
        };
        if saying.try_send(said).is_err() {
            // It waits for one to be sent before it says the next.
            tracing::warn!("the agent says more than can be sent");
            return;
        }
    }
}

/// What the host got when it joined.
fn credentials(identity: &Path) -> Result<Credentials, Problem> {
    Credentials::load(identity).map_err(|error| match &error {
        tls::TlsError::File { error, .. } if error.kind() == std::io::ErrorKind::NotFound => config::not_joined(),
        _ => error.into(),
    })
}
