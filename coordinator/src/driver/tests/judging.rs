//! A release judged by what a balancer counts, in time that passes by itself.

use super::*;
use baton_core::analysis::counts::Counts;
use baton_core::fleet::MemberKey;
use baton_core::strategy::{Amount, Wave};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What a balancer counted of each member since it started.
type Counters = Arc<Mutex<BTreeMap<MemberKey, Counts>>>;

/// A balancer's host that obeys, and counts so many requests a member every two seconds; release 2.0 fails some of them.
fn balancer(stage: &Stage, counters: &Counters, traffic: (u64, u64)) -> JoinHandle<()> {
    counting(stage, counters, traffic, "")
}

/// The same with a process of its own.
fn counting(stage: &Stage, counters: &Counters, (answered, failing): (u64, u64), process: &'static str) -> JoinHandle<()> {
    let (access, counters) = (stage.access.clone(), Arc::clone(counters));
    tokio::spawn(async move {
        let host = samples::host("lb1");
        let (link, mut specs) = access.links().connect(&host, Hello::default());
        let mut heartbeat = tokio::time::interval(Duration::from_secs(2));
        let bad = samples::release("shop", "2.0").id();
        loop {
            let counts = tokio::select! {
                changed = specs.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                _ = heartbeat.tick() => true,
            };
            let Some(spec) = specs.borrow_and_update().clone() else { continue };
            let mut report = obeyed(&spec);
            let fleet = &access.picture().fleet;
            let mut counters = counters.lock().unwrap();
            for pool in report.pools.values_mut() {
                pool.balancer.push_str(process);
                for (key, member) in &mut pool.members {
                    let counter = counters.entry(key.clone()).or_default();
                    if counts && member.running == MemberState::Ready {
                        let runs = fleet.hosts[&key.host].issued.instances.values().next().map(|it| it.release);
                        *counter += Counts::new(answered, if runs == Some(bad) { failing } else { 0 });
                    }
                    (member.requests, member.errors) = (counter.requests, counter.errors);
                }
            }
            drop(counters);
            if !access.links().report(&host, link, report) {
                return;
            }
        }
    })
}

fn web(stage: &Stage) -> Vec<JoinHandle<()>> {
    // A host that says nothing for ten seconds is silent: these repeat themselves.
    let hosts = ["web1", "web2"].map(|name| {
        let (access, host) = (stage.access.clone(), samples::host(name));
        tokio::spawn(async move {
            let (link, mut specs) = access.links().connect(&host, Hello::default());
            loop {
                let _ = timeout(Duration::from_secs(2), specs.changed()).await;
                let Some(spec) = specs.borrow_and_update().clone() else { continue };
                if !access.links().report(&host, link, obeyed(&spec)) {
                    return;
                }
            }
        })
    });
    hosts.into()
}

/// One host first, watched for a minute.
fn careful() -> baton_core::fleet::Service {
    let mut shape = samples::behind(samples::service(&["web1", "web2"]), &["lb1"], "shop");
    shape.strategy.waves = [Amount::Hosts(1), Amount::Percent(100)].map(Wave::of).to_vec();
    shape.strategy.bake = Duration::from_secs(60);
    shape
}

async fn patiently(stage: &Stage, fits: impl FnMut(&Arc<Picture>) -> bool) -> Arc<Picture> {
    let mut pictures = stage.access.pictures();
    timeout(Duration::from_secs(600), pictures.wait_for(fits)).await.expect("never came").unwrap().clone()
}

async fn with_first_release(failing: u64) -> (Stage, Counters, Vec<JoinHandle<()>>) {
    with_traffic((200, failing)).await
}

