//! A host without space: the release is taken back, the old one serves on, and the space is free again.

use baton_cli::demo::stage::release::{Behaviour, archive, pack};
use baton_cli::demo::stage::{Setup, Stage, small_disks};
use baton_tests::e2e::{assert_nothing_was_lost, in_time, require, setup, traffic};
use std::time::Duration;

/// Room for a few scripts, and not for what is coming.
const DISK_KIB: u32 = 2048;
const TOO_MUCH: usize = 3 << 20;

#[tokio::test]
async fn a_release_that_does_not_fit_is_taken_back_and_leaves_no_crumbs() {
    if !require("userns", small_disks(), "user namespaces are not allowed here") {
        return;
    }
    let stage = Stage::raise(Setup { small_disk: Some(DISK_KIB), ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let control = stage.control().await.unwrap();
    let small = |version: &str| archive(&stage.setup.part, version, &Behaviour::good(Duration::ZERO)).unwrap();
    let rollout = control.deploy(&stage.manifest(), "1", &small("1")).await.unwrap();
    let ended = in_time("the first release", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());

    let load = traffic(&stage);
    let with = |ballast: &[u8]| pack(&[("bin/shop", 0o755, b"#!/bin/sh\n"), ("ballast", 0o644, ballast)]).unwrap();
    // Told before anything is touched, where the archive says it.
    let refused = control.deploy(&stage.manifest(), "2", &with(&noise(TOO_MUCH))).await.unwrap_err();
    assert!(refused.code.0 == 738 && !refused.seen.is_empty() && refused.help.is_some(), "{refused:#?}");
    // And met by the full disk, where it does not: zeros are next to nothing until they are unpacked.
    let rollout = control.deploy(&stage.manifest(), "2", &with(&vec![0; TOO_MUCH])).await.unwrap();
    let ended = in_time("the end of a release that does not fit", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "reverted", "{ended:#?}\n{}", stage.last_words());
    let problem = ended.evidence.first().and_then(|evidence| evidence.problem.clone()).unwrap();
    assert!((600..700).contains(&problem.code), "{problem:#?}");
    assert!(format!("{problem:?}").to_lowercase().contains("space"), "{problem:#?}");
    assert!(!problem.seen.is_empty() && !problem.help.is_empty(), "{problem:#?}");
    let report = load.mark().await.unwrap();
    assert_nothing_was_lost(&stage, &report);
    assert_eq!(report.versions.keys().collect::<Vec<_>>(), ["1"]);

    let rollout = control.deploy(&stage.manifest(), "3", &small("3")).await.unwrap();
    let ended = in_time("a release that fits", control.wait_ended(&rollout)).await.unwrap();
    assert_eq!(ended.state, "succeeded", "{ended:#?}\n{}", stage.last_words());
    assert_nothing_was_lost(&stage, &load.stop().await.unwrap());
}

/// Bytes no compressor makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}
