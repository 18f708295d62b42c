//! What a host that joined brings from another coordinator, before and after somebody says that it belongs here.

use super::*;
use baton_core::fleet::fence::Told;
use baton_core::name::Generation;
use baton_core::rollout::command::Command;

/// The word of a coordinator that was started so often.
fn told(epoch: u64, version: &str) -> Told {
    let release = samples::release("shop", version);
    let releases = [(release.id(), release.into())].into_iter().collect();
    let spec = HostSpec { epoch: Epoch(epoch), generation: Generation(3), releases, ..HostSpec::default() };
    Told { stamp: spec.stamp(), spec: Some(spec) }
}

fn accept() -> Ask {
    Ask::Order(Box::new(Command::Accept { host: samples::host("web1"), by: "ana".into() }))
}

#[tokio::test]
async fn what_a_host_brings_is_stored_with_the_word_that_it_belongs_here_and_not_before() {
    let stage = Stage::new().await;
    let web1 = samples::host("web1");
    stage.access.admit(web1.clone(), ADDRESS, false).await.unwrap();
    let before = stage.store.load().await.unwrap();
    // Whatever it says meanwhile, the newest word counts.
    for word in [told(900_000, "9"), told(7, "3")] {
        stage.access.connects(web1.clone(), ADDRESS, word).await.unwrap();
        assert_eq!(stage.store.load().await.unwrap(), before);
    }
    stage.access.ask(accept()).await.unwrap();
    let after = stage.store.load().await.unwrap();
    let held: Vec<_> = after.releases.values().map(|release| release.version.to_string()).collect();
    assert_eq!((held, after.epoch), (vec!["3".to_owned()], Epoch(8)));
    assert!(after.hosts[&web1].accepted && after.hosts[&web1].issued.stamp() > told(7, "3").stamp);
}

#[tokio::test]
async fn a_host_that_was_told_more_than_anybody_can_believe_is_not_accepted() {
    let stage = Stage::new().await;
    let web1 = samples::host("web1");
    stage.access.admit(web1.clone(), ADDRESS, false).await.unwrap();
    stage.access.connects(web1.clone(), ADDRESS, told(1 << 40, "3")).await.unwrap();
    let before = stage.store.load().await.unwrap();
    let refused = stage.access.ask(accept()).await.expect_err("no coordinator was started so often");
    assert_eq!((refused.code, stage.store.load().await.unwrap()), (Code(1021), before));
    // It was its word that stood against it, and no other machine's.
    stage.access.admit(web1.clone(), ADDRESS, false).await.unwrap();
    stage.access.ask(accept()).await.unwrap();
}

#[tokio::test]
async fn a_host_that_follows_another_coordinator_is_told_nothing_before_it_is_accepted() {
    let stage = Stage::new().await;
    for (name, told, is_told) in [("web1", told(1, "3"), false), ("web2", Told::default(), true)] {
        let host = samples::host(name);
        stage.access.admit(host.clone(), ADDRESS, false).await.unwrap();
        stage.access.connects(host.clone(), ADDRESS, told.clone()).await.unwrap();
        let (link, specs) = stage.access.links().connect(&host, Hello { ledger: told.stamp, ..Hello::default() });
        assert!(stage.access.links().report(&host, link, HostReport { observed: told.stamp, ..HostReport::default() }));
        stage.until(|picture| picture.fleet.hosts[&host].connected).await;
        assert_eq!(specs.borrow().is_some(), is_told, "an empty document would stop what {name} runs");
        let accept = Command::Accept { host: host.clone(), by: "ana".into() };
        stage.access.ask(Ask::Order(Box::new(accept))).await.unwrap();
        stage.until(|_| specs.borrow().is_some()).await;
        let spec = specs.borrow().clone().unwrap();
        assert!((is_told || spec.stamp() > told.stamp) && spec.releases.len() == usize::from(!is_told), "{spec:?}");
    }
}

#[tokio::test]
async fn a_host_that_waits_is_accepted_by_a_token_with_its_name_and_by_no_connection() {
    let stage = Stage::new().await;
    let web1 = samples::host("web1");
    let accepted = async |stage: &Stage| stage.store.load().await.unwrap().hosts[&samples::host("web1")].accepted;
    stage.access.admit(web1.clone(), ADDRESS, false).await.unwrap();
    stage.access.connects(web1.clone(), ADDRESS, told(7, "3")).await.unwrap();
    assert!(!accepted(&stage).await, "what it was told elsewhere is no word of ours");
    stage.access.admit(web1.clone(), ADDRESS, true).await.unwrap();
    assert!(accepted(&stage).await);
    // What was offered before may have been another machine's.
    assert!(stage.store.load().await.unwrap().releases.is_empty());
    stage.access.connects(web1, ADDRESS, told(7, "3")).await.unwrap();
    assert_eq!(stage.store.load().await.unwrap().releases.len(), 1);
}
