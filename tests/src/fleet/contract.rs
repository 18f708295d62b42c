//! Contract tests of the agent with a real systemd: its own test executable, run on a booted host.

use super::front::Front;
use super::life::{self, UpArgs};
use super::record::{Fleet, Part};
use anyhow::{Context as _, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct ContractArgs {
    /// The test executable, as `cargo test -p baton-agent --lib --no-run` names it
    pub program: PathBuf,
    /// The tests whose names contain this
    #[arg(long, default_value = "runtime::systemd")]
    pub tests: String,
    /// A folder with Baton's .deb packages, as packaging/build makes it
    #[arg(long, default_value = "dist")]
    pub packages: PathBuf,
}

/// Where the executable lies on the host.
const PROGRAM: &str = "/usr/bin/baton-contract";

/// Boots a host, runs the tests there, and ends it.
///
/// # Errors
/// When a test failed, or the host does not come up.
pub fn keep(args: &ContractArgs) -> anyhow::Result<()> {
    let up = UpArgs { hosts: 1, fronts: vec![Front::Haproxy], balancers: None, packages: args.packages.clone() };
    let kept = life::up(&up).and_then(|fleet| run(&fleet, args));
    let down = life::down();
    kept.and(down)
}

fn run(fleet: &Fleet, args: &ContractArgs) -> anyhow::Result<()> {
    let host = fleet.every(Part::Web).next().context("no host runs applications")?;
    let path = host.root().join(PROGRAM.trim_start_matches('/'));
    fs::copy(&args.program, &path).with_context(|| format!("cannot copy {}", args.program.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    // Required: on this host nothing may be skipped.
    let status = host.command(&["env", "BATON_REQUIRE=systemd", PROGRAM, &args.tests])?.status()?;
    if !status.success() {
        bail!("the contract with systemd is not kept: {status}");
    }
    Ok(())
}
