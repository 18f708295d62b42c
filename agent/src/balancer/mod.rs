//! Balancers: pools as documents, made true by a driver and read back.
//!
//! A driver is told what every pool should be, makes the balancer match, and reports what the balancer itself says. It never
//! reports what it asked for. "Drained" is therefore an observation, and a balancer that was restarted, edited by hand or
//! replaced is seen and set right by the very same call that serves a new spec.

mod ask;
pub mod builtin;
mod conduct;
mod decide;
mod divide;
mod drift;
mod driver;
mod durable;
mod envoy;
mod haproxy;
mod journal;
mod nginx;
mod problem;
mod refusal;
mod requests;
mod warming;

pub use ask::Place;
use baton_core::fleet::ability::BalancerAbility;
pub use drift::Drift;
pub use refusal::{DRIVERS, keys, mistakes};

use baton_core::fleet::report::PoolReport;
use baton_core::fleet::spec::PoolSpec;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

/// The reports of one pass, when it is over.
pub type Reconciled<'a> = Pin<Box<dyn Future<Output = BTreeMap<PoolName, PoolReport>> + Send + 'a>>;

/// One balancer on this host.
pub trait Balancer: Send + fmt::Debug {
    /// Makes the balancer match, reads it back, and reports what it says.
    ///
    /// Idempotent, and bounded: everything it waits for has a timeout well under a second. Pools the spec does not name are
    /// left alone.
    fn reconcile<'a>(&'a mut self, pools: &'a BTreeMap<PoolName, PoolSpec>) -> Reconciled<'a>;

    /// When to look again although nothing new was asked for: soon while something moves or drains, about a second at rest.
    fn poll_after(&self) -> Duration;

    /// What it is, and what it can do as far as was seen.
    fn ability(&self) -> BalancerAbility;
    /// What its owner should know about it, and what keeps nothing from being done.
    fn notes(&self) -> Vec<Problem>;
}

/// Which balancer serves here, and how it is reached: the `[balancer]` table of the agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "snake_case")]
pub enum BalancerConfig {
    Haproxy(HaproxyConfig),
    Nginx(NginxConfig),
    Envoy(EnvoyConfig),
    Builtin(BuiltinConfig),
}

impl BalancerConfig {
    /// Its word in the configuration.
    #[must_use]
    pub const fn driver(&self) -> &'static str {
        match self {
            Self::Haproxy(_) => "haproxy",
            Self::Nginx(_) => "nginx",
            Self::Envoy(_) => "envoy",
            Self::Builtin(_) => "builtin",
        }
    }

    /// What can be said without a balancer.
    ///
    /// # Errors
    /// [`Problem`] when it can work nowhere.
    pub fn check(&self) -> Result<(), Problem> {
        match self {
            Self::Haproxy(config) => haproxy::check(config),
            Self::Nginx(_) | Self::Envoy(_) | Self::Builtin(_) => Ok(()),
        }
    }
}

/// A HAProxy somebody else configured and started; Baton adopts the backends named like its pools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HaproxyConfig {
    /// `stats socket PATH mode 600 level admin`.
    pub socket: PathBuf,
    /// The `-S PATH` of a master-worker HAProxy: the only exact way to see requests that workers from before a reload hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_socket: Option<PathBuf>,
    /// The file of `server-state-file`, loaded by `load-server-state-from-file global`.
    pub state_file: PathBuf,
    /// The folder of the maps that divide requests, as haproxy.cfg names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maps: Option<PathBuf>,
    /// Where HAProxy logs each request to, `log ADDRESS local0`: a free UDP port of loopback. How long answers take is counted there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<SocketAddr>,
    /// What becomes of members that somebody changed by hand.
    #[serde(default)]
    pub drift: Drift,
}

/// An nginx somebody else configured and started; Baton writes one file that it includes, and reloads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NginxConfig {
    /// The file with every pool's `upstream`, included in `http { }`. Baton's alone.
    pub include: PathBuf,
    /// Where nginx says which version of that file it serves: a free port of loopback.
    pub status: SocketAddr,
    /// nginx.conf's `pid`.
    #[serde(default = "pid_file")]
    pub pid_file: PathBuf,
    /// The program that tests a configuration.
    #[serde(default = "nginx_binary")]
    pub binary: PathBuf,
    /// Its `-c`, where it is not the built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Its `-p`, where it is not the built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<PathBuf>,
    /// Lines for every upstream, such as `least_conn` or `keepalive 32`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<String>,
    /// What becomes of members that somebody changed by hand.
    #[serde(default)]
    pub drift: Drift,
}

/// An Envoy somebody else configured and started; Baton writes the endpoints of its clusters into files it watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvoyConfig {
    /// The admin endpoint: the path of a unix socket, or an address of loopback.
    pub admin: Place,
    /// The folder of the files, one a pool: `POOL.json`.
    pub folder: PathBuf,
    /// The owner's routes, where requests are to be divided: Baton writes them into `~routes.json` of the folder.
    #[serde(default)]
    pub routes: Option<PathBuf>,
    /// What becomes of members that somebody changed by hand.
    #[serde(default)]
    pub drift: Drift,
}

fn pid_file() -> PathBuf {
    "/run/nginx.pid".into()
}

fn nginx_binary() -> PathBuf {
    "nginx".into()
}

/// As HAProxy's.
const fn fall() -> u32 {
    3
}

/// The small reverse proxy that comes with Baton, in a process of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuiltinConfig {
    /// Where each pool listens.
    pub listen: BTreeMap<PoolName, SocketAddr>,
    /// The pools that are served over TLS, with their certificates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tls: BTreeMap<PoolName, builtin::TlsFiles>,
    /// Whose turn it is: round robin, or the least busy member.
    #[serde(default)]
    pub balance: builtin::Balance,
    /// Checks a member fails in a row before it gets no new requests until it answers again; 0: nobody is checked.
    #[serde(default = "fall")]
    pub fall: u32,
    /// Its control socket; inside the agent's state folder unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<PathBuf>,
    /// What starts it; `[<this program>, "balancer"]` unless named. Arguments are appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// What becomes of members that somebody changed by hand.
    #[serde(default)]
    pub drift: Drift,
}

/// Opens the driver a configuration names. `state` is the agent's own state folder.
///
/// Succeeds although the balancer does not answer yet: that is an observation, for the report.
///
/// # Errors
/// [`Problem`] when the configuration can never work here.
pub fn open(config: BalancerConfig, state: &Path) -> Result<Box<dyn Balancer>, Problem> {
    config.check()?;
    match config {
        BalancerConfig::Haproxy(config) => haproxy::open(config, &state.join("balancer")),
        BalancerConfig::Nginx(config) => nginx::open(config, &state.join("balancer")),
        BalancerConfig::Envoy(config) => envoy::open(config, &state.join("balancer")),
        BalancerConfig::Builtin(config) => builtin::open(config, &state.join("balancer")),
    }
}
