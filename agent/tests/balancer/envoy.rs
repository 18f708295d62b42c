//! What only Envoy has: files it may reject in silence, and clusters whose defaults send requests to who is out.

use crate::rig::bench::{Bench, codes, member, places};
use crate::rig::front::Front;
use crate::rig::load;
use baton_core::fleet::report::{MemberReport, PoolReport};
use baton_core::fleet::spec::MemberState::{Out, Ready};
use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_cluster_that_would_send_requests_to_who_is_out_is_refused() {
    let places = places();
    let panics =
        |config: String| config.replace("healthy_panic_threshold: { value: 0 }", "healthy_panic_threshold: { value: 50 }");
    let Some(front) = Front::envoy_with(panics) else { return };
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    let report = bench.until_problem(437).await;
    assert!(report.problem.expect("a problem").seen[0].1.contains("healthy_panic_threshold"));
}

#[tokio::test]
async fn an_envoy_that_reads_another_file_is_named() {
    let places = places();
    let elsewhere = |config: String| config.replace("eds/shop.json", "eds/till.json");
    let Some(front) = Front::envoy_with(elsewhere) else { return };
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    let report = bench.until_problem(437).await;
    assert!(report.problem.expect("a problem").seen[0].1.contains("eds/shop.json"));
}

#[tokio::test]
async fn a_file_that_envoy_rejects_changes_nothing_and_is_set_right() {
    let places = places();
    let Some(front) = Front::envoy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    for bad in ["{ \"version_info\": ", "{ \"version_info\": \"1\", \"resources\": [{ \"nobody\": 1 }] }"] {
        fs::write(bench.front.path("bad"), bad).expect("a file");
        fs::rename(bench.front.path("bad"), bench.front.path("eds/shop.json")).expect("a file");
        load::get(&mut None, bench.front.listen, "/", None).await.expect("the old one serves");
        let both = |pool: &PoolReport| pool.members.values().all(MemberReport::is_in);
        bench.until("set right", both).await;
    }
    bench.want(0, Out);
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
}

#[tokio::test]
async fn an_envoy_that_does_not_run_starts_without_the_member_that_should_be_out() {
    let places = places();
    let Some(front) = Front::envoy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let before = bench.until("settled", |_| true).await.balancer;
    bench.front.kill(&before);
    bench.want(0, Out);
    let report = bench.until_problem(402).await;
    assert!(report.members.is_empty(), "nothing is known");
    let served = bench.apps[0].served();
    bench.front.start();
    for _ in 0..20 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("the other member serves");
    }
    assert_eq!(bench.apps[0].served(), served);
    bench.until("out", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
}

#[tokio::test]
async fn an_admin_endpoint_that_answers_garbage_or_nothing_says_so() {
    let places = places();
    let Some(front) = Front::envoy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let before = bench.until("settled", |_| true).await.balancer;
    bench.front.kill(&before);
    let path = bench.front.path("admin.sock");
    fs::remove_file(&path).ok();
    let listener = UnixListener::bind(&path).expect("the socket's place");
    let report = bench.until_problem(404).await;
    assert!(report.problem.expect("a problem").what.contains("did not answer"));
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok();
        }
    });
    let says_so = |report: &PoolReport| {
        report.problem.as_ref().is_some_and(|it| it.code.0 == 404 && it.what.contains("is not the balancer"))
    };
    bench.until_any("garbage", says_so).await;
}

#[tokio::test]
async fn a_pool_that_envoy_does_not_have_is_named() {
    let places = places();
    let Some(front) = Front::envoy(&places) else { return };
    let mut bench = Bench::new(front, &places);
    let spec = bench.pool().clone();
    bench.pools.insert("other".parse().expect("a name"), spec);
    bench.want(0, Ready);
    bench.until("the others are served", |pool| member(pool, 0).is_in() && codes(pool).is_empty()).await;
    let reports = bench.driver.reconcile(&bench.pools).await;
    let unknown = reports[&"other".parse().expect("a name")].problem.clone().expect("a problem");
    assert_eq!(unknown.code.0, 406);
    assert!(bench.front.path("eds/other.json").exists(), "it is there for the cluster that is to come");
}

