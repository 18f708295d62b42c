//! Releases that do not work: each is taken back by itself, says why, and the old one serves on as if nothing had been.
//!
//! Few stages for all of them, on each one after the other: what one leaves behind, the next stumbles over.

use baton_cli::demo::load::Load;
use baton_cli::demo::stage::control::Control;
use baton_cli::demo::stage::release::{Behaviour, Fault, archive, pack};
use baton_cli::demo::stage::{SERVICE, Stage};
use baton_proto::v1::{Problem, RolloutView};
use baton_tests::e2e::{assert_nothing_was_lost, in_time, setup, traffic};
use futures_util::future::select_all;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// Never dropped: a stage's warden ends it with the process.
static STAGES: [Mutex<Option<Stage>>; 3] = [const { Mutex::const_new(None) }; 3];

/// A stage with release `good` live and traffic on it.
struct Scene {
    stage: MutexGuard<'static, Option<Stage>>,
    control: Control,
    load: Load,
}

impl Scene {
    async fn enter() -> Self {
        let (mut stage, ..) = select_all(STAGES.iter().map(|stage| Box::pin(stage.lock()))).await;
        if stage.is_none() {
            let raised = Stage::raise(setup(env!("CARGO_BIN_EXE_bench"))).await.unwrap();
            let control = raised.control().await.unwrap();
            let good = archive(&raised.setup.part, "good", &Behaviour::good(Duration::ZERO)).unwrap();
            let rollout = control.deploy(&raised.manifest(), "good", &good).await.unwrap();
            let ended = in_time("the good release", control.wait_ended(&rollout)).await.unwrap();
            assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", raised.last_words());
            *stage = Some(raised);
        }
        let raised = stage.as_ref().unwrap();
        let control = raised.control().await.unwrap();
        let load = traffic(raised);
        Self { stage, control, load }
    }

    fn stage(&self) -> &Stage {
        self.stage.as_ref().unwrap()
    }

    fn archive(&self, version: &str, fault: Fault) -> Vec<u8> {
        archive(&self.stage().setup.part, version, &Behaviour::bad(fault)).unwrap()
    }

    /// Deploys what cannot work and checks everything that must hold afterwards; gives the evidence.
    ///
    /// A release that fails when it is started is started on one host only. An archive is fetched by all hosts ahead of time, so
    /// several may have something to say about it.
    async fn must_be_taken_back(self, version: &str, manifest: &str, archive: &[u8]) -> Problem {
        let rollout = self.control.deploy(manifest, version, archive).await.unwrap();
        let ended = in_time("the end of a bad release", self.control.wait_ended(&rollout)).await.unwrap();
        assert_eq!(ended.state, "reverted", "{ended:#?}\n{}", self.stage().last_words());
        self.serves_as_before(version).await;
        let problem = evidence(&ended);
        let was_started = !(600..700).contains(&problem.code);
        assert!(!was_started || ended.evidence.len() == 1, "a second host started it: {:#?}", ended.evidence);
        problem
    }

    async fn serves_as_before(self, version: &str) {
        // Also where nothing was to be seen: a refusal takes no time.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let report = self.load.mark().await.unwrap();
        assert_nothing_was_lost(self.stage(), &report);
        assert_eq!(report.versions.keys().collect::<Vec<_>>(), ["good"]);
        assert_eq!(processes_of(version), Vec::<String>::new(), "processes of it are left");
        let service = self.control.service(SERVICE).await.unwrap();
        assert_eq!((service.committed_version.as_str(), service.health.as_str()), ("good", "healthy"));
    }

    /// Takes every place of the service that nobody listens on: where the next release will start, on whichever host.
    fn take_free_places(&self) -> Vec<TcpListener> {
        let places = &self.stage().places;
        let all = places.hosts.iter().flat_map(|host| places.ports.iter().map(|port| SocketAddr::new(*host, *port)));
        all.filter_map(|place| TcpListener::bind(place).ok()).collect()
    }
}

