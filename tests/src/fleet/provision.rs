//! From booted hosts to a fleet: packages installed, load balancers as the documentation has them, agents joined by token.

use super::host::Host;
use super::packages::Packages;
use super::record::{COORDINATOR, Fleet, Part};
use super::run::until;
use anyhow::{Context as _, anyhow, bail};
use std::time::{Duration, Instant};

/// The coordinator's port, as it is by default.
const PORT: u16 = 7443;

/// Installs, configures and joins everything. Returns how long the slowest host took to join: one command, from its start to its end.
///
/// # Errors
/// With the command that failed and what it wrote.
pub fn provision(fleet: &Fleet, packages: &Packages) -> anyhow::Result<Duration> {
    let coordinator = fleet.coordinator()?;
    packages.install(coordinator, &["baton-coordinator", "baton"])?;
    coordinator.run(&["baton-coordinator", "init"])?;
    coordinator.run(&["systemctl", "enable", "--now", "baton-coordinator"])?;
    let agents = fleet.hosts.iter().filter(|host| host.part != Part::Coordinator).collect::<Vec<_>>();
    let token = token(coordinator, agents.len())?;
    let slowest = std::thread::scope(|scope| {
        let prepared = agents.iter().map(|host| scope.spawn(|| prepare(host, fleet, packages, &token))).collect::<Vec<_>>();
        prepared.into_iter().try_fold(Duration::ZERO, |slowest, host| {
            let joined: anyhow::Result<Duration> = host.join().map_err(|_| anyhow!("a host's thread panicked"))?;
            Ok::<_, anyhow::Error>(slowest.max(joined?))
        })
    })?;
    until("every agent connected", Duration::from_secs(20), || {
        let status = coordinator.collect(&["baton", "hosts", "list", "--json"])?;
        let listed = serde_json::from_slice::<serde_json::Value>(&status.stdout).unwrap_or_default();
        let connected = listed["hosts"].as_array().into_iter().flatten().filter(|host| host["connected"] == true).count();
        Ok((connected == agents.len()).then_some(()))
    })
    .with_context(|| journal(coordinator, "baton-coordinator"))?;
    coordinator.run(&["baton", "hosts", "accept", "--all"])?;
    Ok(slowest)
}

fn prepare(host: &Host, fleet: &Fleet, packages: &Packages, token: &str) -> anyhow::Result<Duration> {
    packages.install(host, &["baton-agent", "baton"])?;
    if let Part::Balancer(front) = host.part {
        front.install(host, fleet).with_context(|| journal(host, front.unit()))?;
    }
    join(host, token)
}

/// The last lines a unit wrote on a host, for an error text.
#[must_use]
pub fn journal(host: &Host, unit: &str) -> String {
    let lines = host.collect(&["journalctl", "--no-pager", "--unit", unit, "--lines", "25", "--output", "cat"]);
    let lines = lines.map(|lines| String::from_utf8_lossy(&lines.stdout).into_owned()).unwrap_or_default();
    format!("{unit} on {} wrote\n{lines}", host.name)
}

/// The process that systemd started for a unit, as the host numbers it; `0` when none runs.
///
/// # Errors
/// When the host does not run.
pub fn main_process(host: &Host, unit: &str) -> anyhow::Result<String> {
    Ok(host.run(&["systemctl", "show", "--property=MainPID", "--value", unit])?.trim().to_owned())
}

fn token(coordinator: &Host, uses: usize) -> anyhow::Result<String> {
    let created = until("the coordinator's socket", Duration::from_secs(20), || {
        let created =
            coordinator.collect(&["baton", "token", "create", "--hosts", &uses.to_string(), "--ttl", "1h", "--json"])?;
        Ok(created.status.success().then_some(created.stdout))
    })
    .with_context(|| journal(coordinator, "baton-coordinator"))?;
    let created =
        serde_json::from_slice::<serde_json::Value>(&created).context("`baton token create --json` wrote no JSON")?;
    match created["token"].as_str() {
        Some(token) => Ok(token.to_owned()),
        None => bail!("`baton token create --json` names no token"),
    }
}

fn join(host: &Host, token: &str) -> anyhow::Result<Duration> {
    const TOKEN_FILE: &str = "/root/token";
    let mut settings = format!("address = \"{}\"\n", host.address);
    match host.part {
        Part::Balancer(front) => settings.push_str(front.settings()),
        Part::Web => settings.push_str("\n[allow]\nreboot = true\n"),
        Part::Coordinator => {}
    }
    host.write("/etc/baton/agent.toml", &settings)?;
    host.write(TOKEN_FILE, &format!("{token}\n"))?;
    let coordinator = format!("{COORDINATOR}:{PORT}");
    let begun = Instant::now();
    host.run(&["baton-agent", "join", &coordinator, "--token-file", TOKEN_FILE, "--name", &host.name])?;
    let took = begun.elapsed();
    host.run(&["rm", TOKEN_FILE])?;
    host.run(&["systemctl", "enable", "--now", "baton-agent"])?;
    Ok(took)
}
