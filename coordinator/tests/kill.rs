//! The real program, killed without warning.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use site::program::{output, program, resident_of_its_own, run, write_config};
use site::{admin, deploy, dial, join, obey, rollout_state, token, until, upload, wish};
use std::io::Write;

#[tokio::test]
async fn killed_in_the_middle_of_a_rollout_it_finishes_it_in_the_next_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let (config, path) = write_config(folder.path());
    assert!(output(&mut program("init", &path)).status.success());
    let process = run(&path, &config).await;
    let operator = admin(&config);
    let mut hosts = Vec::new();
    let secret = token(&operator, "host", 2, &["web1", "web2"]).await;
    for name in ["web1", "web2"] {
        hosts.push(join(config.listen, &secret, name).await.unwrap());
    }
    upload(&operator, b"archive", 0).await.unwrap();
    // Nobody is connected, so the rollout begins and waits.
    assert_eq!(deploy(&operator, wish(&["web1", "web2"], "1.0", b"archive")).await.unwrap(), "r-1");
    let before = until(&operator, |view| rollout_state(view) == "running").await;
    drop(process);

    let process = run(&path, &config).await;
    let operator = admin(&config);
    let after = until(&operator, |_| true).await;
    assert!(after.epoch > before.epoch, "{} then {}", before.epoch, after.epoch);
    assert_eq!(rollout_state(&after), "running");
    let _lines: Vec<_> = hosts.iter().map(|host| obey(dial(config.listen, host))).collect();
    let done = until(&operator, |view| rollout_state(view) == "succeeded").await;
    assert_eq!(done.services[0].committed_version, "1.0");
    drop(process);

    let _process = run(&path, &config).await;
    let again = until(&admin(&config), |_| true).await;
    assert_eq!((rollout_state(&again), again.epoch), ("succeeded", after.epoch + 1));
}

#[tokio::test]
async fn a_second_coordinator_on_the_same_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (config, path) = write_config(folder.path());
    assert!(output(&mut program("init", &path)).status.success());
    let _process = run(&path, &config).await;
    let second = output(&mut program("run", &path));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("B1003"), "{said}");
    let again = output(&mut program("init", &path));
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
}

#[test]
fn a_refused_init_leaves_the_settings_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = write_config(folder.path());
    // Without its first line, which says where to listen.
    let settings = std::fs::read_to_string(&path).unwrap().split_once('\n').unwrap().1.to_owned();
    std::fs::write(&path, &settings).unwrap();
    let init = |authority: &[&str]| {
        output(program("init", &path).args(["--listen", "127.0.0.1:7443"]).args(authority)).status.success()
    };
    assert!(!init(&["--authority-cert", "/none.pem", "--authority-key", "/none.key"]));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), settings);
    assert!(init(&[]));
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("listen = \"127.0.0.1:7443\"\n"));
}

#[tokio::test]
async fn without_init_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path) = write_config(folder.path());
    let refused = output(&mut program("run", &path));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("error[B1002]") && said.contains("help: baton-coordinator init"), "{said}");
}

#[tokio::test]
async fn with_twelve_agents_it_stays_small() {
    let folder = tempfile::tempdir().unwrap();
    let (config, path) = write_config(folder.path());
    assert!(output(&mut program("init", &path)).status.success());
    let process = run(&path, &config).await;
    let operator = admin(&config);
    let secret = token(&operator, "host", 12, &[]).await;
    let mut lines = Vec::new();
    for number in 0..12 {
        let credentials = join(config.listen, &secret, &format!("web{number}")).await.unwrap();
        lines.push(obey(dial(config.listen, &credentials)));
    }
    until(&operator, |view| view.hosts.iter().filter(|host| host.connected).count() == 12).await;
    // The promise is 32 MiB with the program, as it is shipped: `bench idle` looks at that. Of them this is what may grow.
    let bytes = resident_of_its_own(process.0.id());
    let _ = writeln!(std::io::stderr(), "of its own with 12 agents: {} KiB", bytes / 1024);
    assert!(bytes <= 8 * 1024 * 1024, "{bytes} bytes");
}

#[test]
fn init_keeps_the_address_it_is_given_and_does_not_argue_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coordinator.toml");
    std::fs::write(&path, format!("state = \"{}\"\n", folder.path().join("state").display())).unwrap();
    let init = |listen: &str| output(program("init", &path).arg("--listen").arg(listen));
    assert!(init("127.0.0.1:7555").status.success());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("listen = \"127.0.0.1:7555\"\n"), "{text}");
    assert!(init("127.0.0.1:7555").status.success());
    assert!(!init("127.0.0.1:7556").status.success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}
