//! A release that answers its probe and fails its users is taken back, and the proof says what was counted.

use baton_cli::demo::load::Load;
use baton_cli::demo::stage::release::{Behaviour, Fault};
use baton_cli::demo::stage::{Front, Setup, Stage};
use baton_proto::v1::{DeployRequest, FleetView, HistoryRequest, RolloutView};
use baton_tests::e2e::{assert_each_order_once, assert_nothing_was_lost, behind, in_time, setup, traffic};
use std::time::{Duration, Instant};

/// The stage's manifest for a release there is nothing to compare with: nobody has to wait for it.
fn unwatched(stage: &Stage) -> String {
    let lines = stage.manifest();
    lines
        .lines()
        .filter(|line| !line.starts_with("waves") && !line.starts_with("bake"))
        .map(|line| format!("{line}\n"))
        .collect()
}

async fn a_fifth_fails(front: Front) {
    let watched = Duration::from_secs(20);
    let Some(setup) = behind(front, Setup { watched, ..setup(env!("CARGO_BIN_EXE_bench")) }) else { return };
    let stage = Stage::raise(setup).await.unwrap();
    let control = stage.control().await.unwrap();
    let good = std::fs::read(stage.build("1", &Behaviour::good(Duration::from_millis(50))).unwrap()).unwrap();
    let bad = std::fs::read(stage.build("2", &Behaviour::bad(Fault::Fails(20))).unwrap()).unwrap();
    let rollout = control.deploy(&unwatched(&stage), "1", &good).await.unwrap();
    let ended = in_time("the first release", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());

    let (load, begun) = (traffic(&stage), Instant::now());
    foresees(&stage, &stage.manifest(), &bad).await;
    let rollout = control.deploy(&stage.manifest(), "2", &bad).await.unwrap();
    let work = async { tokio::join!(control.wait_ended(&rollout), noticed(&stage)) };
    let (ended, noticed) = in_time("the release that fails", work).await;
    let ended = ended.unwrap();
    assert_eq!(ended.state, "reverted", "{ended:#?}\n{}", stage.last_words());
    let codes: Vec<u32> = ended.evidence.iter().filter_map(|it| it.problem.as_ref()).map(|problem| problem.code).collect();
    assert_eq!(codes, [901], "{ended:#?}");
    assert!(ended.elapsed_ms < 15_000, "taken back after {} ms", ended.elapsed_ms);

    let during = load.stop().await.unwrap();
    let first = begun + Duration::from_secs_f64(during.failures.first().unwrap().at_s);
    let took = noticed.saturating_duration_since(first);
    assert!(took < Duration::from_secs(10), "noticed {took:?} after the first failure");
    assert_each_order_once(&stage, &during);
    let on = during.failed_versions.keys().collect::<Vec<_>>();
    assert_eq!(on, ["2"], "every failure was on the new release: {:#?}", during.failures);

    let request = HistoryRequest { rollout, limit: 1, ..HistoryRequest::default() };
    let stored = control.client().history(request).await.unwrap().into_inner().rollouts.remove(0);
    let stored: RolloutView = stored.rollout.unwrap();
    let proof = stored.proof.unwrap();
    // The client counts from its own side of the wire; the balancer never counts what did not happen.
    assert!((1..=during.failed).contains(&proof.new_failed), "{} failed for the client: {proof:?}", during.failed);
    assert_eq!((proof.old_failed, proof.restarts), (0, 0), "{proof:?}");
}

/// When evidence against the second release was there.
async fn noticed(stage: &Stage) -> Instant {
    let evidence = |fleet: &FleetView| {
        let mut rollouts = fleet.services.iter().filter_map(|service| service.rollout.as_ref());
        rollouts.any(|rollout| rollout.to_version == "2" && !rollout.evidence.is_empty())
    };
    stage.control().await.unwrap().wait_for(evidence).await.unwrap();
    Instant::now()
}

