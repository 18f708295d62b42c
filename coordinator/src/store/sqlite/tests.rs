//! What only a store on a disk has to get right.

use super::SqliteStore;
use crate::samples;
use crate::store::contract::changes;
use crate::store::{Store, StoreError};
use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::HostSpec;
use baton_core::rollout::RolloutState;

#[tokio::test]
async fn what_sqlite_committed_is_there_after_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let store = SqliteStore::open(&path).await.unwrap();
    let written = changes([samples::rollout("r-1", "shop", RolloutState::Running)]);
    store.commit(&written).await.unwrap();
    drop(store);
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(again.load().await.unwrap().rollouts, written.rollouts);
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let store = SqliteStore::open(&path).await.unwrap();
    store.run_for_test("INSERT INTO schema (step) VALUES (99)").await;
    store.close().await;
    let opened = SqliteStore::open(&path).await;
    assert!(matches!(opened, Err(StoreError::Unreadable(_))), "{opened:?}");
}

#[tokio::test]
async fn sqlite_syncs_every_commit_and_writes_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("store.sqlite")).await.unwrap();
    assert_eq!(store.ask_for_test("PRAGMA synchronous").await, "2");
    assert_eq!(store.ask_for_test("PRAGMA journal_mode").await, "wal");
}

#[tokio::test]
async fn sqlite_keeps_little_of_a_history_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("store.sqlite")).await.unwrap();
    assert_eq!(store.ask_for_test("PRAGMA cache_size").await, "-256");
}

#[tokio::test]
async fn a_full_disk_is_said_as_such_and_the_store_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("store.sqlite")).await.unwrap();
    let pages: i64 = store.ask_for_test("PRAGMA page_count").await.parse().unwrap();
    store.ask_for_test(&format!("PRAGMA max_page_count = {pages}")).await;
    let mut big = changes([]);
    for number in 0..200 {
        let release = samples::release("shop", &format!("1.0.{number}"));
        big.releases.insert(release.id(), release.into());
    }
    let full = store.commit(&big).await;
    assert!(matches!(&full, Err(StoreError::Unavailable(seen)) if seen.contains("full")), "{full:?}");
    assert_eq!(store.load().await.unwrap().releases.len(), 0);
    store.ask_for_test("PRAGMA max_page_count = 100000").await;
    store.commit(&big).await.unwrap();
    assert_eq!(store.load().await.unwrap().releases.len(), 200);
    // By its own word it would also have them in a transaction that never ends.
    let another = SqliteStore::open(&folder.path().join("store.sqlite")).await.unwrap();
    assert_eq!(another.load().await.unwrap().releases.len(), 200);
}

#[tokio::test]
async fn a_transaction_that_could_not_be_ended_swallows_nothing_of_what_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let store = SqliteStore::open(&path).await.unwrap();
    store.run_for_test("BEGIN; UPDATE driver SET sequence = 5").await;
    store.commit(&changes([samples::rollout("r-1", "shop", RolloutState::Running)])).await.unwrap();
    store.load().await.unwrap();
    let another = SqliteStore::open(&path).await.unwrap().load().await.unwrap();
    assert_eq!((another.rollouts.len(), another.sequence), (1, 0));
}

/// By a version that went back, too.
#[test]
fn a_host_that_has_nothing_is_written_as_it_always_was() {
    for written in [serde_json::to_value(HostSpec::default()), serde_json::to_value(HostReport::default())] {
        let written = written.unwrap();
        assert!(["instances", "releases", "pools"].iter().all(|field| written[field].is_object()), "{written}");
    }
}
