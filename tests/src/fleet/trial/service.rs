//! The service that is deployed: the demo's, from the `baton` package on the hosts, in an artifact of a few lines of shell.

use crate::fleet::host::Host;
use crate::fleet::provision::Pool;
use crate::fleet::record::{Fleet, Part};
use anyhow::Context as _;
use std::fs::{self, File};

/// How a release behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Good,
    /// Runs, and never listens.
    NeverReady,
}

/// Where a service's manifest and artifacts are on the operator's host.
#[must_use]
pub(super) fn folder(pool: &Pool) -> String {
    format!("/root/{}", pool.name)
}

/// Writes the manifest and the artifact of one version to the operator's host.
///
/// # Errors
/// When there is no room.
pub(super) fn publish(host: &Host, fleet: &Fleet, pool: &Pool, version: &str, behaviour: Behaviour) -> anyhow::Result<()> {
    let folder = folder(pool);
    host.write(&format!("{folder}/baton.toml"), &manifest(fleet, pool))?;
    let path = host.root().join(format!("{}/{}-{version}.tar.zst", folder.trim_start_matches('/'), pool.name));
    archive(&path, &start_script(behaviour)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

fn manifest(fleet: &Fleet, pool: &Pool) -> String {
    let names = |part| fleet.every(part).map(|host| format!("\"{}\"", host.name)).collect::<Vec<_>>().join(", ");
    let Pool { name, ports, .. } = pool;
    format!(
        r#"service = "{name}"
hosts = [{hosts}]

[artifact]
path = "{name}-{{version}}.tar.zst"

[run]
command = "bin/shop --listen {{address}}:{{port}} --version-text {{version}}"
ports = {ports:?}

[health]
http = "/healthz"
healthy_for = "500ms"
start_timeout = "8s"

[balancer]
on = [{balancers}]
pool = "{name}"
"#,
        hosts = names(Part::Web),
        balancers = names(Part::Balancer),
    )
}

/// What an instance executes it writes to its state folder, which all hosts of the fleet share: one file a start.
fn start_script(behaviour: Behaviour) -> String {
    let broken = match behaviour {
        Behaviour::Good => "",
        Behaviour::NeverReady => " --never-listen",
    };
    format!(
        "#!/bin/sh\nexec /usr/bin/baton demo-part app --start-delay 200ms --log \"$STATE_DIRECTORY/$(uname -n)-$$.log\"{broken} \"$@\"\n"
    )
}

fn archive(path: &std::path::Path, script: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut tar = tar::Builder::new(zstd::Encoder::new(File::create(path)?, 3)?);
    let mut header = tar::Header::new_gnu();
    header.set_size(script.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/shop", script.as_bytes())?;
    tar.into_inner()?.finish()?.sync_all()?;
    Ok(())
}
