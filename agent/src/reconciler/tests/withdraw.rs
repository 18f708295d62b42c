//! Instances that some balancer cannot be told of: they fail their health check before they are stopped.

use super::host::{Host, ready, state};
use baton_core::fleet::report::InstanceState;
use baton_core::fleet::spec::{HostSpec, Restart};
use baton_core::fleet::withdraw::Withdrawal;
use baton_core::release::{Release, Signal};
use std::fs;
use std::time::{Duration, Instant};

const UNREADY_FOR: Duration = Duration::from_millis(700);

/// In place of the first release comes the second, and nobody may lead to the first by then.
fn withdrawn(host: &Host, generation: u64, first: &Release, second: &Release) -> HostSpec {
    let mut spec = host.spec(generation, &[(second, Restart::Never)]);
    let drain_deadline = Duration::from_secs(30);
    let how = Withdrawal { signal: Signal::Usr1, unready_for: UNREADY_FOR, drain_deadline };
    spec.instances.iter_mut().for_each(|(_, told)| told.withdraw = Some(how));
    spec.releases.insert(first.id(), first.clone().into());
    spec
}

/// A release whose instances are not ready any more once they got the signal.
fn obedient(host: &Host) -> Release {
    let file = host.path("unready").display().to_string();
    host.release("v1", &format!("usr1={file} flag={file}"))
}

#[tokio::test]
async fn it_is_stopped_once_it_has_failed_its_check_for_long_enough_and_the_next_one_follows() {
    let mut host = Host::new();
    let (v1, v2) = (obedient(&host), host.release("v2", ""));
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    let old = host.until("ready", ready).await;
    let old = host.instance(&old).incarnation.clone();
    host.send(&withdrawn(&host, 2, &v1, &v2));
    host.until("stopping", |report| matches!(state(report), Some(InstanceState::Stopping { .. }))).await;
    host.eventually("it was asked", |host| host.path("unready").exists()).await;
    let unready = Instant::now();
    host.eventually("it is gone", |host| !host.is_alive(&old)).await;
    assert!(unready.elapsed() >= UNREADY_FOR, "after {:?}", unready.elapsed());
    let report = host
        .until("the next is ready", |report| ready(report) && report.instances.values().all(|it| it.release == v2.id()))
        .await;
    assert_eq!(report.problems, []);
}

#[tokio::test]
async fn an_agent_that_is_killed_meanwhile_goes_on_with_it() {
    let mut host = Host::new();
    let (v1, v2) = (obedient(&host), host.release("v2", ""));
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    let old = host.until("ready", ready).await;
    let old = host.instance(&old).incarnation.clone();
    host.send(&withdrawn(&host, 2, &v1, &v2));
    host.eventually("it was asked", |host| host.path("unready").exists()).await;
    host.kill_agent();
    assert!(host.is_alive(&old));
    let again = Instant::now();
    host.start_agent();
    host.eventually("it is gone", |host| !host.is_alive(&old)).await;
    assert!(again.elapsed() >= UNREADY_FOR, "what an agent before has seen is not believed: {:?}", again.elapsed());
    host.until("the next is ready", |report| ready(report) && report.instances.values().all(|it| it.release == v2.id()))
        .await;
}

#[tokio::test]
async fn one_that_goes_on_answering_stays_and_is_stopped_once_every_balancer_can_be_told() {
    let mut host = Host::new();
    let ignored = host.path("ignored").display().to_string();
    let (v1, v2) = (host.release("v1", &format!("usr1={ignored}")), host.release("v2", ""));
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    let old = host.until("ready", ready).await;
    let old = host.instance(&old).incarnation.clone();
    host.send(&withdrawn(&host, 2, &v1, &v2));
    let report = host.until("it is said", |report| !report.problems.is_empty()).await;
    assert_eq!(report.problems.iter().map(|problem| problem.code.0).collect::<Vec<_>>(), [217]);
    assert!(fs::exists(&ignored).unwrap() && host.is_alive(&old));
    host.until("it serves", |report| ready(report) && report.instances.values().all(|it| it.release == v1.id())).await;
    let mut told = withdrawn(&host, 3, &v1, &v2);
    told.instances.iter_mut().for_each(|(_, told)| told.withdraw = None);
    host.send(&told);
    let report = host
        .until("the next is ready", |report| ready(report) && report.instances.values().all(|it| it.release == v2.id()))
        .await;
    assert_eq!(report.problems, []);
    assert!(!host.is_alive(&old));
}

#[tokio::test]
async fn one_that_stayed_and_is_wanted_again_is_no_problem_any_more() {
    let mut host = Host::new();
    let ignored = host.path("ignored").display().to_string();
    let (v1, v2) = (host.release("v1", &format!("usr1={ignored}")), host.release("v2", ""));
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    let old = host.until("ready", ready).await;
    let old = host.instance(&old).incarnation.clone();
    host.send(&withdrawn(&host, 2, &v1, &v2));
    host.until("it is said", |report| !report.problems.is_empty()).await;
    // Back to the first while that balancer cannot be told: it is there.
    let back = withdrawn(&host, 3, &v2, &v1);
    host.send(&back);
    let report = host.until("nothing is said", |report| report.observed == back.stamp() && report.problems.is_empty()).await;
    assert_eq!(host.instance(&report).incarnation, old);
    assert!(host.is_alive(&old));
}
