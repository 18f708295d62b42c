//! Instances as transient systemd units: the agent may be killed, upgraded or removed, and they live on.
//!
//! The unit itself remembers what runs: release, folder, stop. Nothing is written beside it.

mod bus;
mod holder;
mod sandbox;
mod unit;

use super::handle::Handle;
use super::sockets::PublicSockets;
use super::{Answer, End, Exit, Found, Launch, Running, Runtime, command};
use crate::secrets;
use crate::text;
use baton_core::fleet::InstanceKey;
use baton_core::problem::{Code, Problem};
use baton_core::release::{Signal, Stop};
use bus::{Bus, State};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

/// Runs instances as units of the host's systemd.
#[derive(Debug)]
pub struct SystemdRuntime {
    bus: Arc<Bus>,
    sockets: Arc<PublicSockets>,
    /// The words that start a part of this agent.
    parts: Vec<String>,
    /// The agent's own folder: part of the mark of its instances.
    folder: PathBuf,
    boot: String,
}

/// Whether systemd runs this host, and this agent may use it.
#[must_use]
pub fn runs_here() -> bool {
    Path::new("/run/systemd/system").is_dir() && rustix::process::geteuid().is_root()
}

/// Where secrets lie for the moment in which systemd reads them: in memory, root's alone.
const HANDED_OVER: &str = "/run/baton-agent/credentials";
/// Beyond an instance's own timeout, before all of it is killed from here.
const STOP_GRACE: Duration = Duration::from_millis(500);
/// Lines of the journal shown as evidence.
const LOG_LINES: &str = "8";
/// How long the journal may take to say them.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);

impl SystemdRuntime {
    /// Uses the host's systemd; it is first talked to when something is asked of it.
    ///
    /// # Errors
    /// B0604: the folder cannot be used. B0208: systemd does not answer.
    pub async fn open(folder: &Path, mut parts: Vec<String>) -> Result<Self, Problem> {
        let refuse = |error: std::io::Error| {
            Problem::new(Code(604), format!("`{}` cannot be used: {}", folder.display(), text::io_error(&error)))
        };
        fs::create_dir_all(folder).map_err(refuse)?;
        let (bus, folder) = (Arc::new(Bus::default()), folder.canonicalize().map_err(refuse)?);
        // What this agent calls itself may mean somebody else to systemd: `/proc/self/exe`.
        if let Some(own) = parts.first_mut() {
            *own = Path::new(own).canonicalize().map_err(refuse)?.display().to_string();
        }
        let starter = holder::Starter::new(bus.clone(), parts.clone(), &folder);
        let runtime = Self {
            bus,
            sockets: Arc::new(PublicSockets::new(folder.clone(), Box::new(starter))),
            parts,
            folder,
            boot: crate::boot::id().map_err(refuse)?,
        };
        runtime.bus.units().await?;
        Ok(runtime)
    }

    fn mark(&self, key: &InstanceKey) -> String {
        format!("{key} of {}", self.folder.display())
    }

    fn incarnation(&self, invocation: &str) -> String {
        format!("{}:{invocation}", self.boot.get(..8).unwrap_or(&self.boot))
    }

    async fn found(&self) -> Result<Vec<Found>, Problem> {
        let mut found = Vec::new();
        for name in self.bus.units().await? {
            let Some(key) = unit::key(&name) else { continue };
            let state = self.bus.state(&name).await?;
            let Some(running) = unit::read(&state, &key, &self.mark(&key)) else { continue };
            let running = Running { incarnation: self.incarnation(&running.incarnation), ..running };
            found.push(Found { running, alive: state.is_alive() });
        }
        Ok(found)
    }