async fn with_traffic(traffic: (u64, u64)) -> (Stage, Counters, Vec<JoinHandle<()>>) {
    let (stage, counters) = (Stage::new().await, Counters::default());
    stage.admit(&["web1", "web2", "lb1"]).await;
    let mut agents = web(&stage);
    agents.push(balancer(&stage, &counters, traffic));
    stage.access.ask(super::deploy(careful(), "1.0")).await.unwrap();
    patiently(&stage, |picture| state(picture, "r-1") == Some(RolloutState::Succeeded)).await;
    (stage, counters, agents)
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_a_fifth_of_its_requests_is_taken_back_by_what_the_balancer_counts() {
    let (stage, _, _agents) = with_first_release(40).await;
    let began = stage.access.now();
    stage.access.ask(super::deploy(careful(), "2.0")).await.unwrap();
    let picture = patiently(&stage, |picture| state(picture, "r-2") == Some(RolloutState::Reverted)).await;
    let rollout = &picture.fleet.rollouts[&"r-2".parse().unwrap()];
    assert_eq!(
        rollout.evidence.iter().map(|it| (it.host.as_str(), it.problem.code)).collect::<Vec<_>>(),
        [("web1", Code(901))]
    );
    assert!(rollout.ended.unwrap().since(began) < Duration::from_secs(12), "{:?}", rollout.ended);
    let proof = &rollout.judgement.proof;
    assert!(proof.new.errors > 0 && proof.new.errors * 5 == proof.new.requests && proof.old.errors == 0, "{proof:?}");
    assert_eq!(rollout.wave, 0, "no second host got it");
}

#[tokio::test(start_paused = true)]
async fn at_little_traffic_a_short_bake_does_not_end_while_what_was_counted_speaks_against_the_release() {
    for (traffic, ends) in [((4, 4), RolloutState::Reverted), ((4, 0), RolloutState::Succeeded)] {
        let (stage, _, _agents) = with_traffic(traffic).await;
        let mut brief = careful();
        brief.strategy.bake = Duration::from_secs(8);
        let began = stage.access.now();
        stage.access.ask(super::deploy(brief, "2.0")).await.unwrap();
        let ended = |picture: &Arc<Picture>| state(picture, "r-2").is_some_and(|state| !state.is_active());
        let picture = patiently(&stage, ended).await;
        let rollout = &picture.fleet.rollouts[&"r-2".parse().unwrap()];
        let took = rollout.ended.unwrap().since(began);
        assert_eq!(rollout.state, ends, "{took:?} {:?}", rollout.judgement.proof);
        // Nobody doubts a good one: it is watched for as long as was asked for, once a wave.
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_no_worse_passes_and_its_proof_is_what_was_counted() {
    let (stage, counters, _agents) = with_first_release(0).await;
    let before: u64 = counters.lock().unwrap().values().map(|counts| counts.requests).sum();
    stage.access.ask(super::deploy(careful(), "2.0")).await.unwrap();
    let picture = patiently(&stage, |picture| state(picture, "r-2") == Some(RolloutState::Succeeded)).await;
    let after: u64 = counters.lock().unwrap().values().map(|counts| counts.requests).sum();
    let proof = &picture.fleet.rollouts[&"r-2".parse().unwrap()].judgement.proof;
    let all = proof.all().unwrap();
    assert_eq!(all.errors, 0);
    // What came between the last report before the rollout and its begin may be in it, what came after the last one is not.
    assert!(all.requests.abs_diff(after - before) <= 400, "{all} of {}", after - before);
    assert!(proof.mixed().unwrap() >= Duration::from_secs(50), "{proof:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_before_a_rollout_is_not_counted_in_it_at_every_look_until_the_balancer_speaks_again() {
    let (stage, _, agents) = with_first_release(0).await;
    // From here on the balancer's host speaks when this test says so.
    agents.last().unwrap().abort();
    let (link, specs) = stage.access.links().connect(&samples::host("lb1"), Hello::default());
    let spec = stage.until(|picture| picture.fleet.active_rollout(&"shop".parse().unwrap()).is_none()).await.fleet.hosts
        [&samples::host("lb1")]
        .issued
        .clone();
    let says = |requests: u64| {
        let mut report = obeyed(&spec);
        report.pools.values_mut().flat_map(|pool| pool.members.values_mut()).for_each(|it| it.requests = requests);
        assert!(stage.access.links().report(&samples::host("lb1"), link, report));
    };
    says(100_000);
    tokio::time::sleep(Duration::from_secs(3)).await;
    says(200_000);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    says(300_000);
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.access.ask(super::deploy(careful(), "2.0")).await.unwrap();
    // The other hosts speak meanwhile, and looks become due.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let picture = stage.access.picture();
    let proof = &picture.fleet.rollouts[&"r-2".parse().unwrap()].judgement.proof;
    assert_eq!((proof.old.requests, proof.new.requests), (0, 0), "{proof:?}");
    drop(specs);
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_was_killed_in_mid_bake_goes_on_where_it_was() {
    let (stage, counters, agents) = with_first_release(0).await;
    stage.access.ask(super::deploy(careful(), "2.0")).await.unwrap();
    let id = "r-2".parse().unwrap();
    let looks =
        |picture: &Picture| picture.fleet.rollouts.get(&id).map_or(0, |rollout| rollout.judgement.failures.guard.polls());
    patiently(&stage, |picture| looks(picture) >= 5).await;
    stage.driver.abort();
    agents.iter().for_each(JoinHandle::abort);
    let stored = stage.store.load().await.unwrap().rollouts.remove(&id).unwrap().judgement;
    // A minute's requests, which nobody of ours saw.
    counters.lock().unwrap().values_mut().for_each(|counts| *counts += Counts::new(6000, 0));

    let again = Stage::on(Arc::clone(&stage.store), plan).await;
    let mut agents = web(&again);
    agents.push(balancer(&again, &counters, (200, 0)));
    let picture = patiently(&again, |picture| looks(picture) > stored.failures.guard.polls()).await;
    let judgement = &picture.fleet.rollouts[&id].judgement;
    assert!(judgement.proof.all().unwrap().requests >= stored.proof.all().unwrap().requests + 12_000, "nothing was lost");
    assert_eq!(judgement.proof.restarts, 0);
    assert_eq!(judgement.failures.unit, stored.failures.unit);
}

/// The verdict on a release that fails a few of its requests, and after how many polls, of a coordinator that is killed after so
/// many.
async fn judged(killed_after: Option<u32>) -> (u32, Vec<baton_core::rollout::Evidence>) {
    let failing = (200, 5);
    let (mut stage, counters, mut agents) = with_traffic(failing).await;
    stage.access.ask(super::deploy(careful(), "2.0")).await.unwrap();
    let id = "r-2".parse().unwrap();
    let polls =
        |picture: &Picture| picture.fleet.rollouts.get(&id).map_or(0, |rollout| rollout.judgement.failures.guard.polls());
    if let Some(after) = killed_after {
        patiently(&stage, |picture| polls(picture) >= after).await;
        stage.driver.abort();
        agents.iter().for_each(JoinHandle::abort);
        stage = Stage::on(Arc::clone(&stage.store), plan).await;
        agents = web(&stage);
        // Its next heartbeat.
        tokio::time::sleep(Duration::from_secs(2)).await;
        agents.push(balancer(&stage, &counters, failing));
    }
    let found = |picture: &Arc<Picture>| !picture.fleet.rollouts[&id].evidence.is_empty();
    let picture = patiently(&stage, found).await;
    agents.iter().for_each(JoinHandle::abort);
    (polls(&picture), picture.fleet.rollouts[&id].evidence.clone())
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_was_killed_in_mid_bake_gives_the_same_verdict_at_the_same_poll() {
    let (polls, evidence) = judged(None).await;
    assert!((3..20).contains(&polls), "{polls}");
    for after in 1..polls {
        assert_eq!(judged(Some(after)).await, (polls, evidence.clone()), "killed after {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_without_traffic_pauses_says_what_is_missing_and_can_be_resumed() {
    use baton_core::analysis::settings::{GateSettings, NotEnough};
    let (stage, counters, mut agents) = with_first_release(0).await;
    agents.pop().unwrap().abort();
    let silent = quiet_balancer(&stage, &counters);
    let mut shape = careful();
    let max_wait = Duration::from_secs(30);
    shape.strategy.gate = Some(GateSettings { rule_out_ppm: 10_000, max_wait, on_not_enough_data: NotEnough::Pause });
    stage.access.ask(super::deploy(shape, "2.0")).await.unwrap();
    let data = |picture: &Arc<Picture>| {
        let waiting = picture.waiting.values().flatten();
        waiting.map(|waiting| waiting.reason.to_string()).find(|reason| reason.starts_with("not enough data: has 0 of "))
    };
    patiently(&stage, |picture| data(picture).is_some()).await;
    let picture = patiently(&stage, |picture| state(picture, "r-2") == Some(RolloutState::Paused)).await;
    let pause = picture.fleet.rollouts[&"r-2".parse().unwrap()].pause.clone().unwrap();
    assert!(pause.by == "baton" && pause.why.starts_with("not enough data: has 0 of"), "{pause:?}");
    stage.access.ask(Ask::Resume { service: "shop".parse().unwrap(), by: "ana".into() }).await.unwrap();
    silent.abort();
    let _counting = balancer(&stage, &counters, (200, 0));
    patiently(&stage, |picture| state(picture, "r-2") == Some(RolloutState::Succeeded)).await;
}

#[tokio::test(start_paused = true)]
async fn where_a_balancer_began_to_count_anew_a_required_proof_is_not_passed() {
    let (stage, counters, mut agents) = with_first_release(0).await;
    let mut shape = careful();
    shape.strategy.max_failed = Some(0);
    stage.access.ask(super::deploy(shape, "2.0")).await.unwrap();
    let id = "r-2".parse().unwrap();
    let looks =
        |picture: &Picture| picture.fleet.rollouts.get(&id).map_or(0, |rollout| rollout.judgement.failures.guard.polls());
    patiently(&stage, |picture| looks(picture) >= 5).await;
    agents.pop().unwrap().abort();
    counters.lock().unwrap().clear();
    let _again = counting(&stage, &counters, (200, 0), " restarted");
    let picture = patiently(&stage, |picture| state(picture, "r-2") == Some(RolloutState::Paused)).await;
    let rollout = &picture.fleet.rollouts[&id];
    let (pause, proof) = (rollout.pause.clone().unwrap(), &rollout.judgement.proof);
    assert!(pause.why.starts_with("the counters of lb1 began anew once, and for up to "), "{pause:?}");
    assert!(pause.why.ends_with(" nobody counted, so nothing is proven; baton promote shop takes it so"), "{pause:?}");
    assert_eq!((rollout.wave, proof.all().map(|all| all.errors)), (1, Some(0)), "nothing failed that was counted");
}

/// A balancer's host that obeys and counts nothing.
fn quiet_balancer(stage: &Stage, counters: &Counters) -> JoinHandle<()> {
    let (access, counters) = (stage.access.clone(), Arc::clone(counters));
    tokio::spawn(async move {
        let host = samples::host("lb1");
        let (link, mut specs) = access.links().connect(&host, Hello::default());
        loop {
            let _ = timeout(Duration::from_secs(2), specs.changed()).await;
            let Some(spec) = specs.borrow_and_update().clone() else { continue };
            let mut report = obeyed(&spec);
            for (key, member) in report.pools.values_mut().flat_map(|pool| &mut pool.members) {
                let counts = counters.lock().unwrap().get(key).copied().unwrap_or_default();
                (member.requests, member.errors) = (counts.requests, counts.errors);
            }
            if !access.links().report(&host, link, report) {
                return;
            }
        }
    })
}
