//! What only nginx has: a configuration it may refuse, reloads that fail in silence, workers from before.

use crate::rig::bench::{Bench, codes, member, places};
use crate::rig::front::Front;
use crate::rig::load::{self, Load};
use baton_agent::balancer::BalancerConfig;
use baton_core::fleet::report::{MemberReport, PoolReport};
use baton_core::fleet::spec::MemberState::{Out, Ready};
use std::fs;
use std::net::TcpListener;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn file(bench: &Bench) -> String {
    fs::read_to_string(bench.front.path("baton.conf")).expect("the file")
}

#[tokio::test]
async fn what_nginx_refuses_is_said_in_its_words_and_the_old_configuration_serves_on() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let good = fs::read_to_string(bench.front.path("nginx.conf")).expect("the configuration");
    fs::write(bench.front.path("nginx.conf"), good.replace("events {", "evnets {")).expect("the configuration");
    let before = file(&bench);
    bench.want(0, Out);
    let report = bench.until_problem(430).await;
    let problem = report.problem.expect("a problem");
    assert!(problem.seen[0].1.contains("unknown directive \"evnets\""), "{problem:?}");
    assert_eq!(file(&bench), before, "a restart finds what it found before");
    bench.apps[0].until_served(bench.front.listen).await;
    fs::write(bench.front.path("nginx.conf"), good).expect("the configuration");
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
}

#[tokio::test]
async fn a_reload_that_fails_in_silence_is_found_out() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let stranger = TcpListener::bind(crate::rig::place()).expect("a port");
    let taken = stranger.local_addr().expect("its address");
    let good = fs::read_to_string(bench.front.path("nginx.conf")).expect("the configuration");
    let (http, _) = good.rsplit_once('}').expect("a block");
    fs::write(bench.front.path("nginx.conf"), format!("{http}server {{ listen {taken}; }}\n}}\n"))
        .expect("the configuration");
    let before = file(&bench);
    bench.want(0, Out);
    let report = bench.until_problem(431).await;
    assert!(report.problem.expect("a problem").help.as_ref().expect("help").contains("port"));
    assert_eq!(file(&bench), before);
    bench.apps[0].until_served(bench.front.listen).await;
    drop(stranger);
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
}

#[tokio::test]
async fn a_file_that_nginx_does_not_include_is_named_before_anything_changes() {
    let places = places();
    let own = "upstream shop { server 127.0.0.1:1; }\n    upstream till { server 127.0.0.1:1; }\n    \
        map \"\" $baton_shop { default shop; }\n    map \"\" $baton_till { default till; }\n    #";
    let Some(front) = Front::nginx_with(|config| config.replacen("include", own, 1)) else { return };
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    let report = bench.until_problem(435).await;
    assert!(report.problem.expect("a problem").help.as_ref().expect("help").contains("include "));
}

#[tokio::test]
async fn a_file_of_somebody_else_is_left_alone() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let theirs = "upstream shop { server 127.0.0.1:1; }\nupstream till { server 127.0.0.1:1; }\n";
    fs::write(front.path("baton.conf"), theirs).expect("a file");
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    bench.until_problem(432).await;
    assert_eq!(file(&bench), theirs);
}

#[tokio::test]
async fn a_stranger_on_the_status_port_is_named() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let BalancerConfig::Nginx(config) = &front.config else { panic!("nginx") };
    let stranger = tokio::net::TcpListener::bind(config.status).await.expect("the port");
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    let report = bench.until_problem(404).await;
    assert!(report.problem.expect("a problem").what.contains("did not answer"));
    let answering = tokio::spawn(async move {
        while let Ok((mut stream, _)) = stream_of(&stranger).await {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.ok();
        }
    });
    let report = bench.until_problem(404).await;
    drop(report);
    answering.abort();
    drop(answering.await);
    bench.until("in", |pool| member(pool, 0).is_in()).await;
}

async fn stream_of(listener: &tokio::net::TcpListener) -> std::io::Result<(tokio::net::TcpStream, std::net::SocketAddr)> {
    listener.accept().await
}

#[tokio::test]
async fn nginx_that_does_not_run_starts_without_the_member_that_should_be_out() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
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
async fn a_file_that_is_gone_is_written_again_so_that_nginx_can_start() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    fs::remove_file(bench.front.path("baton.conf")).expect("the file");
    bench.until("in and on disk", |pool| pool.members.values().all(MemberReport::is_in)).await;
    assert!(file(&bench).contains(&format!("server {} weight=1 max_fails=0;", places[0])));
}

