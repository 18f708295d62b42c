//! `baton agents`: what is refused before anybody is asked, how each end is told.

use super::coordinator::Script;
use super::world::{World, at_rest};
use baton_core::problem::{Code, Problem};
use baton_proto::v1::{AgentView, AgentsView, UpgradeView};
use serde_json::Value;

/// A package of which only the control file matters.
fn package(world: &World, name: &str) {
    let control = format!("Package: {name}\nVersion: 1.1.0\nArchitecture: amd64\n");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(control.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "./control", control.as_bytes()).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut bytes = b"!<arch>\n".to_vec();
    for (member, content) in [("debian-binary", b"2.0\n".as_slice()), ("control.tar", &tar)] {
        bytes.extend(format!("{member:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
        bytes.extend(content);
    }
    std::fs::write(world.folder().join("agent.deb"), bytes).unwrap();
}

fn view(state: &str, words: [&str; 2]) -> AgentsView {
    let host = |(nth, word): (usize, &str)| AgentView {
        host: format!("web{}", nth + 1),
        connected: true,
        agent_version: "1.0.0".into(),
        package: if word == "done" { "1.1.0".into() } else { "1.0.0".into() },
        ring: u32::try_from(nth).unwrap() + 1,
        state: word.into(),
        ..AgentView::default()
    };
    let upgrade = UpgradeView {
        id: "u-1".into(),
        version: "1.1.0".into(),
        architecture: "amd64".into(),
        state: state.into(),
        by: "ana".into(),
        rings: vec!["1".into(), "100%".into()],
        ring: 1,
        ..UpgradeView::default()
    };
    AgentsView { upgrade: Some(upgrade), hosts: words.into_iter().enumerate().map(host).collect() }
}

fn world(views: &[AgentsView]) -> World {
    let world = World::new(at_rest(1_000), Script { agents: views.to_vec(), ..Script::default() });
    package(&world, "baton-agent");
    world
}

const UPGRADE: &str = "agents upgrade --package agent.deb --yes";

#[test]
fn an_upgrade_uploads_follows_and_tells_each_step_once() {
    let world = world(&[
        view("running", ["told", "waiting"]),
        view("running", ["installing", "waiting"]),
        view("running", ["done", "told"]),
        view("succeeded", ["done", "done"]),
    ]);
    let ran = world.run(&format!("{UPGRADE} --hosts web1,web2 --rings 1,50% --healthy-for 3s"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("ring 1   web1\n") && ran.stderr.contains("ring 2   web2\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("web1 ◐ installing\n") && ran.stderr.contains("web2 ✓ done"), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("agents to 1.1.0 · u-1 · ana"), "{}", ran.stdout);
    let script = world.coordinator.script();
    let asked = script.upgrades.last().unwrap();
    assert_eq!((asked.version.as_str(), asked.healthy_for_ms, asked.back_within_ms), ("1.1.0", 3_000, 60_000));
    assert_eq!((asked.hosts.join(" "), asked.rings.join(" ")), ("web1 web2".into(), "1 50%".into()));
    assert_eq!(script.artifacts.len(), 1, "it was uploaded");
}

#[test]
fn every_end_of_an_upgrade_has_its_exit_code() {
    let mut fell_back = view("paused", ["failed", "waiting"]);
    let problem = Problem::new(Code(553), "the agent did not come up").saw("journal", "no such option");
    fell_back.upgrade.as_mut().unwrap().problem = Some((&problem).into());
    let mut stuck = fell_back.clone();
    stuck.upgrade.as_mut().unwrap().problem.as_mut().unwrap().code = 554;
    let ends = [
        (view("succeeded", ["done", "done"]), 0),
        (view("running", ["done", "away"]), 0),
        (view("paused", ["told", "waiting"]), 3),
        (fell_back, 4),
        (stuck, 5),
        (view("aborted", ["done", "waiting"]), 6),
    ];
    let ends_with = |last: &AgentsView, code: i32| {
        let ran = world(&[view("running", ["told", "waiting"]), last.clone()]).run(&format!("{UPGRADE} --json"));
        assert_eq!(ran.code, Some(code), "{ran:?}");
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(document["exit"], code);
        assert_eq!(document["hosts"][0]["state"], last.hosts[0].state.as_str());
    };
    // Each waits for its end: beside one another.
    std::thread::scope(|scope| {
        for (last, code) in &ends {
            scope.spawn(|| ends_with(last, *code));
        }
    });
    let ran = world(&[view("running", ["told", "waiting"])]).run(&format!("{UPGRADE} --timeout 1s"));
    assert_eq!(ran.code, Some(8), "{ran:?}");
    let ran = world(&[view("running", ["told", "waiting"])]).run(&format!("{UPGRADE} --no-wait"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn what_is_no_package_of_the_agent_is_refused_before_anybody_is_asked() {
    let world = world(&[view("running", ["told", "waiting"])]);
    package(&world, "baton-coordinator");
    let ran = world.run(UPGRADE);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.starts_with("error[B0652]: agent.deb is not a package of the agent"), "{}", ran.stderr);
    assert!(ran.stderr.contains("it is the package baton-coordinator"), "{}", ran.stderr);
    std::fs::write(world.folder().join("agent.rpm"), b"\xed\xab\xee\xdb").unwrap();
    let ran = world.run("agents upgrade --package agent.rpm --yes");
    assert!(ran.code == Some(1) && ran.stderr.contains("an .rpm; hosts that use those are upgraded with dnf"), "{ran:?}");
    assert_eq!(world.run("agents upgrade --yes").code, Some(2), "a package must be named");
    assert!(world.coordinator.script().upgrades.is_empty());
}

#[test]
fn nobody_who_could_answer_means_no_upgrade_and_a_refusal_uploads_nothing() {
    let world = world(&[view("running", ["told", "waiting"])]);
    let ran = world.run("agents upgrade --package agent.deb");
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(ran.stderr.contains("error[B0134]") && ran.stderr.contains("--yes says it"), "{}", ran.stderr);
    assert!(world.coordinator.script().upgrades.iter().all(|request| request.dry_run));
    world.coordinator.script().refusal = Some(Problem::new(Code(742), "no host would take this package"));
    let ran = world.run(UPGRADE);
    assert!(ran.code == Some(7) && ran.stderr.contains("error[B0742]"), "{ran:?}");
    assert!(world.coordinator.script().artifacts.is_empty());
}

#[test]
fn agents_are_shown_and_steered() {
    let world = world(&[view("paused", ["failed", "waiting"])]);
    world.coordinator.script().upgrades.push(Default::default());
    let ran = world.run("agents");
    assert!(ran.code == Some(0) && ran.stdout.contains("HOST   AGENT   PACKAGE"), "{ran:?}");
    assert!(ran.stderr.contains("next: baton agents resume, or baton agents abort"), "{}", ran.stderr);
    for (line, code) in
        [("agents pause", 0), ("agents abort --why mended", 0), ("agents resume --no-wait", 0), ("agents resume", 3)]
    {
        assert_eq!(world.run(line).code, Some(code), "{line}");
    }
}
