//! A whole host without a coordinator: real processes, real ports, real folders.

mod app;
mod autonomy;
mod failures;
mod hooks;
mod host;
mod withdraw;

use baton_core::fleet::report::{InstanceState, ReleaseState};
use baton_core::fleet::spec::{MemberState, Restart};
use host::{Host, ready};
use std::fs;
use std::time::Duration;

#[tokio::test]
async fn a_spec_becomes_a_running_instance_and_is_echoed() {
    let mut host = Host::new();
    let v1 = host.release("v1", "");
    let spec = host.spec(1, &[(&v1, Restart::Never)]);
    host.send(&spec);
    let report = host.until("ready", ready).await;
    assert_eq!(report.observed, spec.stamp());
    assert_eq!(host.instance(&report).release, v1.id());
    assert_eq!(report.releases[&v1.id()], ReleaseState::Held);
    let proven = host.until("proven", |report| host::ready_for(report) >= Some(v1.health.healthy_for)).await;
    assert_eq!(host.instance(&proven).incarnation, host.instance(&report).incarnation);
}

#[tokio::test]
async fn a_spec_with_new_pools_is_echoed_with_what_the_balancer_says_of_them_and_not_before() {
    let mut host = Host::new();
    let first = host.spec(1, &[]);
    host.send(&first);
    host.until("echoed", |report| report.observed == first.stamp()).await;
    let out = host.with_pool(host.spec(2, &[]), MemberState::Out);
    let ready = host.with_pool(host.spec(3, &[]), MemberState::Ready);
    host.send(&out);
    host.send(&ready);
    // A reading under the spec before is late, and says nothing about this one.
    host.reads(&out);
    host.reads(&ready);
    let report = host.until("read", |report| !report.pools.is_empty()).await;
    assert_eq!(report.observed, ready.stamp());
    assert!(report.pools.values().flat_map(|pool| pool.members.values()).all(|member| member.running == MemberState::Ready));
    host.send(&host.with_pool(host.spec(4, &[]), MemberState::Out));
    let v1 = host.release("v1", "");
    host.send(&host.with_pool(host.spec(5, &[(&v1, Restart::Never)]), MemberState::Out));
    let report = host.until("v1 ready", host::ready).await;
    assert_eq!(report.observed, ready.stamp(), "the balancer has not been read since");
}

#[tokio::test]
async fn in_place_the_old_one_is_gone_before_the_new_one_starts() {
    let mut host = Host::new();
    let (v1, v2) = (host.release("v1", ""), host.release("v2", ""));
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    let old = host.until("ready", ready).await;
    let old = host.instance(&old).incarnation.clone();
    host.send(&host.spec(2, &[]));
    host.until("gone", |report| report.instances.is_empty() && report.observed.generation.0 == 2).await;
    assert!(!host.is_alive(&old));
    host.send(&host.spec(3, &[(&v2, Restart::Never)]));
    let report = host.until("ready", ready).await;
    assert_eq!(host.instance(&report).release, v2.id());
    assert_ne!(host.instance(&report).incarnation, old);
}

#[tokio::test]
async fn an_agent_says_what_it_was_told_and_what_runs_from_its_first_word_on() {
    let mut host = Host::new();
    let v1 = host.release("v1", "");
    let spec = host.spec(1, &[(&v1, Restart::Always)]);
    host.send(&spec);
    host.until("ready", ready).await;
    host.kill_agent();
    let first = host.first_view().await;
    assert_eq!(first.told.as_deref(), Some(&spec));
    assert_eq!((first.observed, first.instances.len(), first.boot.as_str()), (spec.stamp(), 1, "boot"));
}

#[tokio::test]
async fn a_changed_release_in_the_same_spec_replaces_in_one_go() {
    let mut host = Host::new();
    let (v1, v2) = (host.release("v1", ""), host.release("v2", ""));
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    host.until("ready", ready).await;
    host.send(&host.spec(2, &[(&v2, Restart::Never)]));
    host.until("v2 ready", |report| ready(report) && report.instances.values().all(|instance| instance.release == v2.id()))
        .await;
}

#[tokio::test]
async fn a_release_that_was_damaged_on_the_host_is_fetched_once_more_before_it_is_started() {
    let mut host = Host::new();
    let v1 = host.release("v1", "");
    host.send(&host.spec_holding(1, &[&v1]));
    host.until("held", |report| report.releases.get(&v1.id()) == Some(&ReleaseState::Held)).await;
    let file = host.path(&format!("releases/{}/version", v1.artifact.digest));
    fs::write(&file, "").unwrap();
    host.send(&host.spec(2, &[(&v1, Restart::Never)]));
    host.until("ready", ready).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "v1");
}

