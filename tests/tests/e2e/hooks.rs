//! A migration with real processes: counted in a file, exactly once, though its agent and the coordinator are killed meanwhile.

use baton_cli::demo::stage::release::{Behaviour, archive};
use baton_cli::demo::stage::{COORDINATOR, Stage};
use baton_proto::v1::{HookView, PlaceRequest};
use baton_tests::e2e::{in_time, setup};
use std::path::PathBuf;
use std::time::Duration;

/// The stage's own.
const SERVICE: &str = "shop";

struct Scene {
    stage: Stage,
    ran: PathBuf,
    go: PathBuf,
}

impl Scene {
    /// A release is live, and the next one has a migration that leaves a line and then waits to be let go.
    async fn enter() -> Self {
        let stage = Stage::raise(setup(env!("CARGO_BIN_EXE_bench"))).await.unwrap();
        let (ran, go) = (stage.folder().join("ran"), stage.folder().join("go"));
        let scene = Self { stage, ran, go };
        let control = scene.stage.control().await.unwrap();
        let rollout = control.deploy(&scene.stage.manifest(), "1", &scene.archive("1")).await.unwrap();
        assert_eq!(in_time("the first release", control.wait_ended(&rollout)).await.unwrap().state, "succeeded");
        scene
    }

    fn archive(&self, version: &str) -> Vec<u8> {
        archive(&self.stage.setup.part, version, &Behaviour::good(Duration::from_millis(50))).unwrap()
    }

    async fn begin(&self, version: &str) -> String {
        let (ran, go) = (self.ran.display(), self.go.display());
        let script = format!("echo {version} >> {ran}; until test -e {go}; do sleep 0.05; done; echo through");
        let hooks = format!("\n[hooks]\nmigrate = {{ command = \"sh -c '{script}'\", timeout = \"1m\" }}\n");
        let manifest = self.stage.manifest() + &hooks;
        let control = self.stage.control().await.unwrap();
        let rollout = control.deploy(&manifest, version, &self.archive(version)).await.unwrap();
        in_time("the migration begins", async {
            while self.runs() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        rollout
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(&self.ran).unwrap_or_default().lines().count()
    }

    async fn migration(&self) -> HookView {
        let control = self.stage.control().await.unwrap();
        let service = control.service(SERVICE).await.unwrap();
        let hooks = service.rollout.unwrap_or_default().hooks;
        hooks.into_iter().find(|hook| hook.point == "migrate").unwrap_or_default()
    }

    async fn end_of(&self, rollout: &str) -> String {
        let control = self.stage.control().await.unwrap();
        in_time("the rollout's end", control.wait_ended(rollout)).await.unwrap().state
    }
}

#[tokio::test]
async fn a_migration_whose_agent_is_killed_in_the_middle_happens_once_and_goes_on_by_a_persons_word() {
    let mut scene = Scene::enter().await;
    let rollout = scene.begin("2").await;
    let host = scene.migration().await.host;
    scene.stage.kill(&host).await.unwrap();
    scene.stage.start(&host).unwrap();
    std::fs::write(&scene.go, "").unwrap();
    assert_eq!(scene.end_of(&rollout).await, "paused", "{}", scene.stage.last_words());
    let migration = scene.migration().await;
    let problem = migration.problem.clone().unwrap_or_default();
    assert_eq!((migration.state.as_str(), problem.code), ("unknown", 803), "{migration:#?}");
    assert!(problem.seen.iter().any(|seen| seen.evidence == "through"), "{problem:#?}");
    let control = scene.stage.control().await.unwrap();
    let service = SERVICE.to_owned();
    let word = PlaceRequest { service, hook: "migrate".into(), why: "looked".into(), ..PlaceRequest::default() };
    control.client().skip(word).await.unwrap();
    let live = in_time("live", control.wait_for(|fleet| fleet.services.iter().all(|it| it.committed_version == "2"))).await;
    live.unwrap();
    assert_eq!(scene.runs(), 1);
}

#[tokio::test]
async fn a_migration_outlives_the_coordinator_that_asked_for_it_and_is_not_asked_for_again() {
    let mut scene = Scene::enter().await;
    let rollout = scene.begin("2").await;
    scene.stage.kill(COORDINATOR).await.unwrap();
    std::fs::write(&scene.go, "").unwrap();
    scene.stage.start(COORDINATOR).unwrap();
    assert_eq!(scene.end_of(&rollout).await, "succeeded", "{}", scene.stage.last_words());
    let migration = scene.migration().await;
    assert_eq!((migration.state.as_str(), migration.output.as_slice()), ("succeeded", &["through".to_owned()][..]));
    assert_eq!(scene.runs(), 1);
}
