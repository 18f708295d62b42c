use super::*;
use crate::runtime::End;
use baton_core::name::{Digest, ReleaseId};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Host {
    folder: TempDir,
    runtime: ProcessRuntime,
}

fn host() -> Host {
    let folder = tempfile::tempdir().unwrap();
    let runtime = ProcessRuntime::open(&folder.path().join("run"), crate::runtime::tests::parts()).unwrap();
    Host { folder, runtime }
}

impl Host {
    fn launch(&self, script: &str) -> Launch {
        let release = ReleaseId(Digest::of(b"shop 1"));
        Launch {
            key: "shop/0".parse().unwrap(),
            release,
            start: 0,
            folder: self.folder.path().to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            user: None,
            env: BTreeMap::from([("BATON_RELEASE".to_owned(), release.to_string())]),
            secrets: BTreeMap::new(),
            stop: polite(Duration::from_secs(5)),
            listen: Vec::new(),
        }
    }

    async fn start(&self, script: &str) -> Running {
        self.runtime.start(self.launch(script)).await.unwrap()
    }

    /// The agent after a `kill -9`: nothing of it is left but files.
    fn successor(&self) -> ProcessRuntime {
        ProcessRuntime::open(&self.folder.path().join("run"), crate::runtime::tests::parts()).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn polite(timeout: Duration) -> Stop {
    Stop { signal: Signal::Term, timeout }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn pid_in(path: &Path) -> u32 {
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn an_exit_is_told_with_status_signal_and_last_lines() {
    let host = host();
    let running = host.start("echo first; echo second >&2; exit 3").await;
    assert_eq!(host.runtime.ended(&running).await, Exit { end: End::Status(3), left_behind: 0 });
    assert_eq!(host.runtime.log(&running).await, ["first", "second"]);
    let running = host.start("kill -SEGV $$").await;
    assert_eq!(host.runtime.ended(&running).await.to_string(), "was ended by SIGSEGV");
}

#[tokio::test]
async fn a_program_that_is_over_before_anybody_looked_did_run() {
    let host = host();
    for _ in 0..50 {
        let mut launch = host.launch("");
        launch.command = vec!["/bin/false".to_owned()];
        let running = host.runtime.start(launch).await.unwrap();
        assert_eq!(host.runtime.ended(&running).await.end, End::Status(1));
    }
}

#[tokio::test]
async fn a_polite_stop_lets_the_program_finish() {
    let host = host();
    let running = host.start("trap 'echo bye; exit 0' TERM; touch up; while :; do sleep 0.01; done").await;
    eventually("up", || host.file("up").exists()).await;
    let exit = host.runtime.stop(&running, &polite(Duration::from_secs(5))).await;
    assert_eq!(exit.end, End::Status(0));
    assert_eq!(host.runtime.log(&running).await, ["bye"]);
}

#[tokio::test]
async fn a_program_that_ignores_the_stop_is_killed_with_all_it_started() {
    let host = host();
    let running =
        host.start("trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > child; sleep 60' & touch up; wait; sleep 60").await;
    eventually("up", || fs::read_to_string(host.file("child")).is_ok_and(|pid| pid.ends_with('\n'))).await;
    let child = pid_in(&host.file("child"));
    let exit = host.runtime.stop(&running, &polite(Duration::from_millis(50))).await;
    assert_eq!(exit.end, End::Signal(9));
    assert_eq!(crate::runtime::handle::start_time(child), None, "its child is gone too");
}

#[tokio::test]
async fn what_left_the_process_group_is_ended_too() {
    let host = host();
    let running = host.start("setsid sh -c 'echo $$ > child; exec sleep 60' & sleep 60").await;
    eventually("child", || fs::read_to_string(host.file("child")).is_ok_and(|pid| pid.ends_with('\n'))).await;
    let child = pid_in(&host.file("child"));
    host.runtime.stop(&running, &polite(Duration::from_secs(5))).await;
    assert_eq!(crate::runtime::handle::start_time(child), None);
}

#[tokio::test]
async fn a_program_that_goes_into_the_background_is_an_exit_that_left_a_process() {
    let host = host();
    let running = host.start("sleep 60 & echo $! > child").await;
    let exit = host.runtime.ended(&running).await;
    assert_eq!(exit, Exit { end: End::Status(0), left_behind: 1 });
    assert_eq!(crate::runtime::handle::start_time(pid_in(&host.file("child"))), None);
}

#[tokio::test]
async fn an_instance_outlives_its_agent_and_is_adopted_by_the_next() {
    let host = host();
    let running = host.start("sleep 60").await;
    let successor = host.successor();
    assert_eq!(successor.list().await.unwrap(), [Found { running: running.clone(), alive: true }]);
    let exit = successor.stop(&running, &polite(Duration::from_secs(5))).await;
    assert_eq!(exit.end, End::Unseen, "it is not this agent's child");
    assert!(!successor.list().await.unwrap()[0].alive, "it ended, and is remembered until it is forgotten");
    successor.forget(&running.key).await;
    assert_eq!(successor.list().await.unwrap(), []);
}

#[tokio::test]
async fn an_instance_whose_agent_died_before_writing_it_down_is_found_by_its_mark() {
    let host = host();
    let running = host.start("sleep 60").await;
    fs::remove_file(host.file("run/shop.0.json")).unwrap();
    // The start is an exec away from wearing its mark.
    let mut found = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while found.is_empty() && Instant::now() < deadline {
        found = host.successor().list().await.unwrap();
    }
    assert_eq!(found.len(), 1);
    assert!(found[0].alive);
    assert_eq!((found[0].running.pid, found[0].running.release), (running.pid, running.release));
    assert_eq!(found[0].running.incarnation, running.incarnation);
    host.runtime.stop(&running, &polite(Duration::from_secs(5))).await;
}

#[tokio::test]
async fn another_process_with_the_same_number_is_not_adopted() {
    let host = host();
    let mut running = host.start("sleep 60").await;
    let real = running.clone();
    running.incarnation = format!("{}0", running.incarnation);
    host.runtime.journal.write(&running);
    let successor = host.successor();
    let mut found = successor.list().await.unwrap();
    // The start is an exec away from wearing its mark.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !found.iter().any(|found| found.alive) && Instant::now() < deadline {
        found = host.successor().list().await.unwrap();
    }
    // The journal lies; the mark in the environment does not.
    assert_eq!(
        found,
        [Found {
            running: Running {
                stop: found[0].running.stop.clone(),
                folder: found[0].running.folder.clone(),
                ..real.clone()
            },
            alive: true
        }]
    );
    assert_eq!(successor.stop(&running, &polite(Duration::ZERO)).await.end, End::Unseen);
    assert!(crate::runtime::handle::start_time(real.pid).is_some(), "the process of another incarnation was not touched");
    host.runtime.stop(&real, &polite(Duration::from_secs(5))).await;
}

#[tokio::test]
async fn what_an_earlier_boot_ended_is_forgotten() {
    let host = host();
    let mut running = host.start("sleep 60").await;
    let real = running.clone();
    host.runtime.stop(&real, &polite(Duration::from_secs(5))).await;
    running.incarnation = "00000000:1:1".to_owned();
    host.runtime.journal.write(&running);
    assert_eq!(host.successor().list().await.unwrap(), []);
}

#[tokio::test]
async fn a_script_without_its_interpreter_names_it() {
    let host = host();
    let path = host.file("app");
    // Written by a process of its own: a child that another test begins just now would have the file open for writing, and such
    // a file cannot be executed.
    let written = std::process::Command::new("sh")
        .args(["-c", "printf '#!/opt/none/python9\\n' >\"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .status();
    assert!(written.unwrap().success());
    let mut launch = host.launch("");
    launch.command = vec!["./app".to_owned()];
    let problem = host.runtime.start(launch).await.unwrap_err();
    assert_eq!(problem.code, Code(201), "{problem}");
    assert!(problem.what.starts_with("`/opt/none/python9`"), "{problem}");
    assert_eq!(host.runtime.list().await.unwrap(), [], "nothing is left of a start that was none");
}

#[tokio::test]
async fn a_secret_reaches_the_instance_as_a_file_and_nothing_else_of_it_anywhere() {
    const SENTINEL: &str = "s3cr3t-of-the-process-test";
    let host = host();
    let source = host.folder.path().join("source");
    std::fs::write(&source, SENTINEL).unwrap();
    let reference = BTreeMap::from([("DB".to_owned(), format!("file:{}", source.display()).parse().unwrap())]);
    let secrets = crate::secrets::find(&reference, &crate::allow::Files::all()).await.unwrap();
    let script = "cmp -s \"$CREDENTIALS_DIRECTORY/DB\" \"$DB_FILE\" && wc -c < \"$DB_FILE\" > length; exec sleep 60";
    let running = host.runtime.start(Launch { secrets, ..host.launch(script) }).await.unwrap();
    let length = SENTINEL.len().to_string();
    eventually("read", || fs::read_to_string(host.file("length")).is_ok_and(|read| read.trim() == length)).await;
    for name in ["environ", "cmdline"] {
        let seen = std::fs::read(format!("/proc/{}/{name}", running.pid)).unwrap();
        assert!(!String::from_utf8_lossy(&seen).contains(SENTINEL), "{name}");
    }
    for entry in std::fs::read_dir(host.folder.path().join("run")).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(SENTINEL));
    }
    host.runtime.stop(&running, &running.stop).await;
    host.runtime.forget(&running.key).await;
    assert!(!host.folder.path().join("credentials/shop-0").exists());
}

#[tokio::test]
async fn the_logs_of_a_service_that_was_removed_go_once_nothing_of_it_runs() {
    let host = host();
    let running = host.start("echo bye; exec sleep 60").await;
    let log = host.file("run/shop.0.log");
    host.runtime.keep_logs(BTreeSet::new());
    host.runtime.tend();
    assert!(log.exists(), "it runs");
    host.runtime.stop(&running, &polite(Duration::from_secs(5))).await;
    host.runtime.forget(&running.key).await;
    host.runtime.keep_logs(["shop".parse().unwrap()].into());
    host.runtime.tend();
    assert!(log.exists(), "the host still has to do with it");
    host.runtime.keep_logs(BTreeSet::new());
    host.runtime.tend();
    assert!(!log.exists());
}