#[tokio::test]
async fn a_damaged_release_that_cannot_be_had_whole_is_started_as_it_is() {
    let mut host = Host::new();
    let v1 = host.release("v1", "");
    host.send(&host.spec_holding(1, &[&v1]));
    host.until("held", |report| report.releases.get(&v1.id()) == Some(&ReleaseState::Held)).await;
    let file = host.path(&format!("releases/{}/version", v1.artifact.digest));
    fs::write(&file, "").unwrap();
    host.source.offer(v1.artifact.digest, vec![0; v1.artifact.size.try_into().unwrap()]);
    host.send(&host.spec(2, &[(&v1, Restart::Always)]));
    host.until("ready", ready).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "", "there was nothing better");
}

#[tokio::test]
async fn an_agent_that_is_killed_finds_its_instances_again() {
    let mut host = Host::new();
    let v1 = host.release("v1", "");
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    let before = host.until("ready", ready).await;
    host.kill_agent();
    assert!(host.is_alive(&host.instance(&before).incarnation), "the instance outlives the agent");
    host.start_agent();
    let after = host.until("ready", ready).await;
    assert_eq!(host.instance(&after).incarnation, host.instance(&before).incarnation);
    assert_eq!(after.observed, before.observed, "the ledger is echoed before any coordinator spoke");
}

#[tokio::test]
async fn an_instance_that_ended_while_no_agent_watched_is_told_as_failed() {
    let mut host = Host::new();
    let v1 = host.release("v1", "");
    host.send(&host.spec(1, &[(&v1, Restart::Never)]));
    let report = host.until("ready", ready).await;
    host.kill_agent();
    host.end(&host.instance(&report).incarnation);
    host.start_agent();
    let report = host.until("failed", host::failed).await;
    assert!(host::problem(&report).what.contains("while the agent was not running"), "{report:?}");
}

#[tokio::test]
async fn a_release_on_trial_that_failed_is_not_tried_again_by_the_next_agent() {
    let mut host = Host::new();
    let bad = host.release("bad", "exit=1");
    host.send(&host.spec(1, &[(&bad, Restart::Never)]));
    let before = host.until("failed", host::failed).await;
    host.kill_agent();
    host.start_agent();
    let after = host.until("failed", host::failed).await;
    assert_eq!(after.instances, before.instances);
    host.send(&host.spec(2, &[]));
    host.until("forgotten", |report| report.instances.is_empty()).await;
    host.send(&host.spec(3, &[(&bad, Restart::Never)]));
    let again = host.until("failed again", host::failed).await;
    assert_ne!(again.instances, before.instances, "taken out and put in again, it is a new trial");
}

#[tokio::test]
async fn a_committed_release_that_crashes_is_started_again() {
    let mut host = Host::new();
    let v1 = host.release("v1", "");
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    let before = host.until("ready", ready).await;
    let before = host.instance(&before).incarnation.clone();
    host.end(&before);
    host.until("failed", host::failed).await;
    let after = host.until("ready again", ready).await;
    assert_ne!(host.instance(&after).incarnation, before);
}

#[tokio::test]
async fn an_instance_that_stops_answering_is_unready_and_comes_back() {
    let mut host = Host::new();
    let flag = host.path("unwell");
    let v1 = host.release("v1", &format!("flag={}", flag.display()));
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    let before = host.until("ready", ready).await;
    fs::write(&flag, "").unwrap();
    let unready = host
        .until("unready", |report| host::state(report).is_some_and(|state| matches!(state, InstanceState::Unready { .. })))
        .await;
    assert!(host::problem(&unready).what.contains("answered 503"), "{unready:?}");
    fs::remove_file(&flag).unwrap();
    let after = host.until("ready", ready).await;
    assert_eq!(host.instance(&after).incarnation, host.instance(&before).incarnation, "nothing was restarted");
}

