//! What only HAProxy has: reloads, a socket that may be anything, other people's servers.

use crate::rig::app::{App, leaving_some_unanswered};
use crate::rig::bench::{Bench, codes, member, places, shop};
use crate::rig::front::Front;
use crate::rig::load::{self, Load, open_tunnel};
use crate::split::{divided_on, split};
use baton_agent::balancer::BalancerConfig;
use baton_core::fleet::report::PoolReport;
use baton_core::fleet::spec::MemberState::{Out, Ready};
use baton_core::fleet::split::Side;
use baton_core::name::PoolName;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Says something to HAProxy as an operator would.
fn operator(front: &Front, command: &str) -> String {
    let mut stream = UnixStream::connect(front.path("stats.sock")).expect("the socket");
    stream.write_all(format!("{command}\n").as_bytes()).expect("a command");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn without_master(mut front: Front) -> Front {
    if let BalancerConfig::Haproxy(config) = &mut front.config {
        config.master_socket = None;
    }
    front
}

async fn reloaded(bench: &mut Bench, before: &str) {
    bench.front.reload();
    bench.until("reloaded", |pool| pool.balancer != before).await;
}

#[tokio::test]
async fn requests_of_a_worker_from_before_a_reload_hold_the_drain() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    holds_over_a_reload(Bench::serving(front, &places).await).await;
}

#[tokio::test]
async fn without_a_master_socket_an_old_process_holds_the_drain() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    holds_over_a_reload(Bench::serving(without_master(front), &places).await).await;
}

async fn holds_over_a_reload(mut bench: Bench) {
    bench.want(1, Out);
    bench.until("one is out", |pool| member(pool, 1).is_out()).await;
    let mut stream = load::open_tunnel(bench.front.listen).await.expect("a tunnel through web0");
    let before = bench.until("settled", |_| true).await.balancer;
    bench.want(1, Ready);
    bench.until("both in", |pool| member(pool, 1).is_in()).await;
    reloaded(&mut bench, &before).await;
    bench.want(0, Out);
    let report = bench.until("out", |pool| member(pool, 0).is_out()).await;
    assert_eq!(member(&report, 0).in_flight.min(1), 1, "the new worker says zero, the old one has the stream");
    drop(bench.until("still held", |pool| member(pool, 0).in_flight > 0).await);
    tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("the client is done");
    drop(stream);
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::from_secs(30))).await;
}

#[tokio::test]
async fn an_idle_client_of_an_old_worker_holds_the_drain_as_it_may_still_send() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let (mut idle, mut other) = (None, None);
    load::get(&mut idle, bench.front.listen, "/", None).await.expect("an answer");
    load::get(&mut other, bench.front.listen, "/", None).await.expect("an answer");
    let before = bench.until("settled", |_| true).await.balancer;
    reloaded(&mut bench, &before).await;
    bench.want(0, Out);
    let report = bench.until("out", |pool| member(pool, 0).is_out()).await;
    assert_eq!(member(&report, 0).in_flight, 2, "either may still be routed there");
    let served = bench.apps[0].served();
    load::get(&mut idle, bench.front.listen, "/", None).await.expect("an answer");
    load::get(&mut other, bench.front.listen, "/", None).await.expect("an answer");
    assert_eq!(bench.apps[0].served(), served + 1, "and one of them was, although the new worker has it out");
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::from_secs(30))).await;
}

#[tokio::test]
async fn the_deadline_cuts_streams_of_old_workers_too() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::new(front, &places);
    bench.pool().drain_deadline = Duration::from_millis(300);
    bench.want(0, Ready);
    let before = bench.until("in", |pool| member(pool, 0).is_in()).await.balancer;
    let mut stream = load::open_tunnel(bench.front.listen).await.expect("a tunnel");
    reloaded(&mut bench, &before).await;
    bench.want(0, Out);
    let report = bench.until("cut", |pool| member(pool, 0).cut > 0 && member(pool, 0).in_flight == 0).await;
    assert_eq!(member(&report, 0).cut, 1);
    assert!(tokio::io::AsyncReadExt::read_u8(&mut stream).await.is_err());
}

