//! What every store promises, as one suite: run against SQLite on a disk and against its twin in memory.

use super::certificate::{Certificate, Renewal};
use super::memory::MemoryStore;
use super::sqlite::SqliteStore;
use super::token::{Admits, Redeemed, Redemption, Token, TokenId};
use super::{About, Changes, HostRecord, Store, StoreError, WallTime, Which};
use crate::audit::chain::{Entry, verify};
use crate::samples;
use baton_core::fleet::orders::Order;
use baton_core::fleet::past::Forgotten;
use baton_core::fleet::spec::HostSpec;
use baton_core::name::{Digest, Epoch};
use baton_core::rollout::{Rollout, RolloutState};
use baton_core::time::Moment;
use baton_proto::identity::Role;
use std::sync::Arc;

/// A store, and what keeps its disk alive.
struct Fixture {
    store: Arc<dyn Store>,
    folder: Option<tempfile::TempDir>,
}

async fn sqlite() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("a store%?#.sqlite")).await.unwrap();
    Fixture { store: Arc::new(store), folder: Some(folder) }
}

async fn memory() -> Fixture {
    Fixture { store: Arc::new(MemoryStore::default()), folder: None }
}

macro_rules! contract {
    ($($promise:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $promise() { super::$promise(super::sqlite().await).await; })+
        }
        mod in_memory {
            $(#[tokio::test] async fn $promise() { super::$promise(super::memory().await).await; })+
        }
    };
}

contract!(
    what_was_committed_is_loaded,
    a_service_never_has_two_active_rollouts,
    an_ending_rollout_makes_room_for_the_next_in_one_transaction,
    a_refused_transaction_leaves_nothing_behind,
    whoever_does_not_hold_the_epoch_is_fenced,
    the_newest_upgrade_and_reboots_are_kept_by_whoever_holds_the_epoch,
    only_active_and_last_ended_rollouts_are_loaded,
    the_history_begins_with_what_is_under_way_and_goes_back,
    a_rollout_that_goes_on_is_over_when_it_ends_again,
    a_forgotten_release_is_in_one_place_until_it_is_remembered_again,
    exactly_one_of_a_hundred_redeems_a_single_use,
    a_token_with_four_uses_admits_four_names,
    a_token_is_refused_with_the_reason,
    a_refused_redemption_takes_no_use,
    a_token_for_a_name_takes_it_over_and_revokes_what_it_had,
    the_name_of_a_host_that_was_revoked_is_had_by_a_token_for_it_until_it_is_removed,
    an_operator_takes_a_name_over_only_where_that_is_meant,
    a_revoked_token_is_neither_listed_nor_redeemed,
    what_a_token_says_of_services_and_life_reaches_whoever_redeems_it,
    the_audit_log_is_one_chain_however_many_write_at_once,
    a_certificate_is_used_once_somebody_came_with_it,
    certificates_of_an_authority_that_is_not_believed_are_revoked,
);

pub(super) fn changes(rollouts: impl IntoIterator<Item = Rollout>) -> Changes {
    let rollouts = rollouts.into_iter().map(|rollout| (rollout.id.clone(), rollout)).collect();
    Changes { rollouts, ..Changes::default() }
}

async fn what_was_committed_is_loaded(fixture: Fixture) {
    let release = samples::release("shop", "2.1.0");
    let mut issued = samples::spec(&release);
    issued.epoch = Epoch(1);
    let mut first = changes([samples::rollout("r-1", "shop", RolloutState::Running)]);
    first.epoch = Epoch(1);
    first.moment = Moment(5);
    first.sequence = 7;
    first.fence = Some(baton_core::fleet::fence::Fence { stands: true, ..Default::default() });
    let labels = [("rack".parse().unwrap(), "a".parse().unwrap())].into();
    let order = Order { by: "ana".into(), why: "burnt".into(), since: Moment(3) };
    let record = HostRecord {
        address: "127.0.0.2".parse().unwrap(),
        issued,
        accepted: false,
        maintenance: None,
        dead_balancer: Some(order),
        labels,
    };
    first.hosts.insert(samples::host("web1"), record);
    first.services.insert("shop".parse().unwrap(), samples::service(&["web1"]));
    first.releases.insert(release.id(), release.into());
    fixture.store.commit(&first).await.unwrap();
    let loaded = fixture.store.load().await.unwrap();
    assert_eq!((loaded.epoch, loaded.moment, loaded.sequence), (Epoch(1), Moment(5), 7));
    assert_eq!(loaded.fence, first.fence);
    assert_eq!(
        (&loaded.hosts, &loaded.services, &loaded.releases, &loaded.rollouts),
        (&first.hosts, &first.services, &first.releases, &first.rollouts)
    );
}

