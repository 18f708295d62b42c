//! The real `baton`, run as scripts run it, against a coordinator that does what each test says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agents;
mod audit;
mod coordinator;
mod identity;
mod reboot;
mod refused;
mod world;

use baton_core::problem::{Code, Problem};
use coordinator::Script;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use world::{World, artifact, at_rest, ran, reverted, rolling, succeeded};

fn script(then: baton_proto::v1::FleetView) -> Script {
    Script { rollout: "r-1".into(), then: Some(then), ..Script::default() }
}

#[test]
fn a_deploy_uploads_waits_and_says_what_was_measured() {
    let world = World::new(at_rest(1_000), script(succeeded(1_400)));
    let ran = world.run("deploy shop 2.1.0");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(
        ran.stdout,
        "shop 2.1.0: live on 2 of 2 hosts · service healthy on 2.1.0 · 4.0 s\n\
         0 failed of 800 requests seen by the load balancer\n"
    );
    assert!(ran.stderr.ends_with("next: baton status shop\n"), "{}", ran.stderr);
    let script = world.coordinator.script();
    let digest = blake3::hash(&artifact()).as_bytes().to_vec();
    assert!(script.artifacts[&digest] == artifact());
    let [request] = script.deploys.as_slice() else { panic!("{}", script.deploys.len()) };
    assert_eq!((request.version.as_str(), &request.artifact_digest), ("2.1.0", &digest));
    assert_eq!(request.artifact_size, artifact().len() as u64);
}

#[test]
fn every_end_has_its_exit_code_and_its_two_words() {
    let failed = rolling("failed", 1_000);
    let paused = rolling("paused", 1_000);
    let table = [
        (reverted("evidence"), 4, "shop 2.1.0: rolled back · service healthy on 2.0.4"),
        (failed, 5, "shop 2.1.0: failed · service healthy on 2.0.4"),
        (reverted("ben"), 6, "shop 2.1.0: aborted by ben, rolled back · service healthy on 2.0.4"),
        (paused, 3, "shop 2.1.0: paused · service healthy on 2.0.4"),
    ];
    for (end, code, words) in table {
        let world = World::new(at_rest(1_000), script(end));
        let ran = world.run("deploy 2.1.0");
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stdout.starts_with(words), "{ran:?}");
    }
}

#[test]
fn watching_a_rollout_that_has_ended_ends_as_it_did() {
    for (fleet, code) in [(reverted("evidence"), 4), (reverted("ben"), 6), (succeeded(1_000), 0), (at_rest(1_000), 0)] {
        let world = World::new(fleet, Script::default());
        let ran = world.run("watch shop");
        assert_eq!(ran.code, Some(code), "{ran:?}");
    }
}

#[test]
fn an_archive_that_hosts_would_refuse_is_refused_before_anything_is_sent() {
    let mut cut = artifact();
    cut.truncate(cut.len() / 2);
    let mut flipped = artifact();
    flipped[700_000] ^= 1;
    for corrupt in [cut, flipped, b"this is no archive".to_vec()] {
        let world = World::new(at_rest(1_000), Script::default());
        std::fs::write(world.folder().join("shop-2.1.0.tar.zst"), corrupt).unwrap();
        for verb in ["plan", "deploy"] {
            let ran = world.run(&format!("{verb} 2.1.0"));
            assert_eq!(ran.code, Some(1), "{ran:?}");
            assert!(ran.stderr.starts_with("error[B0610]: the archive is refused: "), "{}", ran.stderr);
            assert!(ran.stderr.contains("shop-2.1.0.tar.zst"), "{}", ran.stderr);
        }
        let script = world.coordinator.script();
        assert!(script.artifacts.is_empty() && script.deploys.is_empty());
    }
}

