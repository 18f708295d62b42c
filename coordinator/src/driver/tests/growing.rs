//! A release judged by how much memory its instances take, by agents that measure it.

use super::*;
use baton_core::analysis::settings::GuardSettings;
use baton_core::strategy::{Amount, Wave};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// When an instance that runs was ready first.
type Begun = Arc<Mutex<BTreeMap<(String, String), tokio::time::Instant>>>;

const MIB: u64 = 1 << 20;

/// A host that obeys, and whose instances of 2.0 take this much more every second.
fn web(stage: &Stage, name: &'static str, begun: &Begun, per_second: u64) -> JoinHandle<()> {
    let (access, host, begun) = (stage.access.clone(), samples::host(name), Arc::clone(begun));
    let leaking = samples::release("shop", "2.0").id();
    tokio::spawn(async move {
        let (link, mut specs) = access.links().connect(&host, Hello::default());
        loop {
            let _ = timeout(Duration::from_secs(2), specs.changed()).await;
            let Some(spec) = specs.borrow_and_update().clone() else { continue };
            let mut report = obeyed(&spec);
            for (key, instance) in &mut report.instances {
                let which = (name.to_owned(), instance.incarnation.clone());
                let at = *begun.lock().unwrap().entry(which).or_insert_with(tokio::time::Instant::now);
                // Long enough to serve at once.
                instance.state = InstanceState::Ready { since: at.elapsed() + Duration::from_secs(10) };
                let grown = if instance.release == leaking { at.elapsed().as_secs() * per_second } else { 0 };
                report.memory.insert(key.clone(), 100 * MIB + grown);
            }
            if !access.links().report(&host, link, report) {
                return;
            }
        }
    })
}

/// One more host each quarter of an hour, with no load balancer: memory needs none.
fn slowly(guard: GuardSettings) -> baton_core::fleet::Service {
    let mut shape = samples::service(&["web1", "web2", "web3"]);
    shape.strategy.waves = [1, 2, 3].map(|hosts| Wave::of(Amount::Hosts(hosts))).to_vec();
    (shape.strategy.bake, shape.strategy.guard) = (Duration::from_secs(900), guard);
    shape
}

fn hosts(stage: &Stage, begun: &Begun, per_second: u64) -> Vec<JoinHandle<()>> {
    ["web1", "web2", "web3"].map(|name| web(stage, name, begun, per_second)).into()
}

async fn patiently(stage: &Stage, fits: impl FnMut(&Arc<Picture>) -> bool) -> Arc<Picture> {
    let mut pictures = stage.access.pictures();
    timeout(Duration::from_secs(7200), pictures.wait_for(fits)).await.expect("never came").unwrap().clone()
}

async fn with_first_release(guard: GuardSettings, per_second: u64) -> (Stage, Begun, Vec<JoinHandle<()>>) {
    let (stage, begun) = (Stage::new().await, Begun::default());
    stage.admit(&["web1", "web2", "web3"]).await;
    let agents = hosts(&stage, &begun, per_second);
    stage.access.ask(super::deploy(samples::service(&["web1", "web2", "web3"]), "1.0")).await.unwrap();
    patiently(&stage, |picture| state(picture, "r-1") == Some(RolloutState::Succeeded)).await;
    tokio::time::sleep(Duration::from_secs(1800)).await;
    stage.access.ask(super::deploy(slowly(guard), "2.0")).await.unwrap();
    (stage, begun, agents)
}

/// Why the second rollout is paused, once it is.
fn paused(picture: &Picture) -> Option<String> {
    let rollout = picture.fleet.rollouts.get(&"r-2".parse().unwrap())?;
    (rollout.state == RolloutState::Paused).then(|| rollout.pause.clone().unwrap().why)
}

#[tokio::test(start_paused = true)]
async fn one_instance_that_leaks_asks_a_person_and_two_are_evidence_though_the_coordinator_was_killed_in_between() {
    let (stage, begun, agents) = with_first_release(GuardSettings::default(), MIB).await;
    let picture = patiently(&stage, |picture| paused(picture).is_some()).await;
    let why = paused(&picture).unwrap();
    assert!(why.starts_with("memory of the only instance of 2.0 grew 60 MiB/min for 4 min"), "{why}");
    stage.access.ask(Ask::Resume { service: "shop".parse().unwrap(), by: "ana".into() }).await.unwrap();
    patiently(&stage, |picture| picture.fleet.rollouts[&"r-2".parse().unwrap()].wave == 1).await;
    tokio::time::sleep(Duration::from_secs(120)).await;

    stage.driver.abort();
    agents.iter().for_each(JoinHandle::abort);
    let again = Stage::on(Arc::clone(&stage.store), plan).await;
    let _agents = hosts(&again, &begun, MIB);
    let picture = patiently(&again, |picture| state(picture, "r-2") == Some(RolloutState::Reverted)).await;
    let rollout = &picture.fleet.rollouts[&"r-2".parse().unwrap()];
    let codes: Vec<_> = rollout.evidence.iter().map(|it| it.problem.code).collect();
    assert_eq!(codes, [Code(905)], "{:?}", rollout.evidence);
    assert_eq!(rollout.wave, 1, "the last host never got it");
}

#[tokio::test(start_paused = true)]
async fn what_keeps_still_is_let_through_and_so_is_everything_where_the_manifest_says_so() {
    for (guard, per_second) in
        [(GuardSettings::default(), 0), (GuardSettings { memory: false, ..GuardSettings::default() }, MIB)]
    {
        let (stage, _, _agents) = with_first_release(guard, per_second).await;
        let over = patiently(&stage, |picture| {
            [Some(RolloutState::Succeeded), Some(RolloutState::Paused)].contains(&state(picture, "r-2"))
        });
        assert_eq!(state(&*over.await, "r-2"), Some(RolloutState::Succeeded));
    }
}
