//! One process of the built-in proxy takes another's place: no client is refused, and what the other still has is drained, too.

use crate::builtin;
use crate::clients::h2;
use crate::rig::bench::{Bench, codes, member, places};
use crate::rig::load::{self, Load};
use baton_agent::balancer::BalancerConfig;
use baton_core::fleet::spec::MemberState::{Out, Ready};
use http_body_util::Full;
use hyper::Request;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Restarts the agent with another setting, and waits until another process serves.
async fn replace(bench: &mut Bench, fall: u32) {
    let before = bench.until("seen", |_| true).await.balancer;
    if let BalancerConfig::Builtin(config) = &mut bench.front.config {
        config.fall = fall;
    }
    bench.restart_agent();
    let after = bench.until("another process", |pool| pool.balancer != before).await;
    assert!(codes(&after).is_empty(), "{after:?}");
}

/// The control sockets of processes that finish.
fn leaving(bench: &Bench) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(bench.front.path("agent/balancer")).expect("the folder");
    let paths = folder.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.to_string_lossy().contains(".leaving-")).collect()
}

#[tokio::test]
async fn under_load_nothing_is_refused_and_nobody_is_killed_who_has_a_request() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    let load = Load::start(bench.front.listen);
    for round in 0..6u8 {
        let index = usize::from(round % 2);
        // In the middle of a drain, and with the drain in two processes.
        bench.want(index, Out);
        if round % 3 > 0 {
            bench.until("out", |pool| member(pool, index).is_out()).await;
        }
        replace(&mut bench, 10 + u32::from(round)).await;
        bench.until("drained", |pool| member(pool, index).is_drained(Duration::MAX)).await;
        bench.apps[index].kill();
        bench.apps[index].start();
        bench.want(index, Ready);
        bench.until("in again", |pool| member(pool, index).is_in()).await;
    }
    load.stop().await;
    let killed_with = |app: &crate::rig::app::App| app.log.killed_with.load(Ordering::SeqCst);
    assert!(bench.apps.iter().all(|app| killed_with(app) == 0));
    bench.until("nothing is left", |_| true).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !leaving(&bench).is_empty() {
        assert!(Instant::now() < deadline, "still there: {:?}", leaving(&bench));
        bench.pass().await;
    }
}

#[tokio::test]
async fn what_the_process_before_has_in_flight_is_waited_for_and_cut_at_the_deadline() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    bench.want(0, Out);
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
    let mut tunnel = load::open_tunnel(bench.front.listen).await.expect("a tunnel");
    let mut sender = h2(TcpStream::connect(bench.front.listen).await.expect("a connection")).await;
    let served = bench.apps[1].served();
    let request = Request::get("http://shop.example/slow").body(Full::default()).expect("a request");
    let mut slow = sender.clone();
    let answer = tokio::spawn(async move { slow.send_request(request).await });
    bench.apps[1].until_has_more_than(served).await;

    replace(&mut bench, 9).await;
    assert_eq!(leaving(&bench).len(), 1);
    assert_eq!(answer.await.expect("a task").expect("an answer").status(), 200);
    let again = Request::get("http://shop.example/").body(Full::default()).expect("a request");
    sender.send_request(again).await.expect_err("the connection said good-bye");

    // The one before still follows what its successor is told, and is counted with it.
    bench.want(0, Ready);
    bench.until("in again", |pool| member(pool, 0).is_in()).await;
    bench.want(1, Out);
    let seen = bench.until("out", |pool| member(pool, 1).is_out()).await;
    assert_eq!((member(&seen, 1).in_flight, member(&seen, 1).cut), (1, 0));
    tunnel.write_all(b"x").await.expect("the tunnel");
    assert_eq!(tunnel.read_u8().await.expect("the tunnel"), b'x');
    bench.pool().drain_deadline = Duration::from_millis(50);
    let seen = bench.until("cut", |pool| member(pool, 1).is_drained(Duration::MAX)).await;
    assert_eq!(member(&seen, 1).cut, 1, "{seen:?}");
    assert!(tunnel.read_u8().await.is_err(), "it was cut");
    bench.until("gone", |pool| codes(pool).is_empty()).await;
}

#[tokio::test]
async fn a_process_that_finishes_and_cannot_be_asked_keeps_everybody_from_being_stopped() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    let _tunnel = load::open_tunnel(bench.front.listen).await.expect("a tunnel");
    replace(&mut bench, 9).await;
    let socket = leaving(&bench).pop().expect("a process that finishes");
    let pid = socket.to_string_lossy().rsplit('-').next().and_then(|pid| pid.parse().ok()).expect("its pid");
    crate::rig::signal(pid, rustix::process::Signal::STOP);
    bench.want(0, Out);
    bench.until_problem(404).await;
    crate::rig::signal(pid, rustix::process::Signal::KILL);
    bench.until("drained", |pool| codes(pool).is_empty() && member(pool, 0).is_drained(Duration::MAX)).await;
    assert!(leaving(&bench).is_empty());
}

#[tokio::test]
async fn a_process_that_does_not_start_leaves_the_one_before_serving_and_says_why() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    let before = bench.until("seen", |_| true).await.balancer;
    let stranger = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    if let BalancerConfig::Builtin(config) = &mut bench.front.config {
        config.listen.insert("other".parse().expect("a name"), stranger.local_addr().expect("its address"));
    }
    bench.restart_agent();
    let after = bench.until("seen", |_| true).await;
    let notes = bench.driver.notes();
    assert_eq!((&after.balancer, notes[0].code.0), (&before, 448), "{notes:?}");
    assert!(notes[0].seen.iter().any(|(_, seen)| seen.contains("Address already in use")), "{notes:?}");
    load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");

    drop(stranger);
    bench.restart_agent();
    let after = bench.until("another process", |pool| pool.balancer != before).await;
    assert!(codes(&after).is_empty() && bench.driver.notes().is_empty());
    load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
}

#[tokio::test]
async fn killed_right_after_the_handover_it_is_started_anew() {
    let places = places();
    let mut bench = Bench::serving(builtin(), &places).await;
    let _tunnel = load::open_tunnel(bench.front.listen).await.expect("a tunnel");
    replace(&mut bench, 9).await;
    let serving = bench.until("seen", |_| true).await.balancer;
    bench.front.kill(&serving);
    let after = bench.until("another", |pool| pool.balancer != serving).await;
    assert_eq!(after.members.values().map(|one| one.in_flight).sum::<u64>(), 1, "the tunnel of the first one");
    load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
}