#[test]
fn a_pipeline_can_fold_the_progress_and_shows_what_went_wrong() {
    let world = World::new(at_rest(1_000), script(reverted("evidence")));
    let ran = ran(world.command("deploy 2.1.0 --json").env("GITHUB_ACTIONS", "true").output().unwrap());
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let (folded, after) = ran.stderr.split_once("::endgroup::\n").unwrap();
    assert!(folded.contains("::group::baton shop\n"), "{}", ran.stderr);
    let mark = "::error title=shop 2.1.0::rolled back · service healthy on 2.0.4%0Aweb2: [B0210] ";
    assert!(after.contains(mark), "{}", ran.stderr);
    assert!(ran.stdout.starts_with('{'), "stdout is the answer and nothing else: {}", ran.stdout);

    std::fs::write(world.folder().join("wrong.toml"), "service = 1\n").unwrap();
    let ran = crate::ran(world.command("deploy 2.1.0 -f wrong.toml").env("GITHUB_ACTIONS", "true").output().unwrap());
    assert!(ran.stderr.contains("::error file=wrong.toml,line=1,col=11,title=baton B0103::"), "{}", ran.stderr);
}

#[test]
fn a_report_for_pipelines_says_how_each_host_ended() {
    let report = |world: &World| std::fs::read_to_string(world.folder().join("report.xml")).unwrap();
    let world = World::new(at_rest(1_000), script(succeeded(1_400)));
    assert_eq!(world.run("deploy shop 2.1.0 --junit report.xml").code, Some(0));
    assert!(report(&world).contains("name=\"baton deploy shop 2.1.0\" tests=\"3\" failures=\"0\""), "{}", report(&world));
    let world = World::new(at_rest(1_000), script(reverted("evidence")));
    assert_eq!(world.run("deploy 2.1.0 --junit report.xml").code, Some(4));
    assert!(report(&world).contains("<failure message=\"[B0210] shop 2.1.0 did not become ready"), "{}", report(&world));
    assert_eq!(world.run("deploy 2.2.0 --junit report.xml").code, Some(1), "there is no such artifact");
    assert!(report(&world).contains("[B0650]"), "{}", report(&world));
    let unwritten = world.run("deploy 2.1.0 --junit /none/report.xml");
    assert_eq!(unwritten.code, Some(1), "said before anything is deployed: {unwritten:?}");
    assert!(unwritten.stderr.contains("nothing was deployed"), "{unwritten:?}");
}

#[test]
fn a_forgotten_version_is_a_wrong_command_line() {
    let world = World::new(at_rest(1_000), Script::default());
    for verb in ["deploy", "plan"] {
        let ran = world.run(&format!("{verb} shop"));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.starts_with("error[B0139]: the version is missing: shop is the service"), "{}", ran.stderr);
    }
}

#[test]
fn evidence_is_shown_on_stderr_with_its_control_characters_escaped() {
    let world = World::new(at_rest(1_000), script(reverted("evidence")));
    let ran = world.run("deploy 2.1.0");
    assert!(ran.stderr.contains("error[B0210]: shop 2.1.0 did not become ready on web2"), "{}", ran.stderr);
    assert!(ran.stderr.contains(r"\u{1b}[2Jboom") && !ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
}

#[test]
fn where_a_rollout_is_ended_each_release_is_shown_with_its_hosts() {
    let mut ended = rolling("partial", 1_000);
    ended.services[0].hosts[0].versions = vec!["2.1.0".into()];
    let world = World::new(rolling("running", 1_000), script(ended));
    let ran = world.run("abort shop --keep");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.starts_with("shop: r-1 ended where it stood"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\n  2.0.4  web3\n  2.1.0  web2\n"), "{}", ran.stdout);
}

#[test]
fn a_release_that_is_live_is_nothing_to_do() {
    let world = World::new(at_rest(1_000), Script::default());
    let ran = world.run("deploy 2.1.0");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "shop 2.1.0 is already live: nothing to do\n"));
}

#[test]
fn a_second_deploy_attaches_to_the_rollout_under_way() {
    let world = World::new(rolling("running", 1_000), script(succeeded(1_400)));
    let ran = world.run("deploy 2.1.0");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("attached to r-1, started by ana 4.0 s ago"), "{}", ran.stderr);
}

