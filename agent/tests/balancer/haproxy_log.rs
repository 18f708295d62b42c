//! What HAProxy logs of its requests: how long answers took, whose word for it counts, and what is said when nobody hears it.

use crate::rig::bench::{Bench, codes, member, places};
use crate::rig::front::Front;
use crate::rig::load;
use baton_agent::balancer::BalancerConfig;
use baton_core::fleet::latency::Latency;
use baton_core::fleet::report::PoolReport;
use baton_core::problem::Problem;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Where the agent listens.
fn requests(front: &Front) -> SocketAddr {
    let BalancerConfig::Haproxy(config) = &front.config else { panic!("haproxy") };
    config.requests.expect("an address")
}

/// Answers that were timed.
fn timed(pool: &PoolReport) -> u64 {
    pool.members.values().filter_map(|member| member.latency.as_deref()).map(Latency::total).sum()
}

/// How long the slowest one took at least.
fn slowest(pool: &PoolReport) -> Option<Duration> {
    pool.members.values().filter_map(|member| member.latency.as_ref()?.quantile(1000)).max()
}

fn is_known(pool: &PoolReport) -> bool {
    pool.members.values().all(|member| member.latency.is_some())
}

async fn ask(front: &Front, times: usize) {
    for _ in 0..times {
        load::get(&mut None, front.listen, "/", None).await.expect("an answer");
    }
}

fn note(bench: &Bench) -> Option<Problem> {
    bench.driver.notes().into_iter().find(|note| note.code.0 == 449)
}

/// The bench of a configuration without some of its lines, and what it says once HAProxy answered enough.
async fn without(lines: &[&str]) -> Option<(Bench, Problem)> {
    let places = places();
    let servers = places.iter().enumerate().map(|(index, at)| format!("    server s{index} {at} disabled\n"));
    let front = Front::haproxy_with(&servers.collect::<String>(), |config| {
        let kept = config.lines().filter(|line| !lines.iter().any(|without| line.trim_start().starts_with(without)));
        kept.map(|line| format!("{line}\n")).collect()
    })?;
    let mut bench = Bench::serving(front, &places).await;
    ask(&bench.front, 30).await;
    let report = bench.until("not known", |pool| pool.members.values().all(|member| member.latency.is_none())).await;
    assert_eq!(codes(&report), Vec::<u16>::new(), "it keeps nothing from being done");
    assert_eq!(report.members.values().map(|member| member.requests).sum::<u64>(), 30, "HAProxy counts by itself");
    let note = note(&bench).expect("a note");
    Some((bench, note))
}

#[tokio::test]
async fn answers_are_timed_by_member_also_those_of_a_worker_from_before_a_reload() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    ask(&bench.front, 30).await;
    let before = bench.until("timed", |pool| timed(pool) == 30).await;
    assert!(note(&bench).is_none(), "{:?}", bench.driver.notes());
    let ends = load::open_tunnel(bench.front.listen).await.expect("a tunnel through the worker there is");
    // A line of a worker that has ended may be nobody's any more.
    let stays = load::open_tunnel(bench.front.listen).await.expect("another one");
    bench.front.reload();
    bench.until("reloaded", |pool| pool.balancer != before.balancer).await;
    ask(&bench.front, 10).await;
    load::get(&mut None, bench.front.listen, "/slow", None).await.expect("an answer");
    drop(bench.until("timed by the new worker", |pool| timed(pool) == 41).await);
    drop(ends);
    let after = bench.until("timed by the old one", |pool| timed(pool) == 42).await;
    drop(stays);
    assert!(slowest(&after) >= Some(Duration::from_millis(100)), "{after:#?}");
    // Each where it was given.
    assert!(
        [0, 1].iter().all(|index| member(&after, *index).latency.as_ref().is_some_and(|it| it.total() > 10)),
        "{after:#?}"
    );
}

#[tokio::test]
async fn what_a_stranger_says_of_a_member_counts_for_nothing() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let before = bench.until("settled", |_| true).await.balancer;
    let stranger = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let line = "<134>Nov 28 13:13:16 haproxy[4727]: 127.0.0.1:57158 [28/Nov/2026:13:13:16.712] shop shop/s0 0/0/0/9000/9000 200 116 \
        - - ---- 1/1/0/0/0 0/0 \"GET / HTTP/1.1\"\n";
    for _ in 0..50 {
        stranger.send_to(line.as_bytes(), requests(&bench.front)).expect("a datagram");
    }
    ask(&bench.front, 2).await;
    let report = bench.until("timed", |pool| timed(pool) >= 2).await;
    assert_eq!(timed(&report), 2);
    assert!(slowest(&report) < Some(Duration::from_secs(1)), "{report:#?}");
    assert_eq!(report.balancer, before, "nothing is missing");
}

#[tokio::test]
async fn a_haproxy_that_does_not_say_its_requests_has_answers_of_unknown_length() {
    let Some((mut bench, note)) = without(&["log 127."]).await else { return };
    let line = format!("log {} local0", requests(&bench.front));
    assert!(note.help.as_ref().is_some_and(|help| help.ends_with(&line)), "{note:?}");
    let path = bench.front.path("haproxy.cfg");
    let config = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, config.replacen("global\n", &format!("global\n    {line}\n"), 1)).expect("the configuration");
    let before = bench.until("settled", |_| true).await.balancer;
    bench.front.reload();
    bench.until("reloaded", |pool| pool.balancer != before).await;
    ask(&bench.front, 30).await;
    bench.until("known", is_known).await;
    assert!(self::note(&bench).is_none());
}

#[tokio::test]
async fn lines_of_another_format_are_not_taken_for_silence() {
    let Some((_, note)) = without(&["option httplog"]).await else { return };
    assert!(note.seen.iter().any(|(_, seen)| seen == "lines that are no requests"), "{note:?}");
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_said_until_it_is_free() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let held = UdpSocket::bind(requests(&front)).expect("the port");
    let mut bench = Bench::serving(front, &places).await;
    assert!(note(&bench).is_some_and(|note| note.what.contains("cannot listen")), "{:?}", bench.driver.notes());
    drop(held);
    bench.until("known", is_known).await;
    assert!(note(&bench).is_none());
}

/// HAProxy itself goes on counting; that some answers are not timed is said by its identity.
#[tokio::test]
async fn an_agent_that_was_away_counts_anew() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    ask(&bench.front, 10).await;
    let before = bench.until("timed", |pool| timed(pool) == 10).await;
    let elsewhere = Bench::without_apps(Front::haproxy(&places).expect("another haproxy"), &places);
    // Its socket has to be closed first: two agents never listen on one port.
    drop(std::mem::replace(&mut bench.driver, elsewhere.driver));
    ask(&bench.front, 10).await;
    bench.restart_agent();
    bench.until("settled", |_| true).await;
    ask(&bench.front, 10).await;
    let after = bench.until("timed", |pool| timed(pool) == 10).await;
    assert_ne!(after.balancer, before.balancer, "they are missing, and it is said");
    assert_eq!(after.members.values().map(|member| member.requests).sum::<u64>(), 30);
}
