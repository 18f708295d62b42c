//! Requests divided between two sides: shares, users and rules, for every driver that can.

use crate::rig::bench::{Bench, codes, member, places};
use crate::rig::front::{Front, Make};
use baton_core::fleet::report::PoolReport;
use baton_core::fleet::spec::MemberState::{Out, Ready};
use baton_core::fleet::split::{Share, Side, TrafficSplit, place_of};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// `web0` stable and in; `web1` on trial and in as soon as the split is there.
async fn divided(make: Make, split: &TrafficSplit) -> Option<Bench> {
    let places = places();
    let front = make(&places)?;
    Some(divided_on(front, &places, split).await)
}

pub(crate) async fn divided_on(front: Front, places: &[SocketAddr], split: &TrafficSplit) -> Bench {
    let mut bench = Bench::new(front, places);
    bench.want(0, Ready);
    bench.until("web0 is in", |pool| member(pool, 0).is_in()).await;
    bench.side(1, Side::Trial);
    bench.want(1, Ready);
    bench.pool().split = Some(split.clone());
    bench.until("divided", |pool| member(pool, 1).is_in() && is_so(pool, split)).await;
    bench
}

fn is_so(pool: &PoolReport, split: &TrafficSplit) -> bool {
    pool.split.as_ref().is_some_and(|seen| seen.split == *split && seen.on_disk) && codes(pool).is_empty()
}

pub(crate) fn split(share: &str, sticky: Option<&str>, rules: &[&str]) -> TrafficSplit {
    TrafficSplit {
        share: share.parse().expect("a share"),
        sticky: sticky.map(|key| key.parse().expect("a key")),
        rules: rules.iter().map(|rule| rule.parse().expect("a rule")).collect(),
    }
}

