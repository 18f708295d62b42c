//! Somebody who does nothing wrong, and how long they wait.

use anyhow::Context as _;
use baton_cli::demo::stage::control::Control;
use baton_proto::problem::from_status;
use baton_proto::tls::{Credentials, channel, client_config, hot, joining_config};
use baton_proto::token::JoinToken;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use baton_proto::v1::{CreateTokenRequest, JoinRequest, StatusRequest};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::Channel;

/// Between two calls on a connection that is kept.
const EVERY: Duration = Duration::from_millis(5);
/// Between two calls with a connection of their own: fewer than one address may have for ever.
const EVERY_NEW: Duration = Duration::from_millis(40);
/// For one call.
const PATIENCE: Duration = Duration::from_secs(10);
const TTL_MS: u64 = 60_000;

/// A token for two people who may look.
pub(super) async fn viewers(control: &Control) -> anyhow::Result<JoinToken> {
    let request = CreateTokenRequest { role: "viewer".into(), uses: 2, ttl_ms: TTL_MS, ..CreateTokenRequest::default() };
    let token = control.client().create_token(request).await?.into_inner().token;
    token.parse().ok().context("the coordinator's token is none")
}

/// What a machine has after it joined with nothing but a token.
pub(super) async fn join(coordinator: SocketAddr, token: &JoinToken, name: &str) -> anyhow::Result<Credentials> {
    let key = rcgen::KeyPair::generate()?;
    let csr_pem = rcgen::CertificateParams::default().serialize_request(&key)?.pem()?;
    let channel = channel(&coordinator.to_string(), hot(joining_config(token.pin)?))?;
    let request = JoinRequest { secret: token.secret.to_vec(), csr_pem, name: name.into(), ..JoinRequest::default() };
    let reply = EnrollmentClient::new(channel).join(request).await.map_err(|status| from_status(&status))?.into_inner();
    Ok(Credentials {
        certificate_pem: reply.certificate_pem,
        key_pem: key.serialize_pem(),
        authority_pem: reply.authority_pem,
    })
}

/// How long calls took, from when they were due.
#[derive(Debug, Default)]
pub(super) struct Waited {
    times: Vec<Duration>,
    pub(super) failed: usize,
}

impl Waited {
    pub(super) fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.times.sort_unstable();
        self.failed += other.failed;
    }

    pub(super) fn calls(&self) -> usize {
        self.times.len()
    }

    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let index = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
        self.times.get(index).copied().unwrap_or_default()
    }

    /// The median and the 99th percentile.
    pub(super) fn cell(&self) -> String {
        let [median, high] = [50, 99].map(|percent| self.percentile(percent).as_secs_f64() * 1000.0);
        let failed = if self.failed > 0 { format!(" ({} FAILED)", self.failed) } else { String::new() };
        format!("{:>13}{failed}", format!("{median:.2}/{high:.2}"))
    }
}

/// A viewer.
#[derive(Debug)]
pub(super) struct Honest {
    coordinator: SocketAddr,
    credentials: Credentials,
    kept: ControlClient<Channel>,
}

impl Honest {
    pub(super) async fn join(coordinator: SocketAddr, token: &JoinToken, name: &str) -> anyhow::Result<Self> {
        let credentials = join(coordinator, token, name).await?;
        let kept = dial(coordinator, &credentials)?;
        Ok(Self { coordinator, credentials, kept })
    }

    /// Calls on one connection.
    pub(super) async fn kept(&mut self, window: Duration) -> Waited {
        let kept = self.kept.clone();
        asked(window, EVERY, async || status(kept.clone()).await).await
    }

    /// Calls that each begin with a connection, as a command line's do.
    pub(super) async fn newcomers(&self, window: Duration) -> Waited {
        asked(window, EVERY_NEW, async || status(dial(self.coordinator, &self.credentials)?).await).await
    }
}

fn dial(coordinator: SocketAddr, credentials: &Credentials) -> anyhow::Result<ControlClient<Channel>> {
    Ok(ControlClient::new(channel(&coordinator.to_string(), hot(client_config(credentials)?))?))
}

async fn status(mut client: ControlClient<Channel>) -> anyhow::Result<()> {
    timeout(PATIENCE, client.status(StatusRequest::default())).await??;
    Ok(())
}

async fn asked(window: Duration, every: Duration, ask: impl AsyncFn() -> anyhow::Result<()>) -> Waited {
    let mut waited = Waited::default();
    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut ended) = (Instant::now(), Instant::now());
    while began.elapsed() < window {
        let due = clock.tick().await.into_std();
        // Who is kept waiting by the call before has waited already; a clock that wakes late has not.
        let begun = if ended > due { due } else { Instant::now() };
        waited.failed += usize::from(ask().await.is_err());
        ended = Instant::now();
        waited.times.push(ended - begun);
    }
    waited
}
