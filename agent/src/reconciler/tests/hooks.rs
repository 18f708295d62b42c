//! Hooks on a real host: once, whatever becomes of the agent.

use super::host::Host;
use baton_core::fleet::hooks::{HookOutcome, HookSpec};
use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::HostSpec;
use baton_core::hook::{Hook, HookKey, Hooks, Of, Point};
use baton_core::name::Epoch;
use baton_core::problem::Problem;
use baton_core::release::Release;
use std::fs;
use std::time::Duration;

/// A release whose migration is a script; every run of it leaves a line in `ran`.
fn migrating(host: &Host, script: &str, timeout: Duration) -> Release {
    let mut release = host.release("v1", "");
    let script = format!("echo ran >> {}; {script}", host.path("ran").display());
    let command = vec!["sh".to_owned(), "-c".to_owned(), script];
    release.hooks = Hooks([(Point::Migrate, Hook { command, timeout, no_way_back: false })].into());
    release
}

fn key(release: &Release) -> HookKey {
    HookKey { service: "shop".parse().unwrap(), point: Point::Migrate, of: Of::Release(release.id()), host: None }
}

fn told(host: &Host, generation: u64, release: &Release, attempt: u32) -> HostSpec {
    let mut spec = host.spec_holding(generation, &[release]);
    let told = HookSpec { attempt, release: release.id(), address: host.address.ip(), instance: None };
    spec.hooks.insert(key(release), told);
    spec
}

fn outcome(report: &HostReport, attempt: u32) -> Option<&HookOutcome> {
    report.hooks.values().find(|hook| hook.attempt == attempt).map(|hook| &hook.state)
}

fn is_over(report: &HostReport) -> bool {
    outcome(report, 1).is_some_and(|outcome| !matches!(outcome, HookOutcome::Running { .. }))
}

fn problem(report: &HostReport) -> &Problem {
    match outcome(report, 1) {
        Some(HookOutcome::Failed { problem } | HookOutcome::Unknown { problem }) => problem,
        other => panic!("no problem in {other:?}"),
    }
}

