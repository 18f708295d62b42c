//! Whose requests the new release gets first: real processes, a real balancer, and what clients see.

use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{Front, SERVICE, Setup, Stage};
use baton_tests::e2e::{assert_nothing_was_lost, have, in_time, setup, traffic};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Two waves: the first is watched long enough to be looked at.
const RULES: &str = "waves = [1, \"100%\"]\nbake = \"5s\"\nmatch = [\"header X-Beta = 1\", \"cookie cohort = staff\"]\n";

/// The version that answers a request with these headers.
async fn version(stage: &Stage, headers: &str) -> String {
    let mut stream = TcpStream::connect(stage.frontend()).await.unwrap();
    let request = format!("GET /version HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    body.lines().find(|line| line.len() < 5 && !line.trim().is_empty()).unwrap_or(body).trim().to_owned()
}

#[tokio::test]
async fn the_first_wave_gets_the_requests_that_match_and_no_others() {
    let stage = Stage::raise(setup(env!("CARGO_BIN_EXE_bench"))).await.unwrap();
    let control = stage.control().await.unwrap();
    let good = Behaviour::good(Duration::from_millis(50));
    let [first, second] = ["1", "2"].map(|version| std::fs::read(stage.build(version, &good).unwrap()).unwrap());
    let rollout = control.deploy(&stage.manifest(), "1", &first).await.unwrap();
    let ended = in_time("the first release", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());

    let load = traffic(&stage);
    let manifest = format!("{}{RULES}", stage.manifest());
    let rollout = control.deploy(&manifest, "2", &second).await.unwrap();
    let bakes = control.wait_for(|fleet| {
        fleet.services.iter().any(|service| service.waiting.iter().any(|waiting| waiting.reason == "bake"))
    });
    in_time("the first wave", bakes).await.unwrap();
    for _ in 0..20 {
        assert_eq!(version(&stage, "").await, "1", "nobody else");
        assert_eq!(version(&stage, "X-Beta: 1\r\n").await, "2", "by header");
        assert_eq!(version(&stage, "Cookie: uid=7; cohort=staff\r\n").await, "2", "by cookie");
    }
    let counted = control.wait_for(|fleet| {
        let split = fleet.services.iter().find_map(|service| service.splits.values().next());
        split.is_some_and(|split| split.ruled >= 40 && split.trial == split.ruled && split.achieved == Some(0))
    });
    let fleet = in_time("what was achieved", counted).await.unwrap();
    let split = fleet.services[0].splits.values().next().unwrap();
    assert_eq!((split.share, &split.running, split.on_disk), (0, &split.wanted, true), "{split:?}");

    let ended = in_time("the second release", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    assert_eq!(version(&stage, "").await, "2");
    let one_side = control.wait_for(|fleet| fleet.services.iter().all(|service| service.splits.is_empty()));
    in_time("one side again", one_side).await.unwrap();
    let during = load.stop().await.unwrap();
    assert_nothing_was_lost(&stage, &during);
}

/// Until a person lets it switch; and the switch costs nobody a request.
#[tokio::test]
async fn before_the_switch_of_blue_green_a_preview_is_reached_by_its_header_alone() {
    let stage = Stage::raise(setup(env!("CARGO_BIN_EXE_bench"))).await.unwrap();
    let control = stage.control().await.unwrap();
    let good = Behaviour::good(Duration::from_millis(50));
    let [first, second] = ["1", "2"].map(|version| std::fs::read(stage.build(version, &good).unwrap()).unwrap());
    let rollout = control.deploy(&stage.manifest(), "1", &first).await.unwrap();
    let ended = in_time("the first release", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());

    let load = traffic(&stage);
    let manifest = stage
        .manifest()
        .replace("strategy = \"rolling\"\nmax_unavailable = 1\n", "strategy = \"blue-green\"\n")
        .replace("[balancer]\n", "[balancer]\npreview = { header = \"X-Preview: 1\" }\n");
    let looked_at = async |asks: &str| {
        let rollout = control.deploy(&manifest, "2", &second).await.unwrap();
        let asks_for = control.wait_for(|fleet| {
            let waiting = fleet.services.iter().flat_map(|service| &service.waiting);
            waiting.into_iter().any(|waiting| waiting.reason == "approval" && waiting.text.contains("header X-Preview = 1"))
        });
        in_time(asks, asks_for).await.unwrap();
        for _ in 0..20 {
            assert_eq!(version(&stage, "").await, "1", "nobody else");
            assert_eq!(version(&stage, "X-Preview: 1\r\n").await, "2", "by header");
        }
        rollout
    };
    let given_up = looked_at("the first preview").await;
    control.rollback(SERVICE).await.unwrap();
    let ended = in_time("the end of the first preview", control.wait_ended(&given_up)).await.unwrap();
    assert_eq!(ended.state, "reverted", "{ended:#?}\n{}", stage.last_words());
    assert_eq!(version(&stage, "X-Preview: 1\r\n").await, "1");

    let rollout = looked_at("the second preview").await;
    control.promote(SERVICE).await.unwrap();
    let ended = in_time("the switch", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    assert_eq!(version(&stage, "").await, "2");
    let during = load.stop().await.unwrap();
    assert_nothing_was_lost(&stage, &during);
}

#[tokio::test]
async fn what_no_balancer_can_do_is_refused_before_anything_changes() {
    if !have("haproxy") {
        return;
    }
    let stage = Stage::raise(Setup { front: Front::Haproxy, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let control = stage.control().await.unwrap();
    let good = Behaviour::good(Duration::from_millis(50));
    let archive = std::fs::read(stage.build("1", &good).unwrap()).unwrap();
    in_time("everybody is there", control.wait_connected(&stage.agents())).await.unwrap();
    let says = |fleet: &baton_proto::v1::FleetView| fleet.hosts.iter().any(|host| host.driver == "haproxy");
    in_time("the balancer is said", control.wait_for(says)).await.unwrap();

    let refused = control.deploy(&format!("{}{RULES}", stage.manifest()), "1", &archive).await.unwrap_err();
    assert_eq!(refused.code.0, 442, "{refused:?}");
    assert!(refused.seen.iter().any(|(_, seen)| seen.contains("header x-beta")), "{refused:?}");
    let elsewhere = stage.manifest().replace("on = [\"lb1\"]", &format!("on = [{:?}]", stage.agents()[0]));
    let refused = control.deploy(&elsewhere, "1", &archive).await.unwrap_err();
    assert_eq!(refused.code.0, 443, "{refused:?}");
    let fleet = control.fleet().await.unwrap();
    assert!(fleet.services.iter().all(|service| service.name != SERVICE), "nothing was changed: {fleet:?}");
}
