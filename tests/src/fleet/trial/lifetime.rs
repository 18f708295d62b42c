//! A lifetime of the packages, in both formats: from hosts with nothing on them to a service under load, and back to nothing.

use super::client::Clients;
use super::confined::{exposure, named};
use super::fault::wait_active;
use super::operator::Deploy;
use super::rest::{compare, units};
use super::sentinel;
use super::service::{self, Behaviour};
use super::tell;
use crate::fleet::front::Front;
use crate::fleet::host::Host;
use crate::fleet::life;
use crate::fleet::packages::{Format, Packages};
use crate::fleet::pool::{POOLS, Pool};
use crate::fleet::provision::provision;
use crate::fleet::record::{Fleet, Part};
use crate::fleet::run::{said, until};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Nothing takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);

const RATE: u32 = 200;

/// What Baton promises: from hosts with nothing on them to a service that is healthy behind its load balancer, of machine time.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);
/// One `baton-agent join`.
const JOINED_WITHIN: Duration = Duration::from_secs(2);
/// One `baton status` on the coordinator's host: the median of so many.
const STATUS_WITHIN: Duration = Duration::from_millis(50);
const STATUSES: usize = 20;

/// What docs/packages.md says that stays on a host which had Baton: users and groups, and what services keep.
const STAYS: [&str; 5] = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/var/lib/baton"];
/// The .rpm has no word for a purge.
const STAYS_OF_RPM: [&str; 3] = ["/etc/baton", "/var/lib/baton-agent", "/var/lib/baton-coordinator"];

/// Of Debian, of this test, and of the services: not Baton's.
const OTHERS: [&str; 16] = [
    "/var/log",
    "/var/cache",
    "/var/tmp",
    "/tmp",
    "/run",
    "/dev",
    "/root",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/lib/systemd",
    "/var/lib/private",
    "/var/lib/haproxy",
    "/etc/credstore",
    "/etc/haproxy",
    "/etc/systemd/system/multi-user.target.wants/haproxy.service",
    "/etc/.pwd.lock",
];

/// What to try.
#[derive(Debug, Clone, clap::Args)]
pub struct LifetimeArgs {
    /// A folder with Baton's packages, as packaging/build makes it
    #[arg(long, default_value = "dist")]
    pub packages: PathBuf,
    /// A folder with the same as the next version: packaging/build --version VERSION --out FOLDER
    #[arg(long, default_value = "dist/next")]
    pub next: PathBuf,
    /// Only packages of these formats
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["deb", "rpm"])]
    pub formats: Vec<Format>,
}

/// Lives it once with each format, on hosts of its own.
///
/// # Errors
/// With the first thing that is not as it should be.
pub fn live(args: &LifetimeArgs) -> anyhow::Result<()> {
    for format in &args.formats {
        let begun = Instant::now();
        let (packages, next) = (Packages::find(&args.packages, *format)?, Packages::find(&args.next, *format)?);
        let lived =
            life::boot(1, &[Front::Haproxy], &packages).and_then(|fleet| Lifetime::of(&fleet, &packages, &next)?.live());
        let down = life::down();
        lived.with_context(|| format!("with .{} packages", format.ending()))?;
        down?;
        tell(&format!("ok  a lifetime of the .{} packages in {} s", format.ending(), begun.elapsed().as_secs()));
    }
    Ok(())
}

struct Lifetime<'a> {
    fleet: &'a Fleet,
    packages: &'a Packages,
    next: &'a Packages,
    pool: &'static Pool,
    coordinator: &'a Host,
    web: &'a Host,
}

impl<'a> Lifetime<'a> {
    fn of(fleet: &'a Fleet, packages: &'a Packages, next: &'a Packages) -> anyhow::Result<Self> {
        let web = fleet.every(Part::Web).next().context("no host runs applications")?;
        let [pool, ..] = &POOLS;
        fleet.hosts.iter().try_for_each(|host| next.lay_out(host))?;
        Ok(Self { fleet, packages, next, pool, coordinator: fleet.coordinator()?, web })
    }

