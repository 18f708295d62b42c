//! `baton reboot`: who is meant, how each end is told, and that nobody is asked by mistake.

use super::coordinator::Script;
use super::world::{World, at_rest};
use baton_core::problem::{Code, Problem};
use baton_proto::v1::{RebootHostView, RebootView};
use serde_json::Value;

fn view(state: &str, words: [&str; 2]) -> RebootView {
    let host = |(nth, word): (usize, &str)| RebootHostView {
        host: format!("web{}", nth + 1),
        state: word.into(),
        ..RebootHostView::default()
    };
    RebootView {
        id: "b-1".into(),
        state: state.into(),
        open: state != "succeeded",
        by: "ana".into(),
        at_once: 1,
        hosts: words.into_iter().enumerate().map(host).collect(),
        ..RebootView::default()
    }
}

fn world(views: &[RebootView]) -> World {
    World::new(at_rest(1_000), Script { reboot: views.to_vec(), ..Script::default() })
}

#[test]
fn reboots_are_asked_for_followed_and_each_step_is_told_once() {
    let world = world(&[
        view("running", ["draining", "waiting"]),
        view("running", ["rebooting", "waiting"]),
        view("running", ["done", "draining"]),
        view("succeeded", ["done", "done"]),
    ]);
    let ran = world.run("reboot web1 web2 --at-once 2 --back-within 5m --why kernel --yes");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("2 hosts to be drained, rebooted and put back"), "{}", ran.stderr);
    assert!(ran.stderr.contains("web1 ◐ rebooting\n") && ran.stderr.contains("web2 ✓ done"), "{}", ran.stderr);
    let script = world.coordinator.script();
    assert_eq!(script.reboots.iter().map(|request| request.dry_run).collect::<Vec<_>>(), [true, false]);
    let asked = script.reboots.last().unwrap();
    assert_eq!((asked.hosts.join(" "), asked.at_once, asked.back_within_ms), ("web1 web2".into(), 2, 300_000));
    assert_eq!(asked.why, "kernel");
}

#[test]
fn every_end_of_reboots_has_its_exit_code() {
    let mut failed = view("paused", ["failed", "waiting"]);
    failed.problem = Some((&Problem::new(Code(565), "web1 is not back")).into());
    let cancelled = RebootView { open: false, ..view("aborted", ["done", "untouched"]) };
    let ends = [
        (view("succeeded", ["done", "done"]), 0),
        (view("paused", ["told", "waiting"]), 3),
        (failed, 5),
        (cancelled.clone(), 6),
    ];
    for (last, code) in ends {
        let ran = world(&[view("running", ["told", "waiting"]), last]).run("reboot --service shop --yes --json");
        assert_eq!(ran.code, Some(code), "{ran:?}");
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(document["exit"], code);
    }
    let steered = world(&[view("aborted", ["told", "waiting"]), cancelled]);
    assert_eq!(steered.run("reboot --cancel").code, Some(0), "it is what was asked for");
    assert_eq!(steered.run("reboot --pause").code, Some(0));
    assert_eq!(steered.coordinator.script().reboot_steered, ["cancel", "pause"]);
    let ran = world(&[view("running", ["told", "waiting"])]).run("reboot --all --yes --timeout 1s");
    assert_eq!(ran.code, Some(8), "{ran:?}");
}

#[test]
fn without_hosts_it_shows_and_without_a_yes_nobody_is_rebooted() {
    let world = world(&[view("running", ["told", "waiting"])]);
    let ran = world.run("reboot");
    assert!(ran.code == Some(0) && ran.stdout.contains("HOST   STATE"), "{ran:?}");
    let ran = world.run("reboot web1");
    assert!(ran.code == Some(7) && ran.stderr.contains("error[B0134]") && ran.stderr.contains("--yes says it"), "{ran:?}");
    world.coordinator.script().refusal = Some(Problem::new(Code(711), "shop is frozen"));
    let ran = world.run("reboot web1 --yes");
    assert!(ran.code == Some(7) && ran.stderr.contains("error[B0711]"), "{ran:?}");
    assert!(world.coordinator.script().reboots.iter().all(|request| request.dry_run));
}
