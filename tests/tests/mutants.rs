//! Every old mistake of others that this suite is there to catch, made again on purpose: one that survives fails.
//!
//! The mistakes stand in core, in the simulation and in the model behind `--cfg mutant`; this builds those once more with it, in
//! a folder of their own, and runs `tests/simulation/tests/mutants.rs` and `tests/model/tests/mutants.rs` there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

#[test]
fn a_mistake_that_survives_is_a_failure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |it| root.join(it));
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let status = Command::new(env!("CARGO"))
        .args(["test", "--locked", "-p", "baton-simulation", "-p", "baton-model", "--test", "mutants", "--target-dir"])
        .arg(target.join("mutants"))
        .args(["--", "--nocapture"])
        .current_dir(root)
        .env("RUSTFLAGS", format!("{flags} --cfg mutant"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "some old mistake is not caught any more; `caught` above says which are");
}
