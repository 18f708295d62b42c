//! A secret goes from a file on a host to the application there, and nowhere else.

use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{COORDINATOR, Setup, Stage};
use baton_tests::e2e::{in_time, setup};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nobody else writes this.
const SENTINEL: &str = "zq-sentinel-7f3c91-do-not-find-me";

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

fn holds(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.windows(SENTINEL.len()).any(|window| window == SENTINEL.as_bytes())
}

#[tokio::test]
async fn a_sentinel_secret_is_found_where_it_belongs_and_nowhere_else() {
    let stage = Stage::raise(Setup { hosts: 1, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let control = stage.control().await.unwrap();
    let source = stage.folder().join("source-of-the-secret");
    std::fs::write(&source, SENTINEL).unwrap();
    let secrets = format!("[run]\nsecrets = {{ DB_PASSWORD = \"file:{}\" }}\n", source.display());
    let manifest = stage.manifest().replace("[run]\n", &secrets);
    let archive = std::fs::read(stage.build("1", &Behaviour::good(Duration::from_millis(50))).unwrap()).unwrap();
    let rollout = control.deploy(&manifest, "1", &archive).await.unwrap();
    let ended = in_time("the release", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());

    let given: Vec<_> = files(stage.folder()).into_iter().filter(|path| holds(path)).collect();
    let belongs = stage.folder().join("web1/credentials");
    let (right, wrong): (Vec<_>, Vec<_>) = given.iter().partition(|path| path.starts_with(&belongs) || **path == source);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(right.len(), 2, "the source and the instance's own: {right:#?}");

    // Arguments and environments of everything on the stage: of the coordinator, the agent, and the application below it.
    let ours = stage.folder().display().to_string();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let all = [command, environment].concat();
        let text = String::from_utf8_lossy(&all);
        assert!(!text.contains(&ours) || !text.contains(SENTINEL), "{}", process.path().display());
    }
    // What the coordinator tells operators.
    let told = format!("{:?}", control.fleet().await.unwrap());
    assert!(!told.contains(SENTINEL));

    // A host that has no such secret says so, and the release is taken back.
    let missing = manifest.replace("source-of-the-secret", "no-such-secret");
    let archive = std::fs::read(stage.build("2", &Behaviour::good(Duration::from_millis(50))).unwrap()).unwrap();
    let rollout = control.deploy(&missing, "2", &archive).await.unwrap();
    let ended = in_time("the way back", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "reverted", "{ended:#?}");
    let evidence = format!("{:?}", ended.evidence);
    assert!(evidence.contains("DB_PASSWORD") && evidence.contains("no-such-secret"), "{evidence}");
    assert!(!stage.log(COORDINATOR).contains(SENTINEL));
}