#[tokio::test]
async fn the_past_changes_nothing() {
    let mut host = Host::new();
    let v1 = host.release("v1", "");
    host.send(&host.spec(5, &[(&v1, Restart::Always)]));
    let before = host.until("ready", ready).await;
    host.send(&host.spec(4, &[]));
    host.send(&host.spec(5, &[(&v1, Restart::Always)]));
    // A later spec is the proof that the earlier ones were looked at.
    host.send(&host.spec(6, &[(&v1, Restart::Always)]));
    let after = host.until("generation 6", |report| report.observed.generation.0 == 6).await;
    assert_eq!(host.instance(&after).incarnation, host.instance(&before).incarnation);
}

#[tokio::test]
async fn a_host_that_lost_its_ledger_keeps_what_runs_until_it_is_told_anew() {
    let mut host = Host::new();
    let v1 = host.release("v1", "");
    let spec = host.spec(3, &[(&v1, Restart::Always)]);
    host.send(&spec);
    let before = host.until("ready", ready).await;
    let running = host.instance(&before).incarnation.clone();
    host.kill_agent();
    fs::write(host.path("ledger.json"), "{\"form").unwrap();
    host.start_agent();
    let lost =
        host.until("adopted", |report| report.instances.values().any(|instance| instance.incarnation == running)).await;
    assert_eq!(lost.problems.iter().map(|problem| problem.code.0).collect::<Vec<_>>(), [535]);
    host.send(&spec);
    let after = host.until("ready", |report| ready(report) && report.problems.is_empty()).await;
    assert_eq!(host.instance(&after).incarnation, running);
}

#[tokio::test]
async fn a_release_that_is_not_wanted_any_more_leaves_the_disk() {
    let mut host = Host::new();
    let (v1, v2) = (host.release("v1", ""), host.release("v2", ""));
    host.send(&host.spec_holding(1, &[&v1, &v2]));
    host.until("both held", |report| report.releases.values().filter(|state| **state == ReleaseState::Held).count() == 2)
        .await;
    assert_eq!(host.folders().len(), 2);
    host.send(&host.spec_holding(2, &[&v2]));
    host.until("one known", |report| report.releases.len() == 1).await;
    host.eventually("one folder", |host| host.folders() == [v2.artifact.digest.to_string()]).await;
}

#[tokio::test]
async fn an_artifact_that_cannot_be_had_is_rejected_with_its_reason() {
    let mut host = Host::new();
    let mut v1 = host.release("v1", "");
    v1.artifact.size += 1;
    v1.artifact.digest = baton_core::name::Digest::of(b"something else");
    host.source.offer(v1.artifact.digest, b"no archive".to_vec());
    v1.artifact.size = 10;
    host.send(&host.spec(1, &[(&v1, Restart::Never)]));
    let rejected = |state: &ReleaseState| matches!(state, ReleaseState::Rejected { .. });
    let report = host.until("rejected", |report| report.releases.values().any(rejected)).await;
    let ReleaseState::Rejected { problem } = &report.releases[&v1.id()] else { unreachable!() };
    assert_eq!(problem.code.0, 602);
    assert!(report.instances.is_empty(), "nothing was started");
}

#[tokio::test]
async fn a_start_is_noticed_within_a_few_milliseconds() {
    let mut host = Host::new();
    let v1 = host.release("v1", "after=200");
    host.send(&host.spec(1, &[(&v1, Restart::Never)]));
    host.until("started", |report| report.instances.values().any(|instance| !instance.incarnation.is_empty())).await;
    let started = std::time::Instant::now();
    host.until("ready", ready).await;
    let took = started.elapsed();
    // 200 ms are the application's own; a loaded machine gets some grace.
    assert!(took < Duration::from_millis(800), "it took {took:?}");
}

#[tokio::test]
async fn a_release_that_the_hosts_own_settings_do_not_allow_is_refused_and_never_started() {
    let mut host = Host::new();
    let mut v1 = host.release("v1", "");
    v1.run.user = Some("root".to_owned());
    host.send(&host.spec(1, &[(&v1, Restart::Always)]));
    let report = host.until("refused", |report| report.releases.contains_key(&v1.id())).await;
    let ReleaseState::Rejected { problem } = &report.releases[&v1.id()] else { panic!("{report:?}") };
    assert_eq!((problem.code.0, report.instances.len()), (563, 0), "{problem:?}");
    // One that asks for less is taken, and is the same archive.
    let v2 = host.release("v1", "");
    host.send(&host.spec(2, &[(&v2, Restart::Never)]));
    let report = host.until("ready", ready).await;
    assert!(!report.releases.contains_key(&v1.id()), "{report:?}");
}