async fn a_forgotten_release_is_in_one_place_until_it_is_remembered_again(Fixture { store, folder }: Fixture) {
    let forgotten = |service: &str, version: &str, at| {
        let release = samples::release(service, version);
        let it = Forgotten { release: release.into(), hooks: Default::default(), at: Moment(at), cut_off: None };
        (it.release.id(), it)
    };
    let [one, two, other] = [forgotten("shop", "1", 5), forgotten("shop", "2", 7), forgotten("blog", "1", 6)];
    let releases = [&one, &two, &other].map(|(id, it)| (*id, it.release.clone())).into();
    let services = ["shop", "blog"].map(|name| (name.parse().unwrap(), samples::service(&["web1"]))).into();
    store.commit(&Changes { releases, services, ..Changes::default() }).await.unwrap();
    let all = Which::Of(None);
    assert_eq!(store.forgotten(&all).await.unwrap(), []);
    let past = [one.clone(), two.clone(), other.clone()].into();
    store.commit(&Changes { forgotten: past, ..Changes::default() }).await.unwrap();
    assert_eq!(store.load().await.unwrap().releases.len(), 0);
    assert_eq!(store.forgotten(&all).await.unwrap(), [&two, &other, &one].map(|(_, it)| it.clone()));
    let of_shop = Which::Of(Some("shop".parse().unwrap()));
    assert_eq!(store.forgotten(&of_shop).await.unwrap(), [&two, &one].map(|(_, it)| it.clone()));
    let called = Which::Called("shop".parse().unwrap(), "1".parse().unwrap());
    assert_eq!(store.forgotten(&called).await.unwrap(), std::slice::from_ref(&one.1));
    assert_eq!(store.forgotten(&Which::Ids([two.0, one.0].into())).await.unwrap().len(), 2);

    let again = [(one.0, one.1.release.clone())].into_iter().collect();
    store.commit(&Changes { releases: again, ..Changes::default() }).await.unwrap();
    assert_eq!(store.load().await.unwrap().releases.into_keys().collect::<Vec<_>>(), [one.0]);
    assert_eq!(store.forgotten(&of_shop).await.unwrap(), std::slice::from_ref(&two.1));
    let later = Forgotten { at: Moment(9), ..one.1.clone() };
    store.commit(&Changes { forgotten: [(one.0, later.clone())].into(), ..Changes::default() }).await.unwrap();
    assert_eq!(store.forgotten(&of_shop).await.unwrap(), [later, two.1]);
    store.commit(&Changes { gone_services: ["shop".parse().unwrap()].into(), ..Changes::default() }).await.unwrap();
    assert_eq!(store.forgotten(&all).await.unwrap(), [other.1]);
    drop(folder);
}

async fn a_service_never_has_two_active_rollouts(Fixture { store, folder }: Fixture) {
    store.commit(&changes([samples::rollout("r-1", "shop", RolloutState::Paused)])).await.unwrap();
    let second = store.commit(&changes([samples::rollout("r-2", "shop", RolloutState::Pending)])).await;
    assert_eq!(second, Err(StoreError::ActiveRollout("shop".parse().unwrap())));
    store.commit(&changes([samples::rollout("r-3", "blog", RolloutState::Pending)])).await.unwrap();
    drop(folder);
}

async fn an_ending_rollout_makes_room_for_the_next_in_one_transaction(Fixture { store, folder }: Fixture) {
    store.commit(&changes([samples::rollout("r-2", "shop", RolloutState::Running)])).await.unwrap();
    let both = changes([
        samples::rollout("r-1", "shop", RolloutState::Pending),
        samples::rollout("r-2", "shop", RolloutState::Succeeded),
    ]);
    store.commit(&both).await.unwrap();
    assert_eq!(store.load().await.unwrap().rollouts, both.rollouts);
    drop(folder);
}

async fn a_refused_transaction_leaves_nothing_behind(Fixture { store, folder }: Fixture) {
    store.commit(&changes([samples::rollout("r-1", "shop", RolloutState::Running)])).await.unwrap();
    let before = store.load().await.unwrap();
    let mut refused = changes([samples::rollout("r-2", "shop", RolloutState::Running)]);
    refused.epoch = Epoch(9);
    refused.services.insert("shop".parse().unwrap(), samples::service(&["web1"]));
    assert!(store.commit(&refused).await.is_err());
    assert_eq!(store.load().await.unwrap(), before);
    drop(folder);
}