#[tokio::test]
async fn reloads_under_load_in_the_middle_of_drains_lose_nothing() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let load = Load::start(bench.front.listen);
    for cycle in 0..4 {
        let index = cycle % 2;
        bench.want(index, Out);
        bench.front.reload();
        bench.until("drained", |pool| member(pool, index).is_drained(Duration::from_secs(30))).await;
        bench.apps[index].kill();
        bench.apps[index].start();
        bench.want(index, Ready);
        bench.until("in again", |pool| member(pool, index).is_in()).await;
    }
    load.stop().await;
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let path = bench.front.path("haproxy.cfg");
    let config = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, format!("{config}\nnonsense\n")).expect("the configuration");
    bench.front.reload();
    bench.want(0, Out);
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
}

#[tokio::test]
async fn a_restart_that_forgot_is_set_right_and_not_believed_again() {
    let places = places();
    let servers: String =
        places.iter().zip(0..).map(|(address, index)| format!("    server s{index} {address}\n")).collect();
    let forgetful =
        |config: String| config.replace("load-server-state-from-file global", "load-server-state-from-file none");
    let Some(front) = Front::haproxy_with(&servers, forgetful) else { return };
    let mut bench = Bench::serving(front, &places).await;
    bench.want(0, Out);
    let before = bench.until("out", |pool| member(pool, 0).is_out()).await.balancer;
    // Old enough that a process started now has had the chance to read it.
    let state = fs::File::options().append(true).open(bench.front.path("servers.state")).expect("the state file");
    state.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).expect("its time");
    bench.front.kill(&before);
    bench.front.start();
    let report = bench.until_problem(417).await;
    assert_eq!((member(&report, 0).running, member(&report, 0).on_disk), (Out, Ready), "out now, in after a restart");
}

#[tokio::test]
async fn a_socket_that_is_gone_says_so_and_what_is_wanted_out_is_out_on_disk() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let before = bench.until("settled", |_| true).await.balancer;
    bench.front.kill(&before);
    fs::remove_file(bench.front.path("stats.sock")).ok();
    bench.want(0, Out);
    let report = bench.until_problem(402).await;
    assert!(report.members.is_empty(), "nothing is known");
    let served = bench.apps[0].served();
    bench.front.start();
    for _ in 0..20 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("the other member serves");
    }
    assert_eq!(bench.apps[0].served(), served);
    bench.until("out", |pool| member(pool, 0).is_out()).await;
}

#[tokio::test]
async fn a_socket_that_answers_garbage_or_nothing_says_so() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let before = bench.until("settled", |_| true).await.balancer;
    bench.front.kill(&before);
    let path = bench.front.path("stats.sock");
    fs::remove_file(&path).ok();
    let listener = UnixListener::bind(&path).expect("the socket's place");
    bench.until_problem(404).await;
    let answering = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            stream.expect("a connection").write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n\n\n\n\n\n\n").ok();
        }
    });
    // The first connection is the one that got no answer before.
    bench.until_problem(404).await;
    answering.join().expect("it answered");
}

#[tokio::test]
async fn a_socket_without_admin_level_is_named() {
    let places = places();
    let operator_level = |config: String| config.replace("level admin", "level operator");
    let Some(front) = Front::haproxy_with(&format!("    server s0 {}\n", places[0]), operator_level) else { return };
    let mut bench = Bench::new(front, &places[..1]);
    let report = bench.until_problem(405).await;
    assert!(report.problem.expect("a problem").help.as_ref().expect("help").contains("level admin"));
}

#[tokio::test]
async fn a_socket_over_tcp_is_refused() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    for address in ["127.0.0.1:9999", "ipv4@127.0.0.1:9999"] {
        let BalancerConfig::Haproxy(mut config) = front.config.clone() else { panic!("HAProxy") };
        config.socket = address.into();
        let refused = baton_agent::balancer::open(BalancerConfig::Haproxy(config), &front.path("agent"));
        let problem = refused.expect_err("it is refused");
        assert_eq!((problem.code.0, problem.help.as_ref().expect("help").contains("mode 600")), (439, true));
    }
}

