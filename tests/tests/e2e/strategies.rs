//! Strategies with real processes under load: what nobody may notice, and how fast the way back is.

use crate::judging::foresees;
use baton_cli::demo::stage::control::Control;
use baton_cli::demo::stage::release::{Behaviour, Fault};
use baton_cli::demo::stage::{Front, Place, SERVICE, Setup, Stage};
use baton_tests::e2e::{assert_nothing_was_lost, have, in_time, setup, traffic};
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Traffic before and after, so that the edges count.
const EDGE: Duration = Duration::from_millis(200);

struct Scene {
    stage: Stage,
    control: Control,
}

impl Scene {
    /// A stage with release 1 live.
    async fn enter(front: Front, place: Place) -> Self {
        let stage = Stage::raise(Setup { front, place, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
        let control = stage.control().await.unwrap();
        let scene = Self { stage, control };
        let rollout = scene.deploy("1", "", &Behaviour::good(Duration::ZERO)).await;
        scene.ends(&rollout, "succeeded").await;
        scene
    }

    /// Deploys with these lines in place of the strategy of the stage's manifest.
    async fn deploy(&self, version: &str, strategy: &str, behaviour: &Behaviour) -> String {
        let archive = std::fs::read(self.stage.build(version, behaviour).unwrap()).unwrap();
        self.control.deploy(&self.manifest(strategy), version, &archive).await.unwrap()
    }

    fn manifest(&self, strategy: &str) -> String {
        let manifest = self.stage.manifest();
        match strategy {
            "" => manifest,
            lines => manifest.replace("strategy = \"rolling\"\nmax_unavailable = 1\n", lines),
        }
    }

    async fn ends(&self, rollout: &str, state: &str) {
        let ended = in_time("the end of a rollout", self.control.wait_ended(rollout)).await.unwrap();
        assert_eq!(ended.state, state, "{ended:#?}\n{}", self.stage.last_words());
    }

    /// Waits until the service waits for this.
    async fn waits_for(&self, reason: &str) {
        let waits = |fleet: &baton_proto::v1::FleetView| {
            fleet.services.iter().flat_map(|service| &service.waiting).any(|it| it.host.is_empty() && it.reason == reason)
        };
        in_time(reason, self.control.wait_for(waits)).await.unwrap();
    }
}

async fn switches_there_and_back(front: Front) {
    if front == Front::Haproxy && !have("haproxy") {
        return;
    }
    let scene = Scene::enter(front, Place::SideBySide).await;
    let load = traffic(&scene.stage);
    tokio::time::sleep(EDGE).await;
    let strategy = "strategy = \"blue-green\"\nkeep_old = \"10m\"\napprove = true\n";
    let rollout = scene.deploy("2", strategy, &Behaviour::good(Duration::ZERO)).await;
    scene.waits_for("approval").await;
    let before = load.mark().await.unwrap();
    assert_eq!(before.versions.keys().collect::<Vec<_>>(), ["1"], "nobody is let in before a person says so");
    scene.control.promote(SERVICE).await.unwrap();
    scene.ends(&rollout, "succeeded").await;
    assert_eq!(scene.control.service(SERVICE).await.unwrap().warm_version, "1");
    load.mark().await.unwrap();
    tokio::time::sleep(EDGE).await;
    let after = load.mark().await.unwrap();
    assert_eq!(after.versions.keys().collect::<Vec<_>>(), ["2"], "the switch is whole");

    let begun = Instant::now();
    let rollout = scene.control.rollback(SERVICE).await.unwrap();
    scene.ends(&rollout, "succeeded").await;
    let took = begun.elapsed();
    let _ =
        writeln!(std::io::stdout(), "{front:?}: back on what was warm, on every balancer, after {} ms", took.as_millis());
    assert!(took < Duration::from_secs(1), "a way back that is warm took {took:?}");
    load.mark().await.unwrap();
    tokio::time::sleep(EDGE).await;
    let last = load.stop().await.unwrap();
    assert_eq!(last.versions.keys().collect::<Vec<_>>(), ["1"]);
    for report in [&before, &after, &last] {
        assert_nothing_was_lost(&scene.stage, report);
    }
}

#[tokio::test]
async fn blue_green_behind_the_builtin_balancer_switches_and_goes_back_within_a_second() {
    switches_there_and_back(Front::Builtin).await;
}

#[tokio::test]
async fn blue_green_behind_haproxy_switches_and_goes_back_within_a_second() {
    switches_there_and_back(Front::Haproxy).await;
}

#[tokio::test]
async fn a_broken_release_in_blue_green_never_gets_a_request() {
    let scene = Scene::enter(Front::Builtin, Place::SideBySide).await;
    let load = traffic(&scene.stage);
    let rollout = scene.deploy("2", "strategy = \"blue-green\"\n", &Behaviour::bad(Fault::Answers(500))).await;
    scene.ends(&rollout, "reverted").await;
    let report = load.stop().await.unwrap();
    assert_eq!(report.versions.keys().collect::<Vec<_>>(), ["1"]);
    assert_nothing_was_lost(&scene.stage, &report);
}

/// Nothing leads to the old release any more: the new one is held against what that did before.
#[tokio::test]
async fn a_release_that_fails_a_fifth_of_its_requests_after_the_switch_of_blue_green_is_taken_back() {
    if !have("haproxy") {
        return;
    }
    let scene = Scene::enter(Front::Haproxy, Place::SideBySide).await;
    let load = traffic(&scene.stage);
    let (strategy, bad) = ("strategy = \"blue-green\"\nbake = \"45s\"\n", Behaviour::bad(Fault::Fails(20)));
    let archive = std::fs::read(scene.stage.build("2", &bad).unwrap()).unwrap();
    foresees(&scene.stage, &scene.manifest(strategy), &archive).await;
    let rollout = scene.deploy("2", strategy, &bad).await;
    let ended = in_time("the end of a rollout", scene.control.wait_ended(&rollout)).await.unwrap();
    let codes: Vec<u32> = ended.evidence.iter().filter_map(|it| it.problem.as_ref()).map(|problem| problem.code).collect();
    assert_eq!((ended.state.as_str(), codes), ("reverted", vec![901]), "{ended:#?}\n{}", scene.stage.last_words());
    let during = load.stop().await.unwrap();
    assert_eq!(during.failed_versions.keys().collect::<Vec<_>>(), ["2"], "{:#?}", during.failures);
    let proof = ended.proof.unwrap();
    assert_eq!((proof.least_serving, proof.least_of), (proof.least_of, proof.least_of), "a switch is no outage: {proof:?}");
}

#[tokio::test]
async fn a_canary_gets_its_share_and_then_everything() {
    let scene = Scene::enter(Front::Builtin, Place::SideBySide).await;
    let load = traffic(&scene.stage);
    let strategy = "strategy = \"canary\"\nsteps = [\"20% for 10m\", \"100%\"]\n";
    let rollout = scene.deploy("2", strategy, &Behaviour::good(Duration::ZERO)).await;
    scene.waits_for("bake").await;
    let entering = load.mark().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let shared = load.mark().await.unwrap();
    let of = |version: &str| shared.versions.get(version).copied().unwrap_or_default() as f64;
    let share = of("2") / (of("1") + of("2"));
    assert!((0.1..0.3).contains(&share), "a fifth was asked for, {share:.3} came: {:?}", shared.versions);
    scene.control.promote(SERVICE).await.unwrap();
    scene.ends(&rollout, "succeeded").await;
    let last = load.stop().await.unwrap();
    for report in [&entering, &shared, &last] {
        assert_nothing_was_lost(&scene.stage, report);
    }
}

#[tokio::test]
async fn recreate_never_runs_two_releases_and_ends_with_the_new_one_everywhere() {
    let scene = Scene::enter(Front::Builtin, Place::InPlace).await;
    let rollout = scene.deploy("2", "strategy = \"recreate\"\n", &Behaviour::good(Duration::ZERO)).await;
    let mixed = |fleet: &baton_proto::v1::FleetView| {
        let hosts = fleet.services.iter().flat_map(|service| &service.hosts);
        let mut versions: Vec<&String> = hosts.flat_map(|host| &host.versions).collect();
        versions.sort();
        versions.dedup();
        versions.len() > 1
    };
    let end = async {
        loop {
            let fleet = scene.control.fleet().await.unwrap();
            assert!(!mixed(&fleet), "two releases at once: {fleet:#?}");
            let service = &fleet.services[0];
            if service.rollout.as_ref().is_some_and(|it| it.id == rollout && it.state == "succeeded") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("the end of a recreate", end).await;
    assert_eq!(scene.control.service(SERVICE).await.unwrap().committed_version, "2");
}
