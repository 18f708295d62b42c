//! A host without a coordinator: somebody there takes a release back, and the coordinator sees it when it returns.

use baton_agent::local;
use baton_cli::demo::stage::release::{Behaviour, archive};
use baton_cli::demo::stage::{COORDINATOR, Place, Setup, Stage};
use baton_proto::v1::FleetView;
use baton_tests::e2e::{in_time, setup};
use std::time::Duration;

/// What runs on a host, of the service the stage has.
fn runs(fleet: &FleetView, host: &str, version: &str) -> bool {
    let hosts = fleet.services.iter().flat_map(|service| &service.hosts);
    hosts.into_iter().any(|it| it.host == host && it.versions == [version])
}

#[tokio::test]
async fn without_a_coordinator_a_host_goes_back_and_the_coordinator_sees_it_later() {
    let setup = Setup { place: Place::InPlace, ..setup(env!("CARGO_BIN_EXE_bench")) };
    let mut stage = Stage::raise(setup).await.unwrap();
    let control = stage.control().await.unwrap();
    for version in ["1", "2"] {
        let archive = archive(&stage.setup.part, version, &Behaviour::good(Duration::from_millis(100))).unwrap();
        let rollout = control.deploy(&stage.manifest(), version, &archive).await.unwrap();
        let ended = in_time("a release", control.wait_ended(&rollout)).await.unwrap();
        assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    }
    let service = control.fleet().await.unwrap().services[0].name.clone();
    let host = stage.hosts()[0].clone();
    stage.kill(COORDINATOR).await.unwrap();

    let state = stage.folder().join(&host);
    let unknown = local::go_back(&state, &"nobody".parse().unwrap()).await.unwrap().unwrap_err();
    assert_eq!(unknown.code.0, 540);
    assert_eq!(local::go_back(&state, &service.parse().unwrap()).await.unwrap().unwrap(), "1");

    stage.start(COORDINATOR).unwrap();
    let control = in_time("the coordinator", stage.control()).await.unwrap();
    let fell_back = |fleet: &FleetView| {
        let waiting = fleet.services.iter().flat_map(|service| &service.waiting);
        runs(fleet, &host, "1") && waiting.into_iter().any(|it| it.host == host && it.reason == "fell back")
    };
    let fleet = in_time("that it is seen", control.wait_for(fell_back)).await.unwrap();
    let problems = fleet.hosts.iter().filter(|it| it.name == host).flat_map(|it| &it.problems);
    assert_eq!(problems.map(|problem| problem.code).collect::<Vec<_>>(), [216]);

    let rollout = in_time("the way back", control.restart(&service)).await.unwrap();
    let ended = in_time("the restart", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    let fleet = control.fleet().await.unwrap();
    assert!(stage.hosts().iter().all(|host| runs(&fleet, host, "2")), "{fleet:#?}");
}