    fn live(&self) -> anyhow::Result<()> {
        let before = self.files();
        let begun = Instant::now();
        self.install()?;
        let joined = provision(self.fleet, self.packages)?;
        self.deploy("1.0.0")?;
        within("from nothing to a healthy service", begun.elapsed(), HEALTHY_WITHIN)?;
        within("`baton-agent join`", joined, JOINED_WITHIN)?;
        within("`baton status`", self.status()?, STATUS_WITHIN)?;
        self.confined()?;
        let balancer = self.fleet.before(self.pool).next().context("no load balancer")?;
        let mut clients = Clients::start(SocketAddr::from((balancer.address, self.pool.listen)), RATE)?;
        let [now, next] = [self.packages, self.next].map(|packages| packages.version("baton"));
        let (now, next) = (now?, next?);
        ensure!(now != next, "both folders have {now}: packaging/build --version says another one");
        self.unnoticed(&mut clients, &format!("the upgrade of every package to {next}"), || self.put(self.next))?;
        self.deploy("2.0.0")?;
        nobody_failed(&mut clients, "a release after the upgrade")?;
        self.unnoticed(&mut clients, &format!("the way back of every package to {now}"), || self.put(self.packages))?;
        self.unnoticed(&mut clients, "another authority", || self.rotate())?;
        self.unnoticed(&mut clients, "a certificate taken away", || self.revoke())?;
        self.unnoticed(&mut clients, "the agent's removal", || self.packages.remove(self.web, &["baton-agent"]))?;
        self.unnoticed(&mut clients, "the agent's return", || self.bring_back())?;
        drop(clients);
        sentinel::search(self.fleet, self.pool)?;
        self.coordinator.run(&["baton", "services", "remove", self.pool.name, "--yes"])?;
        self.purge(&before)
    }

    /// What is installed starts nothing, and is ready to be set up.
    fn install(&self) -> anyhow::Result<()> {
        for (host, package) in [(self.coordinator, "baton-coordinator"), (self.web, "baton-agent")] {
            self.packages.install(host, &[package])?;
            let shown = host.run(&["systemctl", "show", "--property=LoadState,ActiveState", package])?;
            ensure!(shown.contains("LoadState=loaded") && shown.contains("ActiveState=inactive"), "{package}: {shown}");
            host.run(&["getent", "group", "baton"])?;
            host.run(&["test", "-d", "/run/baton"])?;
        }
        self.coordinator.run(&["getent", "passwd", "baton-coordinator"])?;
        self.web.run(&["getent", "passwd", "baton-agent-link"]).map(drop)
    }

    fn deploy(&self, version: &str) -> anyhow::Result<()> {
        service::publish(self.coordinator, self.fleet, self.pool, version, Behaviour::Good)?;
        let (exit, said) = Deploy::start(self.coordinator, self.pool, version)?.end(DEADLINE)?;
        ensure!(exit == 0, "`baton deploy` of {version} exited {exit}\n{said}");
        Ok(())
    }

