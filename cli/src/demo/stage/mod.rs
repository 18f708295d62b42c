//! A fleet on loopback, for the demo, the end-to-end tests and the benches: real processes, real mutual TLS, real draining.
//!
//! One coordinator, agents for the hosts, one agent beside the balancer. Everything lives in one folder under one
//! [`Warden`], so nothing of it outlives the stage.

pub mod control;
mod files;
mod front;
mod places;
pub mod release;

use super::warden::{Program, Warden};
use anyhow::{Context as _, bail};
use baton_core::problem::Code;
use control::Control;
pub use front::{Front, look};
pub use places::Places;
use release::Behaviour;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The service every stage has.
pub const SERVICE: &str = "shop";
/// The host beside the balancer.
pub const BALANCER_HOST: &str = "lb1";
/// The host beside the second one, where there are two.
pub const SECOND_BALANCER_HOST: &str = "lb2";
pub const COORDINATOR: &str = "coordinator";
pub const HAPROXY: &str = front::HAPROXY;

/// Something of a stage's machinery did not work: not a verdict on a release.
pub const BROKEN_STAGE: Code = Code(1090);

/// From the first process to a fleet that listens.
const RAISE_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How the service's releases replace each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// One port: the old instance stops before the new one starts
    InPlace,
    /// Two ports: the new instance starts beside the old one
    SideBySide,
    /// Two ports and one public socket that the host holds: no balancer, and therefore one host
    Handover,
}

/// What a stage is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The words that start a part: an executable with everything in it, and `demo-part`.
    pub part: Vec<String>,
    /// Where `baton-agent` and `baton-coordinator` are, as they are shipped; parts of the one executable otherwise.
    pub programs: Option<PathBuf>,
    pub hosts: u8,
    pub front: Front,
    /// Another load balancer in front of the same service, on a host of its own.
    pub second: Option<Front>,
    /// The first load balancer's program, where it is not the one that its name finds.
    pub front_program: Option<PathBuf>,
    pub place: Place,
    /// The first three numbers of every address: stages that run at once use different ones.
    pub network: [u8; 3],
    pub healthy_for: Duration,
    pub start_timeout: Duration,
    pub drain: Duration,
    /// How long the first host alone is watched, and all of them in the end; zero: there are no waves.
    pub watched: Duration,
    /// The first host keeps its state on a disk of this size, in KiB. Needs user namespaces: see [`small_disks`].
    pub small_disk: Option<u32>,
    /// How long certificates last; the coordinator's default where nothing is said.
    pub certificate_life: Option<Duration>,
    /// The coordinator and every agent answer Prometheus: see [`Stage::metrics`].
    pub metrics: bool,
    /// HAProxy asks every member once a second how it is, and leaves out whoever did not answer three times. The built-in one always does.
    pub checks: bool,
}

