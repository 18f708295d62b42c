//! Whatever a demo's processes start and abandon, nothing of it is left behind.

#![allow(clippy::unwrap_used)]

use baton_cli::demo::warden::{Program, Warden};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn part() -> Vec<String> {
    vec![env!("CARGO_BIN_EXE_baton").to_owned(), "demo-part".to_owned()]
}

fn folder() -> PathBuf {
    tempfile::Builder::new().prefix("baton-warden-").tempdir().unwrap().keep()
}

fn shell(folder: &Path, script: &str) -> Program {
    Program {
        words: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: [("MARK".to_owned(), folder.display().to_string())].into(),
        folder: folder.to_owned(),
        log: folder.join("log"),
    }
}

/// How many living processes carry the folder's mark in their environment.
fn alive(folder: &Path) -> usize {
    let mark = format!("MARK={}", folder.display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let environments = processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok());
    environments.filter(|environment| environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes())).count()
}

fn assert_eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Two that outlive their parent, one of them in a session of its own, and one that ignores polite signals.
const ABANDON: &str = "sleep 300 & setsid sh -c 'sleep 300; true' & trap '' TERM HUP INT; exit 0";

#[test]
fn processes_that_outlive_their_parents_end_with_the_warden_and_so_does_the_folder() {
    let folder = folder();
    let mut warden = Warden::raise(&part(), &folder).unwrap();
    warden.start(&shell(&folder, ABANDON)).unwrap();
    warden.start(&shell(&folder, "trap '' TERM; while true; do sleep 1; done")).unwrap();
    assert_eventually("the abandoned run", || alive(&folder) >= 4);
    drop(warden);
    assert_eq!(alive(&folder), 0);
    assert!(!folder.exists());
}

#[test]
fn a_killed_owner_leaves_nothing_behind_either() {
    let folder = folder();
    // The owner is a process of its own that holds the warden's pipe: here a shell that starts one and waits.
    let order = serde_json::json!({ "start": shell(&folder, ABANDON) }).to_string();
    let script = format!(
        "(printf '%s\\n' '{}'; exec sleep 300) | '{}' demo-part warden '{}'",
        order.replace('\'', "'\\''"),
        part()[0],
        folder.display()
    );
    let mut owner = std::process::Command::new("/bin/sh");
    let mut owner = owner.args(["-c", &script]).stdout(std::process::Stdio::null()).spawn().unwrap();
    assert_eventually("the abandoned run", || alive(&folder) >= 2);
    // The end of the pipe's writer, however it dies, is what the warden sees.
    let writer = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", owner.id())).unwrap();
    let writer = writer.split_ascii_whitespace().next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(writer).unwrap(), rustix::process::Signal::KILL).unwrap();
    assert!(owner.wait().unwrap().success());
    assert_eq!(alive(&folder), 0);
    assert!(!folder.exists());
}

#[test]
fn a_program_that_does_not_exist_is_refused_with_its_name() {
    let folder = folder();
    let mut warden = Warden::raise(&part(), &folder).unwrap();
    let mut program = shell(&folder, "");
    program.words = vec!["/nowhere/at-all".to_owned()];
    let refused = warden.start(&program).unwrap_err().to_string();
    assert!(refused.contains("/nowhere/at-all") && refused.contains("No such file"), "{refused}");
    drop(warden);
    assert!(!folder.exists());
}
