//! The driver against a store in memory and agents that do at once what they are told.

mod growing;
mod joining;
mod judging;
mod probing;
mod reading;

use super::*;
use crate::samples;
use crate::store::memory::MemoryStore;
use baton_core::fleet::report::{HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState};
use baton_core::fleet::spec::{HostSpec, MemberState};
use baton_core::name::{Epoch, HostName};
use baton_core::problem::Code;
use baton_core::rollout::RolloutState;
use baton_core::rollout::command::Accepted;
use baton_core::rollout::plan::plan;
use std::net::IpAddr;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A driver under way on a store.
struct Stage {
    store: Arc<MemoryStore>,
    access: Access,
    driver: JoinHandle<Result<(), StoreError>>,
}

impl Stage {
    async fn on(store: Arc<MemoryStore>, planner: Planner) -> Self {
        let (driver, access) = Driver::take_over(Arc::clone(&store) as Arc<dyn Store>, planner).await.unwrap();
        Self { store, access, driver: tokio::spawn(driver.run(std::future::pending())) }
    }

    async fn new() -> Self {
        Self::on(Arc::default(), plan).await
    }

    async fn admit(&self, hosts: &[&str]) {
        for name in hosts {
            self.access.admit(samples::host(name), ADDRESS, true).await.unwrap();
        }
    }

    async fn deploy(&self, version: &str) -> Result<Accepted, Problem> {
        let shape = samples::behind(samples::service(&["web1", "web2"]), &["lb1"], "shop");
        self.access.ask(deploy(shape, version)).await
    }

    async fn until(&self, fits: impl FnMut(&Arc<Picture>) -> bool) -> Arc<Picture> {
        let mut pictures = self.access.pictures();
        timeout(Duration::from_secs(20), pictures.wait_for(fits)).await.expect("never came").unwrap().clone()
    }
}

fn deploy(shape: baton_core::fleet::Service, version: &str) -> Ask {
    let release = Box::new(samples::release("shop", version));
    Ask::Deploy {
        service: "shop".parse().unwrap(),
        shape: Box::new(shape),
        release,
        by: "ana".into(),
        when: When::default(),
    }
}

/// What a host reports that has done everything it was told.
fn obeyed(spec: &HostSpec) -> HostReport {
    let instance = |release| InstanceReport {
        release,
        incarnation: format!("boot.{release}"),
        start: 0,
        state: InstanceState::Ready { since: Duration::from_secs(60) },
    };
    let member = |state: MemberState| MemberReport { requests: 7, ..MemberReport::quiet(state) };
    let pool = |pool: &baton_core::fleet::spec::PoolSpec| PoolReport {
        balancer: "77".into(),
        members: pool.members.iter().map(|(key, it)| (key.clone(), member(it.state))).collect(),
        ..PoolReport::default()
    };
    HostReport {
        observed: spec.stamp(),
        boot: "boot".into(),
        instances: spec.instances.iter().map(|(key, it)| (key.clone(), instance(it.release))).collect(),
        pools: spec.pools.iter().map(|(name, it)| (name.clone(), pool(it))).collect(),
        releases: spec.releases.keys().map(|id| (*id, ReleaseState::Held)).collect(),
        ..HostReport::default()
    }
}

/// An agent that obeys every spec at once, and checks that it was durable before it was sent.
fn agent(stage: &Stage, host: &str) -> JoinHandle<()> {
    let (access, store, host) = (stage.access.clone(), Arc::clone(&stage.store), samples::host(host));
    tokio::spawn(async move {
        let (link, mut specs) = access.links().connect(&host, Hello::default());
        while specs.changed().await.is_ok() {
            let spec = specs.borrow_and_update().clone().unwrap();
            let stored = store.load().await.unwrap().hosts.remove(&host).unwrap().issued;
            assert!(stored.stamp() >= spec.stamp(), "{host} was sent {:?}, stored is {:?}", spec.stamp(), stored.stamp());
            if !access.links().report(&host, link, obeyed(&spec)) {
                return;
            }
        }
    })
}

fn agents(stage: &Stage) -> Vec<JoinHandle<()>> {
    ["web1", "web2", "lb1"].iter().map(|host| agent(stage, host)).collect()
}

fn state(picture: &Picture, id: &str) -> Option<RolloutState> {
    picture.fleet.rollouts.get(&id.parse().unwrap()).map(|rollout| rollout.state)
}

