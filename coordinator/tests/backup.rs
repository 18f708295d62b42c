//! Copies of a coordinator: what is in them, who can read them, and what becomes of one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_coordinator::backup::backup;
use baton_coordinator::config::Config;
use baton_coordinator::restore::Backup;
use baton_coordinator::{init, start};
use baton_core::problem::Code;
use baton_proto::problem::code;
use baton_proto::v1;
use baton_proto::v1::control_client::ControlClient;
use serde_json::Value;
use site::{Line, admin, config, dial, join, obey, token, until};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tonic::transport::Channel;

async fn made(folder: &Path) -> (Config, PathBuf) {
    let config = config(folder);
    let pin = init(&config).await.unwrap().pin;
    let file = folder.join("copy.tar.zst");
    backup(&config, &folder.join("none.toml"), &file).await.unwrap();
    assert_eq!(init(&config).await.unwrap().pin, pin);
    (config, file)
}

#[tokio::test]
async fn a_backup_is_its_owners_alone_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = made(folder.path()).await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = backup(&config, &folder.path().join("none.toml"), &file).await;
    assert_eq!(again.unwrap_err().code, Code(1022));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the state folder and the file: {left:?}");
}

#[tokio::test]
async fn a_restored_coordinator_has_its_authority_and_what_was_there_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = made(folder.path()).await;
    let read = Backup::read(&file).unwrap();
    assert_eq!(read.restore(&config, false).await.unwrap_err().code, Code(1024));
    let restored = read.restore(&config, true).await.unwrap();
    assert!(restored.awaited.is_empty(), "there was no host");
    assert_eq!(restored.aside, Some(config.state.join("before-restore-1")));
    assert!(config.state.join("before-restore-1/store.sqlite").exists());
    let elsewhere = Config { state: folder.path().join("elsewhere"), ..config.clone() };
    let fresh = read.restore(&elsewhere, false).await.unwrap();
    assert_eq!((fresh.aside, fresh.revoked), (None, None), "nothing was there to learn from");
    let pin = init(&config).await.unwrap().pin;
    let restored = init(&elsewhere).await.unwrap();
    assert_eq!((restored.fresh, restored.pin), (false, pin));
    start(&elsewhere).await.unwrap().stop().await.unwrap();
}

async fn entries(admin: &Channel) -> Vec<Value> {
    let mut stream =
        ControlClient::new(admin.clone()).list_audit(v1::ListAuditRequest::default()).await.unwrap().into_inner();
    let mut entries = Vec::new();
    while let Some(entry) = stream.message().await.unwrap() {
        entries.push(serde_json::from_str(&entry.text).unwrap());
    }
    entries
}