    async fn launch(&self, launch: Launch) -> Result<Running, Problem> {
        let program = command::resolve(&launch.command, &launch.folder)?;
        if let Some(user) = &launch.user {
            command::user(user)?;
        }
        let sockets = self.sockets.get(&launch.key.service, &launch.listen).await?;
        let name = unit::name(&launch.key);
        let (words, begun) = match sockets.is_empty() && unit::stays_as_it_is(&program) {
            true => (program.clone(), false),
            false => (command::begun(&self.parts, &program), true),
        };
        let credentials = secrets::folder(Path::new(HANDED_OVER), &launch.key);
        let mut properties = unit::properties(&launch, &words, &self.mark(&launch.key), &credentials);
        let outcome = begun.then(|| unit::hand(&mut properties, &sockets)).transpose()?;
        self.bus.reset(&name).await;
        // Read by systemd while it starts the unit, into memory of the unit's own; then nobody needs them any more.
        if !launch.secrets.is_empty() {
            secrets::lay_down(&credentials, &launch.secrets, None)?;
        }
        let settled = match self.bus.start(&name, properties).await {
            Ok(()) => self.bus.settled(&name).await,
            Err(problem) => Err(problem),
        };
        if !launch.secrets.is_empty() {
            let _ = secrets::take_away(&credentials);
        }
        let state = settled?;
        let became = match outcome.filter(|_| !state.never_ran()) {
            Some(outcome) => outcome.known().await,
            None => Ok(()),
        };
        if state.never_ran() || became.is_err() {
            let problem = match became {
                Err(error) => command::not_started(&program.path, &error),
                Ok(()) => not_started(&program.path, &state),
            };
            let lines = log(&name, &state.invocation).await;
            self.bus.clear(&name).await;
            return Err(lines.into_iter().fold(problem, |problem, line| problem.saw("last log", line)));
        }
        Ok(Running {
            key: launch.key,
            release: launch.release,
            start: launch.start,
            incarnation: self.incarnation(&state.invocation),
            pid: state.pid,
            folder: launch.folder,
            stop: launch.stop,
        })
    }

    /// The unit, as long as it is still this start of it.
    async fn same(&self, running: &Running) -> Option<State> {
        let state = self.bus.state(&unit::name(&running.key)).await.ok()?;
        (self.incarnation(&state.invocation) == running.incarnation).then_some(state)
    }

    async fn wait(&self, running: &Running) -> Exit {
        let gone = Exit { end: End::Unseen, left_behind: 0 };
        if let Some(handle) = Handle::of_stranger(running.pid).filter(|_| running.pid != 0) {
            // Still the unit's process, now that it is held: then its end is the unit's.
            if self.same(running).await.is_some_and(|state| state.is_alive() && state.pid == running.pid) {
                handle.exit().await;
            }
        }
        self.status(running).await.unwrap_or(gone)
    }

    /// Waits until systemd has noticed the end, reads it, and clears the unit away.
    async fn status(&self, running: &Running) -> Option<Exit> {
        let name = unit::name(&running.key);
        let state = self.bus.until(&name, |state| !state.is_alive()).await;
        let state = state.filter(|state| self.incarnation(&state.invocation) == running.incarnation)?;
        let left_behind = self.bus.processes(&name).await.len();
        self.bus.clear(&name).await;
        Some(Exit { end: state.end(), left_behind })
    }

    async fn halt(&self, running: &Running, stop: &Stop) -> Exit {
        let gone = Exit { end: End::Unseen, left_behind: 0 };
        if self.same(running).await.is_none() {
            return gone;
        }
        let name = unit::name(&running.key);
        self.bus.stop(&name).await;
        let stopped = self.bus.until(&name, State::is_over);
        if tokio::time::timeout(stop.timeout + STOP_GRACE, stopped).await.is_err() {
            tracing::warn!(unit = name, timeout = ?stop.timeout, "did not finish in time: killed");
            self.bus.kill(&name).await;
            self.bus.until(&name, State::is_over).await;
        }
        self.bus.reset(&name).await;
        gone
    }
}

