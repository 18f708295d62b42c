//! A release judged by what its instances count themselves: by agents that read it, or by a Prometheus that does.

use super::*;
use baton_core::analysis::settings::{GuardSettings, Sources};
use baton_core::prometheus::Prometheus;
use baton_core::scrape::{Reading, Scrape, Totals};
use baton_core::strategy::{Amount, Wave};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What every process has counted: it goes on whoever coordinates.
type Counted = Arc<Mutex<BTreeMap<(String, String), Totals>>>;

/// Of a hundred requests of 2.0, between two reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Fails(u64),
    CannotBeRead,
}

/// A host that obeys, and reads its instances where it is told to.
fn web(stage: &Stage, name: &'static str, counted: &Counted, page: Page) -> JoinHandle<()> {
    let (access, host, counted) = (stage.access.clone(), samples::host(name), Arc::clone(counted));
    let failing = samples::release("shop", "2.0").id();
    tokio::spawn(async move {
        let (link, mut specs) = access.links().connect(&host, Hello::default());
        loop {
            let _ = timeout(Duration::from_secs(2), specs.changed()).await;
            let Some(spec) = specs.borrow_and_update().clone() else { continue };
            let mut report = obeyed(&spec);
            for (key, instance) in &report.instances {
                assert!(spec.instances[key].scrape.is_some(), "whoever is told to run it is told where to read it");
                let mut counted = counted.lock().unwrap();
                let which = (name.to_owned(), instance.incarnation.clone());
                let totals = counted.entry(which).or_insert(Totals { requests: 0, errors: None });
                totals.requests += 100;
                let reading = match page {
                    Page::CannotBeRead => Reading::Trouble("GET /metrics: answered 404 Not Found".into()),
                    Page::Fails(of_hundred) if instance.release == failing => {
                        totals.errors = Some(totals.errors.unwrap_or(0) + of_hundred);
                        Reading::Counted(*totals)
                    }
                    Page::Fails(_) => Reading::Counted(*totals),
                };
                report.counters.insert(key.clone(), reading);
            }
            if !access.links().report(&host, link, report) {
                return;
            }
        }
    })
}

fn hosts(stage: &Stage, counted: &Counted, page: Page) -> Vec<JoinHandle<()>> {
    ["web1", "web2", "web3"].map(|name| web(stage, name, counted, page)).into()
}

/// One host first, for ten minutes; nobody balances.
fn shape() -> baton_core::fleet::Service {
    let mut shape = samples::service(&["web1", "web2", "web3"]);
    shape.strategy.waves = [1, 3].map(|hosts| Wave::of(Amount::Hosts(hosts))).to_vec();
    shape.strategy.bake = Duration::from_secs(600);
    shape.strategy.guard =
        GuardSettings { sources: Sources { metrics: true, prometheus: false }, ..GuardSettings::default() };
    let [requests, errors] = ["requests", "errors"].map(|name| name.parse().unwrap());
    shape.strategy.scrape = Some(Scrape { path: "/metrics".into(), requests, errors });
    shape
}

async fn patiently(stage: &Stage, fits: impl FnMut(&Arc<Picture>) -> bool) -> Arc<Picture> {
    let mut pictures = stage.access.pictures();
    timeout(Duration::from_secs(7200), pictures.wait_for(fits)).await.expect("never came").unwrap().clone()
}

