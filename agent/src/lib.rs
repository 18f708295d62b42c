//! Runs on every host: receives artifacts, starts and stops instances, drives the local balancer, reports what is.

pub mod allow;
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
pub mod link;
pub mod local;
pub mod log;
pub mod metrics;
#[cfg(test)]
mod places;
mod pools;
pub mod preflight;
pub mod probe;
pub mod reboot;
pub mod reconciler;
pub mod runtime;
mod scraper;
pub mod secrets;
pub mod session;
pub mod text;
pub mod upgrade;

use allow::Allow;
use artifact::{Bounds, Folder, Unpacker};
use baton_core::problem::{Code, Problem};
use baton_proto::unit;
use condition::Condition;
use config::Config;
use heads::Heads;
use link::{Archives, Door, Network, Place};
use metrics::{Counters, Sources, Store};
use reconciler::{Means, Memory, Reconciler, Wires};
use runtime::Runtime;
use rustix::fs::FlockOperation;
use session::{Ends, Introduction, Left, Session};
use std::fs::{File, OpenOptions, Permissions};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often logs are looked after.
const TEND_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the agent until `shutdown`: all of it, or without the link where that has a process of its own. Instances and balancers
/// go on without it. `words` start this program for verbs of its own.
///
/// # Errors
/// What keeps an agent from starting: it never joined, its state folder or its runtime cannot be used, another one runs.
pub async fn run(config: Config, words: &[&str], place: Place, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let network = (place == Place::Within).then(|| Network::open(&config)).transpose()?;
    let _lock = lock(&config.state)?;
    // Applications inherit it. What is the agent's alone has its mode said where it is made.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let way = match (network, place) {
        (Some(network), _) => Way::Within(network),
        (None, Place::Beside(socket)) => Way::Beside(open_door(&config, &socket)?),
        (None, Place::Within) => return Err(config::not_joined().into()),
    };
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let unpacker = Unpacker::Child(owned(&[words, &["unpack"]].concat()));
    let archives = Archives::default();
    let runtime = runtime::open(config.runtime, &config.state.join("run"), owned(words)).await?;
    let allow = Allow { unnamed_is_root: runtime.unnamed_is_root(), ..config.allow.clone() };
    let means = Means {
        runtime: Arc::clone(&runtime),
        placing: Arc::new(Folder::open(&config.state.join("releases"), Bounds::default(), unpacker)?),
        source: Arc::new(archives.clone()),
        allow: Arc::new(allow),
    };
    let (upgrade, upgrade_ends) = upgrade::open(&config.state, config.upgrades, Arc::clone(&means.source));
    let condition = Condition::new(config.state.clone());
    let boot = boot::of_host()?;
    let (reboot, reboot_ends) = reboot::open(boot.clone(), config.allow.reboot, condition.clone());
    let (sender, events) = mpsc::unbounded_channel();
    let (view, viewed) = watch::channel(Arc::default());
    let (wanted_pools, wanted) = watch::channel(Default::default());
    let counters = Arc::new(Counters::default());
    let wires = Wires { sender: sender.clone(), events, view, wanted_pools, counters: Arc::clone(&counters) };
    let reconciler = Reconciler::open(Memory::open(&config.state)?, means, boot, wires).await?;
    let sources = Sources {
        view: viewed.clone(),
        counters: Arc::clone(&counters),
        condition: condition.clone(),
        store: Arc::new(Store::new(config.state.join("releases"))),
    };
    let introduction = Introduction { address: config.address, facts: facts::facts() };
    let ends = Ends {
        events: sender.clone(),
        view: viewed.clone(),
        heads: Heads::open(config.state.join("audit-heads.json")),
        condition: condition.clone(),
        counters,
        upgrade: upgrade_ends,
        reboot: reboot_ends,
        archives,
    };
    tracing::info!(state = %config.state.display(), "baton-agent {}", env!("CARGO_PKG_VERSION"));
    tokio::select! {
        () = reconciler.run() => {}
        () = upgrade.serve() => {}
        () = reboot.serve() => {}
        () = speak(Session::new(introduction, ends), way) => {}
        () = pools::serve(config.balancer, config.allow, config.state.clone(), wanted, sender.clone()) => {}
        () = metrics::serve(config.metrics, sources, sender.clone()) => {}
        () = local::serve(config.state, viewed, condition, sender) => {}
        () = tend(runtime) => {}
        () = shutdown => {}
    }
    Ok(())
}

/// The way to the link.
enum Way {
    Within(Network),
    Beside(Door),
}

/// Makes the socket the link comes to, and gives the link's user what is only the link's.
fn open_door(config: &Config, socket: &Path) -> Result<Door, Problem> {
    let me = rustix::process::geteuid();
    if !me.is_root() {
        return Door::open(socket, me.as_raw());
    }
    let user = runtime::command::user(link::USER).map_err(|_| {
        Problem::new(Code(561), format!("the user {}, whom the link runs as, does not exist on this host", link::USER))
            .help("systemd-sysusers makes it, as the package says; `baton-agent run` without --link needs none")
    })?;
    link::hand_over(&config.identity(), user.uid, user.gid).map_err(|error| {
        Problem::new(Code(604), format!("the identity cannot be given to {}: {}", link::USER, text::io_error(&error)))
            .saw("folder", config.identity().display().to_string())
    })?;
    Door::open(socket, user.uid)
}

/// Keeps the session, for ever.
async fn speak(mut session: Session, way: Way) {
    match way {
        Way::Within(network) => {
            tracing::info!(coordinator = network.endpoint(), "the link is in this process");
            let (host, end) = link::pair();
            let left = tokio::select! {
                () = network.serve(end) => Left::Ended,
                () = network.renew() => Left::Ended,
                left = session.through(host) => left,
            };
            tracing::error!(?left, "the two halves of this agent do not understand each other");
        }
        Way::Beside(door) => loop {
            session.alone();
            let (host, carrying) = link::carried(door.next().await);
            tracing::info!("the link is there");
            tokio::select! {
                left = session.through(host) => tracing::warn!(?left, "the link is cut off"),
                error = carrying => tracing::warn!(%error, "the link is gone"),
            }
        },
    }
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
        let refused = Box::pin(run(config, &[], Place::Within, std::future::ready(()))).await.unwrap_err();
        assert_eq!(refused.downcast_ref::<Problem>().map(|problem| problem.code), Some(Code(531)), "{refused:?}");
    }
}