#[tokio::test]
async fn a_socket_that_the_agent_may_not_open_is_named() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    fs::set_permissions(bench.front.path("stats.sock"), fs::Permissions::from_mode(0o000)).expect("a mode");
    // Root opens everything: a thread gives that up for itself.
    let asking = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).expect("nobody");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let report = runtime.block_on(bench.pass());
        // Given back, as nobody may not end HAProxy either.
        (codes(&report), bench)
    });
    let (codes, _bench) = asking.join().expect("an answer");
    assert_eq!(codes, [403]);
}

#[tokio::test]
async fn a_static_algorithm_is_named_when_a_weight_is_asked_of_it() {
    let places = places();
    let fixed = |config: String| config.replace("balance roundrobin", "balance static-rr");
    let servers = format!("    server s0 {} disabled\n    server s1 {} disabled\n", places[0], places[1]);
    let Some(front) = Front::haproxy_with(&servers, fixed) else { return };
    let mut bench = Bench::new(front, &places);
    let are_in = |pool: &PoolReport| (0..2).all(|index| member(pool, index).is_in());
    (0..2).for_each(|index| bench.want(index, Ready));
    bench.until("in", |pool| are_in(pool) && codes(pool).is_empty()).await;
    bench.pool().members.values_mut().for_each(|member| member.weight = 3);
    let report = bench.until_problem(438).await;
    let problem = member(&report, 0).problem.clone().expect("a problem");
    assert!(problem.seen.iter().any(|(_, seen)| seen.contains("static LB algorithm")), "{problem:?}");
    // Its map has room for the weights of haproxy.cfg: a larger one in the state file is the end of a HAProxy that starts.
    bench.pool().members.values_mut().for_each(|member| member.weight = 256);
    let report = bench.until_problem(438).await;
    let problem = member(&report, 0).problem.clone().expect("a problem");
    let read_back = problem.seen.iter().find(|(what, _)| what == "read back").map(|(_, seen)| seen.as_str());
    assert_eq!(read_back, Some("Ready weight 1, after a restart Ready weight 1"), "{problem:?}");
    let identity = bench.until("seen", |_| true).await.balancer;
    bench.front.kill(&identity);
    bench.front.start();
    bench.until("it starts, and has them in", |pool| pool.balancer != identity && are_in(pool)).await;
}

#[tokio::test]
async fn a_consistent_hash_takes_weights_and_keeps_them() {
    let places = places();
    let hashed = |config: String| config.replace("balance roundrobin", "balance source\n    hash-type consistent");
    let Some(front) = Front::haproxy_with(&format!("    server s0 {} disabled\n", places[0]), hashed) else { return };
    let mut bench = Bench::new(front, &places[..1]);
    bench.pool().members.values_mut().for_each(|member| member.weight = 100);
    bench.want(0, Ready);
    bench.until("in with its weight", |pool| member(pool, 0).is_in() && codes(pool).is_empty()).await;
    let identity = bench.until("seen", |_| true).await.balancer;
    bench.front.kill(&identity);
    bench.front.start();
    bench.until("so again", |pool| pool.balancer != identity && member(pool, 0).is_in() && codes(pool).is_empty()).await;
}

#[tokio::test]
async fn a_server_with_an_agent_check_is_refused_and_left_alone() {
    let places = places();
    let servers = format!("    server s0 {} agent-check agent-port 9\n    server s1 {} disabled\n", places[0], places[1]);
    let Some(front) = Front::haproxy_with(&servers, |config| config) else { return };
    let mut bench = Bench::new(front, &places);
    bench.want(1, Ready);
    let report = bench.until_problem(408).await;
    assert_eq!(member(&report, 0).running, Ready, "reported as it is, not as it was asked for");
    bench.until("the other is in", |pool| member(pool, 1).is_in()).await;
}

