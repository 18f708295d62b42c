//! Runs on every host: receives artifacts, starts and stops instances, drives the local balancer, reports what is.

pub mod artifact;
pub mod balancer;
pub mod boot;
pub mod condition;
pub mod config;
pub mod connections;
pub mod durable;
pub mod enroll;
pub mod facts;
pub mod heads;
mod hook;
mod instance;
pub mod ledger;
pub mod local;
pub mod log;
pub mod metrics;
mod pools;
pub mod preflight;
pub mod probe;
pub mod reconciler;
pub mod renewal;
pub mod runtime;
mod scraper;
pub mod secrets;
pub mod session;
pub mod text;
pub mod upgrade;

use artifact::{Bounds, Folder, Remote, Unpacker};
use baton_core::problem::{Code, Problem};
use baton_proto::{tls, unit};
use condition::Condition;
use config::Config;
use heads::Heads;
use metrics::{Counters, Sources, Store};
use reconciler::{Means, Memory, Reconciler, Wires};
use runtime::Runtime;
use rustix::fs::FlockOperation;
use session::{Ends, Introduction};
use std::fs::{File, OpenOptions, Permissions};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// What the host got when it joined.
fn credentials(config: &Config) -> Result<tls::Credentials, Problem> {
    tls::Credentials::load(&config.identity()).map_err(|error| match &error {
        tls::TlsError::File { error, .. } if error.kind() == std::io::ErrorKind::NotFound => config::not_joined(),
        _ => error.into(),
    })
}

/// How often logs are looked after.
const TEND_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the agent until `shutdown`. Instances and balancers go on without it. `words` start this program for verbs of its own.
///
/// # Errors
/// What keeps an agent from starting: it never joined, its state folder or its runtime cannot be used, another one runs.
pub async fn run(config: Config, words: &[&str], shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let endpoint = config.endpoint()?;
    let credentials = credentials(&config)?;
    let certificate = tls::hot(tls::client_config(&credentials).map_err(Problem::from)?);
    let channel = tls::channel(&endpoint, certificate.clone())?;
    let _lock = lock(&config.state)?;
    // Applications inherit it. What is the agent's alone has its mode said where it is made.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let unpacker = Unpacker::Child(owned(&[words, &["unpack"]].concat()));
    let means = Means {
        runtime: runtime::open(config.runtime, &config.state.join("run"), owned(words)).await?,
        placing: Arc::new(Folder::open(&config.state.join("releases"), Bounds::default(), unpacker)?),
        source: Arc::new(Remote(channel.clone())),
    };
    let runtime = means.runtime.clone();
    let (upgrade, upgrade_ends) = upgrade::open(&config.state, config.upgrades, Arc::clone(&means.source));
    let (sender, events) = mpsc::unbounded_channel();
    let (view, viewed) = watch::channel(Arc::default());
    let (wanted_pools, wanted) = watch::channel(Default::default());
    let counters = Arc::new(Counters::default());
    let wires = Wires { sender: sender.clone(), events, view, wanted_pools, counters: Arc::clone(&counters) };
    let reconciler = Reconciler::open(Memory::open(&config.state)?, means, boot::id()?, wires).await?;
    let introduction = Introduction { address: config.address, facts: facts::facts() };
    let heads = Heads::open(config.state.join("audit-heads.json"));
    tracing::info!(coordinator = endpoint, state = %config.state.display(), "baton-agent {}", env!("CARGO_PKG_VERSION"));
    let condition = Condition::new(config.state.clone());
    let sources = Sources {
        view: viewed.clone(),
        counters: Arc::clone(&counters),
        condition: condition.clone(),
        store: Arc::new(Store::new(config.state.join("releases"))),
        identity: config.identity(),
    };
    let (authorities, told) = watch::channel(Vec::new());
    let renewal = renewal::run(endpoint, config.identity(), certificate, told);
    let condition_of_stream = condition.clone();
    let ends = Ends {
        events: sender.clone(),
        view: viewed.clone(),
        heads,
        condition: condition_of_stream,
        counters,
        authorities,
        upgrade: upgrade_ends,
    };
    tokio::select! {
        () = condition.compare_clocks(channel.clone()) => {}
        () = reconciler.run() => {}
        () = renewal => {}
        () = upgrade.serve() => {}
        () = session::run(channel, introduction, ends) => {}
        () = pools::serve(config.balancer, config.state.clone(), wanted, sender.clone()) => {}
        () = metrics::serve(config.metrics, sources, sender.clone()) => {}
        () = local::serve(config.state, viewed, condition.clone(), sender) => {}
        () = tend(runtime) => {}
        () = shutdown => {}
    }
    Ok(())
}

async fn tend(runtime: Arc<dyn Runtime>) {
    let mut interval = tokio::time::interval(TEND_INTERVAL);
    loop {
        interval.tick().await;
        runtime.tend();
    }
}

/// Makes the state folder one that applications can walk through, to their release, and nobody can look around in.
pub(crate) fn state_folder(state: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(state.join("run"))?;
    std::fs::set_permissions(state, Permissions::from_mode(0o711))?;
    std::fs::set_permissions(state.join("run"), Permissions::from_mode(0o700))
}

/// Two agents with one state folder would undo each other's work.
fn lock(state: &Path) -> Result<File, Problem> {
    let refuse = |error: &std::io::Error| {
        Problem::new(Code(604), format!("the state folder `{}` cannot be used: {}", state.display(), text::io_error(error)))
    };
    state_folder(state).map_err(|error| refuse(&error))?;
    let path = state.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(|error| refuse(&error))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Problem::new(Code(534), "another agent runs with this state folder")
            .saw("state", state.display().to_string())
            .help(format!("{}; or give this one a state folder of its own", unit::command("status", "baton-agent")))
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_that_knows_its_coordinator_and_never_joined_says_how() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { coordinator: "127.0.0.1:7443".into(), state: folder.path().to_owned(), ..Config::default() };
        let refused = Box::pin(run(config, &[], std::future::ready(()))).await.unwrap_err();
        assert_eq!(refused.downcast_ref::<Problem>().map(|problem| problem.code), Some(Code(531)), "{refused:?}");
    }
}
