//! What only the built-in proxy has: a process of its own.

use crate::builtin;
use crate::rig::bench::{Bench, codes, member, places};
use crate::rig::load;
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
