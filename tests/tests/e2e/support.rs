//! A support bundle: what helps is in it, and no secret is.

use baton_cli::demo::stage::release::{Behaviour, pack};
use baton_cli::demo::stage::{Setup, Stage};
use baton_tests::e2e::{in_time, setup};
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Nobody else writes this.
const SENTINEL: &str = "zq-sentinel-a81d20-do-not-hand-on";

fn unpacked(file: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(std::fs::File::open(file).unwrap()).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().display().to_string(), text)
    });
    entries.collect()
}

#[tokio::test]
async fn a_bundle_has_what_helps_and_a_sentinel_secret_is_nowhere_in_it() {
    let stage = Stage::raise(Setup { hosts: 1, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let control = stage.control().await.unwrap();
    let source = stage.folder().join("source-of-the-secret");
    std::fs::write(&source, SENTINEL).unwrap();
    let secrets = format!("[run]\nsecrets = {{ DB_PASSWORD = \"file:{}\" }}\n", source.display());
    let manifest = stage.manifest().replace("[run]\n", &secrets);
    let good = std::fs::read(stage.build("1", &Behaviour::good(Duration::ZERO)).unwrap()).unwrap();
    let rollout = control.deploy(&manifest, "1", &good).await.unwrap();
    assert_eq!(in_time("the release", control.wait_ended(&rollout)).await.unwrap().state, "succeeded");
    // An application that tells the world what it was told, and ends.
    let chatty = format!("#!/bin/sh\necho password {SENTINEL}\nexit 3\n");
    let chatty = pack(&[("bin/shop", 0o755, chatty.as_bytes())]).unwrap();
    let rollout = control.deploy(&manifest, "2", &chatty).await.unwrap();
    let ended = in_time("the way back", control.wait_ended(&rollout)).await.unwrap();
    assert!(format!("{ended:?}").contains(SENTINEL), "it was shown to operators: {ended:#?}");
    // Settings that somebody wrote a password into.
    let root = stage.folder().join("machine");
    std::fs::create_dir_all(root.join("etc/baton")).unwrap();
    let settings = format!("listen = \"127.0.0.1:7443\"\npassword = \"{SENTINEL}\"\nname = \"ana:{SENTINEL}@web1\"\n");
    std::fs::write(root.join("etc/baton/coordinator.toml"), settings).unwrap();
    std::fs::write(root.join("etc/baton/agent.toml"), format!("no toml {SENTINEL}")).unwrap();

    let file = stage.folder().join("bundle.tar.zst");
    let [socket, root, to] = [stage.socket(), root, file.clone()].map(|path| path.display().to_string());
    let words = ["baton", "support-bundle", &to, "--root", &root, "--socket", &socket].map(str::to_owned);
    let twice = words.clone();
    let ran = tokio::task::spawn_blocking(move || format!("{:?}", baton_cli::main_from(words)));
    assert!(ran.await.unwrap().contains("(0)"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let files = unpacked(&file);
    for (name, text) in &files {
        assert!(!text.contains(SENTINEL), "{name}: {text}");
    }
    for (name, helps) in [
        ("versions.json", env!("CARGO_PKG_VERSION")),
        ("doctor.json", "balancers"),
        ("status.json", "\"shop\""),
        ("history.json", "\"reverted\""),
        ("audit.jsonl", "Control/Deploy"),
        ("settings/coordinator.json", "127.0.0.1:7443"),
        ("settings/agent.json", "(removed)"),
        ("journal/baton-agent.service.txt", ""),
        ("journal/baton-agent-link.service.txt", ""),
    ] {
        let text = files.get(name).unwrap_or_else(|| panic!("{name} is missing: {:?}", files.keys()));
        assert!(text.contains(helps), "{name}: {text}");
    }
    let ran = tokio::task::spawn_blocking(move || format!("{:?}", baton_cli::main_from(twice)));
    assert!(ran.await.unwrap().contains("(1)"), "a bundle overwrote a file");
}