/// Whether this machine lets us mount a small disk for a host of a stage.
#[must_use]
pub fn small_disks() -> bool {
    let mut tried = std::process::Command::new(files::UNSHARE[0]);
    let tried = tried.args(&files::UNSHARE[1..]).args(["mount", "-t", "tmpfs", "none", "/tmp"]);
    tried.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Setup {
    /// The demo's own: three hosts, side by side, behind the built-in balancer.
    #[must_use]
    pub fn new(part: Vec<String>) -> Self {
        Self {
            part,
            programs: None,
            hosts: 3,
            front: Front::Builtin,
            second: None,
            front_program: None,
            place: Place::SideBySide,
            network: [127, 0, 0],
            healthy_for: Duration::from_millis(500),
            start_timeout: Duration::from_secs(4),
            drain: Duration::from_secs(10),
            watched: Duration::ZERO,
            small_disk: None,
            certificate_life: None,
            metrics: false,
            checks: false,
        }
    }

    /// The hosts beside the load balancers.
    pub fn balancers(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(BALANCER_HOST).chain(self.second.map(|_| SECOND_BALANCER_HOST))
    }

    /// The parts that are load balancers with a program of their own.
    pub fn front_parts(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.front.part().into_iter().chain(self.second.and_then(Front::second_part))
    }
}

/// A fleet that stands.
#[derive(Debug)]
pub struct Stage {
    pub setup: Setup,
    pub places: Places,
    folder: PathBuf,
    programs: BTreeMap<String, Program>,
    running: BTreeMap<String, Pid>,
    warden: Warden,
}

impl Stage {
    /// Starts everything and waits until every host is connected. Nothing is deployed yet.
    ///
    /// # Errors
    /// When a program cannot be started or the fleet does not come together in time; the logs' last lines say why.
    pub async fn raise(setup: Setup) -> anyhow::Result<Self> {
        let mut stage = Self::prepare(setup)?;
        let problem = match tokio::time::timeout(RAISE_TIMEOUT, stage.start_all()).await {
            Ok(Ok(())) => return Ok(stage),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("the fleet did not come together within {RAISE_TIMEOUT:?}"),
        };
        bail!("{problem}\n{}", stage.last_words())
    }

    fn prepare(setup: Setup) -> anyhow::Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("baton-demo-").tempdir_in(places::short_temp()).context("no folder")?.keep();
        let warden = Warden::raise(&setup.part, &folder).with_context(|| {
            // Without a warden nobody would remove it.
            let _ = std::fs::remove_dir_all(&folder);
            "cannot start the warden"
        })?;
        let places = Places::find(&setup)?;
        let programs = files::write(&setup, &places, &folder)?;
        Ok(Self { setup, places, folder, programs, running: BTreeMap::new(), warden })
    }

    async fn start_all(&mut self) -> anyhow::Result<()> {
        self.start(COORDINATOR)?;
        let control = self.control().await?;
        for host in self.agents() {
            let token = control.host_token(&host).await?;
            files::write_secret(&files::token(&self.folder, &host), &token)?;
        }
        for part in self.setup.front_parts() {
            self.start(part)?;
        }
        for host in self.agents() {
            self.start(&host)?;
        }
        let agents = self.agents();
        tokio::select! {
            connected = control.wait_connected(&agents) => connected,
            ended = self.first_end() => bail!("{ended} ended as soon as it was started"),
        }
    }

    /// The first part that was started and ended by itself.
    async fn first_end(&self) -> &str {
        loop {
            if let Some((part, _)) = self.running.iter().find(|(_, pid)| !is_alive(**pid)) {
                return part;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Starts a part that is not running.
    ///
    /// # Errors
    /// When there is no such part or it cannot be started.
    pub fn start(&mut self, part: &str) -> anyhow::Result<()> {
        let program = self.programs.get(part).with_context(|| format!("there is no `{part}` on this stage"))?;
        let pid = self.warden.start(program).with_context(|| format!("cannot start {part}"))?;
        self.running.insert(part.to_owned(), pid);
        Ok(())
    }

    /// Kills a part with SIGKILL and waits until it is gone. A load balancer's workers go with their master.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, part: &str) -> anyhow::Result<()> {
        let pid = self.running.remove(part).with_context(|| format!("{part} does not run"))?;
        let victims = if self.setup.front_parts().any(|it| it == part) { with_children(pid) } else { vec![pid] };
        for victim in &victims {
            kill_process(*victim, Signal::KILL).with_context(|| format!("cannot kill {part}"))?;
        }
        while victims.iter().any(|pid| is_alive(*pid)) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// The process of a part, if it was started and not killed.
    #[must_use]
    pub fn pid(&self, part: &str) -> Option<u32> {
        self.running.get(part).and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
    }

    /// The names of the hosts that run the service.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        files::host_names(&self.setup)
    }

    /// The names of all hosts: the service's and the balancers'.
    #[must_use]
    pub fn agents(&self) -> Vec<String> {
        let mut hosts = self.hosts();
        hosts.extend(self.setup.balancers().map(str::to_owned));
        hosts
    }

    /// Where clients go.
    #[must_use]
    pub fn frontend(&self) -> SocketAddr {
        self.places.frontend
    }

    /// Where clients of the second load balancer go, where there is one.
    #[must_use]
    pub fn second_frontend(&self) -> SocketAddr {
        SocketAddr::new(self.places.second, self.places.frontend.port())
    }

    /// Where the coordinator, or the agent of a host, answers Prometheus, if the setup says so.
    #[must_use]
    pub fn metrics(&self, part: &str) -> SocketAddr {
        let host = self.hosts().iter().position(|host| host == part);
        match host.and_then(|number| self.places.hosts.get(number)) {
            Some(address) => SocketAddr::new(*address, self.places.agent_metrics),
            None if part == COORDINATOR => self.places.coordinator_metrics,
            None if part == SECOND_BALANCER_HOST => SocketAddr::new(self.places.second, self.places.agent_metrics),
            None => SocketAddr::new(self.places.centre, self.places.agent_metrics),
        }
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the instances write what they executed.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        files::app_logs(&self.folder)
    }

    /// The file whose number of milliseconds every answer of every instance takes longer, while it is there.
    #[must_use]
    pub fn incident(&self) -> PathBuf {
        self.logs().with_extension("incident")
    }

    /// Where an operator would work: the manifest and the artifacts.
    #[must_use]
    pub fn workplace(&self) -> PathBuf {
        files::workplace(&self.folder)
    }

    /// What a part has said so far.
    #[must_use]
    pub fn log(&self, part: &str) -> String {
        let log = self.programs.get(part).and_then(|program| std::fs::read(&program.log).ok()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The coordinator's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        files::socket(&self.folder)
    }

    /// The manifest as the operator's file has it.
    #[must_use]
    pub fn manifest(&self) -> String {
        files::manifest(&self.setup, &self.places, &self.folder)
    }

    /// Puts a version's artifact into the operator's workplace and gives its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn build(&self, version: &str, behaviour: &Behaviour) -> anyhow::Result<PathBuf> {
        let archive = release::archive(&self.setup.part, version, behaviour)?;
        let path = self.workplace().join(format!("{SERVICE}-{version}.tar.zst"));
        std::fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// The Control API over the coordinator's socket, once it answers.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn control(&self) -> anyhow::Result<Control> {
        let control = Control::over(&self.socket());
        let deadline = Instant::now() + RAISE_TIMEOUT;
        loop {
            match control.epoch().await {
                Ok(_) => return Ok(control),
                Err(error) if Instant::now() > deadline => return Err(error.context("the coordinator does not answer")),
                Err(_) if !self.running.get(COORDINATOR).is_some_and(|pid| is_alive(*pid)) => {
                    bail!("the coordinator ended");
                }
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// The last lines of every part's log, for whoever has to find out why.
    #[must_use]
    pub fn last_words(&self) -> String {
        let mut text = String::new();
        for (part, program) in &self.programs {
            let log = std::fs::read(&program.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines = log.lines().collect::<Vec<_>>();
            let last = lines.iter().skip(lines.len().saturating_sub(8));
            last.for_each(|line| text.push_str(&format!("  {part}: {line}\n")));
        }
        text
    }
}

fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X'])))
}

fn with_children(pid: Pid) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero())).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    std::iter::once(pid).chain(children).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_manifest_says_what_the_setup_does() {
        for (place, slots) in [(Place::InPlace, 1), (Place::SideBySide, 2), (Place::Handover, 2)] {
            let hosts = if place == Place::Handover { 1 } else { 3 };
            let setup =
                Setup { place, hosts, network: [127, 77, 1], ..Setup::new(vec!["baton".into(), "demo-part".into()]) };
            let places = Places::find(&setup).unwrap();
            let text = files::manifest(&setup, &places, Path::new("/tmp/stage"));
            let manifest = baton_core::manifest::parse("baton.toml", &text).unwrap();
            assert_eq!(manifest.warnings, []);
            assert_eq!(manifest.hosts.len(), usize::from(hosts));
            assert_eq!(manifest.run.listen.len(), usize::from(place == Place::Handover));
            assert_eq!(manifest.ports.len(), slots);
            assert_eq!(manifest.health.healthy_for, setup.healthy_for);
            assert_eq!(manifest.health.start_timeout, setup.start_timeout);
            assert_eq!(manifest.strategy.drain_deadline, setup.drain);
        }
    }
}