#[tokio::test]
async fn what_was_spent_or_revoked_after_a_backup_stays_so_and_the_log_says_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    init(&config).await.unwrap();
    let running = start(&config).await.unwrap();
    let operator = admin(&config);
    let spent = token(&operator, "deployer", 1, &["ana"]).await;
    let unspent = token(&operator, "deployer", 1, &["ben"]).await;
    let file = folder.path().join("copy.tar.zst");
    assert_eq!(backup(&config, &folder.path().join("none.toml"), &file).await.unwrap(), None);
    let last = entries(&operator).await.pop().unwrap();
    assert_eq!((&last["call"], &last["from"]), (&Value::from("Control/RecordBackup"), &Value::from("local")));
    assert_eq!(last["about"], file.display().to_string());
    let ana = join(running.listen, &spent, "ana").await.unwrap();
    let request = v1::RevokeCertificatesRequest { whose: "deployer/ana".into(), why: "stolen".into() };
    ControlClient::new(operator.clone()).revoke_certificates(request).await.unwrap();
    running.stop().await.unwrap();

    let restored = Backup::read(&file).unwrap().restore(&config, true).await.unwrap();
    assert_eq!((restored.tokens, restored.revoked), (2, Some(vec!["deployer/ana".into()])));
    let running = start(&config).await.unwrap();
    let operator = admin(&config);
    for (token, name) in [(&spent, "ana"), (&unspent, "ben")] {
        assert_eq!(join(running.listen, token, name).await.unwrap_err().code, code::TOKEN, "{name}");
    }
    let refused = ControlClient::new(dial(running.listen, &ana)).status(v1::StatusRequest::default()).await.unwrap_err();
    assert_eq!(baton_proto::problem::from_status(&refused).code, code::REFUSED);
    let log = entries(&operator).await;
    let entry = log.iter().find(|entry| entry["call"] == "baton-coordinator restore").unwrap();
    let after: Value = serde_json::from_str(entry["after"].as_str().unwrap()).unwrap();
    assert_eq!((&after["tokens_revoked"], &after["backup"]["head"]["number"]), (&Value::from(2), &Value::from(3)));
    assert!(entry["before"].as_str().unwrap().contains("before-restore-1"), "{entry}");
    assert!(entry["who"].as_str().unwrap().starts_with("admin/"), "{entry}");
    running.stop().await.unwrap();

    // Where nobody drives the store, the program itself puts the next one on the record.
    let file = folder.path().join("another.tar.zst");
    assert_eq!(backup(&config, &folder.path().join("none.toml"), &file).await.unwrap(), None);
    let running = start(&config).await.unwrap();
    let log = entries(&admin(&config)).await;
    assert!(log.iter().any(|entry| entry["about"] == file.display().to_string()), "{log:?}");
    let verdict = ControlClient::new(admin(&config)).verify_audit(v1::VerifyAuditRequest {}).await.unwrap().into_inner();
    assert_eq!(verdict.faults, []);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_damaged_or_no_backup_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (_, file) = made(folder.path()).await;
    let bytes = std::fs::read(&file).unwrap();
    let mut wrong: Vec<Vec<u8>> = (0..bytes.len()).step_by(97).map(|at| bytes[..at].to_vec()).collect();
    wrong.push(b"#!/bin/sh\n".to_vec());
    for at in (0..bytes.len()).step_by(211) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        wrong.push(flipped);
    }
    let broken = folder.path().join("broken.tar.zst");
    for bytes in wrong {
        std::fs::write(&broken, bytes).unwrap();
        if let Ok(read) = Backup::read(&broken) {
            // A bit that says nothing: times and owners in a header.
            assert_eq!(read.about, Backup::read(&file).unwrap().about);
        }
    }
}

#[tokio::test]
async fn a_host_that_does_not_say_what_it_was_told_is_told_nothing_by_a_restored_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    init(&config).await.unwrap();
    let running = start(&config).await.unwrap();
    let operator = admin(&config);
    let web1 = join(running.listen, &token(&operator, "host", 1, &["web1"]).await, "web1").await.unwrap();
    let line = obey(dial(running.listen, &web1));
    until(&operator, |view| view.hosts.iter().any(|host| host.connected)).await;
    let file = folder.path().join("copy.tar.zst");
    backup(&config, &folder.path().join("none.toml"), &file).await.unwrap();
    running.stop().await.unwrap();
    drop(line);
    Backup::read(&file).unwrap().restore(&config, true).await.unwrap();

    let running = start(&config).await.unwrap();
    let told = baton_proto::v1::Stamp { epoch: 40, generation: 2 };
    let refused = match Line::following(&dial(running.listen, &web1), Some(told)).await {
        Ok(mut line) => line.spec().await.unwrap_err(),
        Err(problem) => problem,
    };
    assert_eq!(refused.code, Code(1021), "{refused}");
    // One that was told nothing newer has nothing to say.
    let mut line = Line::following(&dial(running.listen, &web1), None).await.unwrap();
    assert!(line.spec().await.unwrap().epoch.0 > 1);
    running.stop().await.unwrap();
}
