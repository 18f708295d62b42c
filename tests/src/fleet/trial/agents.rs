//! Between releases: the coordinator upgrades every agent, and then one to a package whose agent does not come up.

use super::fault::wait_active;
use super::rest::{compare, units};
use crate::fleet::host::Host;
use crate::fleet::pool::Pool;
use crate::fleet::record::{Fleet, Part};
use anyhow::Context as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// From the command to the fall-back's report: the wait for the new agent, and dpkg three times.
const BACK_WITHIN: Duration = Duration::from_secs(45);

/// Packs the agent's package again, under another version and with whatever else is done to its files.
const REPACK: &str = r#"
set -e
tree=/root/agent-$1
rm -rf "$tree"
dpkg-deb --raw-extract /var/tmp/baton/baton-agent_*.deb "$tree"
sed -i "s/^Version: .*/&+$1/" "$tree/DEBIAN/control"
[ "$1" != broken ] || printf '#!/bin/sh\necho this agent is broken\nexit 1\n' >"$tree/usr/bin/baton-agent"
dpkg-deb --root-owner-group -Zxz -z1 --build "$tree" "$tree.deb" >/dev/null
dpkg-deb --field "$tree.deb" Version
"#;

/// What was asked for, and what it came to.
struct Upgraded {
    exit: Option<i32>,
    view: Value,
}

/// Upgrades every agent under load, tries a broken package before it and after it; what is not as it should be.
///
/// # Errors
/// When packages cannot be made, or a command says nothing that can be read.
pub(super) fn upgrade(fleet: &Fleet, pool: &Pool) -> anyhow::Result<Vec<String>> {
    let coordinator = fleet.coordinator()?;
    let agents: Vec<&Host> = fleet.hosts.iter().filter(|host| host.part != Part::Coordinator).collect();
    let before = units(fleet, pool)?;
    let (good, broken) = (repacked(coordinator, "good")?, repacked(coordinator, "broken")?);

    // The way back is the package as it is installed, packed again on its host.
    let first = agents.first().context("no agents")?;
    let installed = Installed::on(first)?;
    let mut wrong = falls_back(coordinator, &agents, &broken)?;
    let back = Installed::on(first)?;
    if back != installed {
        wrong.push(format!("{} had {installed:?}, and after the fall-back {back:?}", first.name));
    }

    let upgraded = ask(coordinator, "good")?;
    if upgraded.exit != Some(0) || upgraded.view["upgrade"]["state"] != "succeeded" {
        wrong.push(format!("the upgrade ended with {:?}: {}", upgraded.exit, upgraded.view));
    }
    wrong.extend(all_run(&upgraded.view, &agents, &good));
    wrong.extend(compare("the upgrade by the coordinator", &before, &units(fleet, pool)?));

    // The way back is the package that was kept.
    wrong.extend(falls_back(coordinator, &agents, &broken)?);
    for host in &agents {
        let installed = Installed::on(host)?;
        if (installed.version.as_str(), installed.status.as_str()) != (&good, "installed") {
            wrong.push(format!("{} has {installed:?} after the fall-back", host.name));
        }
        wait_active(host, "baton-agent")?;
    }
    wrong.extend(compare("the fall-back", &before, &units(fleet, pool)?));
    Ok(wrong)
}

/// Asks for the broken package, which the first host tries and gives back; what is not as it should be.
fn falls_back(coordinator: &Host, agents: &[&Host], broken: &str) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let before = packages(&status(coordinator)?);
    let begun = Instant::now();
    let Upgraded { exit, view } = ask(coordinator, "broken")?;
    let took = begun.elapsed();
    let failed = view["hosts"].as_array().into_iter().flatten().filter(|host| host["state"] == "failed").count();
    let waiting = view["hosts"].as_array().into_iter().flatten().filter(|host| host["state"] == "waiting").count();
    if exit != Some(4) || view["upgrade"]["state"] != "paused" || (failed, waiting) != (1, agents.len() - 1) {
        wrong.push(format!("the upgrade to {broken} ended with {exit:?}: {view}"));
    }
    if took > BACK_WITHIN {
        wrong.push(format!("the host was back after {took:?}"));
    }
    coordinator.run(&["baton", "agents", "abort", "--why", "broken"])?;
    let after = packages(&status(coordinator)?);
    if after != before {
        wrong.push(format!("the agents ran {before:?}, and after the fall-back from {broken} {after:?}"));
    }
    Ok(wrong)
}

fn status(coordinator: &Host) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&coordinator.run(&["baton", "agents", "status", "--json"])?)?)
}

/// What every agent that is connected was started from.
fn packages(view: &Value) -> BTreeMap<String, String> {
    let hosts = view["hosts"].as_array().into_iter().flatten().filter(|host| host["connected"] == true);
    hosts.filter_map(|host| Some((host["host"].as_str()?.to_owned(), host["package"].as_str()?.to_owned()))).collect()
}

/// What dpkg knows of the agent's package.
#[derive(Debug, PartialEq, Eq)]
struct Installed {
    version: String,
    status: String,
    /// Each with the sum of the text that came with the package.
    configuration: String,
}

impl Installed {
    fn on(host: &Host) -> anyhow::Result<Self> {
        let format = "${Version}|${db:Status-Status}|${Conffiles}";
        let told = host.run(&["dpkg-query", "--show", "--showformat", format, "baton-agent"])?;
        let mut fields = told.split('|').map(|field| field.trim().to_owned());
        let mut next = || fields.next().with_context(|| format!("dpkg-query said {told:?}"));
        Ok(Self { version: next()?, status: next()?, configuration: next()? })
    }
}

/// Makes a package on the operator's host; its version.
fn repacked(coordinator: &Host, name: &str) -> anyhow::Result<String> {
    Ok(coordinator.run(&["sh", "-c", REPACK, "repack", name])?.trim().to_owned())
}

fn ask(coordinator: &Host, name: &str) -> anyhow::Result<Upgraded> {
    let package = format!("/root/agent-{name}.deb");
    let words = ["baton", "agents", "upgrade", "--package", &package, "--yes", "--json", "--healthy-for", "2s"];
    let waits = ["--back-within", "30s", "--timeout", "3m"];
    let ended = coordinator.collect(&[words.as_slice(), &waits].concat())?;
    let view = serde_json::from_slice(&ended.stdout)
        .with_context(|| format!("`baton agents upgrade` said\n{}", crate::fleet::run::said(&ended)))?;
    Ok(Upgraded { exit: ended.status.code(), view })
}

/// Which agents were not started from this package, or are away.
fn all_run(view: &Value, agents: &[&Host], version: &str) -> Vec<String> {
    let runs = packages(view);
    let others: Vec<_> = agents.iter().filter(|host| runs.get(&host.name).is_none_or(|runs| runs != version)).collect();
    let others: Vec<_> = others.into_iter().map(|host| host.name.as_str()).collect();
    if others.is_empty() { Vec::new() } else { vec![format!("{} do not run {version}: {view}", others.join(", "))] }
}