async fn whoever_does_not_hold_the_epoch_is_fenced(Fixture { store, folder }: Fixture) {
    store.commit(&Changes { held: Epoch(0), epoch: Epoch(3), ..Changes::default() }).await.unwrap();
    let stale = store.commit(&Changes { held: Epoch(2), epoch: Epoch(2), ..Changes::default() }).await;
    assert_eq!(stale, Err(StoreError::Fenced { held: Epoch(2), found: Epoch(3) }));
    drop(folder);
}

async fn the_newest_upgrade_and_reboots_are_kept_by_whoever_holds_the_epoch(fixture: Fixture) {
    let store = fixture.store;
    assert_eq!((store.upgrade().await, store.reboot().await), (Ok(None), Ok(None)));
    for (held, id) in [(Epoch(0), "u-1"), (Epoch(7), "u-2"), (Epoch(0), "u-3")] {
        let (upgrade, reboot) = (samples::upgrade(id), samples::reboot(id));
        let kept = [store.keep_upgrade(held, &upgrade).await, store.keep_reboot(held, &reboot).await];
        if held == Epoch(7) {
            assert_eq!(kept, [(); 2].map(|()| Err(StoreError::Fenced { held, found: Epoch(0) })));
            assert_eq!(store.upgrade().await, Ok(Some(samples::upgrade("u-1"))));
            continue;
        }
        assert_eq!(kept, [Ok(()), Ok(())]);
        assert_eq!((store.upgrade().await, store.reboot().await), (Ok(Some(upgrade)), Ok(Some(reboot))));
    }
}

async fn only_active_and_last_ended_rollouts_are_loaded(Fixture { store, folder }: Fixture) {
    for (id, ended) in [("r-1", 10), ("r-2", 30), ("r-3", 20)] {
        let mut rollout = samples::rollout(id, "shop", RolloutState::Succeeded);
        rollout.ended = Some(Moment(ended));
        store.commit(&changes([rollout])).await.unwrap();
    }
    store.commit(&changes([samples::rollout("r-4", "shop", RolloutState::Running)])).await.unwrap();
    let loaded: Vec<_> = store.load().await.unwrap().rollouts.into_keys().map(|id| id.to_string()).collect();
    assert_eq!(loaded, ["r-2", "r-4"]);
    drop(folder);
}

async fn the_history_begins_with_what_is_under_way_and_goes_back(Fixture { store, folder }: Fixture) {
    for (id, service, ended) in [("r-1", "shop", 10), ("r-2", "shop", 30), ("r-3", "other", 20)] {
        let mut rollout = samples::rollout(id, service, RolloutState::Succeeded);
        rollout.ended = Some(Moment(ended));
        for at in [7, 8] {
            store.commit(&Changes { at: WallTime(at), ..changes([rollout.clone()]) }).await.unwrap();
        }
    }
    store.commit(&changes([samples::rollout("r-4", "shop", RolloutState::Running)])).await.unwrap();
    let ids = async |about: About| {
        let rollouts = store.history(&about).await.unwrap();
        assert!(rollouts.iter().all(|it| it.ended == Some(WallTime(7)).filter(|_| !it.rollout.state.is_active())));
        rollouts.into_iter().map(|dated| dated.rollout.id.to_string()).collect::<Vec<_>>()
    };
    let all = About { limit: 9, ..About::default() };
    assert_eq!(ids(all.clone()).await, ["r-4", "r-2", "r-3", "r-1"]);
    assert_eq!(ids(About { limit: 2, ..all.clone() }).await, ["r-4", "r-2"]);
    assert_eq!(ids(About { service: Some("shop".parse().unwrap()), ..all.clone() }).await, ["r-4", "r-2", "r-1"]);
    assert_eq!(ids(About { rollout: Some("r-3".parse().unwrap()), ..all.clone() }).await, ["r-3"]);
    assert!(ids(About { rollout: Some("r-9".parse().unwrap()), ..all }).await.is_empty());
    drop(folder);
}

async fn a_rollout_that_goes_on_is_over_when_it_ends_again(Fixture { store, folder }: Fixture) {
    for (state, at, ended) in [
        (RolloutState::Partial, 7, Some(WallTime(7))),
        (RolloutState::Running, 8, None),
        (RolloutState::Succeeded, 9, Some(WallTime(9))),
    ] {
        let rollout = samples::rollout("r-1", "shop", state);
        store.commit(&Changes { at: WallTime(at), ..changes([rollout]) }).await.unwrap();
        assert_eq!(store.history(&About { limit: 1, ..About::default() }).await.unwrap()[0].ended, ended, "{state:?}");
    }
    drop(folder);
}

