//! Hand-over: one host, no balancer. Clients come straight to the service's own address, and nobody notices a release.

use baton_cli::demo::load::{Config, Kind, Load, Report};
use baton_cli::demo::stage::control::Control;
use baton_cli::demo::stage::release::{Behaviour, Fault, archive};
use baton_cli::demo::stage::{Place, SERVICE, Setup, Stage};
use baton_tests::e2e::{assert_each_order_once, assert_nothing_was_lost, in_time, setup};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// New connections a second: hundreds in every window of a release.
const RATE: u32 = 400;
/// Traffic before and after, so that the edges count.
const EDGE: Duration = Duration::from_millis(200);

struct Scene {
    stage: Stage,
    control: Control,
    load: Load,
}

impl Scene {
    /// One host with release `1` on its public address, under traffic.
    async fn enter(clients: &'static [Kind], rate: u32) -> Self {
        let setup = Setup { hosts: 1, place: Place::Handover, ..setup(env!("CARGO_BIN_EXE_bench")) };
        let stage = Stage::raise(setup).await.unwrap();
        let control = stage.control().await.unwrap();
        let rollout = control.deploy(&stage.manifest(), "1", &good(&stage, "1")).await.unwrap();
        let ended = in_time("the first release", control.wait_ended(&rollout)).await.unwrap();
        assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
        assert_eq!(ended.placement, "handover");
        let load = Load::start(Config { clients, ..Config::new(stage.frontend(), rate) }).unwrap();
        Self { stage, control, load }
    }

    async fn release(&self, version: &str) {
        let rollout = self.control.deploy(&self.stage.manifest(), version, &good(&self.stage, version)).await.unwrap();
        self.ends(&rollout, "succeeded").await;
    }

    async fn ends(&self, rollout: &str, state: &str) {
        let ended = in_time("the end of a release", self.control.wait_ended(rollout)).await.unwrap();
        assert_eq!(ended.state, state, "{ended:#?}\n{}", self.stage.last_words());
    }

    /// What clients met since the last time.
    async fn met(&self) -> Report {
        tokio::time::sleep(EDGE).await;
        self.load.mark().await.unwrap()
    }

    /// The process of the service that runs this version.
    fn process_of(&self, version: &str) -> Option<Pid> {
        let folder = self.stage.folder().display().to_string();
        let (ours, version) = (|line: &str| line.contains(&folder), format!("\0--version-text\0{version}\0"));
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut found = processes.filter_map(|process| {
            let line = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
            (ours(&line) && line.contains(&version)).then(|| process.file_name().to_str()?.parse().ok())?
        });
        Pid::from_raw(found.next()?)
    }
}

fn good(stage: &Stage, version: &str) -> Vec<u8> {
    archive(&stage.setup.part, version, &Behaviour::good(Duration::from_millis(50))).unwrap()
}

const NEW: &[Kind] = &[Kind::NewConnection, Kind::PostNewConnection];

#[tokio::test]
async fn releases_follow_each_other_on_one_address_and_back_and_no_connection_is_refused() {
    let scene = Scene::enter(NEW, RATE).await;
    for version in ["2", "3", "4", "5"] {
        scene.release(version).await;
    }
    let there = scene.met().await;
    assert_nothing_was_lost(&scene.stage, &there);
    assert_eq!(there.versions.keys().collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);

    let rollout = scene.control.rollback(SERVICE).await.unwrap();
    scene.ends(&rollout, "succeeded").await;
    assert_nothing_was_lost(&scene.stage, &scene.met().await);
    let after = scene.met().await;
    assert_eq!(after.versions.keys().collect::<Vec<_>>(), ["4"], "only the release before serves");
    assert_nothing_was_lost(&scene.stage, &after);
}