#[test]
fn a_refusal_ends_with_7_and_a_mistake_with_1() {
    for (code, exit) in [(701, 7), (716, 1)] {
        let refusal = Some(Problem::new(Code(code), "no").help("baton watch shop"));
        let world = World::new(at_rest(1_000), Script { refusal, ..Script::default() });
        let ran = world.run("deploy 2.1.0");
        assert_eq!(ran.code, Some(exit), "{ran:?}");
        assert!(ran.stderr.contains(&format!("error[B0{code}]: no\nhelp: baton watch shop\n")), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
        assert_eq!(world.run("plan 2.1.0").code, Some(exit), "a plan ends as the deploy would");
    }
}

#[test]
fn waiting_that_times_out_ends_with_8_and_says_that_the_rollout_goes_on() {
    let world = World::new(at_rest(1_000), script(rolling("running", 1_000)));
    let ran = world.run("deploy 2.1.0 --timeout 300ms");
    assert_eq!(ran.code, Some(8), "{ran:?}");
    assert!(ran.stdout.contains("the rollout goes on"), "{}", ran.stdout);
    assert!(ran.stderr.ends_with("next: baton watch shop\n"), "{}", ran.stderr);
}

#[test]
fn no_wait_returns_once_it_is_accepted() {
    let world = World::new(at_rest(1_000), script(rolling("running", 1_000)));
    let ran = world.run("deploy 2.1.0 --no-wait");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "shop: r-1 accepted\n"));
}

#[test]
fn ctrl_c_ends_with_130_and_says_that_the_rollout_goes_on() {
    for signal in [Signal::INT, Signal::TERM] {
        let world = World::new(at_rest(1_000), script(rolling("running", 1_000)));
        let mut child = world.start("deploy 2.1.0");
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(said.any(|line| line.contains("r-1 running")), "the rollout is under way");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let rest: Vec<String> = said.collect();
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(130), "{ran:?}");
        assert!(ran.stdout.contains("interrupted, the rollout goes on · service healthy on 2.0.4"), "{ran:?}");
        assert_eq!(rest.last().unwrap(), "next: baton watch shop");
    }
}

#[test]
fn a_connection_that_breaks_is_no_outcome() {
    let world = World::new(at_rest(1_000), Script { watch_breaks: 2, ..script(rolling("running", 1_000)) });
    let mut child = world.start("deploy 2.1.0");
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("hosts go on serving, trying again")));
    assert!(said.any(|line| line.contains("the coordinator answers again")));
    world.coordinator.show(succeeded(1_400));
    let _ = said.count();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_upload_that_breaks_off_goes_on_where_it_ended() {
    let world = World::new(at_rest(1_000), Script { upload_breaks_after: Some(500_000), ..script(succeeded(1_400)) });
    let ran = world.run("deploy 2.1.0");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let script = world.coordinator.script();
    assert!(matches!(script.uploads.as_slice(), [0, resumed] if *resumed >= 500_000), "{:?}", script.uploads);
    assert!(script.artifacts[blake3::hash(&artifact()).as_bytes().as_slice()] == artifact());
}

#[test]
fn a_version_released_before_needs_no_file() {
    let digest = blake3::hash(b"old").to_string();
    let release = baton_proto::v1::ReleaseView {
        service: "shop".into(),
        version: "2.0.3".into(),
        artifact_digest: digest,
        artifact_size: 3,
        ..Default::default()
    };
    let mut with_release = script(succeeded(1_400));
    with_release.releases.push(release);
    with_release.artifacts.insert(blake3::hash(b"old").as_bytes().to_vec(), b"old".to_vec());
    let world = World::new(at_rest(1_000), with_release);
    assert_eq!(world.run("deploy 2.0.3").code, Some(0));
    let missing = world.run("deploy 2.0.2");
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("error[B0650]: there is no artifact at shop-2.0.2.tar.zst"), "{}", missing.stderr);
}

#[test]
fn rollback_of_a_rollout_under_way_is_done_when_it_is_back() {
    let world = World::new(rolling("running", 1_000), script(reverted("ana")));
    let ran = world.run("rollback");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.starts_with("shop 2.1.0: rolled back · service healthy on 2.0.4"), "{ran:?}");
}