impl Runtime for SystemdRuntime {
    fn list(&self) -> Answer<'_, Result<Vec<Found>, Problem>> {
        Box::pin(self.found())
    }

    fn start(&self, launch: Launch) -> Answer<'_, Result<Running, Problem>> {
        Box::pin(self.launch(launch))
    }

    fn ended<'a>(&'a self, running: &'a Running) -> Answer<'a, Exit> {
        Box::pin(self.wait(running))
    }

    fn stop<'a>(&'a self, running: &'a Running, stop: &'a Stop) -> Answer<'a, Exit> {
        Box::pin(self.halt(running, stop))
    }

    fn signal<'a>(&'a self, running: &'a Running, signal: Signal) -> Answer<'a, ()> {
        Box::pin(async move {
            if self.same(running).await.is_some() {
                self.bus.signal(&unit::name(&running.key), unit::number(signal)).await;
            }
        })
    }

    fn processes(&self, running: &Running) -> BTreeSet<u32> {
        // The control group of the first process is the unit's: every other process of it is there too.
        let group = fs::read_to_string(format!("/proc/{}/cgroup", running.pid)).unwrap_or_default();
        let path = group.lines().find_map(|line| line.strip_prefix("0::"));
        let listed = path.and_then(|path| fs::read_to_string(format!("/sys/fs/cgroup{path}/cgroup.procs")).ok());
        let mut processes: BTreeSet<_> =
            listed.iter().flat_map(|list| list.lines()).filter_map(|pid| pid.parse().ok()).collect();
        processes.insert(running.pid);
        processes
    }

    fn log<'a>(&'a self, running: &'a Running) -> Answer<'a, Vec<String>> {
        Box::pin(async {
            let invocation = running.incarnation.split(':').nth(1).unwrap_or_default();
            log(&unit::name(&running.key), invocation).await
        })
    }

    fn forget<'a>(&'a self, key: &'a InstanceKey) -> Answer<'a, ()> {
        Box::pin(async {
            let name = unit::name(key);
            if self.bus.state(&name).await.is_ok_and(|state| !state.is_alive()) {
                self.bus.clear(&name).await;
            }
        })
    }

    fn keep_listening<'a>(&'a self, addresses: &'a BTreeSet<SocketAddr>) -> Answer<'a, Result<(), Problem>> {
        Box::pin(self.sockets.keep(addresses))
    }

    /// The journal has bounds of its own.
    fn tend(&self) {
        let sockets = self.sockets.clone();
        tokio::spawn(async move { sockets.tend().await });
    }
}

/// Runs a program beside the agent, as a unit of its own: it goes on when the agent is stopped.
///
/// # Errors
/// B0204, B0208: systemd refused it, or does not answer.
pub async fn run_beside(unit: &str, about: &str, words: &[String]) -> Result<(), Problem> {
    let bus = Bus::default();
    let mut properties = bus::Properties::default();
    properties.text("Description", about);
    properties.text("Type", "exec");
    properties.execute(words);
    // A unit that failed is gone, too: what came of it is written down elsewhere.
    properties.text("CollectMode", "inactive-or-failed");
    bus.reset(unit).await;
    bus.start(unit, properties).await
}

/// Whether a unit runs, or is about to. A systemd that does not answer says nothing about it.
pub async fn is_alive(unit: &str) -> bool {
    Bus::default().state(unit).await.map_or(true, |state| state.is_alive())
}

fn not_started(program: &Path, state: &State) -> Problem {
    Problem::new(Code(204), format!("`{}` could not be started by systemd", program.display()))
        .saw("unit", state.reason())
        .help("journalctl -u 'baton-*' on this host says more")
}

async fn log(unit: &str, invocation: &str) -> Vec<String> {
    let mut journal = Command::new("journalctl");
    journal.args(["--quiet", "--no-pager", "--output=cat", "--lines", LOG_LINES]);
    journal.arg(format!("_SYSTEMD_UNIT={unit}")).arg(format!("_SYSTEMD_INVOCATION_ID={invocation}"));
    let output = journal.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output();
    let Ok(Ok(output)) = tokio::time::timeout(LOG_TIMEOUT, output).await else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().map(|line| text::line(line, 300)).collect()
}

#[cfg(test)]
mod tests;