#[tokio::test]
async fn a_release_reaches_every_host_and_every_spec_was_durable_before_it_was_sent() {
    let stage = Stage::new().await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    let agents = agents(&stage);
    assert_eq!(stage.deploy("1.0").await.unwrap(), Accepted::Rollout("r-1".parse().unwrap()));
    stage.until(|picture| state(picture, "r-1") == Some(RolloutState::Succeeded)).await;
    assert_eq!(stage.deploy("2.0").await.unwrap(), Accepted::Rollout("r-2".parse().unwrap()));
    let picture = stage.until(|picture| state(picture, "r-2") == Some(RolloutState::Succeeded)).await;
    for host in ["web1", "web2"] {
        let runs: Vec<_> =
            picture.fleet.hosts[&samples::host(host)].issued.instances.values().map(|it| it.release).collect();
        assert_eq!(runs, [samples::release("shop", "2.0").id()]);
    }
    assert_eq!(stage.deploy("2.0").await.unwrap(), Accepted::AlreadyLive);
    assert!(agents.iter().all(|agent| !agent.is_finished()), "an agent found a spec that was not durable");
    // What is in the store is what is in memory.
    let stored = stage.store.load().await.unwrap();
    assert_eq!((&stored.rollouts, &stored.services), (&picture.fleet.rollouts, &picture.fleet.services));
}

#[tokio::test]
async fn a_second_release_is_refused_while_one_is_under_way() {
    let stage = Stage::new().await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    stage.deploy("1.0").await.unwrap();
    assert_eq!(stage.deploy("2.0").await.unwrap_err().code, Code(701));
    let refused = stage.access.ask(deploy(samples::service(&["ghost"]), "1.0")).await.unwrap_err();
    assert_eq!(refused.code, Code(703));
}