#[test]
fn json_is_one_document_and_json_lines_one_a_line() {
    let world = World::new(at_rest(1_000), script(reverted("evidence")));
    let ran = world.run("deploy 2.1.0 --json");
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["outcome"], "rolled_back");
    assert_eq!(document["exit"], 4);
    assert_eq!(document["requests"]["failed"], 0);
    assert_eq!(document["evidence"][0]["problem"]["code"], "B0210");

    let world = World::new(at_rest(1_000), script(succeeded(1_400)));
    let ran = world.run("deploy 2.1.0 --json-lines");
    let events: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], "rollout");
    assert_eq!(events.last().unwrap()["event"], "end");

    let failed = world.run("hosts show web9 --json");
    let document: serde_json::Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!((failed.code, &document["error"]["code"]), (Some(1), &"B0133".into()));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut large = at_rest(1_000);
    let host = large.hosts[1].clone();
    large.hosts.extend((0..20_000).map(|nth| baton_proto::v1::HostView { name: format!("host{nth}"), ..host.clone() }));
    let world = World::new(large, Script::default());
    for verb in ["hosts list", "status --json"] {
        let mut child = world.start(verb);
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
}

#[test]
fn a_mistake_is_told_before_the_archive_has_travelled() {
    let refusal = Some(Problem::new(Code(703), "web9 never joined"));
    let world = World::new(at_rest(1_000), Script { refusal, ..script(succeeded(1_400)) });
    let ran = world.run("deploy 2.1.0");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.starts_with("error[B0703]: web9 never joined\n --> baton.toml:2:"), "{}", ran.stderr);
    let script = world.coordinator.script();
    assert!(script.uploads.is_empty() && script.deploys.is_empty());
}

#[test]
fn an_answer_that_could_not_be_written_is_no_success() {
    let world = World::new(at_rest(1_000), Script::default());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = ran(world.command("status --json").stdout(full).output().unwrap());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("error[B0152]: the answer could not be written"), "{}", ran.stderr);
}

#[test]
fn a_program_is_told_a_wrong_command_line_in_json() {
    let world = World::new(at_rest(1_000), Script::default());
    for line in ["--json statuss", "status --json-lines --nope"] {
        let ran = world.run(line);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((&document["error"]["code"], &document["exit"]), (&"B0151".into(), &2.into()), "{document}");
        assert!(ran.stderr.starts_with("error: un"), "{}", ran.stderr);
    }
    assert_eq!(world.run("statuss").stdout, "");
    let ran = world.run("token create --role ci --hosts 3");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.starts_with("error[B0150]: --hosts is for tokens of hosts"), "{}", ran.stderr);
    let ran = world.run("token create --hosts 2 --name web1");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.starts_with("error[B0150]: --hosts 2 is more than the 1 name given"), "{}", ran.stderr);
    for good in ["--role host --hosts 3", "--hosts 2 --name web1 --name web2", "--uses 1 --name web1 --name web2"] {
        assert_eq!(world.run(&format!("token create {good}")).code, Some(0), "{good}");
    }
}

#[test]
fn a_wrong_manifest_is_told_whole_before_anybody_is_asked() {
    let world = World::new(at_rest(1_000), Script::default());
    std::fs::write(world.folder().join("baton.toml"), "servce = \"shop\"\nhosts = []\n").unwrap();
    for verb in ["deploy 2.1.0", "plan 2.1.0", "config check", "config show"] {
        let ran = world.run(verb);
        assert_eq!(ran.code, Some(1), "{verb}: {ran:?}");
        assert!(ran.stderr.contains(" --> baton.toml:1:1"), "{verb}: {}", ran.stderr);
        assert!(ran.stderr.contains("error[B0106]"), "{verb}: {}", ran.stderr);
    }
    assert!(world.coordinator.script().deploys.is_empty());
}

#[test]
fn init_then_check_then_plan() {
    let world = World::new(at_rest(1_000), Script::default());
    assert_eq!(world.run("init").code, Some(1), "there is a manifest already");
    std::fs::remove_file(world.folder().join("baton.toml")).unwrap();
    assert_eq!(world.run("init shop").code, Some(0));
    assert_eq!(world.run("config check").code, Some(0));
    assert_eq!(world.run("plan 2.1.0").code, Some(0));
    let plan = world.run("plan 2.1.0 --exit-code");
    assert_eq!(plan.code, Some(10), "{plan:?}");
    assert!(plan.stdout.starts_with("shop  2.0.4 → 2.1.0   in place, 1 at a time, 2 hosts\n"), "{}", plan.stdout);
    assert!(world.coordinator.script().artifacts.is_empty(), "a plan uploads nothing");
}

