//! A release replaces another, and back, under load: nobody notices.

use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{Front, Place, SERVICE, Setup, Stage};
use baton_core::problem::Code;
use baton_proto::problem::from_status;
use baton_proto::v1::RollbackRequest;
use baton_tests::e2e::{assert_nothing_was_lost, have, in_time, setup, traffic};
use std::time::Duration;

/// Traffic before and after, so that the edges count.
const EDGE: Duration = Duration::from_millis(200);

async fn rolls_there_and_back(front: Front, place: Place) {
    if front == Front::Haproxy && !have("haproxy") {
        return;
    }
    let stage = Stage::raise(Setup { front, place, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let control = stage.control().await.unwrap();
    let good = Behaviour::good(Duration::from_millis(100));
    let [first, second] = ["1", "2"].map(|version| std::fs::read(stage.build(version, &good).unwrap()).unwrap());
    let rollout = control.deploy(&stage.manifest(), "1", &first).await.unwrap();
    let ended = in_time("the first release", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());

    let load = traffic(&stage);
    tokio::time::sleep(EDGE).await;
    let rollout = control.deploy(&stage.manifest(), "2", &second).await.unwrap();
    let ended = in_time("the second release", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    let proof = ended.proof.unwrap();
    let missing = u32::from(place == Place::InPlace);
    assert_eq!(proof.least_of - proof.least_serving, missing, "one at a time, or none: {proof:?}");
    assert_eq!(proof.missed_ms > 0, place == Place::InPlace, "{proof:?}");
    tokio::time::sleep(EDGE).await;
    let during = load.mark().await.unwrap();
    assert_nothing_was_lost(&stage, &during);
    assert!(during.versions.contains_key("1") && during.versions.contains_key("2"), "{:?}", during.versions);

    let rollout = control.rollback(SERVICE).await.unwrap();
    let ended = in_time("the way back", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    tokio::time::sleep(EDGE).await;
    assert_nothing_was_lost(&stage, &load.mark().await.unwrap());

    tokio::time::sleep(EDGE).await;
    let after = load.stop().await.unwrap();
    assert_eq!(after.versions.keys().collect::<Vec<_>>(), ["1"], "only the old release serves again");
    assert_nothing_was_lost(&stage, &after);
}

#[tokio::test]
async fn a_version_whose_artifact_is_not_kept_is_refused_by_name_and_comes_back_with_a_deploy() {
    let setup = Setup { hosts: 1, place: Place::InPlace, ..setup(env!("CARGO_BIN_EXE_bench")) };
    let stage = Stage::raise(setup).await.unwrap();
    let control = stage.control().await.unwrap();
    let good = Behaviour::good(Duration::ZERO);
    let [first, second] = ["1", "2"].map(|version| std::fs::read(stage.build(version, &good).unwrap()).unwrap());
    let live = async |version: &str, archive: &[u8]| {
        let rollout = control.deploy(&stage.manifest(), version, archive).await.unwrap();
        let ended = in_time(version, control.wait_ended(&rollout)).await.unwrap();
        assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    };
    live("1", &first).await;
    live("2", &second).await;
    let stored = stage.folder().join("coordinator/artifacts").join(blake3::hash(&first).to_string());
    std::fs::remove_file(stored).unwrap();
    let request = RollbackRequest { service: SERVICE.to_owned(), version: "1".to_owned(), ..RollbackRequest::default() };
    let refused = from_status(&control.client().rollback(request).await.unwrap_err());
    assert_eq!((refused.code, refused.help.is_some()), (Code(601), true), "{refused}");
    live("1", &first).await;
}

#[tokio::test]
async fn in_place_behind_the_builtin_balancer_loses_nothing() {
    rolls_there_and_back(Front::Builtin, Place::InPlace).await;
}

#[tokio::test]
async fn side_by_side_behind_the_builtin_balancer_loses_nothing() {
    rolls_there_and_back(Front::Builtin, Place::SideBySide).await;
}

#[tokio::test]
async fn in_place_behind_haproxy_loses_nothing() {
    rolls_there_and_back(Front::Haproxy, Place::InPlace).await;
}

#[tokio::test]
async fn side_by_side_behind_haproxy_loses_nothing() {
    rolls_there_and_back(Front::Haproxy, Place::SideBySide).await;
}
