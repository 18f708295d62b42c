//! Upgrades of agents, from the operator's side.

use super::{Api, invalid, wrong};
use crate::artifact::missing;
use crate::audit::call;
use crate::driver::Hello;
use crate::upgrades::{Shown, Steer, Wish};
use baton_core::name::{Digest, HostName};
use baton_core::problem::{Code, Problem};
use baton_core::release::Artifact;
use baton_core::strategy::Amount;
use baton_core::upgrade::{Package, Paused, State, Upgrade};
use baton_proto::problem::to_status;
use baton_proto::v1::{AgentView, AgentsView, SteerAgentsRequest, UpgradeAgentsRequest, UpgradeView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::Status;

/// A package of the agent is a few megabytes.
const PACKAGE_MAX: u64 = 256 << 20;

/// A new agent that is watched for longer, or may take longer to come back, keeps nobody safer.
const LONGEST: Duration = Duration::from_secs(3600);

impl Api {
    pub(super) async fn upgrade_agents(&self, request: UpgradeAgentsRequest, by: String) -> Result<AgentsView, Status> {
        call::about("agents");
        call::may_command(None).map_err(to_status)?;
        let dry_run = request.dry_run;
        let wish = read(&request, by)?;
        if !dry_run {
            self.has(wish.package.artifact)?;
        }
        let before = state(&self.upgrades.shown());
        let shown = self.upgrades.begin(wish, dry_run).await.map_err(to_status)?;
        if !dry_run {
            call::changed(before, state(&shown));
        }
        Ok(self.agents(&shown))
    }

    pub(super) async fn steer_agents(
        &self,
        steer: Steer,
        request: SteerAgentsRequest,
        by: String,
    ) -> Result<AgentsView, Status> {
        call::about("agents");
        call::why(request.why);
        call::may_command(None).map_err(to_status)?;
        let before = state(&self.upgrades.shown());
        let shown = self.upgrades.steer(steer, by).await.map_err(to_status)?;
        call::changed(before, state(&shown));
        Ok(self.agents(&shown))
    }

    /// Makes sure that the package was uploaded whole.
    fn has(&self, artifact: Artifact) -> Result<(), Status> {
        let stat = self.artifacts.stat(artifact.digest).map_err(to_status)?;
        if !stat.complete {
            return Err(to_status(missing(artifact.digest)));
        }
        if stat.have != artifact.size {
            let what = format!("package {} has another size", artifact.digest.short());
            return Err(to_status(
                Problem::new(Code(606), what)
                    .saw("asked for", format!("{} bytes", artifact.size))
                    .saw("uploaded", format!("{} bytes", stat.have)),
            ));
        }
        Ok(())
    }

    /// Every agent, and where it stands.
    pub(super) fn agents(&self, shown: &Shown) -> AgentsView {
        let picture = self.access.picture();
        let hellos = self.access.links().hellos();
        let rings: BTreeMap<&HostName, usize> =
            shown.upgrade.as_ref().map(|upgrade| upgrade.rings_of_hosts().collect()).unwrap_or_default();
        let hosts = picture.fleet.hosts.iter().map(|(name, host)| {
            let hello = hellos.get(name).map(|hello: &Hello| hello.agent_version.clone());
            let stated = self.upgrades.stated(name);
            let stand = shown.stands.get(name);
            // One that takes no part says nevertheless why it could not.
            let refuses = stated.as_ref().and_then(|stated| stated.takes.as_ref().err());
            AgentView {
                host: name.to_string(),
                connected: host.connected,
                agent_version: hello.unwrap_or_default(),
                package: stated.as_ref().and_then(|it| it.runs.as_ref()).map(ToString::to_string).unwrap_or_default(),
                ring: rings.get(name).map_or(0, |ring| number(*ring) + 1),
                state: stand.map(|stand| stand.word().to_owned()).unwrap_or_default(),
                why: stand.map(|stand| stand.why()).unwrap_or_default(),
                problem: stand.map_or(refuses, |stand| stand.problem()).map(Into::into),
            }
        });
        let upgrade = shown.upgrade.as_ref().map(|upgrade| self.upgrade_view(upgrade, shown.ring));
        AgentsView { upgrade, hosts: hosts.collect() }
    }

    fn upgrade_view(&self, upgrade: &Upgrade, ring: usize) -> UpgradeView {
        let (failed, stopped_by) = match &upgrade.state {
            State::Paused(Paused::Failure { host, problem }) => (Some((host, problem)), String::new()),
            State::Paused(Paused::By(by)) | State::Aborted { by } => (None, by.clone()),
            State::Active | State::Succeeded => (None, String::new()),
        };
        let until = upgrade.ended.unwrap_or_else(|| self.access.now());
        UpgradeView {
            id: upgrade.id.to_string(),
            version: upgrade.package.version.to_string(),
            architecture: upgrade.package.architecture.to_string(),
            state: upgrade.state.word().to_owned(),
            by: upgrade.by.clone(),
            for_ms: millis(until.since(upgrade.begun)),
            rings: upgrade.rings.iter().map(ToString::to_string).collect(),
            ring: number(ring) + 1,
            healthy_for_ms: millis(upgrade.healthy_for),
            back_within_ms: millis(upgrade.back_within),
            failed_host: failed.map(|(host, _)| host.to_string()).unwrap_or_default(),
            problem: failed.map(|(_, problem)| problem.into()),
            stopped_by,
        }
    }
}

fn read(request: &UpgradeAgentsRequest, by: String) -> Result<Wish, Status> {
    let digest: [u8; 32] = request.digest.as_slice().try_into().map_err(|_| invalid("digest", "it has 32 bytes"))?;
    if request.size == 0 || request.size > PACKAGE_MAX {
        let most = format!("{} bytes, and a package of the agent has {PACKAGE_MAX} at most", request.size);
        return Err(wrong("--package", most));
    }
    let rings = request.rings.iter().map(|ring| amount(ring)).collect::<Result<_, _>>()?;
    let hosts = request.hosts.iter().map(|host| host.parse().map_err(|error| wrong("--hosts", error)));
    Ok(Wish {
        package: Package {
            artifact: Artifact { digest: Digest::from_bytes(digest), size: request.size },
            version: request.version.parse().map_err(|error: baton_core::name::InvalidName| wrong("--package", error))?,
            architecture: request
                .architecture
                .parse()
                .map_err(|error: baton_core::name::InvalidName| wrong("--package", error))?,
        },
        hosts: hosts.collect::<Result<_, Status>>()?,
        rings,
        healthy_for: bounded("--healthy-for", request.healthy_for_ms)?,
        back_within: bounded("--back-within", request.back_within_ms)?,
        by,
    })
}

fn amount(text: &str) -> Result<Amount, Status> {
    let amount = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|percent| (1..=100).contains(percent)).map(Amount::Percent),
        None => text.parse().ok().filter(|hosts| *hosts > 0).map(Amount::Hosts),
    };
    amount.ok_or_else(|| wrong("--rings", format!("`{text}` is no number of hosts and no share such as 25%")))
}

fn bounded(word: &str, millis: u64) -> Result<Duration, Status> {
    let duration = Duration::from_millis(millis);
    if duration > LONGEST {
        return Err(wrong(word, format!("it is {} s at most", LONGEST.as_secs())));
    }
    Ok(duration)
}

/// The upgrade as the audit log compares it.
fn state(shown: &Shown) -> Value {
    let upgrade = shown.upgrade.as_ref().map(|upgrade| {
        let mut value = serde_json::to_value(upgrade).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            // What moves by itself is no command's doing.
            fields.remove("courses");
        }
        value
    });
    json!({ "upgrade": upgrade })
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