/// The first problem, with its host, what was seen, and what helps.
fn evidence(rollout: &RolloutView) -> Problem {
    assert!(!rollout.evidence.is_empty(), "taken back for no reason: {rollout:#?}");
    let evidence = rollout.evidence[0].clone();
    assert!(!evidence.host.is_empty());
    let problem = evidence.problem.unwrap();
    assert!(!problem.what.is_empty() && !problem.seen.is_empty() && !problem.help.is_empty(), "{problem:#?}");
    problem
}

fn all_of(problem: &Problem) -> String {
    let seen = problem.seen.iter().map(|seen| format!("{}: {}\n", seen.label, seen.evidence)).collect::<String>();
    format!("{}\n{seen}{}", problem.what, problem.help)
}

#[track_caller]
fn assert_says(problem: &Problem, codes: std::ops::Range<u32>, words: &[&str]) {
    assert!(codes.contains(&problem.code), "B{:04}: {}", problem.code, all_of(problem));
    for word in words {
        assert!(all_of(problem).contains(word), "`{word}` is not in:\n{}", all_of(problem));
    }
}

/// Command lines of living processes that run this version.
fn processes_of(version: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| line.replace('\0', " "));
    lines.filter(|line| line.contains(&format!("--version-text {version} "))).collect()
}

#[tokio::test]
async fn an_app_that_exits_is_known_at_once() {
    let scene = Scene::enter().await;
    let (manifest, archive) = (scene.stage().manifest(), scene.archive("exits", Fault::Exits(7)));
    let begun = std::time::Instant::now();
    let problem = scene.must_be_taken_back("exits", &manifest, &archive).await;
    assert_says(&problem, 200..300, &["7", "exiting with 7"]);
    assert!(begun.elapsed() < Duration::from_millis(1900), "it waited for the start timeout of a dead process");
}

#[tokio::test]
async fn an_app_that_never_listens_is_taken_back_when_its_time_is_over() {
    let scene = Scene::enter().await;
    let (manifest, archive) = (scene.stage().manifest(), scene.archive("silent", Fault::NeverListens));
    let problem = scene.must_be_taken_back("silent", &manifest, &archive).await;
    assert_says(&problem, 200..300, &["refused", "waiting for a database"]);
}

#[tokio::test]
async fn an_app_that_listens_elsewhere_is_told_where_it_listens() {
    let scene = Scene::enter().await;
    let elsewhere = scene.stage().places.elsewhere;
    let (manifest, archive) = (scene.stage().manifest(), scene.archive("astray", Fault::ListensElsewhere(elsewhere)));
    let problem = scene.must_be_taken_back("astray", &manifest, &archive).await;
    assert_says(&problem, 200..300, &[&elsewhere.to_string(), "refused"]);
}

#[tokio::test]
async fn an_app_that_redirects_its_probe_is_not_ready() {
    let scene = Scene::enter().await;
    let (manifest, archive) = (scene.stage().manifest(), scene.archive("redirects", Fault::Answers(301)));
    let problem = scene.must_be_taken_back("redirects", &manifest, &archive).await;
    assert_says(&problem, 200..300, &["301", "/healthz"]);
}