const NOW: WallTime = WallTime(1_000);

fn token(id: &str, admits: Admits, uses_left: u32, names: &[&str]) -> Token {
    Token {
        id: TokenId(id.into()),
        secret_hash: Digest::of(id.as_bytes()),
        admits,
        uses_left,
        created: NOW,
        expires: WallTime(NOW.0 + 60),
        names: names.iter().map(|name| (*name).into()).collect(),
        services: Vec::new(),
        life: None,
    }
}

fn redemption(token: &str, name: &str) -> Redemption {
    Redemption {
        secret_hash: Digest::of(token.as_bytes()),
        name: name.into(),
        serial: format!("{token}-{name}"),
        authority: "old".into(),
        now: NOW,
        certificate_expires: WallTime(NOW.0 + 600),
        replace: false,
        bearer: String::new(),
    }
}

fn granted(redeemed: &Redeemed) -> bool {
    matches!(redeemed, Redeemed::Granted { .. })
}

async fn exactly_one_of_a_hundred_redeems_a_single_use(Fixture { store, folder }: Fixture) {
    store.keep_token(&token("t", Admits::Host, 1, &[])).await.unwrap();
    let start = Arc::new(tokio::sync::Barrier::new(100));
    let attempts: Vec<_> = (0..100)
        .map(|number| {
            let (store, start) = (Arc::clone(&store), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                store.redeem(&redemption("t", &format!("web{number}"))).await.unwrap()
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for attempt in attempts {
        outcomes.push(attempt.await.unwrap());
    }
    assert_eq!(outcomes.iter().filter(|outcome| granted(outcome)).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Redeemed::Spent).count(), 99);
    drop(folder);
}

async fn a_token_with_four_uses_admits_four_names(Fixture { store, folder }: Fixture) {
    store.keep_token(&token("t", Admits::Host, 4, &[])).await.unwrap();
    for name in ["web1", "web2"] {
        assert!(granted(&store.redeem(&redemption("t", name)).await.unwrap()));
    }
    assert_eq!(store.redeem(&redemption("t", "web2")).await.unwrap(), Redeemed::NameTaken(Admits::Host));
    for name in ["web3", "web4"] {
        assert!(granted(&store.redeem(&redemption("t", name)).await.unwrap()));
    }
    assert_eq!(store.redeem(&redemption("t", "web5")).await.unwrap(), Redeemed::Spent);
    drop(folder);
}

async fn a_token_is_refused_with_the_reason(Fixture { store, folder }: Fixture) {
    store.keep_token(&token("t", Admits::Operator(Role::Viewer), 1, &["ana"])).await.unwrap();
    assert_eq!(store.redeem(&redemption("other", "ana")).await.unwrap(), Redeemed::Unknown);
    assert_eq!(store.redeem(&redemption("t", "eve")).await.unwrap(), Redeemed::NameNotAllowed);
    let late = Redemption { now: WallTime(NOW.0 + 60), ..redemption("t", "ana") };
    assert_eq!(store.redeem(&late).await.unwrap(), Redeemed::Expired);
    store.keep_token(&token("any", Admits::Host, 1, &[])).await.unwrap();
    let odd = store.redeem(&redemption("any", "../etc")).await.unwrap();
    assert!(matches!(odd, Redeemed::NameInvalid(_)), "{odd:?}");
    drop(folder);
}

async fn a_refused_redemption_takes_no_use(Fixture { store, folder }: Fixture) {
    store.keep_token(&token("t", Admits::Host, 1, &["web1"])).await.unwrap();
    assert_eq!(store.redeem(&redemption("t", "web2")).await.unwrap(), Redeemed::NameNotAllowed);
    assert_eq!(store.tokens(NOW).await.unwrap(), [token("t", Admits::Host, 1, &["web1"])]);
    let as_operator = Redemption { bearer: "operator".into(), ..redemption("t", "web1") };
    assert_eq!(store.redeem(&as_operator).await.unwrap(), Redeemed::ForAnother(Admits::Host));
    let as_host = Redemption { bearer: "host".into(), ..redemption("t", "web1") };
    assert!(granted(&store.redeem(&as_host).await.unwrap()));
    drop(folder);
}

async fn a_token_for_a_name_takes_it_over_and_revokes_what_it_had(Fixture { store, folder }: Fixture) {
    store.keep_token(&token("first", Admits::Host, 1, &[])).await.unwrap();
    store.keep_token(&token("again", Admits::Host, 1, &["web1"])).await.unwrap();
    assert!(granted(&store.redeem(&redemption("first", "web1")).await.unwrap()));
    assert_eq!(
        store.redeem(&redemption("again", "web1")).await.unwrap(),
        Redeemed::NameInUse(Admits::Host),
        "two machines of one name"
    );
    let meant = Redemption { replace: true, ..redemption("again", "web1") };
    let again = store.redeem(&meant).await.unwrap();
    let identity = "host/web1".parse().unwrap();
    let revoked = vec!["first-web1".into()];
    assert_eq!(again, Redeemed::Granted { identity, revoked, services: Vec::new(), life: None, named: true });
    let revoked: Vec<_> = store.load().await.unwrap().revoked.into_iter().collect();
    assert_eq!(revoked, ["first-web1"]);
    drop(folder);
}

async fn the_name_of_a_host_that_was_revoked_is_had_by_a_token_for_it_until_it_is_removed(
    Fixture { store, folder }: Fixture,
) {
    let record = |accepted| HostRecord {
        address: "127.0.0.2".parse().unwrap(),
        issued: HostSpec::default(),
        accepted,
        maintenance: None,
        dead_balancer: None,
        labels: Default::default(),
    };
    let hosts = ["web1", "web2"].map(samples::host);
    let joined = Changes { hosts: hosts.clone().map(|host| (host, record(true))).into(), ..changes([]) };
    store.commit(&joined).await.unwrap();
    store.keep_token(&token("any", Admits::Host, 9, &[])).await.unwrap();
    let anybody = async |name: &str| store.redeem(&redemption("any", name)).await.unwrap();
    for host in ["web1", "web2"] {
        store.keep_token(&token(host, Admits::Host, 2, &[host, "web9"])).await.unwrap();
        assert!(granted(&store.redeem(&redemption(host, host)).await.unwrap()));
        store.revoke(&format!("host/{host}")).await.unwrap();
        assert_eq!(anybody(host).await, Redeemed::NameTaken(Admits::Host), "it would be told what {host} was told");
    }
    let left = Redemption { serial: "left".into(), ..redemption("web1", "web1") };
    assert_eq!(store.redeem(&left).await.unwrap(), Redeemed::Spent, "what is left of its token is for web9");
    store.keep_token(&token("again", Admits::Host, 1, &["web1"])).await.unwrap();
    assert!(granted(&store.redeem(&redemption("again", "web1")).await.unwrap()), "a person said that it belongs here");
    let waits = Changes { hosts: [(samples::host("web3"), record(false))].into(), ..changes([]) };
    store.commit(&waits).await.unwrap();
    assert!(granted(&anybody("web3").await), "whoever waits goes on waiting");
    let gone = Changes { gone_hosts: [samples::host("web2")].into(), ..changes([]) };
    store.commit(&gone).await.unwrap();
    assert!(granted(&anybody("web2").await), "and is another host, which waits to be accepted");
    drop(folder);
}

async fn an_operator_takes_a_name_over_only_where_that_is_meant(Fixture { store, folder }: Fixture) {
    let admin = Admits::Operator(Role::Admin);
    for name in ["first", "again"] {
        store.keep_token(&token(name, admin, 1, &["ana"])).await.unwrap();
    }
    assert!(granted(&store.redeem(&redemption("first", "ana")).await.unwrap()));
    assert_eq!(store.redeem(&redemption("again", "ana")).await.unwrap(), Redeemed::NameInUse(admin));
    let meant = Redemption { replace: true, ..redemption("again", "ana") };
    assert!(granted(&store.redeem(&meant).await.unwrap()), "the refusal cost no use");
    drop(folder);
}

async fn what_a_token_says_of_services_and_life_reaches_whoever_redeems_it(Fixture { store, folder }: Fixture) {
    let services = vec!["shop".parse().unwrap()];
    let scoped = Token { services: services.clone(), life: Some(60), ..token("t", Admits::Operator(Role::Ci), 1, &[]) };
    store.keep_token(&scoped).await.unwrap();
    assert_eq!(store.tokens(NOW).await.unwrap(), std::slice::from_ref(&scoped));
    let granted = store.redeem(&redemption("t", "pipeline")).await.unwrap();
    assert!(matches!(&granted, Redeemed::Granted { services: got, life: Some(60), .. } if *got == services), "{granted:?}");
    assert_eq!(store.certificates(NOW).await.unwrap()[0].expires, WallTime(NOW.0 + 60));
    drop(folder);
}

/// A certificate of `old` that web1 joined with, and one that it renewed to.
async fn renewed(store: &Arc<dyn Store>, authority: &str) {
    store.keep_token(&token("t", Admits::Host, 1, &[])).await.unwrap();
    assert!(granted(&store.redeem(&redemption("t", "web1")).await.unwrap()));
    let first = store.certificates(NOW).await.unwrap().remove(0);
    assert_eq!((first.authority.as_str(), first.used), ("old", false));
    let next = Certificate { serial: "next".into(), authority: authority.into(), issued: WallTime(NOW.0 + 1), ..first };
    assert!(store.renew(&Renewal { shown: "t-web1".into(), next }).await.unwrap());
}

async fn a_certificate_is_used_once_somebody_came_with_it(Fixture { store, folder }: Fixture) {
    renewed(&store, "new").await;
    let next = store.certificates(NOW).await.unwrap().remove(1);
    // Of a host that renewed after the copy was made from which this store was restored.
    let issued = WallTime(NOW.0 + 2);
    let unknown = Certificate { serial: "unknown".into(), identity: "host/web2".into(), issued, ..next.clone() };
    for used in [&next, &next, &unknown] {
        store.note_use(used).await.unwrap();
    }
    let used = store.certificates(NOW).await.unwrap();
    let used: Vec<_> = used.iter().map(|one| (one.identity.as_str(), one.serial.as_str(), one.used)).collect();
    assert_eq!(used, [("host/web1", "t-web1", false), ("host/web1", "next", true), ("host/web2", "unknown", true)]);
    assert_eq!(store.revoke("host/web2").await.unwrap(), ["unknown"]);
    store.note_use(&unknown).await.unwrap();
    assert!(store.load().await.unwrap().revoked.contains("unknown"), "that it was used takes nothing back");
    drop(folder);
}

async fn certificates_of_an_authority_that_is_not_believed_are_revoked(Fixture { store, folder }: Fixture) {
    // As a store of an older version has it: nobody wrote down who signed.
    renewed(&store, "").await;
    let both = ["new".to_owned(), "old".to_owned()];
    assert!(store.believe(&both).await.unwrap().is_empty());
    assert!(store.certificates(NOW).await.unwrap().iter().all(|one| one.authority == "old" && !one.revoked));
    let mut revoked = store.believe(&both[..1]).await.unwrap();
    revoked.sort();
    assert_eq!(revoked, ["next", "t-web1"]);
    assert!(store.certificates(NOW).await.unwrap().iter().all(|one| one.revoked));
    assert!(store.believe(&both[..1]).await.unwrap().is_empty(), "once");
    drop(folder);
}

async fn the_audit_log_is_one_chain_however_many_write_at_once(Fixture { store, folder }: Fixture) {
    let writes: Vec<_> = (0..40)
        .map(|number| {
            let store = Arc::clone(&store);
            let entry = Entry { about: format!("{number}"), ..Entry::default() };
            tokio::spawn(async move { store.append(NOW, &entry).await.unwrap() })
        })
        .collect();
    for write in writes {
        write.await.unwrap();
    }
    let records = store.audit(0, 100).await.unwrap();
    assert_eq!(records.len(), 40);
    let verdict = verify(&records, Vec::new());
    assert_eq!((verdict.head, verdict.faults), (store.audit_head().await.unwrap(), Vec::new()));
    assert_eq!(store.audit(37, 2).await.unwrap(), records[37..39]);
    drop(folder);
}

async fn a_revoked_token_is_neither_listed_nor_redeemed(Fixture { store, folder }: Fixture) {
    store.keep_token(&token("a", Admits::Host, 9, &[])).await.unwrap();
    store.keep_token(&token("b", Admits::Host, 9, &[])).await.unwrap();
    assert!(store.revoke_token(&TokenId("a".into())).await.unwrap());
    assert!(!store.revoke_token(&TokenId("a".into())).await.unwrap());
    let listed: Vec<_> = store.tokens(NOW).await.unwrap().into_iter().map(|token| token.id.0).collect();
    assert_eq!(listed, ["b"]);
    assert_eq!(store.redeem(&redemption("a", "web1")).await.unwrap(), Redeemed::Spent);
    drop(folder);
}
