//! The service that is deployed: the demo's, from the `baton` package on the hosts, in an artifact of a few lines of shell.

use super::sentinel;
use crate::fleet::host::Host;
use crate::fleet::pool::Pool;
use crate::fleet::record::{Fleet, Part};
use anyhow::Context as _;
use std::fs::{self, File};

/// How a release behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Good,
    /// Runs, and never listens.
    NeverReady,
    /// Good, and asks to run as root, which no host's own settings allow.
    AsRoot,
    /// Answers its probe, and fails a fifth of its requests.
    FailsAFifth,
    /// Answers its probe, and takes twice as long for everything else.
    TwiceAsLong,
}

impl Behaviour {
    /// Whether only its traffic can tell what is wrong with it.
    #[must_use]
    pub(super) const fn needs_traffic(self) -> bool {
        matches!(self, Self::FailsAFifth | Self::TwiceAsLong)
    }

    /// What its instances are told. A good one takes some time, too: half of it would be no less than it takes to be asked.
    const fn words(self) -> &'static str {
        match self {
            Self::Good | Self::AsRoot => "--takes 20ms",
            Self::NeverReady => "--never-listen",
            Self::FailsAFifth => "--takes 20ms --fail-percent 20",
            Self::TwiceAsLong => "--takes 40ms --slow 300ms",
        }
    }
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
    sentinel::lay_down(fleet, pool)?;
    host.write(&format!("{folder}/baton.toml"), &manifest(fleet, pool, behaviour))?;
    let path = host.root().join(format!("{}/{}-{version}.tar.zst", folder.trim_start_matches('/'), pool.name));
    archive(&path, &start_script(behaviour)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

fn manifest(fleet: &Fleet, pool: &Pool, behaviour: Behaviour) -> String {
    let name = |host: &Host| format!("\"{}\"", host.name);
    let hosts = fleet.every(Part::Web).map(name).collect::<Vec<_>>().join(", ");
    let balancers = fleet.before(pool).map(name).collect::<Vec<_>>().join(", ");
    let watched = if behaviour.needs_traffic() { WATCHED } else { "" };
    let user = if behaviour == Behaviour::AsRoot { "user = \"root\"\n" } else { "" };
    let Pool { name, ports, .. } = pool;
    let (secret, place) = (sentinel::NAME, sentinel::path(pool));
    format!(
        r#"service = "{name}"
hosts = [{hosts}]

[artifact]
path = "{name}-{{version}}.tar.zst"

[run]
command = "bin/shop --listen {{address}}:{{port}} --version-text {{version}}"
ports = {ports:?}
secrets = {{ {secret} = "file:{place}" }}
{user}
[health]
http = "/healthz"
healthy_for = "500ms"
start_timeout = "8s"

[balancer]
on = [{balancers}]
pool = "{name}"
{watched}"#
    )
}

/// Long enough for a machine that is busy with other things; it is over as soon as something is noticed.
const WATCHED: &str = "
[rollout]
waves = [1, \"100%\"]
bake = \"45s\"
";

/// What an instance executes it writes to its state folder, which all hosts of the fleet share: one file a start.
fn start_script(behaviour: Behaviour) -> String {
    let words = behaviour.words();
    format!(
        "#!/bin/sh\n[ -s \"$SENTINEL_FILE\" ] || exit 78\nexec /usr/bin/baton demo-part app --start-delay 200ms --log \"$STATE_DIRECTORY/$(uname -n)-$$.log\" {words} \"$@\"\n"
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
