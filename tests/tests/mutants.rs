//! Every old mistake of others that this suite is there to catch, made again on purpose: one that survives fails.
//!
//! The mistakes stand in core, in the simulation and in the model behind `--cfg mutant`; this builds those once more with it,
//! beside what is built already, and runs `tests/simulation/tests/mutants_in_simulation.rs` and its like of the model.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Compiles a crate of this workspace. Whatever it depends on is compiled by the compiler itself, and so not once more.
const COMPILER: &str = "#!/bin/sh\nexec \"$@\" --cfg mutant\n";

#[test]
fn a_mistake_that_survives_is_a_failure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // Of one path: it is part of what says whether something is built already.
    let compiler = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rustc-with-mutants");
    fs::write(&compiler, COMPILER).unwrap();
    fs::set_permissions(&compiler, Permissions::from_mode(0o755)).unwrap();
    let status = Command::new(env!("CARGO"))
        .args(["test", "--locked", "--workspace", "--test", "mutants_in_simulation", "--test", "mutants_in_model"])
        .args(["--", "--nocapture"])
        .current_dir(root)
        .env("RUSTC_WORKSPACE_WRAPPER", compiler)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "some old mistake is not caught any more; `caught` above says which are");
}