fn runs(host: &Host) -> usize {
    fs::read_to_string(host.path("ran")).unwrap_or_default().lines().count()
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_hook_is_run_once_however_often_it_is_told_and_by_whichever_agent() {
    let mut host = Host::new();
    let release = migrating(&host, "echo $BATON_HOOK of $BATON_VERSION", LONG);
    host.send(&told(&host, 1, &release, 1));
    let report = host.until("over", is_over).await;
    assert_eq!(outcome(&report, 1), Some(&HookOutcome::Succeeded { output: vec!["migrate of v1".to_owned()] }));
    host.send(&told(&host, 1, &release, 1));
    host.send(&HostSpec { epoch: Epoch(2), ..told(&host, 2, &release, 1) });
    host.kill_agent();
    host.start_agent();
    host.send(&HostSpec { epoch: Epoch(2), ..told(&host, 3, &release, 1) });
    let again = host.until("echoed", |report| report.observed.generation.0 == 3).await;
    assert_eq!(again.hooks, report.hooks, "what became of it is remembered");
    assert_eq!(runs(&host), 1);
}

#[tokio::test]
async fn a_hook_that_goes_on_while_its_agent_is_killed_is_found_again_and_not_run_again() {
    let mut host = Host::new();
    let go = host.path("go");
    let release = migrating(&host, &format!("until test -e {}; do sleep 0.05; done; echo through", go.display()), LONG);
    host.send(&told(&host, 1, &release, 1));
    host.eventually("begun", |host| runs(host) == 1).await;
    host.kill_agent();
    host.start_agent();
    let report = host.until("found", |report| outcome(report, 1).is_some()).await;
    assert!(matches!(outcome(&report, 1), Some(HookOutcome::Running { .. })), "{report:?}");
    fs::write(go, "").unwrap();
    let report = host.until("over", is_over).await;
    assert!(matches!(outcome(&report, 1), Some(HookOutcome::Unknown { .. })), "its exit status went to another agent");
    assert_eq!(problem(&report).code.0, 803);
    assert!(problem(&report).seen.contains(&("output".to_owned(), "through".to_owned())), "{report:?}");
    assert_eq!(runs(&host), 1);
}

#[tokio::test]
async fn a_hook_that_ended_while_nobody_watched_is_unknown_until_a_person_asks_for_another_attempt() {
    let mut host = Host::new();
    let release = migrating(&host, "sleep 600", LONG);
    host.send(&told(&host, 1, &release, 1));
    host.eventually("begun", |host| runs(host) == 1).await;
    host.kill_agent();
    host.end_hooks().await;
    for generation in [2, 3] {
        host.start_agent();
        host.send(&told(&host, generation, &release, 1));
        let report = host.until("unknown", |report| is_over(report) && report.observed.generation.0 == generation).await;
        assert_eq!(problem(&report).code.0, 803);
        host.kill_agent();
    }
    assert_eq!(runs(&host), 1);
    host.start_agent();
    host.send(&told(&host, 4, &release, 2));
    host.eventually("begun again", |host| runs(host) == 2).await;
}

#[tokio::test]
async fn a_hook_that_fails_shows_what_it_wrote_and_is_not_tried_again() {
    let mut host = Host::new();
    let release = migrating(&host, "echo the table is locked >&2; exit 3", LONG);
    host.send(&told(&host, 1, &release, 1));
    let report = host.until("failed", is_over).await;
    let problem = problem(&report);
    assert_eq!((problem.code.0, problem.what.as_str()), (801, "migrate of shop v1 failed: it exited with status 3"));
    assert!(problem.seen.contains(&("output".to_owned(), "the table is locked".to_owned())), "{problem:?}");
    host.send(&told(&host, 2, &release, 1));
    host.until("echoed", |report| report.observed.generation.0 == 2).await;
    assert_eq!(runs(&host), 1);
}

#[tokio::test]
async fn a_hook_that_outlives_its_time_is_killed_with_everything_it_started() {
    let mut host = Host::new();
    let child = host.path("child");
    let script = format!("sleep 600 & echo $! > {}; wait", child.display());
    let release = migrating(&host, &script, Duration::from_millis(300));
    host.send(&told(&host, 1, &release, 1));
    let report = host.until("over", is_over).await;
    assert_eq!(problem(&report).code.0, 802);
    let pid = fs::read_to_string(child).unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

#[tokio::test]
async fn a_hook_that_cannot_be_started_says_so_and_is_known_not_to_have_run() {
    let mut host = Host::new();
    let mut release = migrating(&host, "", LONG);
    if let Some(hook) = release.hooks.0.get_mut(&Point::Migrate) {
        hook.command = vec!["bin/migrate".to_owned()];
    }
    host.send(&told(&host, 1, &release, 1));
    let report = host.until("over", is_over).await;
    assert_eq!(problem(&report).code.0, 808);
    assert!(problem(&report).what.contains("the command `bin/migrate` does not exist"), "{report:?}");
}

#[tokio::test]
async fn a_hook_whose_beginning_cannot_be_written_down_does_not_begin() {
    let mut host = Host::new();
    let release = migrating(&host, "", LONG);
    host.send(&host.spec_holding(1, &[&release]));
    host.until("echoed", |report| report.observed.generation.0 == 1).await;
    fs::remove_dir(host.path("hooks")).unwrap();
    host.send(&told(&host, 2, &release, 1));
    let report = host.until("an obstacle", |report| !report.problems.is_empty()).await;
    assert_eq!((report.problems[0].code.0, runs(&host)), (809, 0));
    fs::create_dir(host.path("hooks")).unwrap();
    host.until("over", is_over).await;
    assert_eq!(runs(&host), 1);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stands_for_a_hook_that_was_begun() {
    let mut host = Host::new();
    let release = migrating(&host, "", LONG);
    host.send(&told(&host, 1, &release, 1));
    host.until("over", is_over).await;
    host.kill_agent();
    for entry in fs::read_dir(host.path("hooks")).unwrap().flatten() {
        fs::write(entry.path(), "{\"key").unwrap();
    }
    host.start_agent();
    host.send(&told(&host, 2, &release, 1));
    let report = host.until("unknown", |report| is_over(report) && report.observed.generation.0 == 2).await;
    assert_eq!((problem(&report).code.0, runs(&host)), (803, 1));
}
