//! One service behind two balancers at once: requests come through both, and what happens when one of them is gone.

use baton_cli::demo::load::Load;
use baton_cli::demo::stage::control::Control;
use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{Front, Place, SECOND_BALANCER_HOST, SERVICE, Setup, Stage};
use baton_cli::render::balancers;
use baton_cli::render::balancers::{Drift, drifted};
use baton_cli::render::page::Look;
use baton_proto::v1::{FleetView, HostRequest, HostView, ListAuditRequest};
use baton_tests::e2e::{
    assert_each_order_once, assert_nothing_was_lost, have, in_time, setup, traffic, traffic_at_the_second,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// Traffic before and after, so that the edges count.
const EDGE: Duration = Duration::from_millis(200);
/// Several times as long as a host takes for its turn.
const HELD: Duration = Duration::from_secs(1);
const ROLLING: &str = "strategy = \"rolling\"\nmax_unavailable = 1\n";
const BLUE_GREEN: &str = "strategy = \"blue-green\"\nkeep_old = \"10m\"\n";

struct Scene {
    stage: Stage,
    control: Control,
}

impl Scene {
    /// A stage with release 1 live behind both; None where a program is missing.
    async fn enter(fronts: [Front; 2], place: Place) -> Option<Self> {
        if fronts.contains(&Front::Haproxy) && !have("haproxy") {
            return None;
        }
        let [front, second] = fronts;
        let setup = Setup { hosts: 3, front, second: Some(second), place, ..setup(env!("CARGO_BIN_EXE_bench")) };
        Some(Self::set(setup).await)
    }

    async fn set(setup: Setup) -> Self {
        let stage = Stage::raise(setup).await.unwrap();
        let control = stage.control().await.unwrap();
        let scene = Self { stage, control };
        let rollout = scene.deploy("1", ROLLING).await;
        scene.succeeds(&rollout).await;
        scene
    }

    async fn deploy(&self, version: &str, strategy: &str) -> String {
        self.deploy_with(version, strategy, ("", "")).await
    }

    /// With something else in its manifest.
    async fn deploy_with(&self, version: &str, strategy: &str, (from, to): (&str, &str)) -> String {
        let good = Behaviour::good(Duration::from_millis(100));
        let archive = std::fs::read(self.stage.build(version, &good).unwrap()).unwrap();
        let manifest = self.stage.manifest().replace(ROLLING, strategy).replacen(from, to, 1);
        self.control.deploy(&manifest, version, &archive).await.unwrap()
    }

    async fn succeeds(&self, rollout: &str) {
        let ended = in_time("the end of a rollout", self.control.wait_ended(rollout)).await.unwrap();
        assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", self.stage.last_words());
    }

    /// Traffic through both of them.
    fn loads(&self) -> [Load; 2] {
        [traffic(&self.stage), traffic_at_the_second(&self.stage)]
    }

    /// Waits until a host has an instance of this version.
    async fn has_begun(&self, version: &str) {
        let runs = |fleet: &FleetView| {
            let hosts = fleet.services.iter().flat_map(|service| &service.hosts);
            hosts.into_iter().any(|host| host.versions.iter().any(|it| it == version))
        };
        in_time("its first instance", self.control.wait_for(runs)).await.unwrap();
    }

    /// Waits until the rollout waits for a balancer and nothing else can be done, and proves that nothing more happens.
    async fn stands_still(&self) -> FleetView {
        let waits = |fleet: &FleetView| {
            let waiting = fleet.services.iter().flat_map(|service| &service.waiting);
            waiting.into_iter().any(|it| it.reason == "balancer unreachable")
        };
        let before = in_time("that it is missed", self.control.wait_for(waits)).await.unwrap();
        tokio::time::sleep(HELD).await;
        let after = self.control.fleet().await.unwrap();
        assert!(waits(&after), "{after:#?}");
        let (before, ready) = (ready(&before), ready(&after));
        assert!(ready.is_superset(&before), "stopped meanwhile: {:?}", before.difference(&ready));
        after
    }

    /// Waits until every balancer is as it should be.
    async fn is_as_it_should_be(&self) -> FleetView {
        let is = |fleet: &FleetView| balancing(fleet).iter().all(|host| host.connected) && drift(fleet).is_empty();
        in_time("no drift", self.control.wait_for(is)).await.unwrap()
    }
}

/// The starts of the instances that are ready now.
fn ready(fleet: &FleetView) -> BTreeSet<String> {
    let instances = fleet.hosts.iter().flat_map(|host| &host.instances);
    instances.filter(|instance| instance.state == "ready").map(|instance| instance.incarnation.clone()).collect()
}

fn balancing(fleet: &FleetView) -> Vec<&HostView> {
    fleet.hosts.iter().filter(|host| !host.pools.is_empty()).collect()
}

fn drift(fleet: &FleetView) -> Vec<Drift> {
    drifted(&balancing(fleet))
}

/// The members that a balancer was told are in.
fn told_in(fleet: &FleetView, balancer: &str) -> BTreeSet<String> {
    let hosts = fleet.hosts.iter().filter(|host| host.name == balancer);
    let members = hosts.flat_map(|host| &host.pools).flat_map(|pool| &pool.members);
    members.filter(|member| member.wanted == "ready").map(|member| member.key.clone()).collect()
}

async fn nobody_notices(fronts: [Front; 2], place: Place, strategy: &str) {
    let Some(scene) = Scene::enter(fronts, place).await else { return };
    let loads = scene.loads();
    tokio::time::sleep(EDGE).await;
    let rollout = scene.deploy("2", strategy).await;
    scene.succeeds(&rollout).await;
    tokio::time::sleep(EDGE).await;
    for load in &loads {
        let during = load.mark().await.unwrap();
        assert_nothing_was_lost(&scene.stage, &during);
        assert_eq!(during.versions.keys().collect::<Vec<_>>(), ["1", "2"]);
    }
    let rollout = scene.control.rollback(SERVICE).await.unwrap();
    scene.succeeds(&rollout).await;
    tokio::time::sleep(EDGE).await;
    for load in &loads {
        assert_nothing_was_lost(&scene.stage, &load.mark().await.unwrap());
    }
    tokio::time::sleep(EDGE).await;
    for load in loads {
        let after = load.stop().await.unwrap();
        assert_nothing_was_lost(&scene.stage, &after);
        assert_eq!(after.versions.keys().collect::<Vec<_>>(), ["1"], "only the old release serves again");
    }
    let fleet = scene.is_as_it_should_be().await;
    let page = balancers::list(&balancing(&fleet)).to_text(Look::default());
    assert_eq!(page.matches("as it should be").count(), 2, "{page}");
}

#[tokio::test]
async fn in_place_behind_two_haproxies_loses_nothing_on_either() {
    nobody_notices([Front::Haproxy, Front::Haproxy], Place::InPlace, ROLLING).await;
}

#[tokio::test]
async fn side_by_side_behind_two_haproxies_loses_nothing_on_either() {
    nobody_notices([Front::Haproxy, Front::Haproxy], Place::SideBySide, ROLLING).await;
}

#[tokio::test]
async fn blue_green_behind_two_haproxies_loses_nothing_on_either() {
    nobody_notices([Front::Haproxy, Front::Haproxy], Place::SideBySide, BLUE_GREEN).await;
}

#[tokio::test]
async fn in_place_behind_haproxy_and_the_builtin_one_loses_nothing_on_either() {
    nobody_notices([Front::Haproxy, Front::Builtin], Place::InPlace, ROLLING).await;
}

#[tokio::test]
async fn side_by_side_behind_haproxy_and_the_builtin_one_loses_nothing_on_either() {
    nobody_notices([Front::Haproxy, Front::Builtin], Place::SideBySide, ROLLING).await;
}

#[tokio::test]
async fn blue_green_behind_haproxy_and_the_builtin_one_loses_nothing_on_either() {
    nobody_notices([Front::Haproxy, Front::Builtin], Place::SideBySide, BLUE_GREEN).await;
}

/// The agent beside the second one is cut; its balancer goes on with what it has, and clients come through it.
async fn an_agent_is_cut(place: Place) {
    let Some(mut scene) = Scene::enter([Front::Builtin, Front::Builtin], place).await else { return };
    let loads = scene.loads();
    let rollout = scene.deploy("2", ROLLING).await;
    scene.has_begun("2").await;
    scene.stage.kill(SECOND_BALANCER_HOST).await.unwrap();
    let stuck = scene.stands_still().await;
    // What was ready came in where somebody could be told.
    let added = if place == Place::InPlace { 3 } else { 4 };
    assert_eq!(told_in(&stuck, "lb1").len(), added, "{:#?}", balancing(&stuck));
    for load in &loads {
        assert_nothing_was_lost(&scene.stage, &load.mark().await.unwrap());
    }
    scene.stage.start(SECOND_BALANCER_HOST).unwrap();
    scene.succeeds(&rollout).await;
    tokio::time::sleep(EDGE).await;
    for load in loads {
        assert_nothing_was_lost(&scene.stage, &load.stop().await.unwrap());
    }
    scene.is_as_it_should_be().await;
}

#[tokio::test]
async fn in_place_while_one_agent_is_cut_nothing_is_stopped_and_the_rest_follows_when_it_returns() {
    an_agent_is_cut(Place::InPlace).await;
}

#[tokio::test]
async fn side_by_side_while_one_agent_is_cut_nothing_is_stopped_and_the_rest_follows_when_it_returns() {
    an_agent_is_cut(Place::SideBySide).await;
}

/// Nobody can tell the second one anything; it asks every member how it is, and finds out by itself who leaves.
async fn it_finds_out_by_itself(front: Front) {
    let own = setup(env!("CARGO_BIN_EXE_bench"));
    let setup = Setup { hosts: 3, front, second: Some(front), place: Place::InPlace, checks: true, ..own };
    let mut scene = Scene::set(setup).await;
    let loads = scene.loads();
    tokio::time::sleep(EDGE).await;
    scene.stage.kill(SECOND_BALANCER_HOST).await.unwrap();
    // Every second, and three times in a row.
    let finds_out = "withdraw = { signal = \"SIGUSR1\", unready_for = \"5s\" }\n\n[rollout]\n";
    let rollout = scene.deploy_with("2", ROLLING, ("\n[rollout]\n", finds_out)).await;
    let withdraws = |fleet: &FleetView| {
        fleet.services.iter().flat_map(|service| &service.waiting).any(|waiting| waiting.reason == "withdrawing")
    };
    in_time("one that is withdrawn", scene.control.wait_for(withdraws)).await.unwrap();
    scene.succeeds(&rollout).await;
    tokio::time::sleep(EDGE).await;
    for load in &loads {
        let during = load.mark().await.unwrap();
        assert_nothing_was_lost(&scene.stage, &during);
        assert_eq!(during.versions.keys().collect::<Vec<_>>(), ["1", "2"]);
    }
    scene.stage.start(SECOND_BALANCER_HOST).unwrap();
    scene.is_as_it_should_be().await;
    for load in loads {
        let after = load.stop().await.unwrap();
        assert_nothing_was_lost(&scene.stage, &after);
        assert_eq!(after.versions.keys().collect::<Vec<_>>(), ["2"]);
    }
}

#[tokio::test]
async fn while_one_agent_is_cut_a_release_gets_everywhere_where_the_builtin_one_finds_out_by_itself() {
    it_finds_out_by_itself(Front::Builtin).await;
}

#[tokio::test]
async fn while_one_agent_is_cut_a_release_gets_everywhere_where_haproxy_finds_out_by_itself() {
    if have("haproxy") {
        it_finds_out_by_itself(Front::Haproxy).await;
    }
}

#[tokio::test]
async fn while_one_haproxy_is_killed_nothing_is_stopped_and_it_returns_with_what_it_should_serve() {
    let Some(mut scene) = Scene::enter([Front::Haproxy, Front::Haproxy], Place::InPlace).await else { return };
    let [first, second] = scene.loads();
    let rollout = scene.deploy("2", ROLLING).await;
    scene.has_begun("2").await;
    scene.stage.kill("haproxy-2").await.unwrap();
    scene.stands_still().await;
    assert_nothing_was_lost(&scene.stage, &first.mark().await.unwrap());
    scene.stage.start("haproxy-2").unwrap();
    in_time("it listens again", async {
        while tokio::net::TcpStream::connect(scene.stage.second_frontend()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_each_order_once(&scene.stage, &second.mark().await.unwrap());
    scene.succeeds(&rollout).await;
    tokio::time::sleep(EDGE).await;
    for load in [first, second] {
        assert_nothing_was_lost(&scene.stage, &load.stop().await.unwrap());
    }
    scene.is_as_it_should_be().await;
}

/// A whole machine is gone in the middle of a rollout, and comes back after people went on without it.
#[tokio::test]
async fn one_that_is_declared_dead_is_not_waited_for_and_takes_over_what_it_missed_when_it_returns() {
    let Some(mut scene) = Scene::enter([Front::Haproxy, Front::Haproxy], Place::SideBySide).await else { return };
    let rollout = scene.deploy("2", ROLLING).await;
    scene.succeeds(&rollout).await;
    let load = traffic(&scene.stage);
    scene.stage.kill(SECOND_BALANCER_HOST).await.unwrap();
    scene.stage.kill("haproxy-2").await.unwrap();
    let rollout = scene.deploy("3", ROLLING).await;
    // Both ports were used before, and its last word was that nothing leads to the free one.
    scene.has_begun("3").await;
    let stuck = scene.stands_still().await;
    assert_eq!(told_in(&stuck, "lb1").len(), 4, "{:#?}", balancing(&stuck));
    let missed = drift(&stuck);
    let wanted = |it: &Drift| (it.balancer.clone(), it.wanted.clone(), it.running.clone());
    let (host, ready, out) = (SECOND_BALANCER_HOST.to_owned(), "ready".to_owned(), "out".to_owned());
    assert_eq!(missed.iter().map(wanted).collect::<Vec<_>>(), [(host, ready, out)], "{missed:#?}");

    let request = HostRequest { host: SECOND_BALANCER_HOST.to_owned(), why: "burnt".to_owned(), ..HostRequest::default() };
    scene.control.client().declare_dead(request).await.unwrap();
    scene.succeeds(&rollout).await;
    assert_nothing_was_lost(&scene.stage, &load.mark().await.unwrap());
    let fleet = scene.control.fleet().await.unwrap();
    let dead = fleet.hosts.iter().find(|host| host.name == SECOND_BALANCER_HOST).unwrap();
    assert_eq!(dead.dead_balancer.as_ref().map(|order| order.why.as_str()), Some("burnt"), "{dead:#?}");
    let page = balancers::list(&balancing(&fleet)).to_text(Look::default());
    assert!(page.contains("declared dead by"), "{page}");
    let mut audit = scene.control.client().list_audit(ListAuditRequest::default()).await.unwrap().into_inner();
    let mut recorded = false;
    while let Some(entry) = audit.message().await.unwrap() {
        recorded |= ["DeclareDead", SECOND_BALANCER_HOST, "burnt"].iter().all(|word| entry.text.contains(word));
    }
    assert!(recorded, "it is on the record");

    scene.stage.start("haproxy-2").unwrap();
    scene.stage.start(SECOND_BALANCER_HOST).unwrap();
    let fleet = scene.is_as_it_should_be().await;
    assert!(fleet.hosts.iter().all(|host| host.dead_balancer.is_none()), "it counts by itself again");
    let second = traffic_at_the_second(&scene.stage);
    let rollout = scene.deploy("4", ROLLING).await;
    scene.succeeds(&rollout).await;
    for load in [load, second] {
        assert_nothing_was_lost(&scene.stage, &load.stop().await.unwrap());
    }
}
