//! What end-to-end tests share: a stage of real processes, traffic against it, and what must hold afterwards.

pub mod prometheus;

use baton_cli::demo::load::{Config, Load, Report, executions};
use baton_cli::demo::stage::{Front, Place, Setup, Stage};
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Enough to meet every window of a few milliseconds in every rollout, and little enough for two cores.
pub const RATE: u32 = 100;
/// A rollout of a test is over in a few seconds; what is killed has to end within a minute by Baton's own promise.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A setup for one test: its own network, short times.
///
/// `bench` is `env!("CARGO_BIN_EXE_bench")`: the executable with everything in it.
#[must_use]
pub fn setup(bench: &str) -> Setup {
    Setup {
        hosts: 2,
        front: Front::Builtin,
        place: Place::SideBySide,
        network: network(),
        healthy_for: Duration::from_millis(100),
        start_timeout: Duration::from_secs(2),
        drain: Duration::from_secs(5),
        ..Setup::new(vec![bench.to_owned(), "demo-part".to_owned()])
    }
}

/// A network nobody else uses: tests run beside one another, and so may whole runs of them.
fn network() -> [u8; 3] {
    static STAGES: AtomicU8 = AtomicU8::new(0);
    let [.., low] = std::process::id().to_be_bytes();
    // 127.64.0 and up: far from what people use themselves.
    [127, 64 + STAGES.fetch_add(1, Ordering::Relaxed) % 160, low]
}

/// Whether a program is there; see [`require`].
///
/// # Panics
/// When it is required and missing.
#[must_use]
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    require(program, found, "it is not installed")
}

/// A load balancer's setup, if its program is there: the one its variable names, or the one in PATH; see [`require`].
///
/// # Panics
/// When it is required and missing.
#[must_use]
pub fn behind(front: Front, setup: Setup) -> Option<Setup> {
    let (name, variable) = match front {
        Front::Builtin => return Some(Setup { front, ..setup }),
        Front::Haproxy => return have("haproxy").then_some(Setup { front, ..setup }),
        // One that keeps idle connections over a reload, or requests fail that no release is to blame for.
        Front::Nginx => ("nginx-new", "BATON_NGINX_NEW"),
        Front::Envoy => ("envoy", "BATON_ENVOY"),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = || std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    let program = std::env::var_os(variable).map(PathBuf::from).filter(|program| program.is_file()).or_else(in_path);
    let found = require(name, program.is_some(), &format!("neither {variable} nor PATH leads to it"));
    found.then_some(Setup { front, front_program: program, ..setup })
}

/// Whether something a test needs is there. Missing is a printed line, or a failure where `BATON_REQUIRE` names it: a test
/// that did not run is never silently green.
///
/// # Panics
/// When it is required and missing.
#[must_use]
pub fn require(name: &str, is_there: bool, why: &str) -> bool {
    let required = std::env::var("BATON_REQUIRE").unwrap_or_default();
    assert!(is_there || !required.split(',').any(|required| required.trim() == name), "{name} is required: {why}");
    if !is_there {
        // Nobody reads it: nothing to do about it.
        let _ = writeln!(std::io::stderr().lock(), "skipped, {name}: {why}");
    }
    is_there
}

/// Runs a test's own work with an end.
///
/// # Panics
/// When it takes longer than [`PATIENCE`].
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Traffic at a stage's front door.
///
/// # Panics
/// When it cannot be sent.
#[must_use]
pub fn traffic(stage: &Stage) -> Load {
    traffic_to(stage.frontend())
}

/// Traffic at the door of a stage's second balancer.
///
/// # Panics
/// When it cannot be sent.
#[must_use]
pub fn traffic_at_the_second(stage: &Stage) -> Load {
    traffic_to(stage.second_frontend())
}

fn traffic_to(target: SocketAddr) -> Load {
    match Load::start(Config::new(target, RATE)) {
        Ok(load) => load,
        Err(error) => panic!("no traffic: {error}"),
    }
}

/// What clients and instances say together: nothing failed, every order was executed exactly once.
///
/// # Panics
/// When it did not hold.
pub fn assert_nothing_was_lost(stage: &Stage, report: &Report) {
    assert!(report.requests > 0, "no traffic");
    assert_eq!(report.failed, 0, "{:#?}\n{}", report.failures, stage.last_words());
    assert_each_order_once(stage, report);
}

/// Every order that was acknowledged was executed, and none twice, whatever failed.
///
/// # Panics
/// When it did not hold.
pub fn assert_each_order_once(stage: &Stage, report: &Report) {
    match executions::join(&report.posts, &stage.logs()) {
        Ok(orders) => assert_eq!((orders.lost, orders.twice), (0, 0), "{orders:?}"),
        Err(error) => panic!("the instances' logs cannot be read: {error}"),
    }
}
