//! What only the built-in proxy has: a process of its own.

use crate::builtin;
use crate::rig::bench::{Bench, codes, member, places};
use crate::rig::load;
use baton_agent::balancer::BalancerConfig;
use baton_agent::balancer::builtin::Balance;
use baton_core::fleet::spec::MemberState::{Out, Ready};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn a_port_taken_by_a_stranger_is_named() {
    let front = builtin();
    let stranger = TcpListener::bind(front.listen).await.expect("the port");
    let mut bench = Bench::new(front, &places());
    let report = bench.until_problem(413).await;
    let problem = report.problem.expect("a problem");
    let log = problem.seen.iter().find(|(label, _)| label == "log").expect("the log");
    assert!(log.1.contains("Address already in use"), "{problem:?}");
    drop(stranger);
    bench.until("started", |pool| codes(pool).is_empty()).await;
}

#[tokio::test]
async fn the_proxy_outlives_its_agent_and_a_drain_goes_on() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    bench.want(1, Out);
    bench.until("out", |pool| member(pool, 1).is_out()).await;
    let mut stream = load::open_tunnel(bench.front.listen).await.expect("a tunnel through web0");
    bench.want(1, Ready);
    bench.want(0, Out);
    let before = bench.until("out", |pool| member(pool, 0).is_out()).await;
    bench.restart_agent();
    let after = bench.until("seen again", |_| true).await;
    assert_eq!((&before.balancer, member(&after, 0).in_flight), (&after.balancer, 1));
    assert!(member(&after, 0).out_for >= member(&before, 0).out_for);
    stream.write_all(b"x").await.expect("the tunnel");
    assert_eq!(stream.read_u8().await.expect("the tunnel"), b'x');
    drop(stream);
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
}

#[tokio::test]
async fn only_its_owner_may_open_the_control_socket() {
    let mut bench = Bench::new(builtin(), &places());
    bench.until("started", |_| true).await;
    let socket = std::fs::metadata(bench.front.path("agent/balancer/builtin.sock")).expect("the socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_refused_and_the_next_request_served() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    let mut stream = TcpStream::connect(bench.front.listen).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ").await.expect("a beginning");
    let mut answer = Vec::new();
    let (mut reading, mut writing) = stream.split();
    let write = async { while writing.write_all(&[b'a'; 4096]).await.is_ok() {} };
    tokio::select! {
        read = reading.read_to_end(&mut answer) => drop(read),
        () = write => {}
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    bench.until("no trace of it", |pool| codes(pool).is_empty()).await;
}

#[tokio::test]
async fn with_no_member_in_it_says_so() {
    let mut bench = Bench::new(builtin(), &places());
    bench.until("started", |_| true).await;
    let failure = load::get(&mut None, bench.front.listen, "/", None).await.expect_err("no member is in");
    assert!(failure.contains("503"), "{failure}");
}

#[tokio::test]
async fn who_stops_answering_gets_nothing_until_it_answers_again_and_never_are_all_kept_out() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    bench.apps[0].kill();
    let down = bench.until("kept out", |pool| member(pool, 0).running == Out).await;
    assert_eq!((codes(&down), member(&down, 0).on_disk, member(&down, 1).running), (vec![414], Ready, Ready));
    for _ in 0..20 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("the other one answers");
    }
    let after = bench.until("settled", |_| true).await;
    assert_eq!(member(&after, 0).requests, member(&down, 0).requests, "it is not even tried");

    bench.apps[1].kill();
    bench
        .until("all are served", |pool| codes(pool).len() == 2 && pool.members.values().all(|one| one.running == Ready))
        .await;

    bench.apps.iter_mut().for_each(|app| app.start());
    bench.until("both answer", |pool| codes(pool).is_empty() && pool.members.values().all(|one| one.running == Ready)).await;
    bench.apps[0].until_served(bench.front.listen).await;
    bench.apps[1].until_served(bench.front.listen).await;
}

#[tokio::test]
async fn a_proxy_that_was_killed_learns_its_checks_again() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    let before = bench.until("settled", |_| true).await;
    bench.front.kill(&before.balancer);
    bench.until("another", |pool| pool.balancer != before.balancer).await;
    bench.apps[1].kill();
    bench.until("kept out", |pool| member(pool, 1).running == Out && codes(pool) == [414]).await;
}

#[tokio::test]
async fn without_checks_everybody_stays_in() {
    let places = places();
    let mut front = builtin();
    if let BalancerConfig::Builtin(config) = &mut front.config {
        config.fall = 0;
    }
    let mut bench = Bench::serving(front, &places).await;
    let control = bench.front.path("agent/balancer/builtin.sock");
    let mut stream = tokio::io::BufReader::new(tokio::net::UnixStream::connect(control).await.expect("the socket"));
    stream.write_all(b"{\"look\":{}}\n").await.expect("a question");
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut stream, &mut line).await.expect("an answer");
    let answer: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert!(answer["checks"].is_null() && answer["pools"]["shop"].is_object(), "{answer}");
    bench.until("in", |pool| codes(pool).is_empty()).await;
}

#[tokio::test]
async fn the_least_busy_member_is_next() {
    let places = places();
    let mut front = builtin();
    if let BalancerConfig::Builtin(config) = &mut front.config {
        config.balance = Balance::LeastRequest;
    }
    let mut bench = Bench::serving(front, &places).await;
    let _tunnel = load::open_tunnel(bench.front.listen).await.expect("a tunnel");
    let busy = usize::from(member(&bench.until("seen", |_| true).await, 1).in_flight == 1);
    let served = [bench.apps[0].served(), bench.apps[1].served()];
    for _ in 0..10 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    }
    assert_eq!(bench.apps[busy].served(), served[busy]);
    assert_eq!(bench.apps[1 - busy].served(), served[1 - busy] + 10);
}