#[tokio::test]
async fn a_request_that_an_old_worker_is_still_reading_holds_the_drain() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let mut upload = tokio::net::TcpStream::connect(bench.front.listen).await.expect("a connection");
    let head = "POST /post HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nContent-Length: 4\r\n\r\n12";
    upload.write_all(head.as_bytes()).await.expect("half a request");
    // It is being read once nginx's answer to a later request is here.
    load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    bench.want(0, Out);
    bench.until("out", |pool| member(pool, 0).is_out()).await;
    let held = bench.until("only the upload holds it", |pool| member(pool, 0).in_flight == 1).await;
    assert!(!member(&held, 0).is_drained(Duration::from_secs(30)), "it may still be sent to the member that is out");
    upload.write_all(b"34").await.expect("the other half");
    let mut answer = String::new();
    upload.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::from_secs(30))).await;
}

#[tokio::test]
async fn a_stream_to_another_member_does_not_hold_the_drain() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let mut bench = Bench::new(front, &places);
    bench.want(0, Ready);
    bench.until("in", |pool| member(pool, 0).is_in()).await;
    let mut stream = load::open_tunnel(bench.front.listen).await.expect("a tunnel through web0");
    bench.want(1, Ready);
    bench.until("both in", |pool| member(pool, 1).is_in()).await;
    bench.want(1, Out);
    bench.until("drained", |pool| member(pool, 1).is_drained(Duration::from_secs(30))).await;
    stream.write_all(b"x").await.expect("the tunnel");
    assert_eq!(stream.read_u8().await.expect("the tunnel"), b'x');
    // An agent that knows nothing of the reloads before still finds whose stream it is.
    bench.want(1, Ready);
    bench.until("both in", |pool| member(pool, 1).is_in()).await;
    bench.want(0, Out);
    bench.until("out", |pool| member(pool, 0).is_out()).await;
    bench.restart_agent();
    bench.until("held", |pool| member(pool, 0).in_flight == 1).await;
    drop(stream);
    bench.until("drained", |pool| member(pool, 0).is_drained(Duration::from_secs(30))).await;
}

#[tokio::test]
async fn reloads_by_people_in_the_middle_of_drains_lose_nothing() {
    let places = places();
    let Some(front) = Front::nginx_new(&places) else { return };
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
async fn putting_back_and_taking_the_next_out_is_one_reload() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    bench.want(0, Out);
    bench.until("out", |pool| member(pool, 0).is_out()).await;
    let generation = |text: String| -> u64 {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("add_header Baton-Generation ")?.strip_suffix(';').map(str::to_owned));
        line.and_then(|number| number.parse().ok()).expect("a generation")
    };
    let before = generation(file(&bench));
    bench.want(0, Ready);
    bench.want(1, Out);
    bench.until("exchanged", |pool| member(pool, 0).is_in() && member(pool, 1).is_out()).await;
    assert_eq!(generation(file(&bench)), before + 1);
}

#[tokio::test]
async fn what_a_reload_costs_is_said() {
    let places = places();
    for (front, expected) in [(Front::nginx(&places), 433), (Front::nginx_new(&places), 0)] {
        let Some(front) = front else { return };
        let mut bench = Bench::serving(front, &places).await;
        let report = bench.until("settled", |_| true).await;
        assert_eq!(codes(&report), Vec::<u16>::new(), "it keeps nothing from being done");
        let notes: Vec<u16> = bench.driver.notes().iter().map(|note| note.code.0).filter(|_| expected != 0).collect();
        assert!(bench.driver.notes().len() <= 1 && notes.iter().all(|code| *code == expected), "{notes:?}");
        assert_eq!(notes.is_empty(), expected == 0);
    }
}

#[tokio::test]
async fn a_member_that_refuses_a_connection_has_failed_though_the_request_was_saved() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    bench.apps[0].kill();
    for _ in 0..20 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("the other member serves");
    }
    let report = bench.until("counted", |pool| member(pool, 1).requests == 20).await;
    let (dead, alive) = (member(&report, 0), member(&report, 1));
    assert!(dead.errors > 0 && dead.errors == dead.requests, "{dead:?}");
    assert_eq!(alive.errors, 0);
    let took = |member: &MemberReport| member.latency.clone().expect("a latency").total();
    assert_eq!((took(dead), took(alive)), (0, 20), "nothing answered is nothing timed");
}

/// nginx's rule: a log nearer to a request keeps those around it from it.
#[tokio::test]
async fn a_server_with_a_log_of_its_own_has_no_traffic_until_it_names_ours_too() {
    let places = places();
    let own_log =
        |config: String| config.replace("        location / {\n", "        access_log own.log;\n        location / {\n");
    let Some(front) = Front::nginx_with(own_log) else { return };
    let mut bench = Bench::serving(front, &places).await;
    for _ in 0..10 {
        load::get(&mut None, bench.front.listen, "/broken", None).await.expect_err("a failure");
    }
    let report = bench.until("settled", |_| true).await;
    assert!(report.members.values().all(|member| (member.requests, member.errors) == (0, 0)), "{report:#?}");
    let note = bench.driver.notes().into_iter().find(|note| note.code.0 == 446).expect("a note");
    let line = note.help.as_ref().expect("help").split_once(": ").expect("a line").1.to_owned();
    let config = fs::read_to_string(bench.front.path("nginx.conf")).expect("the configuration");
    fs::write(bench.front.path("nginx.conf"), config.replace("access_log own.log;", &format!("access_log own.log; {line}")))
        .expect("the configuration");
    bench.want(0, Out);
    bench.until("out", |pool| member(pool, 0).is_drained(Duration::MAX)).await;
    for _ in 0..10 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    }
    bench.until("counted", |pool| member(pool, 1).requests == 10).await;
    assert!(bench.driver.notes().iter().all(|note| note.code.0 != 446));
}