    /// How long the command line takes where the coordinator is.
    fn status(&self) -> anyhow::Result<Duration> {
        let mut took = Vec::new();
        for _ in 0..STATUSES {
            let begun = Instant::now();
            self.coordinator.run(&["baton", "status"])?;
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        Ok(took[STATUSES / 2])
    }

    /// Each runs with no more rights than it needs: the coordinator, an agent's half that faces the network, an application.
    fn confined(&self) -> anyhow::Result<()> {
        let applications = named(self.web, self.pool)?;
        let application = applications.first().context("no application runs")?;
        let coordinator = (self.coordinator, "baton-coordinator.service", 1.5);
        for (host, unit, most) in [coordinator, (self.web, "baton-agent-link.service", 2.0), (self.web, application, 3.0)] {
            let exposed = exposure(host, unit)?;
            ensure!(exposed <= most, "{unit} on {} is exposed by {exposed}, and {most} is the most", host.name);
        }
        Ok(())
    }

    /// Does something, and sees that neither the applications nor their clients knew.
    fn unnoticed(&self, clients: &mut Clients, what: &str, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let before = units(self.fleet, self.pool)?;
        act().context(what.to_owned())?;
        let wrong = compare(what, &before, &units(self.fleet, self.pool)?);
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        nobody_failed(clients, what)
    }

    /// Installs these packages on every host, the coordinator's first, in the place of those that are there.
    fn put(&self, packages: &Packages) -> anyhow::Result<()> {
        for host in &self.fleet.hosts {
            let unit = if host.part == Part::Coordinator { "baton-coordinator" } else { "baton-agent" };
            let main = |host: &Host| host.run(&["systemctl", "show", "--property=MainPID", "--value", unit]);
            let before = main(host)?;
            packages.install(host, &[unit, "baton"])?;
            wait_active(host, unit)?;
            ensure!(main(host)? != before, "{unit} on {} is not the one that was installed", host.name);
        }
        self.connected()
    }

    fn rotate(&self) -> anyhow::Result<()> {
        self.coordinator.run(&["baton", "authority", "rotate", "--why", "test"])?;
        until("every host to have moved to the new authority", DEADLINE, || {
            let shown = self.ask(&["baton", "authority", "status", "--json"])?;
            let bearers = shown["bearers"].as_array().context("nobody has a certificate")?;
            Ok((bearers.len() >= 2 && bearers.iter().all(|bearer| bearer["moved"] == true)).then_some(()))
        })?;
        self.coordinator.run(&["baton", "authority", "retire"])?;
        self.connected()
    }

    /// A workstation is logged in, and is not any more.
    fn revoke(&self) -> anyhow::Result<()> {
        let token = self.ask(&["baton", "token", "create", "--role", "viewer", "--name", "vera", "--json"])?;
        self.web.write("/root/token", token["token"].as_str().context("no token")?)?;
        let address = format!("{}:7443", self.coordinator.name);
        self.web.run(&["baton", "login", &address, "--token-file", "/root/token", "--name", "vera"])?;
        self.web.run(&["baton", "status"])?;
        self.coordinator.run(&["baton", "certificates", "revoke", "viewer/vera", "--why", "test"])?;
        let refused = self.web.collect(&["baton", "status"])?;
        ensure!(!refused.status.success(), "a certificate that was revoked is good for\n{}", said(&refused));
        Ok(())
    }

    /// A service that was removed is not started by its next installation.
    fn bring_back(&self) -> anyhow::Result<()> {
        self.packages.install(self.web, &["baton-agent"])?;
        self.web.run(&["systemctl", "enable", "--now", "baton-agent"])?;
        wait_active(self.web, "baton-agent")?;
        self.connected()
    }

    fn purge(&self, before: &BTreeMap<String, BTreeSet<PathBuf>>) -> anyhow::Result<()> {
        for host in &self.fleet.hosts {
            let daemon = if host.part == Part::Coordinator { "baton-coordinator" } else { "baton-agent" };
            self.packages.purge(host, &[daemon, "baton"])?;
            let units = host.run(&["systemctl", "list-units", "--all", "--plain", "--no-legend", "baton*"])?;
            ensure!(units.trim().is_empty(), "units are left on {}:\n{units}", host.name);
        }
        let rpm = if self.packages.format() == Format::Rpm { STAYS_OF_RPM.as_slice() } else { &[] };
        let stays = |path: &&PathBuf| STAYS.iter().chain(rpm).any(|stays| path.starts_with(stays));
        for (host, now) in self.files() {
            let left = now.difference(&before[&host]).filter(|path| !stays(path) && !is_backup(path)).collect::<Vec<_>>();
            ensure!(left.is_empty(), "left on {host}: {left:?}");
        }
        Ok(())
    }

    /// Every agent has a session again.
    fn connected(&self) -> anyhow::Result<()> {
        until("every agent to be connected", DEADLINE, || {
            let listed = self.ask(&["baton", "hosts", "list", "--json"])?;
            let hosts = listed["hosts"].as_array().context("no hosts")?;
            Ok((hosts.len() == 2 && hosts.iter().all(|host| host["connected"] == true)).then_some(()))
        })
    }

    /// The answer of a command on the coordinator's host, which may just be starting: then nothing.
    fn ask(&self, words: &[&str]) -> anyhow::Result<Value> {
        let said = until(&words.join(" "), DEADLINE, || {
            let ended = self.coordinator.collect(words)?;
            Ok(ended.status.success().then_some(ended.stdout))
        })?;
        Ok(serde_json::from_slice(&said)?)
    }

    /// By host, every file and folder that is not as in the base, but for those of others.
    fn files(&self) -> BTreeMap<String, BTreeSet<PathBuf>> {
        let of = |host: &Host| {
            let mut found = BTreeSet::new();
            collect(&host.own(), Path::new("/"), &mut found);
            (host.name.clone(), found)
        };
        self.fleet.hosts.iter().map(of).collect()
    }
}

/// Says how long something took, and fails where that is more than promised.
fn within(what: &str, took: Duration, most: Duration) -> anyhow::Result<()> {
    tell(&format!("    {what}: {} ms, of at most {}", took.as_millis(), most.as_millis()));
    ensure!(took <= most, "{what} took {took:?}, and {most:?} is the most");
    Ok(())
}

fn nobody_failed(clients: &mut Clients, what: &str) -> anyhow::Result<()> {
    let report = clients.mark()?.report;
    ensure!(report.failed == 0, "{what}: {} of {} requests failed: {:?}", report.failed, report.requests, report.failures);
    Ok(())
}

/// Programs that edit users keep what was there before beside it.
fn is_backup(path: &Path) -> bool {
    let name = path.to_string_lossy();
    STAYS.iter().any(|stays| name.strip_prefix(stays).is_some_and(|rest| rest == "-"))
}

/// What lies in a host's own layer. What was there and is gone is a device there, and no file.
fn collect(own: &Path, folder: &Path, found: &mut BTreeSet<PathBuf>) {
    let entries = fs::read_dir(own.join(folder.strip_prefix("/").unwrap_or(folder))).into_iter().flatten().flatten();
    for entry in entries {
        let path = folder.join(entry.file_name());
        if OTHERS.iter().any(|other| path == Path::new(other)) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                collect(own, &path, found);
            }
            Ok(kind) if kind.is_file() || kind.is_symlink() => drop(found.insert(path)),
            _ => {}
        }
    }
}
