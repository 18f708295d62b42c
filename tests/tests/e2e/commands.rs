//! Work on a host and a restart under load, with real processes: nobody notices.

use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{Place, SERVICE, Setup, Stage};
use baton_proto::v1::FleetView;
use baton_tests::e2e::{assert_nothing_was_lost, in_time, setup, traffic};
use std::collections::BTreeSet;
use std::time::Duration;

/// The starts of the service's instances that run now.
fn incarnations(fleet: &FleetView) -> BTreeSet<String> {
    let instances = fleet.hosts.iter().flat_map(|host| &host.instances);
    instances.filter(|instance| instance.state == "ready").map(|instance| instance.incarnation.clone()).collect()
}

/// What is waited for on a host of the service, in a word.
fn word(fleet: &FleetView, host: &str) -> Option<String> {
    let waiting = fleet.services.iter().flat_map(|service| &service.waiting);
    waiting.into_iter().find(|waiting| waiting.host == host).map(|waiting| waiting.reason.clone())
}

async fn nobody_notices(place: Place) {
    let stage = Stage::raise(Setup { place, hosts: 3, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let control = stage.control().await.unwrap();
    let archives =
        ["1", "2"].map(|it| std::fs::read(stage.build(it, &Behaviour::good(Duration::from_millis(100))).unwrap()));
    let [first, second] = archives.map(Result::unwrap);
    let rollout = control.deploy(&stage.manifest(), "1", &first).await.unwrap();
    in_time("the first release", control.wait_ended(&rollout)).await.unwrap();
    let host = control.service(SERVICE).await.unwrap().hosts[2].host.clone();
    let load = traffic(&stage);

    let before = incarnations(&control.fleet().await.unwrap());
    let rollout = control.restart(SERVICE).await.unwrap();
    let ended = in_time("the restart", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    let after = incarnations(&control.fleet().await.unwrap());
    assert_eq!((before.len(), after.len(), before.intersection(&after).count()), (3, 3, 0), "{before:?} {after:?}");

    control.set_drained(&host, true).await.unwrap();
    let is_drained = |fleet: &FleetView| word(fleet, &host).as_deref() == Some("drained");
    in_time("the drain", control.wait_for(is_drained)).await.unwrap();
    let rollout = control.deploy(&stage.manifest(), "2", &second).await.unwrap();
    let ended = in_time("the release without it", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "partial", "{ended:#?}\n{}", stage.last_words());
    assert_eq!(ended.left_out.iter().map(|it| it.host.as_str()).collect::<Vec<_>>(), [host.as_str()]);
    control.set_drained(&host, false).await.unwrap();
    let is_back = |fleet: &FleetView| {
        let hosts = fleet.services.iter().flat_map(|service| &service.hosts);
        hosts.into_iter().any(|it| it.host == host && it.step == "serving" && it.versions == ["2"])
    };
    in_time("its return on what is live", control.wait_for(is_back)).await.unwrap();
    assert_nothing_was_lost(&stage, &load.stop().await.unwrap());
}

#[tokio::test]
async fn in_place_a_restart_and_work_on_a_host_lose_nothing() {
    nobody_notices(Place::InPlace).await;
}

#[tokio::test]
async fn side_by_side_a_restart_and_work_on_a_host_lose_nothing() {
    nobody_notices(Place::SideBySide).await;
}
