//! A coordinator restored from a copy older than the fleet: it asks the hosts before it decides, and nobody notices.

use baton_cli::demo::stage::control::Control;
use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{COORDINATOR, SERVICE, Stage};
use baton_coordinator::backup::backup;
use baton_coordinator::config::Config;
use baton_coordinator::restore::Backup;
use baton_core::problem::Code;
use baton_tests::e2e::{assert_nothing_was_lost, in_time, setup, traffic};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const FENCED: u32 = 1020;

async fn stage() -> (Stage, Control) {
    let stage = Stage::raise(setup(env!("CARGO_BIN_EXE_bench"))).await.unwrap();
    let control = stage.control().await.unwrap();
    (stage, control)
}

fn archive(stage: &Stage, version: &str) -> Vec<u8> {
    std::fs::read(stage.build(version, &Behaviour::good(Duration::ZERO)).unwrap()).unwrap()
}

async fn live(stage: &Stage, control: &Control, version: &str) {
    let rollout = control.deploy(&stage.manifest(), version, &archive(stage, version)).await.unwrap();
    let ended = in_time(version, control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
}

/// The coordinator as it was when `1` was live, started over a fleet that has `3`, while `web2` is away.
async fn restored(stage: &mut Stage) -> (u64, Control) {
    let control = stage.control().await.unwrap();
    let settings = stage.folder().join("coordinator.toml");
    let config = Config::load(Some(&settings)).unwrap();
    live(stage, &control, "1").await;
    let copy = stage.folder().join("copy.tar.zst");
    backup(&config, &settings, &copy).await.unwrap();
    // Epochs the copy knows nothing of.
    for version in ["2", "3"] {
        stage.kill(COORDINATOR).await.unwrap();
        stage.start(COORDINATOR).unwrap();
        live(stage, &stage.control().await.unwrap(), version).await;
    }
    let before = stage.control().await.unwrap().epoch().await.unwrap();
    let read = Backup::read(&copy).unwrap();
    assert_eq!(read.restore(&config, true).await.unwrap_err().code, Code(1003), "one runs from there");
    stage.kill("web2").await.unwrap();
    stage.kill(COORDINATOR).await.unwrap();
    // The lock ends with the last thread of the process, a moment after its first.
    let awaited = in_time("the lock is free", async {
        loop {
            match read.restore(&config, true).await {
                Err(problem) if problem.code == Code(1003) => tokio::time::sleep(Duration::from_millis(5)).await,
                done => break done.unwrap(),
            }
        }
    });
    assert_eq!(awaited.await.awaited, ["lb1", "web1", "web2"]);
    stage.start(COORDINATOR).unwrap();
    let control = stage.control().await.unwrap();
    // Only the host that is away is still missing.
    let only_web2 = |fleet: &baton_proto::v1::FleetView| {
        let fenced = fleet.problems.iter().find(|problem| problem.code == FENCED);
        fenced.is_some_and(|problem| problem.seen[0].evidence == "web2")
    };
    in_time("the hosts that are there were heard", control.wait_for(only_web2)).await.unwrap();
    (before, control)
}

async fn decides(control: &Control) -> baton_proto::v1::FleetView {
    in_time("it decides again", control.wait_for(|fleet| fleet.problems.is_empty())).await.unwrap()
}

#[tokio::test]
async fn a_restored_coordinator_decides_nothing_before_it_has_heard_every_host_and_then_knows_what_they_know() {
    let (mut stage, _) = stage().await;
    let (before, control) = restored(&mut stage).await;
    let load = traffic(&stage);
    let refused = control.deploy(&stage.manifest(), "4", &archive(&stage, "4")).await.unwrap_err();
    assert_eq!(refused.code, Code(1020), "{refused}");
    assert!(control.rollback(SERVICE).await.is_err(), "nobody commands it");

    stage.start("web2").unwrap();
    let fleet = decides(&control).await;
    assert!(fleet.epoch > before, "{} after {before}", fleet.epoch);
    let service = &fleet.services[0];
    assert_eq!(service.committed_version, "3", "{service:#?}");
    live(&stage, &control, "4").await;
    let report = load.stop().await.unwrap();
    assert_nothing_was_lost(&stage, &report);
    let seen: BTreeSet<&str> = report.versions.keys().map(String::as_str).collect();
    assert_eq!(seen, BTreeSet::from(["3", "4"]), "no host went back to what the copy knew");
}

#[tokio::test]
async fn a_host_that_is_gone_on_without_is_read_when_it_comes_and_goes_back_to_nothing() {
    let (mut stage, _) = stage().await;
    let (_, control) = restored(&mut stage).await;
    let recover = |without: &[&str]| {
        let without = without.iter().map(|host| (*host).to_owned()).collect();
        let request = baton_proto::v1::RecoverRequest { without, why: "test".to_owned() };
        let mut client = control.client();
        async move { client.recover(request).await.map_err(|status| baton_proto::problem::from_status(&status)) }
    };
    assert_eq!(recover(&["web1"]).await.unwrap_err().code, Code(1020), "web2 was not named");
    assert_eq!(recover(&["web9"]).await.unwrap_err().code, Code(703));
    let load = traffic(&stage);
    recover(&["web2"]).await.unwrap();
    decides(&control).await;

    // A restart forgets nothing of it.
    stage.kill(COORDINATOR).await.unwrap();
    stage.start(COORDINATOR).unwrap();
    let control = stage.control().await.unwrap();
    stage.start("web2").unwrap();
    let all = |fleet: &baton_proto::v1::FleetView| {
        let serving = fleet.services.iter().flat_map(|service| &service.hosts).filter(|host| host.serves).count();
        serving == 2 && fleet.hosts.iter().all(|host| host.connected)
    };
    in_time("web2 is back", control.wait_for(all)).await.unwrap();
    live(&stage, &control, "4").await;
    let report = load.stop().await.unwrap();
    assert_nothing_was_lost(&stage, &report);
    let seen: BTreeSet<&str> = report.versions.keys().map(String::as_str).collect();
    assert_eq!(seen, BTreeSet::from(["3", "4"]));
}

/// The files of a folder, nothing below it.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|it| it.file_type().unwrap().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_coordinator_whose_machine_was_set_back_to_a_snapshot_finds_out_and_nobody_notices() {
    let (mut stage, control) = stage().await;
    let state = Config::load(Some(&stage.folder().join("coordinator.toml"))).unwrap().state;
    let snapshot = stage.folder().join("snapshot");
    live(&stage, &control, "1").await;
    stage.kill(COORDINATOR).await.unwrap();
    copy_files(&state, &snapshot);
    for version in ["2", "3"] {
        stage.start(COORDINATOR).unwrap();
        live(&stage, &stage.control().await.unwrap(), version).await;
        stage.kill(COORDINATOR).await.unwrap();
    }
    for entry in std::fs::read_dir(&state).unwrap().map(Result::unwrap).filter(|it| it.file_type().unwrap().is_file()) {
        std::fs::remove_file(entry.path()).unwrap();
    }
    copy_files(&snapshot, &state);

    let load = traffic(&stage);
    stage.start(COORDINATOR).unwrap();
    let control = stage.control().await.unwrap();
    let knows = |fleet: &baton_proto::v1::FleetView| {
        fleet.problems.is_empty() && fleet.services.iter().all(|service| service.committed_version == "3")
    };
    in_time("it learnt what is live", control.wait_for(knows)).await.unwrap();
    live(&stage, &control, "4").await;
    let report = load.stop().await.unwrap();
    assert_nothing_was_lost(&stage, &report);
    let seen: BTreeSet<&str> = report.versions.keys().map(String::as_str).collect();
    assert_eq!(seen, BTreeSet::from(["3", "4"]), "no host went back to what the snapshot knew");
}