#[tokio::test]
async fn while_the_store_cannot_be_written_nothing_is_decided_and_nothing_is_sent() {
    let stage = Stage::new().await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    let _agents = agents(&stage);
    stage.until(|picture| picture.fleet.hosts.values().all(|host| host.echoed().is_some())).await;
    let before = stage.access.picture();
    stage.store.fail_with(Some(StoreError::Unavailable("database or disk is full".into())));
    assert_eq!(stage.deploy("1.0").await.unwrap_err().code, Code(1001));
    let picture = stage.until(|picture| picture.trouble.is_some()).await;
    assert_eq!(picture.trouble.as_ref().unwrap().code, Code(1001));
    assert!(picture.fleet.rollouts.is_empty());
    for (name, host) in &picture.fleet.hosts {
        assert_eq!(host.issued, before.fleet.hosts[name].issued, "{name}");
    }
    stage.store.fail_with(None);
    stage.until(|picture| picture.trouble.is_none()).await;
    stage.deploy("1.0").await.unwrap();
    stage.until(|picture| state(picture, "r-1") == Some(RolloutState::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_is_silent_after_ten_seconds_without_a_word_and_back_with_the_first() {
    let stage = Stage::new().await;
    stage.admit(&["web1"]).await;
    let host = samples::host("web1");
    let begun = Instant::now();
    let (link, _specs) = stage.access.links().connect(&host, Hello::default());
    stage.until(|picture| picture.fleet.hosts[&host].connected).await;
    stage.until(|picture| !picture.fleet.hosts[&host].connected).await;
    let silent_after = begun.elapsed();
    assert!(silent_after >= SILENCE && silent_after < SILENCE + Duration::from_millis(200), "{silent_after:?}");
    assert!(stage.access.links().report(&host, link, HostReport::default()));
    stage.until(|picture| picture.fleet.hosts[&host].connected).await;
    stage.access.links().disconnect(&host, link);
    stage.until(|picture| !picture.fleet.hosts[&host].connected).await;
    assert!(stage.access.picture().fleet.hosts[&host].heard.is_some(), "what it last said must stay");
}

#[tokio::test]
async fn a_newer_stream_of_a_host_replaces_the_older() {
    let stage = Stage::new().await;
    stage.admit(&["web1"]).await;
    let host = samples::host("web1");
    let (older, mut old_specs) = stage.access.links().connect(&host, Hello::default());
    let (newer, mut new_specs) = stage.access.links().connect(&host, Hello::default());
    while old_specs.changed().await.is_ok() {}
    assert!(!stage.access.links().report(&host, older, HostReport::default()));
    stage.access.links().disconnect(&host, older);
    assert!(stage.access.links().report(&host, newer, HostReport::default()), "the older one's end is not the newer's");
    new_specs.changed().await.unwrap();
}

#[tokio::test]
async fn the_next_driver_takes_the_next_epoch_and_finishes_what_was_begun() {
    let stage = Stage::new().await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    stage.deploy("1.0").await.unwrap();
    let before = stage.access.picture();
    stage.driver.abort();
    let _ = stage.driver.await;

    let next = Stage::on(stage.store, plan).await;
    let after = next.access.picture();
    assert_eq!((before.fleet.epoch, after.fleet.epoch), (Epoch(1), Epoch(2)));
    for (name, host) in &after.fleet.hosts {
        let issued = &before.fleet.hosts[name].issued;
        assert_eq!((host.issued.epoch, host.issued.generation), (Epoch(2), issued.generation.next()));
        assert!(host.issued.same_content(issued));
    }
    assert_eq!(after.fleet.rollouts, before.fleet.rollouts);
    let _agents = agents(&next);
    next.until(|picture| state(picture, "r-1") == Some(RolloutState::Succeeded)).await;
}

#[tokio::test]
async fn a_driver_that_was_replaced_ends_and_decides_nothing_more() {
    let first = Stage::new().await;
    first.admit(&["web1", "web2", "lb1"]).await;
    let second = Stage::on(Arc::clone(&first.store), plan).await;
    assert_eq!(first.deploy("1.0").await.unwrap_err().code, Code(1005));
    assert!(matches!(first.driver.await.unwrap(), Err(StoreError::Fenced { .. })));
    second.deploy("1.0").await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_a_driver_that_is_gone() {
    let (driver, access) = Driver::take_over(Arc::<MemoryStore>::default(), plan).await.unwrap();
    driver.run(std::future::ready(())).await.unwrap();
    let refused = timeout(Duration::from_secs(5), access.admit(samples::host("web1"), ADDRESS, true)).await.unwrap();
    assert_eq!(refused.unwrap_err().code, Code(1009));
    let (_, mut specs) = access.links().connect(&samples::host("web1"), Hello::default());
    assert!(specs.changed().await.is_err());
}

#[tokio::test]
async fn too_many_requests_at_once_are_refused_instead_of_kept() {
    let (driver, access) = Driver::take_over(Arc::<MemoryStore>::default(), plan).await.unwrap();
    let ask = |number: usize| {
        let access = access.clone();
        async move { access.admit(samples::host(&format!("web{number}")), ADDRESS, true).await }
    };
    let asked = futures_util::future::join_all((0..300).map(ask));
    let driver = async {
        tokio::task::yield_now().await;
        timeout(Duration::from_secs(5), driver.run(std::future::pending())).await
    };
    let answers = tokio::select! {
        answers = asked => answers,
        _ = driver => panic!("the driver ended"),
    };
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 256);
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|refusal| refusal.code == Code(1009)));
}

/// A planner that stops everything everywhere at once.
fn reckless(fleet: &Fleet, now: Moment) -> Plan {
    let mut plan = plan(fleet, now);
    let live = fleet.services.values().any(|service| service.committed.is_some());
    if live && fleet.rollouts.values().any(|rollout| rollout.state == RolloutState::Pending) {
        for (name, host) in fleet.hosts.iter().filter(|(name, _)| name.as_str().starts_with("web")) {
            let mut spec = host.issued.clone();
            spec.instances.clear();
            spec.generation = spec.generation.next();
            plan.specs.insert(HostName::clone(name), spec);
        }
    }
    plan
}

#[tokio::test]
async fn what_the_interlock_refuses_is_never_sent_and_the_rollout_pauses() {
    let stage = Stage::on(Arc::default(), reckless).await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    let _agents = agents(&stage);
    stage.deploy("1.0").await.unwrap();
    stage.until(|picture| state(picture, "r-1") == Some(RolloutState::Succeeded)).await;
    stage.deploy("2.0").await.unwrap();
    let picture = stage.until(|picture| state(picture, "r-2") == Some(RolloutState::Paused)).await;
    let pause = picture.fleet.rollouts[&"r-2".parse().unwrap()].pause.clone().unwrap();
    assert!(pause.by == "interlock" && pause.why.contains("invariant 2"), "{pause:?}");
    for host in ["web1", "web2"] {
        assert_eq!(picture.fleet.hosts[&samples::host(host)].issued.instances.len(), 1, "{host}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_goes_on_where_the_last_driver_left_it() {
    let stage = Stage::new().await;
    stage.admit(&["web1", "web2", "lb1"]).await;
    stage.deploy("1.0").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    stage.driver.abort();
    let kept = stage.store.load().await.unwrap().moment;
    assert!(kept >= Moment(55_000), "{kept:?}: kept every few seconds while a rollout is active");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let next = Stage::on(stage.store, plan).await;
    assert!(next.access.now() < kept + Duration::from_secs(1), "the time nobody drove does not count");
}