#[tokio::test]
async fn a_pool_or_a_server_that_haproxy_does_not_have_is_named() {
    let places = places();
    let Some(front) = Front::haproxy(&places[..1]) else { return };
    let mut bench = Bench::new(front, &places);
    let other: PoolName = "other".parse().unwrap();
    let spec = bench.pool().clone();
    bench.pools.insert(other.clone(), spec);
    bench.want(0, Ready);
    bench.want(1, Ready);
    bench.until("settled", |_| true).await;
    let mut reports = bench.driver.reconcile(&bench.pools).await;
    let unknown = reports.remove(&other).expect("its report").problem.expect("a problem");
    assert_eq!((unknown.code.0, unknown.what.contains("`other`")), (406, true));
    let report = bench.until_problem(407).await;
    assert!(member(&report, 0).is_in(), "one unknown server does not keep the others out");
    let missing = member(&report, 1).problem.clone().expect("a problem");
    assert_eq!(missing.help.clone().expect("help"), format!("add to `backend shop`:  server web1-0 {} disabled", places[1]));
}

/// Asked before the first deploy, when no pool is there yet, and after it.
#[tokio::test]
async fn the_servers_that_haproxy_has_are_told_before_anything_is_asked_of_it() {
    let places = places();
    let Some(front) = Front::haproxy_split(&places[..1]) else { return };
    let mut bench = Bench::new(front, &places);
    let pools = std::mem::take(&mut bench.pools);
    bench.driver.reconcile(&bench.pools).await;
    let sides = |bench: &Bench| {
        let servers = bench.driver.ability().servers.remove(&shop()).expect("its servers");
        [servers.stable, servers.trial].map(|side| side.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(sides(&bench), [&places[..1], &places[..1]]);
    bench.pools = pools;
    bench.want(0, Ready);
    bench.until("settled", |pool| member(pool, 0).is_in()).await;
    assert_eq!(sides(&bench), [&places[..1], &places[..1]]);
}

/// A stream from the time when the member was on trial goes on over the end of that, and over an agent that begins anew.
#[tokio::test]
async fn what_is_open_on_the_other_side_counts_from_the_first_look_of_an_agent_on() {
    let places = places();
    let Some(front) = Front::haproxy_split(&places) else { return };
    let mut bench = divided_on(front, &places, &split("100%", None, &[])).await;
    let stream = open_tunnel(bench.front.listen).await.expect("a stream");
    bench.side(1, Side::Stable);
    bench.pool().split = None;
    bench.until("one side", |pool| pool.split.is_none() && member(pool, 1).side == Side::Stable).await;
    bench.want(1, Out);
    bench.until("out", |pool| member(pool, 1).is_out()).await;
    bench.restart_agent();
    let first = bench.pass().await;
    assert_eq!((member(&first, 1).is_out(), member(&first, 1).in_flight), (true, 1), "{first:#?}");
    drop(stream);
    bench.until("drained", |pool| member(pool, 1).is_drained(Duration::MAX)).await;
}

#[tokio::test]
async fn two_servers_at_one_address_are_refused() {
    let places = places();
    let servers = format!("    server a {0} disabled\n    server b {0} disabled\n", places[0]);
    let Some(front) = Front::haproxy_with(&servers, |config| config) else { return };
    let mut bench = Bench::new(front, &places[..1]);
    bench.want(0, Ready);
    bench.until_problem(415).await;
}

#[tokio::test]
async fn a_member_that_another_backend_routes_to_is_not_out() {
    let places = places();
    let also = |config: String| format!("{config}\nbackend also\n    server x {}\n", places[0]);
    let servers = format!("    server s0 {} disabled\n", places[0]);
    let Some(front) = Front::haproxy_with(&servers, also) else { return };
    let mut bench = Bench::new(front, &places[..1]);
    let report = bench.until_problem(416).await;
    assert_eq!(member(&report, 0).running, Ready);
    operator(&bench.front, "set server also/x state maint");
    bench.until("out", |pool| member(pool, 0).is_out() && codes(pool).is_empty()).await;
}

#[tokio::test]
async fn servers_of_other_people_are_left_alone_in_haproxy_and_on_disk() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let foreign = "3 shop 9 theirs 127.0.0.1 0 1 1 1 1 1 0 0 8 0 0 0 - 9 - 0 0 - - 0\n";
    operator(&front, "set server shop/s1 state ready");
    fs::write(front.path("servers.state"), format!("1\n# be_id\n{foreign}")).expect("the state file");
    let mut bench = Bench::new(front, &places[..1]);
    bench.want(0, Ready);
    bench.until("in", |pool| member(pool, 0).is_in()).await;
    bench.want(0, Out);
    bench.until("out", |pool| member(pool, 0).is_out()).await;
    let state = fs::read_to_string(bench.front.path("servers.state")).expect("the state file");
    assert!(state.contains(foreign.trim()) && state.contains(" s0 ") && !state.contains(" s1 "), "{state}");
    assert!(
        operator(&bench.front, "show stat -1 4 -1")
            .lines()
            .any(|line| line.starts_with("shop,s1,") && line.contains("no check"))
    );
}

/// What HAProxy says of the pool as a whole in a column of its statistics.
fn counted(front: &Front, column: &str) -> u64 {
    let listing = operator(front, "show stat -1 2 -1");
    let at = listing.lines().next().and_then(|header| header.split(',').position(|name| name == column)).expect("a column");
    let line = listing.lines().find(|line| line.starts_with("shop,")).expect("the backend");
    line.split(',').nth(at).expect("a field").parse().expect("a number")
}

/// A request on a kept connection that the application leaves unanswered. The other application answers it.
async fn left(front: &Front) {
    let (mut connection, mut answered) = (None, 0);
    load::get(&mut connection, front.listen, "/", None).await.expect("an answer");
    let failure = loop {
        if let Err(failure) = load::get(&mut connection, front.listen, "/leave", None).await {
            break failure;
        }
        answered += 1;
        assert!(answered < 10, "the application answers it");
    };
    assert!(failure.starts_with(load::CLOSED_WHILE_KEPT), "{failure}");
}

/// HAProxy closes the client's connection without a word then, and no counter of its own says so.
#[tokio::test]
async fn requests_that_the_application_leaves_unanswered_on_kept_connections_are_its_failures() {
    let places = places();
    let Some(front) = Front::haproxy(&places) else { return };
    let mut bench = Bench::without_apps(front, &places);
    leaving_some_unanswered(places[0]).await;
    let mut other = App::at(places[1]);
    other.start();
    bench.want(0, Ready);
    bench.want(1, Ready);
    bench.until("both are in", |pool| [0, 1].iter().all(|index| member(pool, *index).is_in())).await;
    for _ in 0..3 {
        left(&bench.front).await;
    }
    let all = |pool: &PoolReport| [0, 1].map(|index| member(pool, index).errors);
    let report = bench.until("counted", |pool| all(pool)[0] >= 3).await;
    assert_eq!(all(&report), [3, 0]);
    let requests: u64 = report.members.values().map(|member| member.requests).sum();
    assert_eq!(requests, counted(&bench.front, "stot"), "each is a request, too");
    // A client that leaves is nobody's failure.
    for request in ["GET /slow HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 9\r\n", "GET / HTTP/1.1\r\n"] {
        let mut client = std::net::TcpStream::connect(bench.front.listen).expect("a connection");
        client.write_all(format!("{request}Host: shop.example\r\n\r\n").as_bytes()).expect("a request");
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while counted(&bench.front, "cli_abrt") == 0 || counted(&bench.front, "scur") > 0 {
        assert!(Instant::now() < deadline, "they are still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    left(&bench.front).await;
    let report = bench.until("counted", |pool| all(pool)[0] >= 4).await;
    assert_eq!(all(&report), [4, 0]);
    // And while the agent is away.
    left(&bench.front).await;
    bench.restart_agent();
    let report = bench.until("counted by the next agent", |pool| all(pool)[0] >= 5).await;
    assert_eq!(all(&report), [5, 0]);
    bench.pass().await;
    let report = bench.until("looked at again", |_| true).await;
    assert_eq!(all(&report), [5, 0]);
}