/// Once the balancers have counted something, a plan says how soon a release that fails a fifth of its requests is noticed.
pub(super) async fn foresees(stage: &Stage, manifest: &str, archive: &[u8]) {
    let request = DeployRequest {
        manifest: manifest.to_owned(),
        manifest_path: "baton.toml".to_owned(),
        version: "2".to_owned(),
        artifact_digest: blake3::hash(archive).as_bytes().to_vec(),
        artifact_size: archive.len() as u64,
        ..DeployRequest::default()
    };
    let foreseen = async {
        loop {
            let plan = stage.control().await.unwrap().client().plan(request.clone()).await.unwrap().into_inner();
            if let Some(fifth) = plan.would_notice.iter().find(|notice| notice.share == "20 %") {
                return fifth.within_ms;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let within = in_time("a plan that foresees", foreseen).await;
    assert!((1..=30_000).contains(&within), "noticed within {within} ms");
}

#[tokio::test]
async fn a_release_that_fails_a_fifth_of_its_requests_is_taken_back_behind_the_builtin_balancer() {
    a_fifth_fails(Front::Builtin).await;
}

#[tokio::test]
async fn a_release_that_fails_a_fifth_of_its_requests_is_taken_back_behind_haproxy() {
    a_fifth_fails(Front::Haproxy).await;
}

#[tokio::test]
async fn a_release_that_fails_a_fifth_of_its_requests_is_taken_back_behind_nginx() {
    a_fifth_fails(Front::Nginx).await;
}

#[tokio::test]
async fn a_release_that_fails_a_fifth_of_its_requests_is_taken_back_behind_envoy() {
    a_fifth_fails(Front::Envoy).await;
}

/// A stage whose first release takes 20 ms for an answer, under traffic that says so.
async fn paced(front: Front, watched: Duration) -> Option<(Stage, Load)> {
    let stage = Stage::raise(behind(front, Setup { watched, ..setup(env!("CARGO_BIN_EXE_bench")) })?).await.unwrap();
    let ended = deploy(&stage, &unwatched(&stage), "1", 20).await;
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    let load = traffic(&stage);
    Some((stage, load))
}

/// Deploys a release that takes so many milliseconds for an answer, and waits for what becomes of it.
async fn deploy(stage: &Stage, manifest: &str, version: &str, millis: u16) -> RolloutView {
    let control = stage.control().await.unwrap();
    let archive = std::fs::read(stage.build(version, &Behaviour::bad(Fault::Takes(millis))).unwrap()).unwrap();
    let rollout = control.deploy(manifest, version, &archive).await.unwrap();
    in_time("a release with a pace", control.wait_ended(&rollout)).await.unwrap()
}

async fn twice_as_long(front: Front) {
    // Long enough for a machine that is busy with other things; it ends as soon as it is noticed.
    let Some((stage, load)) = paced(front, Duration::from_secs(45)).await else { return };
    let archive = std::fs::read(stage.build("2", &Behaviour::bad(Fault::Takes(40))).unwrap()).unwrap();
    // A service that has served for a while: how long it usually takes is known.
    foresees(&stage, &stage.manifest(), &archive).await;
    let ended = deploy(&stage, &stage.manifest(), "2", 40).await;
    assert_eq!(ended.state, "reverted", "{ended:#?}\n{}", stage.last_words());
    let codes: Vec<u32> = ended.evidence.iter().filter_map(|it| it.problem.as_ref()).map(|problem| problem.code).collect();
    assert_eq!(codes, [904], "{ended:#?}");
    let during = load.stop().await.unwrap();
    assert_nothing_was_lost(&stage, &during);
    let proof = ended.proof.unwrap();
    assert_eq!((proof.new_failed, proof.old_failed), (0, 0), "{proof:?}");
    // Some eight seconds where nothing else runs: four looks, and what of a look had passed. Never as late as the watch ends.
    assert!(proof.mixed_ms < 20_000, "noticed after {} ms", proof.mixed_ms);
}

#[tokio::test]
async fn a_release_that_takes_twice_as_long_is_taken_back_and_no_request_fails_behind_the_builtin_balancer() {
    twice_as_long(Front::Builtin).await;
}

#[tokio::test]
async fn a_release_that_takes_twice_as_long_is_taken_back_and_no_request_fails_behind_haproxy() {
    twice_as_long(Front::Haproxy).await;
}

#[tokio::test]
async fn a_release_that_takes_twice_as_long_is_taken_back_and_no_request_fails_behind_nginx() {
    twice_as_long(Front::Nginx).await;
}

#[tokio::test]
async fn a_release_that_takes_twice_as_long_is_taken_back_and_no_request_fails_behind_envoy() {
    twice_as_long(Front::Envoy).await;
}

/// Nobody answers beside it, and how long answers took before says too little to go back for: a person is asked.
#[tokio::test]
async fn a_release_that_takes_five_times_as_long_after_a_switch_is_asked_about() {
    let (stage, load) = paced(Front::Builtin, Duration::ZERO).await.unwrap();
    let lines = "strategy = \"blue-green\"\nbake = \"10m\"\n";
    let manifest = unwatched(&stage).replace("strategy = \"rolling\"\nmax_unavailable = 1\n", lines);
    // Twice as long takes up to a minute to be noticed where nobody answers beside it, and more on a machine that slows the one before.
    let slow = Behaviour::bad(Fault::Takes(100));
    let archive = std::fs::read(stage.build("2", &slow).unwrap()).unwrap();
    foresees(&stage, &manifest, &archive).await;
    let control = stage.control().await.unwrap();
    control.deploy(&manifest, "2", &archive).await.unwrap();
    let asked = |fleet: &FleetView| {
        let mut rollouts = fleet.services.iter().filter_map(|service| service.rollout.as_ref());
        rollouts.any(|rollout| {
            let slower = "2 answers more slowly since nothing leads to 1 any more: ";
            rollout.state == "paused" && rollout.paused_why.starts_with(slower) && rollout.evidence.is_empty()
        })
    };
    in_time("a person who is asked", control.wait_for(asked)).await.unwrap();
    assert_nothing_was_lost(&stage, &load.stop().await.unwrap());
}

#[tokio::test]
async fn an_incident_that_slows_both_releases_takes_neither_back() {
    let (stage, load) = paced(Front::Builtin, Duration::from_secs(12)).await.unwrap();
    let manifest = stage.manifest();
    let watched = deploy(&stage, &manifest, "2", 20);
    let incident = async {
        in_time("both releases", both_answer(&stage)).await;
        std::fs::write(stage.incident(), "60").unwrap();
    };
    let (ended, ()) = tokio::join!(watched, incident);
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    assert_nothing_was_lost(&stage, &load.stop().await.unwrap());
}

/// Waits until the load balancer has counted answers of both releases.
async fn both_answer(stage: &Stage) {
    let control = stage.control().await.unwrap();
    loop {
        let request = HistoryRequest { limit: 1, ..HistoryRequest::default() };
        let rollouts = control.client().history(request).await.unwrap().into_inner().rollouts;
        let proof = rollouts.into_iter().next().and_then(|record| record.rollout?.proof);
        if proof.is_some_and(|proof| proof.new_requests > 0 && proof.old_requests > 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