async fn begin(page: Page) -> (Stage, Counted, Vec<JoinHandle<()>>) {
    let (stage, counted) = (Stage::new().await, Counted::default());
    stage.admit(&["web1", "web2", "web3"]).await;
    let agents = hosts(&stage, &counted, page);
    stage.access.ask(super::deploy(shape(), "1.0")).await.unwrap();
    patiently(&stage, |picture| state(picture, "r-1") == Some(RolloutState::Succeeded)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    stage.access.ask(super::deploy(shape(), "2.0")).await.unwrap();
    (stage, counted, agents)
}

fn compared(picture: &Picture) -> u64 {
    let rollout = picture.fleet.rollouts.get(&"r-2".parse().unwrap());
    rollout.and_then(|rollout| rollout.judgement.metrics.as_ref()).map_or(0, |source| source.new.requests)
}

#[tokio::test(start_paused = true)]
async fn more_failures_are_evidence_though_the_coordinator_was_killed_in_between() {
    let (stage, counted, agents) = begin(Page::Fails(1)).await;
    let before = patiently(&stage, |picture| compared(picture) >= 100).await;
    stage.driver.abort();
    agents.iter().for_each(JoinHandle::abort);

    let again = Stage::on(Arc::clone(&stage.store), plan).await;
    let _agents = hosts(&again, &counted, Page::Fails(1));
    let picture = patiently(&again, |picture| state(picture, "r-2") == Some(RolloutState::Reverted)).await;
    let rollout = &picture.fleet.rollouts[&"r-2".parse().unwrap()];
    let codes: Vec<_> = rollout.evidence.iter().map(|it| (it.host.as_str(), it.problem.code)).collect();
    assert_eq!(codes, [("web1", Code(901))], "{:?}", rollout.evidence);
    assert!(compared(&picture) > compared(&before) && rollout.wave == 0, "the other hosts never got it");
}

#[tokio::test(start_paused = true)]
async fn what_is_as_good_is_let_through_and_so_is_what_nobody_can_read() {
    for page in [Page::Fails(0), Page::CannotBeRead] {
        let (stage, _, _agents) = begin(page).await;
        let over = patiently(&stage, |picture| {
            [Some(RolloutState::Succeeded), Some(RolloutState::Paused)].contains(&state(picture, "r-2"))
        });
        let picture = over.await;
        let at_rest = patiently(&stage, |picture| !picture.doubts.is_empty()).await;
        let [of_metrics, _] = &at_rest.doubts[&"shop".parse().unwrap()];
        let unread = of_metrics.iter().any(|doubt| doubt.contains("404 Not Found"));
        assert_eq!(unread, page == Page::CannotBeRead, "said before the next rollout: {of_metrics:?}");
        assert_eq!(
            (state(&picture, "r-2"), compared(&picture) > 0),
            (Some(RolloutState::Succeeded), page != Page::CannotBeRead)
        );
    }
}

/// Somebody who asks a Prometheus about 1.0 and 2.0 every ten seconds; of the second a fifth fails, if it answers at all.
fn asked(stage: &Stage, answers: bool) -> JoinHandle<()> {
    let access = stage.access.clone();
    tokio::spawn(async move {
        for round in 0_u64.. {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let of = |version: &str, errors| {
                let counters = [("10.0.0.11:8101".to_owned(), Totals { requests: round * 100, errors: Some(errors) })];
                let answer = if answers { Ok(counters.into()) } else { Err("requests: no connection".to_owned()) };
                (samples::release("shop", version).id(), answer)
            };
            access.links().counted(&"shop".parse().unwrap(), vec![of("2.0", round * 20), of("1.0", 0)]);
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_prometheus_is_believed_where_it_answers_and_its_silence_is_no_pass_and_no_fault() {
    for (answers, ends) in [(true, RolloutState::Reverted), (false, RolloutState::Succeeded)] {
        let (stage, counted) = (Stage::new().await, Counted::default());
        stage.admit(&["web1", "web2", "web3"]).await;
        let mut shape = shape();
        let query = |name: &str| format!("{name}{{version=\"{{version}}\"}}").parse().unwrap();
        let url = "http://127.0.0.1:9090".parse().unwrap();
        shape.strategy.prometheus = Some(Prometheus { url, requests: query("requests"), errors: query("errors") });
        shape.strategy.guard.sources = Sources { metrics: true, prometheus: true };
        // Of the pages nobody hears anything: they are half of the bet, and the other half is enough.
        let _agents = hosts(&stage, &counted, Page::CannotBeRead);
        stage.access.ask(super::deploy(shape.clone(), "1.0")).await.unwrap();
        patiently(&stage, |picture| state(picture, "r-1") == Some(RolloutState::Succeeded)).await;
        let asked = asked(&stage, answers);
        tokio::time::sleep(Duration::from_secs(60)).await;
        stage.access.ask(super::deploy(shape, "2.0")).await.unwrap();
        let picture = patiently(&stage, |picture| state(picture, "r-2") == Some(ends)).await;
        let rollout = &picture.fleet.rollouts[&"r-2".parse().unwrap()];
        let codes: Vec<_> = rollout.evidence.iter().map(|it| (it.host.as_str(), it.problem.code)).collect();
        assert_eq!(codes, if answers { vec![("web1", Code(901))] } else { Vec::new() }, "{:?}", rollout.evidence);
        let compared = rollout.judgement.prometheus.as_ref().map_or(0, |source| source.new.requests);
        assert_eq!(compared > 0, answers);
        asked.abort();
    }
}