#[tokio::test]
async fn an_nginx_that_logs_by_default_or_not_at_all_keeps_doing_so_and_is_said_not_to_be_counted() {
    // Where it writes by default, only root may.
    let root = rustix::process::geteuid().is_root();
    for http in ["", "access_log off;"].into_iter().filter(|http| root || !http.is_empty()) {
        let places = places();
        let Some(front) = Front::nginx_with(|config| {
            let lines = config.lines().map(|line| if line.trim_start().starts_with("access_log") { http } else { line });
            lines.map(|line| format!("{line}\n")).collect()
        }) else {
            return;
        };
        let mut bench = Bench::serving(front, &places).await;
        load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
        let report = bench.until("settled", |_| true).await;
        assert!(report.members.values().all(|member| member.requests == 0 && member.latency.is_none()), "{report:#?}");
        assert!(!file(&bench).contains("access_log syslog"));
        assert!(bench.driver.notes().iter().any(|note| note.code.0 == 446));
    }
}

#[tokio::test]
async fn what_a_stranger_says_of_a_member_counts_for_nothing() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let BalancerConfig::Nginx(config) = front.config.clone() else { panic!("nginx") };
    let mut bench = Bench::serving(front, &places).await;
    let stranger = std::net::UdpSocket::bind((config.status.ip(), 0)).expect("a socket");
    stranger.connect(config.status).expect("a port");
    let before = bench.until("settled", |_| true).await.balancer;
    for _ in 0..50 {
        stranger.send(format!("<190>baton: shop|{}|500|0.001", places[0]).as_bytes()).expect("a datagram");
    }
    load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    let sum = |pool: &PoolReport| pool.members.values().map(|member| (member.requests, member.errors)).collect::<Vec<_>>();
    let report = bench.until("counted", |pool| sum(pool).iter().any(|(requests, _)| *requests > 0)).await;
    assert!(sum(&report) == [(1, 0), (0, 0)] || sum(&report) == [(0, 0), (1, 0)], "{report:#?}");
    assert_eq!(report.balancer, before, "nothing is missing");
}

/// Whoever reads the counters has to know that some requests are in none of them.
#[tokio::test]
async fn counters_of_an_agent_that_was_away_are_new_ones() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    for _ in 0..10 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    }
    let sum = |pool: &PoolReport| pool.members.values().map(|member| member.requests).sum::<u64>();
    let before = bench.until("counted", |pool| sum(pool) == 10).await;
    let other = Front::nginx(&places).expect("another nginx");
    let away = std::mem::replace(
        &mut bench.driver,
        baton_agent::balancer::open(other.config.clone(), &other.path("agent")).unwrap(),
    );
    drop(away);
    for _ in 0..10 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    }
    bench.restart_agent();
    let first = bench.until("settled", |_| true).await;
    assert_ne!(first.balancer, before.balancer);
    assert_eq!(sum(&first), 0);
    for _ in 0..20 {
        load::get(&mut None, bench.front.listen, "/", None).await.expect("an answer");
    }
    // Each worker finds out by a line of its own that nobody heard the ones before.
    let after = bench.until("counted", |pool| sum(pool) >= 18).await;
    assert_ne!(after.balancer, first.balancer, "they are missing, and it is said");
}

#[tokio::test]
async fn workers_that_outlived_their_master_are_not_believed() {
    let places = places();
    let Some(front) = Front::nginx(&places) else { return };
    let mut bench = Bench::serving(front, &places).await;
    let master: i32 = fs::read_to_string(bench.front.path("nginx.pid")).unwrap().trim().parse().unwrap();
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
    let pid = |pid: i32| rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid(master), rustix::process::Signal::KILL).expect("a kill");
    bench.want(0, Out);
    let report = bench.until_problem(402).await;
    bench.apps[0].until_served(bench.front.listen).await;
    assert!(report.members.is_empty(), "they still route to it, and nobody can tell them otherwise");
    for worker in children.split_ascii_whitespace().filter_map(|worker| worker.parse().ok()) {
        rustix::process::kill_process(pid(worker), rustix::process::Signal::KILL).expect("a kill");
    }
}