#[test]
fn the_token_is_all_that_stdout_carries() {
    let world = World::new(at_rest(1_000), Script::default());
    let ran = world.run("token create --hosts 4 --ttl 1h");
    assert!(ran.stderr.contains("baton-agent join COORDINATOR:9443 --token-file FILE"), "{}", ran.stderr);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "baton1.abc\n"));
    assert!(ran.stderr.contains("4 uses, good for 1 h"), "{}", ran.stderr);
}

#[test]
fn hosts_that_chose_their_names_are_accepted_by_name_or_all_that_wait() {
    let mut view = at_rest(1_000);
    let waiting: Vec<String> = view
        .hosts
        .iter_mut()
        .skip(1)
        .map(|host| {
            host.waits_for_acceptance = true;
            host.name.clone()
        })
        .collect();
    let world = World::new(view, Script::default());
    let ran = world.run("hosts accept --all --json");
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, said["accepted"].clone()), (Some(0), serde_json::json!(waiting)), "{ran:?}");
    assert_eq!(world.run("hosts accept web1").stdout, "web1 is accepted: manifests may name it\n");
    assert_eq!(world.run("hosts accept").code, Some(2));
    let listed = world.run("hosts list").stdout;
    assert!(listed.contains("waits to be accepted"), "{listed}");
}

#[test]
fn a_history_of_nobody_is_an_error_and_a_service_may_be_named_without_list() {
    let world = World::new(at_rest(1_000), Script::default());
    assert_eq!(world.run("history shop").code, Some(0));
    let ran = world.run("history nosuch");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.starts_with("error[B0709]: there is no service nosuch"), "{}", ran.stderr);
    for line in ["releases", "releases list", "releases shop", "releases list shop"] {
        assert_eq!(world.run(line).code, Some(0), "{line}");
    }
    assert_eq!(world.run("releases shop blog").code, Some(2));
}

#[test]
fn without_a_command_there_is_help_and_so_there_is_for_each() {
    let world = World::new(at_rest(1_000), Script::default());
    let ran = world.run("");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("Usage: baton") && ran.stderr.contains("  deploy "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("demo-part"), "{}", ran.stderr);
    let nested = world.run("token");
    assert!(nested.code == Some(2) && nested.stderr.contains("Usage: baton token "), "{nested:?}");
    let help = world.run("help deploy");
    assert!(help.code == Some(0) && help.stdout.contains("Usage: baton deploy"), "{help:?}");
    assert_eq!(world.run("help").code, Some(0));
}

#[test]
fn a_usage_line_shows_no_option_that_only_a_variable_gave() {
    let world = World::new(at_rest(1_000), Script::default());
    for line in ["deploy --versio 2", "login --token-file t", "token create --ttl"] {
        let ran = ran(world.command(line).env("USER", "ana").output().unwrap());
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let usage = ran.stderr.lines().find(|line| line.starts_with("Usage:")).unwrap_or_default();
        assert!(!usage.contains("--socket") && !usage.contains("--name"), "{usage}");
    }
}

#[test]
fn a_doctor_asks_at_least_twenty_questions_and_whatever_is_wrong_comes_with_a_fix() {
    let world = World::new(at_rest(1_000), Script::default());
    // Once with a coordinator, and once without: what cannot be asked then is an answer, too.
    let without = ran(world.command("doctor --json --root /none").env("BATON_SOCKET", "/none").output().unwrap());
    assert_eq!(without.code, Some(1), "{without:?}");
    for ran in [world.run("doctor --json --root /none"), without] {
        let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let checks = answer["checks"].as_array().unwrap();
        let names: std::collections::BTreeSet<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
        assert!(names.len() >= 20 && names.len() == checks.len(), "{names:?}");
        let wrong = checks.iter().filter(|check| matches!(check["state"].as_str(), Some("bad" | "warning")));
        assert!(wrong.clone().all(|check| check["fix"].is_string()), "{ran:?}");
    }
}

#[test]
fn a_socket_that_is_set_to_nothing_is_not_set() {
    let world = World::new(at_rest(1_000), Script::default());
    let ran = ran(world.command("status").env("BATON_SOCKET", "").output().unwrap());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(!ran.stderr.contains("BATON_SOCKET"), "no usage error: {}", ran.stderr);
}
