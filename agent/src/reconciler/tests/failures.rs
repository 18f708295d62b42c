//! Failure texts: each way a start can go wrong, and the words people read about it.

use super::host::{self, Host};
use baton_core::fleet::spec::Restart;
use baton_core::problem::Problem;
use baton_core::release::{Probe, Release};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Deploys a release and returns the problem it fails with.
async fn failure(host: &mut Host, release: &Release) -> Problem {
    host.send(&host.spec(1, &[(release, Restart::Never)]));
    let report = host.until("failed", host::failed).await;
    host::problem(&report).clone()
}

/// A release that has little time to become ready.
fn hasty(host: &Host, behaviour: &str) -> Release {
    let mut release = host.release("2.1.0", behaviour);
    release.health.start_timeout = Duration::from_millis(1500);
    release
}

fn seen<'a>(problem: &'a Problem, label: &str) -> &'a str {
    let found = problem.seen.iter().rev().find(|(seen, _)| seen == label);
    &found.unwrap_or_else(|| panic!("no `{label}` in {problem:#?}")).1
}

fn help(problem: &Problem) -> &str {
    problem.help.as_deref().unwrap()
}

#[tokio::test]
async fn an_app_that_exits_fails_at_once_with_its_last_words() {
    let mut host = Host::new();
    let release = host.release("2.1.0", "exit=7");
    let began = Instant::now();
    let problem = failure(&mut host, &release).await;
    assert!(began.elapsed() < release.health.start_timeout, "no timeout is waited out for a dead process");
    assert_eq!((problem.code.0, problem.what.as_str()), (206, "shop 2.1.0 exited before it was ready"));
    assert!(seen(&problem, "process").contains("exited with status 7"), "{problem:#?}");
    assert_eq!(seen(&problem, "last log"), "about to give up");
}

#[tokio::test]
async fn an_app_that_never_listens_is_told_as_such() {
    let mut host = Host::new();
    let release = hasty(&host, "bind=nowhere");
    let problem = failure(&mut host, &release).await;
    assert_eq!((problem.code.0, problem.what.as_str()), (210, "shop 2.1.0 did not become ready within 1.5 s"));
    assert!(seen(&problem, "process").ends_with("listening on no port"), "{problem:#?}");
    assert!(seen(&problem, "probe").contains("tries: connection refused"), "{problem:#?}");
    assert_eq!(seen(&problem, "last log"), "waiting for better times");
}

#[tokio::test]
async fn an_app_that_listens_on_another_port_is_told_which() {
    let mut host = Host::new();
    let release = hasty(&host, "bind=127.0.0.1:0");
    let problem = failure(&mut host, &release).await;
    let listening = seen(&problem, "process").rsplit_once("listening on ").unwrap().1.to_owned();
    assert_eq!(seen(&problem, "last log"), format!("listening on {listening}"));
    assert!(help(&problem).contains("is not told its own: put {port}"), "{problem:#?}");
    let mut host = Host::new();
    let mut release = hasty(&host, "bind=127.0.0.1:0");
    release.run.command.push("{port}".to_owned());
    let problem = failure(&mut host, &release).await;
    let port = host.address.port();
    assert_eq!(help(&problem), format!("the app ignores {{port}} ({port}). Check run.command in baton.toml"));
}

#[tokio::test]
async fn an_app_that_listens_on_another_address_is_told_which() {
    let mut host = Host::new();
    let release = hasty(&host, "bind=127.0.0.77:PORT");
    let problem = failure(&mut host, &release).await;
    assert!(seen(&problem, "process").contains("listening on 127.0.0.77:"), "{problem:#?}");
    assert!(help(&problem).starts_with("the app listens on 127.0.0.77, where balancers cannot reach it"), "{problem:#?}");
}

#[tokio::test]
async fn an_app_that_redirects_or_errs_is_not_ready() {
    for (answer, advice) in [("301", "redirects are not followed"), ("500", "not with 200 to 299")] {
        let mut host = Host::new();
        let release = hasty(&host, &format!("answer={answer}"));
        let problem = failure(&mut host, &release).await;
        assert_eq!(problem.code.0, 210);
        assert!(seen(&problem, "probe").contains(&format!("answered {answer}")), "{problem:#?}");
        assert!(help(&problem).contains(advice), "{problem:#?}");
    }
}

