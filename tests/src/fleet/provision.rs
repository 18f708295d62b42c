//! From booted hosts to a fleet: packages by dpkg, HAProxy with a user's configuration, agents joined by token.

use super::host::Host;
use super::record::{COORDINATOR, Fleet, Part};
use super::run::until;
use anyhow::{Context as _, anyhow, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where packages lie on a host before they are installed.
const LAID_OUT: &str = "/var/tmp/baton";

/// The coordinator's port, as it is by default.
const PORT: u16 = 7443;

/// A HAProxy as its owner might have set it up, with what Baton needs to be told about: an admin socket, and a state file that
/// is loaded at the start. Backends are named like Baton's pools, servers like its members.
const HAPROXY: &str = include_str!("haproxy.cfg");

/// Baton's packages.
#[derive(Debug, Clone)]
pub struct Packages {
    files: Vec<PathBuf>,
}

impl Packages {
    /// Finds one .deb of each.
    ///
    /// # Errors
    /// When one is missing; the help says how they are made.
    pub fn find(folder: &Path) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for name in ["baton", "baton-agent", "baton-coordinator"] {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let found = entries.map(|entry| entry.path()).find(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                file.starts_with(&format!("{name}_")) && file.ends_with(".deb")
            });
            files
                .push(found.with_context(|| format!("no {name}_*.deb in {}: run packaging/build first", folder.display()))?);
        }
        Ok(Self { files })
    }

    /// Copies them to a host.
    ///
    /// # Errors
    /// When there is no room.
    pub fn lay_out(&self, host: &Host) -> anyhow::Result<()> {
        let folder = host.root().join(LAID_OUT.trim_start_matches('/'));
        fs::create_dir_all(&folder)?;
        for file in &self.files {
            fs::copy(file, folder.join(file.file_name().unwrap_or_default()))?;
        }
        Ok(())
    }

    /// Installs some of them, as a user would.
    fn install(&self, host: &Host, names: &[&str]) -> anyhow::Result<()> {
        let wanted = self.files.iter().filter_map(|file| file.file_name()).map(|file| file.to_string_lossy());
        let wanted = wanted.filter(|file| names.iter().any(|name| file.starts_with(&format!("{name}_"))));
        let paths = wanted.map(|file| format!("{LAID_OUT}/{file}")).collect::<Vec<_>>();
        let words = ["dpkg", "--install"].into_iter().chain(paths.iter().map(String::as_str)).collect::<Vec<_>>();
        host.run(&words)?;
        Ok(())
    }
}

/// Installs, configures and joins everything.
///
/// # Errors
/// With the command that failed and what it wrote.
pub fn provision(fleet: &Fleet, packages: &Packages) -> anyhow::Result<()> {
    let coordinator = fleet.coordinator()?;
    packages.install(coordinator, &["baton-coordinator", "baton"])?;
    coordinator.run(&["baton-coordinator", "init"])?;
    coordinator.run(&["systemctl", "enable", "--now", "baton-coordinator"])?;
    let agents = fleet.hosts.iter().filter(|host| host.part != Part::Coordinator).collect::<Vec<_>>();
    let token = token(coordinator, agents.len())?;
    std::thread::scope(|scope| {
        let prepared = agents.iter().map(|host| scope.spawn(|| prepare(host, fleet, packages, &token))).collect::<Vec<_>>();
        prepared.into_iter().try_for_each(|host| host.join().map_err(|_| anyhow!("a host's thread panicked"))?)
    })?;
    until("every agent connected", Duration::from_secs(20), || {
        let status = coordinator.collect(&["baton", "hosts", "list", "--json"])?;
        let listed = serde_json::from_slice::<serde_json::Value>(&status.stdout).unwrap_or_default();
        let connected = listed["hosts"].as_array().into_iter().flatten().filter(|host| host["connected"] == true).count();
        Ok((connected == agents.len()).then_some(()))
    })
    .with_context(|| journal(coordinator, "baton-coordinator"))
}

fn prepare(host: &Host, fleet: &Fleet, packages: &Packages, token: &str) -> anyhow::Result<()> {
    packages.install(host, &["baton-agent", "baton"])?;
    if host.part == Part::Balancer {
        balance(host, fleet)?;
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

fn join(host: &Host, token: &str) -> anyhow::Result<()> {
    const TOKEN_FILE: &str = "/root/token";
    let mut settings = format!("address = \"{}\"\n", host.address);
    if host.part == Part::Balancer {
        settings.push_str(
            "\n[balancer]\ndriver = \"haproxy\"\nsocket = \"/run/haproxy/admin.sock\"\n\
             master_socket = \"/run/haproxy-master.sock\"\nstate_file = \"/var/lib/haproxy/server-state\"\n\
             requests = \"127.0.0.1:8405\"\n",
        );
    }
    host.write("/etc/baton/agent.toml", &settings)?;
    host.write(TOKEN_FILE, &format!("{token}\n"))?;
    let coordinator = format!("{COORDINATOR}:{PORT}");
    host.run(&["baton-agent", "join", &coordinator, "--token-file", TOKEN_FILE, "--name", &host.name])?;
    host.run(&["rm", TOKEN_FILE])?;
    host.run(&["systemctl", "enable", "--now", "baton-agent"])?;
    Ok(())
}

fn balance(host: &Host, fleet: &Fleet) -> anyhow::Result<()> {
    let mut configuration = HAPROXY.to_owned();
    for pool in POOLS {
        configuration.push_str(&pool.backend(fleet));
    }
    host.write("/etc/haproxy/haproxy.cfg", &configuration)?;
    host.run(&["systemctl", "enable", "haproxy"])?;
    host.run(&["systemctl", "restart", "haproxy"])?;
    Ok(())
}

/// A pool as HAProxy's owner declared it: where clients come in, and on which ports instances may be.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    pub name: &'static str,
    pub listen: u16,
    pub ports: &'static [u16],
}

/// One for each placement: two ports and the new starts beside the old, one port and it takes its place.
pub const POOLS: [Pool; 2] =
    [Pool { name: "shop", listen: 8080, ports: &[8101, 8102] }, Pool { name: "till", listen: 8081, ports: &[8201] }];

impl Pool {
    fn backend(&self, fleet: &Fleet) -> String {
        let Self { name, listen, ports } = self;
        let mut text = format!(
            "\nfrontend {name}\n    bind :{listen}\n    default_backend {name}\n\nbackend {name}\n    balance roundrobin\n"
        );
        for host in fleet.every(Part::Web) {
            for (slot, port) in ports.iter().enumerate() {
                text.push_str(&format!("    server {}-{slot} {}:{port} disabled\n", host.name, host.address));
            }
        }
        text
    }
}