/// The members of a pool that are zones of their own, as the file says.
fn zones(bench: &Bench) -> Vec<String> {
    let text = fs::read_to_string(bench.front.path("eds/shop.json")).expect("the file");
    let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let localities = file["resources"][0]["endpoints"].as_array().expect("endpoints").iter();
    localities.filter_map(|locality| locality["locality"]["zone"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn answers_of_each_member_are_timed() {
    let places = places();
    let Some(front) = Front::envoy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    for path in ["/", "/", "/slow", "/slow"] {
        load::get(&mut None, bench.front.listen, path, None).await.expect("an answer");
    }
    let took = |pool: &PoolReport, index| member(pool, index).latency.clone().expect("a latency");
    let report = bench.until("timed", |pool| took(pool, 0).total() == 2 && took(pool, 1).total() == 2).await;
    for index in [0, 1] {
        let slowest = took(&report, index).quantile(1000).expect("a bound");
        assert!(slowest >= Duration::from_millis(150), "one of two takes 150 ms: {report:#?}");
    }
}

#[tokio::test]
async fn an_envoy_without_a_zone_times_nothing_and_serves_all_the_same() {
    let places = places();
    let Some(front) = Front::envoy_with(|config| config.replace("locality: { zone: edge }", "metadata: {}")) else { return };
    let mut bench = Bench::serving(front, &places).await;
    load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    let sum = |pool: &PoolReport| pool.members.values().map(|member| member.requests).sum::<u64>();
    let report = bench.until("counted", |pool| sum(pool) == 1).await;
    assert!(report.members.values().all(|member| member.latency.is_none()), "{report:#?}");
}

/// For Envoy a member in another zone is another one, whose gauges begin at nothing.
#[tokio::test]
async fn a_member_from_before_there_were_zones_gets_one_when_it_comes_in_anew() {
    let places = places();
    let Some(front) = Front::envoy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let path = bench.front.path("eds/shop.json");
    let mut file: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let localities = file["resources"][0]["endpoints"].as_array_mut().unwrap();
    let endpoints: Vec<_> = localities.drain(..).flat_map(|it| it["lb_endpoints"].as_array().unwrap().clone()).collect();
    localities.push(serde_json::json!({ "lb_endpoints": endpoints }));
    file["version_info"] = "baton-1000".into();
    fs::write(bench.front.path("before"), file.to_string()).expect("the file");
    fs::rename(bench.front.path("before"), &path).expect("the file");
    bench.restart_agent();
    bench.until("timed no more", |pool| pool.members.values().all(|member| member.latency.is_none())).await;
    let mut stream = load::open_tunnel(bench.front.listen).await.expect("a tunnel");
    let held = bench.until("held", |pool| pool.members.values().any(|member| member.in_flight == 1)).await;
    let holder = usize::from(member(&held, 1).in_flight == 1);
    bench.want(holder, Out);
    bench
        .until("out, and seen to hold it", |pool| member(pool, holder).is_out() && member(pool, holder).in_flight == 1)
        .await;
    bench.want(holder, Ready);
    bench.until("in again", |pool| member(pool, holder).is_in()).await;
    assert_eq!(zones(&bench), Vec::<String>::new());
    bench.want(holder, Out);
    bench.until("out", |pool| member(pool, holder).is_out() && member(pool, holder).in_flight == 1).await;
    stream.shutdown().await.expect("an end");
    drop(stream);
    bench.until("drained", |pool| member(pool, holder).is_drained(Duration::MAX)).await;
    bench.want(holder, Ready);
    bench.until("in again", |pool| member(pool, holder).is_in()).await;
    assert_eq!(zones(&bench), [places[holder].to_string()]);
}