#[tokio::test]
async fn a_port_taken_by_a_stranger_fails_at_once_and_names_it() {
    let mut host = Host::new();
    let release = host.release("2.1.0", "");
    let _stranger = TcpListener::bind(host.address).unwrap();
    let problem = failure(&mut host, &release).await;
    let (port, pid) = (host.address.port(), std::process::id());
    assert_eq!(problem.code.0, 205);
    assert!(
        problem.what.starts_with(&format!("shop 2.1.0 was not started: its port {port} is taken by pid {pid} (")),
        "{problem}"
    );
}

#[tokio::test]
async fn an_answer_of_a_stranger_on_a_shared_port_does_not_count() {
    let mut host = Host::new();
    // It binds every address once the app is under way; the app has only its own.
    let mut release = hasty(&host, "after=300 bind=nowhere");
    release.health.probe = Probe::Tcp;
    host.send(&host.spec(1, &[(&release, Restart::Never)]));
    host.until("started", |report| report.instances.values().any(|instance| !instance.incarnation.is_empty())).await;
    let _stranger = TcpListener::bind(host.address).unwrap();
    let report = host.until("failed", host::failed).await;
    let problem = host::problem(&report);
    assert_eq!(problem.code.0, 210);
    assert!(seen(problem, "probe").contains(&format!("may have come from pid {}", std::process::id())), "{problem:#?}");
}

#[tokio::test]
async fn a_command_that_does_not_exist_fails_at_once() {
    let mut host = Host::new();
    let mut release = host.release("2.1.0", "");
    release.run.command = vec!["bin/shop".to_owned()];
    let problem = failure(&mut host, &release).await;
    assert_eq!(problem.code.0, 201);
    assert_eq!(problem.what, "shop 2.1.0 could not be started: the command `bin/shop` does not exist in the release");
    assert_eq!(seen(&problem, "the release holds"), "version");
}

#[tokio::test]
async fn a_command_that_may_not_be_executed_fails_at_once() {
    let mut host = Host::new();
    let mut release = host.release("2.1.0", "");
    release.run.command = vec!["./version".to_owned()];
    let problem = failure(&mut host, &release).await;
    assert_eq!(problem.code.0, 202);
    assert_eq!(seen(&problem, "mode"), "0644");
}

#[tokio::test]
async fn a_user_that_does_not_exist_fails_at_once() {
    let mut host = Host::new();
    let mut release = host.release("2.1.0", "");
    release.run.user = Some("nobody-of-that-name".to_owned());
    assert_eq!(failure(&mut host, &release).await.code.0, 203);
}

#[tokio::test]
async fn what_fails_and_is_started_once_more_is_counted() {
    let mut host = Host::new();
    let release = host.release("2.1.0", "");
    host.send(&host.spec(1, &[(&release, Restart::Always)]));
    let report = host.until("ready", host::ready).await;
    let counted = host.counters.of(&release.service);
    assert_eq!((counted.failures(), counted.restarts()), (0, 0));
    assert!(counted.passed() > 0, "it was ready by its probes");
    let first = host.instance(&report).incarnation.clone();
    host.end(&first);
    let report = host
        .until("another start", |report| {
            host::ready(report) && report.instances.values().all(|instance| instance.incarnation != first)
        })
        .await;
    assert_eq!((counted.failures(), counted.restarts()), (1, 1));
    let falls: Vec<_> = report.falls.values().map(|fall| (fall.times, fall.problem.code.0)).collect();
    assert_eq!(falls, [(1, 207)], "it is up again, and that it was down is not forgotten");
    // Another start that was asked for is no restart of the agent's own.
    let mut anew = host.spec(2, &[(&release, Restart::Always)]);
    anew.instances.iter_mut().for_each(|(_, instance)| instance.start = 1);
    host.send(&anew);
    let report = host
        .until("the start that was asked for", |report| {
            host::ready(report) && report.instances.values().all(|instance| instance.start == 1)
        })
        .await;
    assert!(report.falls.is_empty(), "another start begins anew: {:?}", report.falls);
    assert_eq!((counted.failures(), counted.restarts()), (1, 1));
}