/// One request in a connection of its own.
async fn answer(listen: SocketAddr, header: &str) -> String {
    let mut stream = TcpStream::connect(listen).await.expect("a connection");
    let request = format!("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// One request; says which application answered.
async fn ask(bench: &Bench, header: &str) -> usize {
    let before: Vec<u64> = bench.apps.iter().map(|app| app.log.served.load(Ordering::SeqCst)).collect();
    let answer = answer(bench.front.listen, header).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let served = |(app, before): (&crate::rig::app::App, &u64)| app.log.served.load(Ordering::SeqCst) > *before;
    bench.apps.iter().zip(&before).position(served).expect("somebody answered")
}

/// Each share as it was asked for, within what lots allow where lots are drawn; and seen so by the balancer itself.
pub(crate) async fn a_share_is_what_was_asked_for(make: Make, exact: bool) {
    let quarter = split("25%", None, &[]);
    let Some(mut bench) = divided(make, &quarter).await else { return };
    let mut trial = 0;
    for _ in 0..400 {
        trial += ask(&bench, "").await;
    }
    // Six deviations of 400 lots.
    assert!(if exact { trial == 100 } else { (48..=152).contains(&trial) }, "{trial} of 400");
    let counted = if bench.front.abilities.counts { (400 - trial as u64, trial as u64) } else { (0, 0) };
    let all =
        |pool: &PoolReport| pool.split.as_ref().is_some_and(|split| split.stable + split.trial >= counted.0 + counted.1);
    let seen = bench.until("counted", all).await.split.expect("a split");
    assert_eq!((seen.stable, seen.trial), counted);
    for (share, expected) in [(Share::NONE, 0), (Share::ALL, 1)] {
        let split = TrafficSplit { share, ..quarter.clone() };
        bench.pool().split = Some(split.clone());
        bench.until("divided anew", |pool| is_so(pool, &split)).await;
        for _ in 0..40 {
            assert_eq!(ask(&bench, "").await, expected, "{share}");
        }
    }
}

/// A user has one side, the one that core says unless the balancer has a hash of its own, and does not come back while the
/// share grows.
pub(crate) async fn a_user_stays_on_one_side(make: Make, own_hash: bool) {
    let few = split("10%", Some("cookie uid"), &[]);
    let Some(mut bench) = divided(make, &few).await else { return };
    let mut sides = [0; 60];
    for share in ["10%", "30%", "100%"] {
        let split = TrafficSplit { share: share.parse().expect("a share"), ..few.clone() };
        bench.pool().split = Some(split.clone());
        bench.until("divided", |pool| is_so(pool, &split)).await;
        for (number, before) in sides.iter_mut().enumerate() {
            let cookie = format!("Cookie: a=b; uid=user-{number}; c=d\r\n");
            let side = ask(&bench, &cookie).await;
            let place = place_of(format!("user-{number}").as_bytes());
            assert!(own_hash || side == usize::from(place < split.share.places()), "user {number} at {share}");
            assert!(side >= *before, "user {number} came back at {share}");
            assert_eq!(ask(&bench, &cookie).await, side, "user {number} at {share}");
            *before = side;
        }
        // Six deviations of 60 lots; all of them at the end.
        let trial: usize = sides.iter().sum();
        assert!(if share == "100%" { trial == 60 } else { (1..=42).contains(&trial) }, "{trial} of 60 at {share}");
        assert_eq!(ask(&bench, "").await, usize::from(share == "100%"), "nobody at {share}");
    }
}

/// A rule leads to the trial side with no share at all, and after a restart.
pub(crate) async fn a_rule_leads_to_the_trial_side(make: Make) {
    let rules = split("0%", None, &["header X-Beta = 1", "cookie cohort = staff"]);
    let Some(mut bench) = divided(make, &rules).await else { return };
    for killed in [false, true] {
        if killed {
            let identity = bench.until("seen", |_| true).await.balancer;
            bench.front.kill(&identity);
            bench.front.start();
            bench.until("back, and so at once", |pool| pool.balancer != identity && is_so(pool, &rules)).await;
        }
        assert_eq!(ask(&bench, "X-Beta: 1\r\n").await, 1);
        assert_eq!(ask(&bench, "Cookie: uid=1; cohort=staff\r\n").await, 1);
        for header in ["", "X-Beta: 2\r\n", "X-Beta: 11\r\n", "Cookie: cohort=staffer\r\n", "cohort: staff\r\n"] {
            assert_eq!(ask(&bench, header).await, 0, "{header}");
        }
    }
}

/// Nobody on its side: the other serves. And without a split, all are one side again.
pub(crate) async fn a_side_without_members_is_served_by_the_other(make: Make) {
    let all = split("100%", None, &[]);
    let Some(mut bench) = divided(make, &all).await else { return };
    assert_eq!(ask(&bench, "").await, 1);
    bench.want(1, Out);
    bench.until("web1 is out", |pool| member(pool, 1).is_drained(std::time::Duration::MAX)).await;
    bench.apps[1].kill();
    assert_eq!(ask(&bench, "").await, 0);
    bench.apps[1].start();
    bench.want(1, Ready);
    bench.until("web1 is in", |pool| member(pool, 1).is_in()).await;
    bench.side(1, Side::Stable);
    bench.pool().split = None;
    bench.until("one side", |pool| pool.split.is_none() && codes(pool).is_empty()).await;
    let mut both = [0, 0];
    for _ in 0..40 {
        both[ask(&bench, "").await] += 1;
    }
    assert!(both.iter().all(|served| *served >= 15), "{both:?}");
}

/// Everybody who was on trial is stable, and the split is gone: as at the end of each rollout in shares, and nobody is without an
/// answer.
pub(crate) async fn a_split_ends_and_every_request_is_answered(make: Make) {
    let all = split("100%", None, &[]);
    let Some(mut bench) = divided(make, &all).await else { return };
    let client = Client::of(&bench);
    for _ in 0..3 {
        bench.side(0, Side::Trial);
        bench.side(1, Side::Trial);
        bench.pool().split = Some(all.clone());
        bench
            .until("all are on trial", |pool| is_so(pool, &all) && (0..2).all(|it| member(pool, it).side == Side::Trial))
            .await;
        bench.side(0, Side::Stable);
        bench.side(1, Side::Stable);
        bench.pool().split = None;
        bench.until("one side", |pool| pool.split.is_none() && codes(pool).is_empty()).await;
    }
    client.was_answered().await;
}

/// The only one on trial is taken out, as where a release is given up, and ended as soon as it is drained: nobody is without an answer.
pub(crate) async fn a_trial_is_given_up_and_every_request_is_answered(make: Make) {
    let half = split("50%", None, &[]);
    let Some(mut bench) = divided(make, &half).await else { return };
    let client = Client::of(&bench);
    for _ in 0..3 {
        bench.pool().split = Some(split("0%", None, &[]));
        bench.want(1, Out);
        bench.until("web1 is out", |pool| member(pool, 1).is_drained(std::time::Duration::MAX)).await;
        bench.apps[1].kill();
        bench.apps[1].start();
        bench.pool().split = Some(half.clone());
        bench.want(1, Ready);
        bench.until("divided", |pool| member(pool, 1).is_in() && is_so(pool, &half)).await;
    }
    client.was_answered().await;
}

/// One request after the other, until that is enough.
struct Client {
    enough: Arc<AtomicBool>,
    answers: tokio::task::JoinHandle<Vec<String>>,
}

impl Client {
    fn of(bench: &Bench) -> Self {
        let (listen, enough) = (bench.front.listen, Arc::new(AtomicBool::new(false)));
        let heard = Arc::clone(&enough);
        let answers = tokio::spawn(async move {
            let mut answers = Vec::new();
            while !heard.load(Ordering::SeqCst) {
                answers.push(answer(listen, "").await);
            }
            answers
        });
        Self { enough, answers }
    }

    async fn was_answered(self) {
        self.enough.store(true, Ordering::SeqCst);
        let answers = self.answers.await.expect("a client");
        let failed: Vec<&String> = answers.iter().filter(|answer| !answer.starts_with("HTTP/1.1 200")).collect();
        assert!(failed.is_empty() && !answers.is_empty(), "{} of {}: {:?}", failed.len(), answers.len(), failed.first());
    }
}

mod builtin {
    use super::*;

    const MAKE: Make = |_| Some(crate::builtin());

    #[tokio::test]
    async fn a_share_is_what_was_asked_for() {
        super::a_share_is_what_was_asked_for(MAKE, true).await;
    }

    #[tokio::test]
    async fn a_user_stays_on_one_side() {
        super::a_user_stays_on_one_side(MAKE, false).await;
    }

    #[tokio::test]
    async fn a_rule_leads_to_the_trial_side() {
        super::a_rule_leads_to_the_trial_side(MAKE).await;
    }

    #[tokio::test]
    async fn a_side_without_members_is_served_by_the_other() {
        super::a_side_without_members_is_served_by_the_other(MAKE).await;
    }

    #[tokio::test]
    async fn a_split_ends_and_every_request_is_answered() {
        super::a_split_ends_and_every_request_is_answered(MAKE).await;
    }

    #[tokio::test]
    async fn a_trial_is_given_up_and_every_request_is_answered() {
        super::a_trial_is_given_up_and_every_request_is_answered(MAKE).await;
    }

    #[tokio::test]
    async fn latency_is_counted_for_each_member() {
        let split = split("0%", None, &[]);
        let mut bench = divided(MAKE, &split).await.expect("a bench");
        for _ in 0..10 {
            ask(&bench, "").await;
        }
        let pool = bench.until("counted", |pool| member(pool, 0).requests >= 10).await;
        let latency = |index| member(&pool, index).latency.clone().expect("a latency");
        assert_eq!((latency(0).total(), latency(1).total()), (10, 0));
        assert!(latency(0).quantile(1000).is_some());
    }
}

mod haproxy {
    use super::*;

    const MAKE: Make = Front::haproxy_split;

    #[tokio::test]
    async fn a_share_is_what_was_asked_for() {
        super::a_share_is_what_was_asked_for(MAKE, false).await;
    }

    #[tokio::test]
    async fn a_user_stays_on_one_side() {
        super::a_user_stays_on_one_side(MAKE, false).await;
    }

    #[tokio::test]
    async fn a_rule_leads_to_the_trial_side() {
        super::a_rule_leads_to_the_trial_side(MAKE).await;
    }

    #[tokio::test]
    async fn a_side_without_members_is_served_by_the_other() {
        super::a_side_without_members_is_served_by_the_other(MAKE).await;
    }

    #[tokio::test]
    async fn a_split_ends_and_every_request_is_answered() {
        super::a_split_ends_and_every_request_is_answered(MAKE).await;
    }

    #[tokio::test]
    async fn a_trial_is_given_up_and_every_request_is_answered() {
        super::a_trial_is_given_up_and_every_request_is_answered(MAKE).await;
    }

    /// One whose request is not whole yet has its backend and no server. It is answered there, and nobody leaves before.
    #[tokio::test]
    async fn who_has_a_backend_and_no_server_yet_is_waited_for() {
        let whole =
            |config: String| config.replace("backend shop:trial\n", "backend shop:trial\n    option http-buffer-request\n");
        let places = places();
        let Some(front) = Front::haproxy_split_with(&places, whole) else { return };
        let mut bench = divided_on(front, &places, &split("100%", None, &[])).await;
        let mut slow = TcpStream::connect(bench.front.listen).await.expect("a connection");
        slow.write_all(b"POST / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nContent-Length: 2\r\n\r\na")
            .await
            .expect("half a request");
        bench.side(1, Side::Stable);
        bench.pool().split = None;
        bench.until("both sides", |pool| pool.split.is_none() && member(pool, 1).is_in()).await;
        for _ in 0..10 {
            let pool = bench.pass().await;
            assert_eq!((member(&pool, 1).side, codes(&pool)), (Side::Trial, Vec::new()), "it stays");
        }
        slow.write_all(b"b").await.expect("the rest");
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        bench.until("one side", |pool| member(pool, 1).side == Side::Stable && codes(pool).is_empty()).await;
    }

    #[tokio::test]
    async fn what_it_was_not_prepared_for_is_known_before_and_nobody_is_put_on_trial() {
        let places = places();
        let Some(front) = Front::haproxy_split(&places) else { return };
        let mut bench = Bench::new(front, &places);
        let pools = std::mem::take(&mut bench.pools);
        bench.driver.reconcile(&bench.pools).await;
        let ability = bench.driver.ability().split;
        let lacks = |split: &TrafficSplit| ability.lacks(&crate::rig::bench::shop(), &split.needs());
        assert!(lacks(&split("5%", Some("cookie uid"), &["header X-Beta = 2", "cookie cohort = a"])).is_empty());
        let tenant = split("5%", None, &["header X-Tenant = acme"]);
        assert_eq!(lacks(&tenant).into_iter().map(|feature| feature.0).collect::<Vec<_>>(), ["header x-tenant"]);
        bench.pools = pools;
        bench.want(0, Ready);
        bench.until("web0 is in", |pool| member(pool, 0).is_in()).await;
        bench.side(1, Side::Trial);
        bench.want(1, Ready);
        bench.pool().split = Some(tenant);
        let report = bench.until_problem(440).await;
        assert_eq!((member(&report, 1).running, ask(&bench, "X-Tenant: acme\r\n").await), (Out, 0));
    }
}

macro_rules! own_hash {
    ($($module:ident: $make:expr),* $(,)?) => {
        $(mod $module {
            const MAKE: crate::rig::front::Make = $make;

            #[tokio::test]
            async fn a_share_is_what_was_asked_for() {
                super::a_share_is_what_was_asked_for(MAKE, false).await;
            }

            #[tokio::test]
            async fn a_user_stays_on_one_side() {
                super::a_user_stays_on_one_side(MAKE, true).await;
            }

            #[tokio::test]
            async fn a_rule_leads_to_the_trial_side() {
                super::a_rule_leads_to_the_trial_side(MAKE).await;
            }

            #[tokio::test]
            async fn a_side_without_members_is_served_by_the_other() {
                super::a_side_without_members_is_served_by_the_other(MAKE).await;
            }

            #[tokio::test]
            async fn a_split_ends_and_every_request_is_answered() {
                super::a_split_ends_and_every_request_is_answered(MAKE).await;
            }

            #[tokio::test]
            async fn a_trial_is_given_up_and_every_request_is_answered() {
                super::a_trial_is_given_up_and_every_request_is_answered(MAKE).await;
            }
        })*
    };
}

own_hash! {
    nginx: crate::rig::front::Front::nginx,
    nginx_new: crate::rig::front::Front::nginx_new,
    envoy: crate::rig::front::Front::envoy_split,
}

/// Whoever is asked for in vain keeps the members on trial out, and nothing is written.
async fn nobody_is_put_on_trial(front: Front, split: &TrafficSplit, lacks: &str) -> Bench {
    let places = places();
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    bench.until("web0 is in", |pool| member(pool, 0).is_in()).await;
    bench.side(1, Side::Trial);
    bench.want(1, Ready);
    bench.pool().split = Some(split.clone());
    let report = bench.until_problem(440).await;
    assert_eq!((member(&report, 1).running, ask(&bench, "").await), (Out, 0));
    let problem = report.members.values().find_map(|member| member.problem.clone()).expect("a problem");
    assert_eq!(problem.seen[0].1, lacks);
    bench
}

#[tokio::test]
async fn an_nginx_that_sends_requests_by_name_divides_nothing() {
    let by_name = |config: String| config.replace("http://$baton_shop", "http://shop");
    let Some(front) = Front::nginx_with(by_name) else { return };
    let five = split("5%", None, &[]);
    let bench = nobody_is_put_on_trial(front, &five, "share").await;
    let lacks = bench.driver.ability().split.lacks(&crate::rig::bench::shop(), &five.needs());
    assert_eq!(lacks, five.needs(), "known before anything is asked of it");
}

#[tokio::test]
async fn an_envoy_whose_routes_are_not_baton_s_divides_nothing() {
    let Some(front) = Front::envoy(&[]) else { return };
    let five = split("5%", None, &[]);
    let bench = nobody_is_put_on_trial(front, &five, "share").await;
    let lacks = bench.driver.ability().split.lacks(&crate::rig::bench::shop(), &five.needs());
    assert_eq!(lacks, five.needs(), "known before anything is asked of it");
}

/// What can be divided is known before there is a pool; and routes that their owner changes are divided as before.
#[tokio::test]
async fn an_envoy_follows_its_owner_s_routes() {
    let places = places();
    let Some(front) = Front::envoy_split(&places) else { return };
    let mut bench = Bench::new(front, &places);
    let pools = std::mem::take(&mut bench.pools);
    bench.driver.reconcile(&bench.pools).await;
    let rules = split("0%", Some("cookie uid"), &["header X-Beta = 1"]);
    assert!(bench.driver.ability().split.lacks(&crate::rig::bench::shop(), &rules.needs()).is_empty());
    bench.pools = pools;
    bench.want(0, Ready);
    bench.until("web0 is in", |pool| member(pool, 0).is_in()).await;
    bench.side(1, Side::Trial);
    bench.want(1, Ready);
    bench.pool().split = Some(rules.clone());
    bench.until("divided", |pool| member(pool, 1).is_in() && is_so(pool, &rules)).await;
    let routes = bench.front.path("routes.json");
    let owners = std::fs::read_to_string(&routes).expect("the routes");
    let timed = owners.replace("\"cluster\": \"shop\",", "\"cluster\": \"shop\", \"timeout\": \"7s\",");
    assert_ne!(timed, owners);
    std::fs::write(&routes, &timed).expect("the routes");
    let written = bench.front.path("eds/~routes.json");
    let follows = || std::fs::read_to_string(&written).is_ok_and(|text| text.contains("7s"));
    bench.until("taken over", |pool| follows() && is_so(pool, &rules)).await;
    assert_eq!((ask(&bench, "X-Beta: 1\r\n").await, ask(&bench, "").await), (1, 0));
    // What cannot be read changes nothing, and is said.
    std::fs::write(&routes, "{").expect("the routes");
    bench.driver.reconcile(&bench.pools).await;
    let said: Vec<u16> = bench.driver.notes().iter().map(|note| note.code.0).collect();
    assert_eq!(said, [451]);
    assert_eq!((ask(&bench, "X-Beta: 1\r\n").await, ask(&bench, "").await), (1, 0));
}

#[tokio::test]
async fn a_header_that_nginx_drops_leads_nowhere() {
    let Some(front) = Front::nginx(&[]) else { return };
    let rule = split("0%", None, &["header X_Beta = 1", "header X-Other = 1"]);
    nobody_is_put_on_trial(front, &rule, "header x_beta").await;
}

/// Each reload costs an nginx before 1.27.4 the connections that clients keep: a step is one, and it keeps the members.
#[tokio::test]
async fn a_step_of_an_nginx_is_one_reload() {
    let Some(mut bench) = divided(Front::nginx, &split("0.01%", None, &[])).await else { return };
    let file = |bench: &Bench| std::fs::read_to_string(bench.front.path("baton.conf")).expect("the file");
    let generation = |text: &str| -> u64 {
        let number = text.lines().find_map(|line| line.trim().strip_prefix("add_header Baton-Generation "));
        number.and_then(|number| number.trim_end_matches(';').parse().ok()).expect("a generation")
    };
    let before = file(&bench);
    let next = split("12.34%", None, &[]);
    bench.pool().split = Some(next.clone());
    bench.until("divided anew", |pool| is_so(pool, &next)).await;
    let after = file(&bench);
    assert_eq!(generation(&after), generation(&before) + 1);
    assert!(before.contains("    0.01% trial;\n") && after.contains("    12.34% trial;\n"), "{after}");
}