#[tokio::test]
async fn clients_of_every_kind_are_answered_while_a_release_is_handed_over() {
    let scene = Scene::enter(&Kind::MIX, 100).await;
    scene.release("2").await;
    let report = scene.met().await;
    assert_nothing_was_lost(&scene.stage, &report);
    assert!(Kind::ALL.iter().all(|kind| report.kinds[kind].requests > 0), "{:?}", report.kinds);
}

#[tokio::test]
async fn an_agent_killed_in_the_middle_of_a_release_finds_the_socket_again() {
    let mut scene = Scene::enter(NEW, RATE).await;
    for (number, moment) in [10, 120, 300].into_iter().enumerate() {
        let version = format!("{}", number + 2);
        let archive = good(&scene.stage, &version);
        let rollout = scene.control.deploy(&scene.stage.manifest(), &version, &archive).await.unwrap();
        tokio::time::sleep(Duration::from_millis(moment)).await;
        scene.stage.kill("web1").await.unwrap();
        scene.stage.start("web1").unwrap();
        scene.ends(&rollout, "succeeded").await;
        assert_nothing_was_lost(&scene.stage, &scene.met().await);
    }
}

#[tokio::test]
async fn an_app_that_is_killed_loses_what_it_had_accepted_and_its_successor_answers_who_waited() {
    let scene = Scene::enter(NEW, 50).await;
    let before = scene.process_of("1").unwrap();
    kill_process(before, Signal::KILL).unwrap();
    in_time("another start", async {
        while scene.process_of("1").is_none_or(|after| after == before) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Its restart waits a second; so do those who came meanwhile, and none is refused.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let report = scene.met().await;
    assert!(report.failures.iter().all(|failure| !failure.text.contains("refused")), "{:#?}", report.failures);
    assert!(report.failed <= 3, "{:#?}", report.failures);
    assert_each_order_once(&scene.stage, &report);
    assert!(report.longest_gap_ms >= 500.0, "nobody waited: {}", report.longest_gap_ms);
    assert_nothing_was_lost(&scene.stage, &scene.met().await);
}

#[tokio::test]
async fn a_release_that_never_becomes_ready_is_taken_back_and_the_old_one_serves_on() {
    let scene = Scene::enter(NEW, RATE).await;
    let silent = archive(&scene.stage.setup.part, "2", &Behaviour::bad(Fault::NeverListens)).unwrap();
    let rollout = scene.control.deploy(&scene.stage.manifest(), "2", &silent).await.unwrap();
    scene.ends(&rollout, "reverted").await;
    let report = scene.met().await;
    assert_nothing_was_lost(&scene.stage, &report);
    assert_eq!(report.versions.keys().collect::<Vec<_>>(), ["1"]);
}

#[tokio::test]
async fn a_public_address_that_is_taken_fails_the_release_at_once_and_another_one_is_opened_beside_the_first() {
    let scene = Scene::enter(NEW, RATE).await;
    let stranger = TcpListener::bind((scene.stage.frontend().ip(), 0)).unwrap();
    let (manifest, first) = (scene.stage.manifest(), scene.stage.frontend());
    let moved = |to: SocketAddr| manifest.replace(&first.to_string(), &to.to_string());
    let other = stranger.local_addr().unwrap();
    let rollout = scene.control.deploy(&moved(other), "2", &good(&scene.stage, "2")).await.unwrap();
    let ended = in_time("the end of a release", scene.control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "reverted", "{ended:#?}");
    let problem = ended.evidence[0].problem.clone().unwrap();
    assert_eq!(problem.code, 205, "{problem:#?}");
    assert!(problem.what.contains(&other.to_string()), "{problem:#?}");
    assert_nothing_was_lost(&scene.stage, &scene.met().await);

    drop(stranger);
    let Scene { stage, control, load, .. } = scene;
    drop(load);
    let rollout = control.deploy(&moved(other), "3", &good(&stage, "3")).await.unwrap();
    let ended = in_time("the end of a release", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    assert!(TcpStream::connect(other).is_ok(), "the new address is open");
    in_time("the old address is closed", async {
        while TcpStream::connect(first).is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