#[tokio::test]
async fn an_app_that_answers_500_is_not_ready() {
    let scene = Scene::enter().await;
    let (manifest, archive) = (scene.stage().manifest(), scene.archive("ill", Fault::Answers(500)));
    let problem = scene.must_be_taken_back("ill", &manifest, &archive).await;
    assert_says(&problem, 200..300, &["500", "/healthz"]);
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_named() {
    let scene = Scene::enter().await;
    let manifest = scene.stage().manifest().replace("bin/shop", "bin/shoop");
    let archive = scene.archive("typo", Fault::Nothing);
    let problem = scene.must_be_taken_back("typo", &manifest, &archive).await;
    assert_says(&problem, 200..300, &["bin/shoop"]);
}

#[tokio::test]
async fn a_probe_that_does_not_exist_is_not_waited_for() {
    let scene = Scene::enter().await;
    let manifest = scene.stage().manifest().replace("http = \"/healthz\"", "exec = \"bin/healthy\"");
    let archive = scene.archive("unasked", Fault::Nothing);
    let begun = std::time::Instant::now();
    let problem = scene.must_be_taken_back("unasked", &manifest, &archive).await;
    assert_says(&problem, 201..202, &["bin/healthy", "health.exec"]);
    assert!(begun.elapsed() < Duration::from_millis(1900), "a probe that is not there was waited for");
}

#[tokio::test]
async fn a_port_taken_by_a_stranger_is_found_before_anything_starts() {
    let scene = Scene::enter().await;
    let strangers = scene.take_free_places();
    let ports = scene.stage().places.ports.clone();
    let (manifest, archive) = (scene.stage().manifest(), scene.archive("late", Fault::Nothing));
    let begun = std::time::Instant::now();
    let problem = scene.must_be_taken_back("late", &manifest, &archive).await;
    assert_says(&problem, 205..206, &[]);
    assert!(ports.iter().any(|port| all_of(&problem).contains(&port.to_string())), "{}", all_of(&problem));
    assert!(begun.elapsed() < Duration::from_millis(1900), "a port that is taken was waited for");
    drop(strangers);
}

#[tokio::test]
async fn an_artifact_that_is_no_archive_is_rejected_by_the_host() {
    let scene = Scene::enter().await;
    let manifest = scene.stage().manifest();
    let problem = scene.must_be_taken_back("garbage", &manifest, b"this is not an archive").await;
    assert_says(&problem, 600..700, &[]);
}

#[tokio::test]
async fn an_archive_that_reaches_out_of_its_folder_is_rejected_whole() {
    let scene = Scene::enter().await;
    let manifest = scene.stage().manifest();
    let script = b"#!/bin/sh\nexit 0\n";
    let archive = hostile(&[("bin/shop", script.as_slice()), ("../../../escaped", b"owned".as_slice())]);
    let folder = scene.stage().folder().to_owned();
    let problem = scene.must_be_taken_back("hostile", &manifest, &archive).await;
    assert_says(&problem, 600..700, &["escaped"]);
    assert!(!exists_below(&folder, "escaped"), "a file of it was written");
}

#[tokio::test]
async fn an_artifact_nobody_uploaded_is_refused() {
    let scene = Scene::enter().await;
    let manifest = scene.stage().manifest();
    let digest = blake3::hash(b"never uploaded");
    let refused = scene.control.deploy_uploaded(&manifest, "nowhere", digest, 14).await.unwrap_err();
    assert!((600..700).contains(&refused.code.0), "{refused:#?}");
    assert!(!refused.seen.is_empty() && refused.help.is_some(), "{refused:#?}");
    scene.serves_as_before("nowhere").await;
}

#[tokio::test]
async fn an_artifact_that_is_not_what_its_digest_says_is_refused() {
    let scene = Scene::enter().await;
    let archive = pack(&[("bin/shop", 0o755, b"#!/bin/sh\n")]).unwrap();
    let refused = scene.control.upload(blake3::hash(b"something else"), &archive).await.unwrap_err();
    assert!((600..700).contains(&refused.code.0), "{refused:#?}");
    assert!(!refused.seen.is_empty() && refused.help.is_some(), "{refused:#?}");
    scene.serves_as_before("corrupt").await;
}

/// An archive the `tar` crate would not write: names are put into the header as they are.
fn hostile(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o755);
        header.set_mtime(1);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    zstd::encode_all(tar.into_inner().unwrap().as_slice(), 3).unwrap()
}

fn exists_below(folder: &std::path::Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.any(|path| path.file_name().is_some_and(|file| file == name) || (path.is_dir() && exists_below(&path, name)))
}
