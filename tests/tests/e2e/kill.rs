//! `kill -9` in the middle of a rollout, at several moments: it ends by itself, and clients lose what died, nothing more.

use baton_cli::demo::load::{Load, Report};
use baton_cli::demo::stage::release::{Behaviour, archive};
use baton_cli::demo::stage::{BALANCER_HOST, COORDINATOR, Front, HAPROXY, Place, Setup, Stage};
use baton_proto::v1::RolloutView;
use baton_tests::e2e::{assert_each_order_once, assert_nothing_was_lost, have, in_time, setup, traffic};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

/// After the command: as it is taken, while the first host changes, while the second does.
const MOMENTS: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(250), Duration::from_millis(700)];
/// How long it is gone.
const GONE: Duration = Duration::from_millis(300);

struct Scene {
    stage: Stage,
    load: Load,
}

impl Scene {
    async fn enter(front: Front, place: Place) -> Self {
        let stage = Stage::raise(Setup { front, place, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
        let control = stage.control().await.unwrap();
        let rollout = control.deploy(&stage.manifest(), "0", &good(&stage, "0")).await.unwrap();
        let ended = in_time("the first release", control.wait_ended(&rollout)).await.unwrap();
        assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
        let load = traffic(&stage);
        Self { stage, load }
    }

    /// Begins a rollout and lets it go on until the moment.
    async fn under_way(&self, number: usize, moment: Duration) -> String {
        let version = format!("{}", number + 1);
        let control = self.stage.control().await.unwrap();
        let rollout = control.deploy(&self.stage.manifest(), &version, &good(&self.stage, &version)).await.unwrap();
        tokio::time::sleep(moment).await;
        rollout
    }

    /// The rollout's end, which comes by itself.
    async fn end_of(&self, rollout: &str) -> RolloutView {
        let end = async {
            let control = self.stage.control().await.unwrap();
            control.wait_ended(rollout).await.unwrap()
        };
        let ended = in_time("the rollout's end", end).await;
        let good = ["succeeded", "reverted"].contains(&ended.state.as_str());
        assert!(good, "{ended:#?}\n{}", self.stage.last_words());
        ended
    }

    async fn kill_and_return(&mut self, part: &str) -> Vec<Report> {
        let mut reports = Vec::new();
        for (number, moment) in MOMENTS.into_iter().enumerate() {
            let rollout = self.under_way(number, moment).await;
            self.stage.kill(part).await.unwrap();
            tokio::time::sleep(GONE).await;
            self.stage.start(part).unwrap();
            self.end_of(&rollout).await;
            reports.push(self.load.mark().await.unwrap());
        }
        reports
    }
}

fn good(stage: &Stage, version: &str) -> Vec<u8> {
    archive(&stage.setup.part, version, &Behaviour::good(Duration::from_millis(100))).unwrap()
}

#[tokio::test]
async fn a_killed_coordinator_is_not_missed_by_clients_and_goes_on_where_it_was() {
    let mut scene = Scene::enter(Front::Builtin, Place::InPlace).await;
    for report in scene.kill_and_return(COORDINATOR).await {
        assert_nothing_was_lost(&scene.stage, &report);
    }
}

#[tokio::test]
async fn a_killed_agent_leaves_its_apps_running_and_takes_them_up_again() {
    let mut scene = Scene::enter(Front::Builtin, Place::SideBySide).await;
    for report in scene.kill_and_return("web1").await {
        assert_nothing_was_lost(&scene.stage, &report);
    }
}

#[tokio::test]
async fn a_killed_agent_beside_the_balancer_costs_no_request() {
    let mut scene = Scene::enter(Front::Builtin, Place::InPlace).await;
    for report in scene.kill_and_return(BALANCER_HOST).await {
        assert_nothing_was_lost(&scene.stage, &report);
    }
}

#[tokio::test]
async fn a_killed_haproxy_comes_back_with_what_it_should_serve() {
    if !have("haproxy") {
        return;
    }
    let mut scene = Scene::enter(Front::Haproxy, Place::InPlace).await;
    for report in scene.kill_and_return(HAPROXY).await {
        assert_each_order_once(&scene.stage, &report);
    }
    serves_without_failure(&scene).await;
}

#[tokio::test]
async fn a_killed_builtin_balancer_is_started_again_by_its_agent() {
    let scene = Scene::enter(Front::Builtin, Place::InPlace).await;
    for (number, moment) in MOMENTS.into_iter().enumerate() {
        let rollout = scene.under_way(number, moment).await;
        kill_process(builtin(&scene.stage), Signal::KILL).unwrap();
        scene.end_of(&rollout).await;
        assert_each_order_once(&scene.stage, &scene.load.mark().await.unwrap());
    }
    serves_without_failure(&scene).await;
}

async fn serves_without_failure(scene: &Scene) {
    in_time("the balancer answers again", async {
        while tokio::net::TcpStream::connect(scene.stage.frontend()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Requests that met the outage are over now.
    scene.load.mark().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_nothing_was_lost(&scene.stage, &scene.load.mark().await.unwrap());
}

/// The built-in balancer's process: started by this stage's agent, and known by the folder in its arguments.
fn builtin(stage: &Stage) -> Pid {
    let folder = stage.folder().display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut balancers = processes.filter_map(|process| {
        let words = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
        let is_ours = words.split('\0').any(|word| word == "balancer") && words.contains(&folder);
        is_ours.then(|| process.file_name().to_str()?.parse().ok())?
    });
    Pid::from_raw(balancers.next().unwrap()).unwrap()
}
