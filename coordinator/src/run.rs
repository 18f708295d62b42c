//! A coordinator from start to stop.

use crate::api::Api;
use crate::api::authority::fingerprints;
use crate::api::revoked::Revoked;
use crate::api::used::Used;
use crate::artifact::{Folder, retention};
use crate::audit::Audit;
use crate::config::Config;
use crate::driver::Driver;
use crate::identity::issuance::Issuance;
use crate::identity::wall_time;
use crate::local;
use crate::metrics;
use crate::prober;
use crate::prometheus;
use crate::reboots::Reboots;
use crate::state::StateFolder;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use crate::upgrades::Upgrades;
use baton_core::problem::{Code, Problem};
use baton_core::rollout::plan::plan;
use baton_proto::tls::{incoming, local_incoming};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long calls under way may take to finish once the coordinator stops. Streams are told to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// A coordinator that drives and listens. Dropped, it stops at once; better to [`Running::stop`] it.
#[derive(Debug)]
pub struct Running {
    /// Where it listens: what was asked for, with the port that port 0 became.
    pub listen: SocketAddr,
    stop: watch::Sender<bool>,
    driver: JoinHandle<Result<(), StoreError>>,
    servers: JoinSet<()>,
    store: SqliteStore,
    // In this order: the socket goes before the lock.
    _socket: local::Socket,
    _state: StateFolder,
}

/// Runs a coordinator until `shutdown`.
///
/// # Errors
/// When it cannot start, or must not drive any longer.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Problem> {
    let mut running = start(&config).await?;
    tracing::info!(listen = %running.listen, socket = %config.socket.display(), "the coordinator drives");
    // No systemd, no message: nothing depends on it.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        ended = &mut running.driver => Err(why(ended)),
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    match ended {
        Ok(()) => running.stop().await,
        Err(problem) => Err(problem),
    }
}

/// Starts a coordinator: when this returns, it has taken over the fleet and answers.
///
/// # Errors
/// When it was never set up, another one holds its state, the store cannot be written, or it cannot listen.
pub async fn start(config: &Config) -> Result<Running, Problem> {
    let state = StateFolder::open(&config.state)?;
    let issuance = Arc::new(Issuance::open(&state.identity(), config.life())?);
    let artifacts = Arc::new(Folder::open(&state.artifacts())?);
    let listener = TcpListener::bind(config.listen).await.map_err(|error| {
        Problem::new(Code(1011), format!("the coordinator cannot listen at {}", config.listen))
            .saw("network", error.to_string())
            .help("choose another address (`listen` in coordinator.toml), or stop what listens there")
    })?;
    let listen = listener.local_addr().map_err(|error| Problem::new(Code(1011), error.to_string()))?;
    let metrics = match config.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let (local, socket) = local::listen(&config.socket)?;
    let store = SqliteStore::open(&state.store()).await.map_err(|error| error.problem())?;
    store.believe(&fingerprints(&issuance.current())).await.map_err(|error| error.problem())?;
    let revoked = store.load().await.map_err(|error| error.problem())?.revoked;
    let certificates = store.certificates(wall_time()).await.map_err(|error| error.problem())?;
    let used = certificates.into_iter().filter(|certificate| certificate.used).map(|certificate| certificate.serial);
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let audit = Arc::new(Audit::open(Arc::clone(&shared)).await.map_err(|error| error.problem())?);
    let (driver, access) = Driver::take_over(Arc::clone(&shared), plan).await.map_err(|error| error.problem())?;
    // An artifact that is kept is of a release that is known.
    let driver = driver.remembering(config.keep_artifacts);

    let upgrades = Upgrades::open(Arc::clone(&shared), access.clone()).await.map_err(|error| error.problem())?;

    let reboots = Reboots::open(Arc::clone(&shared), access.clone()).await.map_err(|error| error.problem())?;

    let (stop, stopping) = watch::channel(false);
    let stopped = move || {
        let mut stopping = stopping.clone();
        async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    };
    let driver = tokio::spawn(driver.run(stopped()));
    let api = Api {
        access,
        store: Arc::clone(&shared),
        issuance: Arc::clone(&issuance),
        artifacts,
        revoked: Revoked::new(revoked),
        used: Used::new(shared, issuance.changes(), used.collect()),
        life: config.life(),
        port: listen.port(),
        audit,
        upgrades,
        reboots,
    };
    let mut servers = JoinSet::new();
    let tending = retention::tend(api.access.clone(), (*api.artifacts).clone(), config.keep_artifacts, api.upgrades.clone());
    let until = stopped();
    servers.spawn(async move {
        tokio::select! {
            () = tending => {}
            () = until => {}
        }
    });
    let (upgrading, until) = (api.upgrades.clone().run(), stopped());
    servers.spawn(async move {
        tokio::select! {
            () = upgrading => {}
            () = until => {}
        }
    });
    let (rebooting, until) = (api.reboots.clone().run(), stopped());
    servers.spawn(async move {
        tokio::select! {
            () = rebooting => {}
            () = until => {}
        }
    });
    let (probing, until) = (prober::run(api.access.clone()), stopped());
    servers.spawn(async move {
        tokio::select! {
            () = probing => {}
            () = until => {}
        }
    });
    let (asking, until) = (prometheus::run(api.access.clone()), stopped());
    servers.spawn(async move {
        tokio::select! {
            () = asking => {}
            () = until => {}
        }
    });
    if let Some(listener) = metrics {
        servers.spawn(metrics::serve(listener, api.access.clone(), state.identity(), stopped()));
    }
    for served in [
        listening(api.clone(), incoming(listener, issuance.tls()), stopped()),
        listening(api, local_incoming(local, local::identify), stopped()),
    ] {
        servers.spawn(served);
    }
    let renewal = issuance.renew();
    let until = stopped();
    servers.spawn(async move {
        tokio::select! {
            () = renewal => {}
            () = until => {}
        }
    });
    Ok(Running { listen, stop, driver, servers, store, _socket: socket, _state: state })
}

fn listening(
    api: Api,
    connections: impl futures_util::Stream<Item = std::io::Result<baton_proto::tls::Connection>> + Send + 'static,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        if let Err(error) = api.serve(connections, until).await {
            tracing::error!(%error, "a listener ended");
        }
    })
}

impl Running {
    /// Stops: the driver first, then the streams it fed, then what is under way, for a moment.
    ///
    /// # Errors
    /// When the driver had ended for a reason of its own.
    pub async fn stop(self) -> Result<(), Problem> {
        let Self { stop, driver, mut servers, store, .. } = self;
        stop.send_replace(true);
        let ended = driver.await;
        let all = async { while servers.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            servers.shutdown().await;
        }
        store.close().await;
        match ended {
            Ok(Ok(())) => Ok(()),
            ended => Err(why(ended)),
        }
    }
}

/// Why a driver ended although nobody asked it to.
fn why(ended: Result<Result<(), StoreError>, tokio::task::JoinError>) -> Problem {
    match ended {
        Ok(Err(error)) => error.problem(),
        Ok(Ok(())) => Problem::new(Code(1006), "the driver ended by itself"),
        Err(error) => Problem::new(Code(1006), "the driver broke: this is a bug in Baton").saw("reason", error.to_string()),
    }
}
