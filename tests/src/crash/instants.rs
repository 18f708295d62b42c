//! The balancer is killed at instants drawn by chance, in rollout after rollout, and no request may reach an instance that is
//! not meant to have any: not the wrong one, not one that is not ready, not one that drains.

use super::operator::{self, Release};
use super::point::Ended;
use super::step::clock_s;
use super::sweep::{builtin, good};
use super::witness::Witness;
use super::{ROLLING, Strategy, is_alive};
use anyhow::{Context as _, bail, ensure};
use baton_cli::demo::load::{Config, Load, Report, executions};
use baton_cli::demo::stage::control::Control;
use baton_cli::demo::stage::{Front, Setup, Stage};
use baton_proto::v1::{FleetView, ServiceView};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Whatever dies, a rollout is over within a minute.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests a second: some in every window of a few milliseconds of some rollout, and few enough for several stages at once.
const RATE: u32 = 60;
/// The clock of a failure begins with its phase, and a phase when the generator comes to it: on a machine with too much to do,
/// after some tenths of a second.
const SKEW_S: f64 = 0.25;
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Some of the instants come after the end of the rollout, when the old release is warm or gone.
const BEYOND: f64 = 1.2;
/// What a failure says of itself where something answered.
const ANSWERED: &str = "status ";
/// The version of an answer that no instance gave; see [`Report::failed_versions`].
const NOBODY: &str = "none";

/// Which balancer is killed how often, in rollouts of which strategy.
#[derive(Debug, Clone)]
pub struct Series {
    pub front: Front,
    pub strategy: Strategy,
    /// When in a rollout, each from 0 to 1.
    pub instants: Vec<f64>,
}

/// One death.
#[derive(Debug, Clone, Serialize)]
pub struct Death {
    /// Since the command.
    pub at_ms: u64,
    pub ended: Option<Ended>,
    pub requests: u64,
    /// Failed on connections that died with the balancer, or found nobody listening.
    pub cut: u64,
    /// What must not have happened.
    pub violations: Vec<String>,
}

/// What came of a series.
#[derive(Debug, Clone, Serialize)]
pub struct Lived {
    pub balancer: &'static str,
    pub strategy: Strategy,
    pub deaths: Vec<Death>,
    pub requests: u64,
    pub cut: u64,
    /// How long members were out, all together: while nothing may reach them.
    pub out_seconds: f64,
    /// Requests that began at an instance that was out.
    pub strays: Vec<String>,
    pub seconds: f64,
}

impl Series {
    /// Kills once in each rollout, and tells of each death.
    ///
    /// # Errors
    /// When the stage does not stand, or something cannot be measured.
    pub async fn run(&self, setup: Setup, tell: impl Fn(&Self, &Death)) -> anyhow::Result<Lived> {
        let begun = Instant::now();
        let (mut deaths, mut seen) = (Vec::new(), Seen::default());
        let mut scene = None;
        for instant in &self.instants {
            let mut stands = match scene.take() {
                Some(stands) => stands,
                None => Scene::enter(self, setup.clone()).await?,
            };
            let death = stands.kill_at(*instant).await?;
            tell(self, &death);
            // What a violation leaves behind is no place to look for the next.
            match death.violations.is_empty() {
                true => scene = Some(stands),
                false => seen.add(&stands)?,
            }
            deaths.push(death);
        }
        scene.iter().try_for_each(|stands| seen.add(stands))?;
        Ok(Lived {
            balancer: self.front.name(),
            strategy: self.strategy,
            requests: deaths.iter().map(|death| death.requests).sum(),
            cut: deaths.iter().map(|death| death.cut).sum(),
            deaths,
            out_seconds: (seen.out_s * 10.0).round() / 10.0,
            strays: seen.strays,
            seconds: begun.elapsed().as_secs_f64().round(),
        })
    }

    /// The manifest's lines. Warm releases stay warm: they are what a balancer that forgets would send requests to.
    const fn lines(&self) -> &'static str {
        match self.strategy {
            Strategy::BlueGreen => "strategy = \"blue-green\"\nkeep_old = \"10m\"\n",
            other => other.lines(),
        }
    }
}

/// What the witnesses of all stages of a series saw.
#[derive(Debug, Default)]
struct Seen {
    out_s: f64,
    strays: Vec<String>,
}

impl Seen {
    fn add(&mut self, scene: &Scene) -> anyhow::Result<()> {
        scene.watcher.abort();
        let witness = scene.witness.lock().unwrap_or_else(PoisonError::into_inner);
        self.out_s += witness.watched_s();
        let strays = witness.strays(&scene.stage.logs())?;
        self.strays.extend(strays.into_iter().map(|stray| format!("{:.3}: {}", stray.began_s, stray.line)));
        Ok(())
    }
}

/// A stage with a first release live, under traffic, and somebody who watches.
struct Scene {
    series: Series,
    stage: Stage,
    control: Control,
    manifest: String,
    load: Load,
    /// When the phase of the traffic began, in seconds since 1970.
    marked_s: f64,
    version: u64,
    /// What is committed.
    live: String,
    /// How long the rollout before took.
    took: Duration,
    witness: Arc<Mutex<Witness>>,
    watcher: JoinHandle<()>,
}

impl Scene {
    async fn enter(series: &Series, setup: Setup) -> anyhow::Result<Self> {
        let setup = Setup { place: series.strategy.place(), front: series.front, hosts: 2, ..setup };
        let stage = Stage::raise(setup).await?;
        let control = stage.control().await?;
        let manifest = stage.manifest();
        ensure!(manifest.contains(ROLLING), "the stage's manifest has another strategy");
        let manifest = manifest.replace(ROLLING, series.lines());
        let witness = Arc::new(Mutex::new(Witness::default()));
        let watcher = tokio::spawn(watch(control.clone(), Arc::clone(&witness)));
        let load = Load::start(Config::new(stage.frontend(), RATE))?;
        let (series, marked_s) = (series.clone(), clock_s());
        let (took, live) = (PATIENCE, String::new());
        let mut scene = Self { series, stage, control, manifest, load, marked_s, version: 0, live, took, witness, watcher };
        // Two releases with nobody killed: the first finds nothing there, the second says how long one takes.
        for _ in 0..2 {
            let begun = Instant::now();
            let ended = scene.roll().await?;
            ensure!(ended.state == "succeeded", "with nobody killed: {ended:?}\n{}", scene.stage.last_words());
            scene.took = begun.elapsed();
            scene.mark().await?;
        }
        Ok(scene)
    }

    /// A release, until its end.
    async fn roll(&mut self) -> anyhow::Result<Ended> {
        let (version, archive) = (self.version.to_string(), good(&self.stage, self.version)?);
        self.version += 1;
        let release = Release { manifest: &self.manifest, version: &version, archive: &archive };
        let ended = timeout(PATIENCE, operator::deploy(&self.control, &release)).await.context("no end in time")?;
        self.live = version;
        ended
    }

    /// One rollout, in which the balancer dies once.
    async fn kill_at(&mut self, instant: f64) -> anyhow::Result<Death> {
        let (before, after) = (self.live.clone(), self.version.to_string());
        let (version, archive) = (self.version.to_string(), good(&self.stage, self.version)?);
        self.version += 1;
        let (control, manifest, agents) = (self.control.clone(), self.manifest.clone(), self.stage.agents());
        let operates = tokio::spawn(async move {
            let release = Release { manifest: &manifest, version: &version, archive: &archive };
            let ended = timeout(PATIENCE, operator::deploy(&control, &release)).await;
            let ended = ended.unwrap_or_else(|_| bail!("no end within {PATIENCE:?}"));
            let rests = ended.is_ok() && timeout(PATIENCE, rest(&control, &agents)).await.is_ok();
            (ended, rests)
        });
        let at = self.took.mul_f64(instant * BEYOND);
        tokio::time::sleep(at).await;
        let died_s = clock_s();
        self.kill().await?;
        let returns = async {
            while tokio::net::TcpStream::connect(self.stage.frontend()).await.is_err() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        timeout(PATIENCE, returns).await.context("the balancer does not come back")?;
        let mut death =
            Death { at_ms: u64::try_from(at.as_millis())?, ended: None, requests: 0, cut: 0, violations: Vec::new() };
        let since_s = died_s - self.marked_s - SKEW_S;
        let outage = self.mark().await?;
        judge_outage(&outage, since_s, &mut death);
        self.judge_orders(&outage, &mut death)?;
        let (ended, rests) = operates.await?;
        let calm = self.mark().await?;
        if calm.failed > 0 {
            death.violations.push(format!("{} failed with the balancer there: {:?}", calm.failed, calm.failures));
        }
        death.requests += calm.requests;
        self.judge_orders(&calm, &mut death)?;
        for version in outage.versions.keys().chain(calm.versions.keys()) {
            if ![&before, &after].contains(&version) {
                death.violations.push(format!("version {version} answered, in a rollout from {before} to {after}"));
            }
        }
        match ended {
            Ok(ended) => {
                death.violations.extend(ended.objection());
                if ["succeeded", "partial"].contains(&ended.state.as_str()) {
                    self.live = after;
                }
                death.ended = Some(ended);
            }
            Err(error) => death.violations.push(format!("{error:#}\n{}", operator::page(&self.control).await)),
        }
        if !rests {
            death.violations.push(format!("no rest: {}", operator::page(&self.control).await));
        }
        if !death.violations.is_empty() {
            death.violations.push(self.stage.last_words());
        }
        Ok(death)
    }

    /// With every process of it; whoever keeps it running starts it again at once.
    async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(part) = self.series.front.part() {
            self.stage.kill(part).await?;
            return self.stage.start(part);
        }
        let victims = builtin(&self.stage);
        ensure!(!victims.is_empty(), "there is no built-in balancer");
        for victim in &victims {
            let pid = Pid::from_raw(i32::try_from(*victim)?).context("no process")?;
            kill_process(pid, Signal::KILL).context("cannot kill the balancer")?;
        }
        while victims.iter().any(|victim| is_alive(*victim as i32)) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    async fn mark(&mut self) -> anyhow::Result<Report> {
        let now_s = clock_s();
        let report = self.load.mark().await?;
        self.marked_s = now_s;
        Ok(report)
    }

    fn judge_orders(&self, traffic: &Report, death: &mut Death) -> anyhow::Result<()> {
        let orders = executions::join(&traffic.posts, &self.stage.logs())?;
        if (orders.twice, orders.lost) != (0, 0) {
            death.violations.push(format!("{orders:?}"));
        }
        Ok(())
    }
}

/// What died with the balancer, or found nobody listening, has no answer; one that has met an instance it should not have.
fn judge_outage(outage: &Report, since_s: f64, death: &mut Death) {
    let early = outage.failures.iter().find(|failure| failure.at_s < since_s);
    death.violations.extend(early.map(|early| format!("failed before the death at {since_s:.3} s: {early:?}")));
    if outage.failed_versions.keys().any(|version| version != NOBODY) {
        let answered = outage.failures.iter().filter(|failure| failure.text.starts_with(ANSWERED)).collect::<Vec<_>>();
        death.violations.push(format!("answered with a failure: {answered:?}, of {:?}", outage.failed_versions));
    }
    death.requests += outage.requests;
    death.cut = outage.failed;
}

/// Returns once every host is connected, everybody serves, and nobody waits for anything. What is warm stays beside it.
async fn rest(control: &Control, hosts: &[String]) {
    let at_rest = |fleet: &FleetView| {
        let is_there = |name: &String| fleet.hosts.iter().any(|host| host.name == *name && host.connected);
        let rests = |service: &ServiceView| service.waiting.is_empty() && service.health == "healthy";
        hosts.iter().all(is_there) && fleet.services.iter().all(rests)
    };
    while control.wait_for(at_rest).await.is_err() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Takes note of every look at the fleet, for as long as the coordinator lets it.
async fn watch(control: Control, witness: Arc<Mutex<Witness>>) {
    let note = |fleet: &_| {
        witness.lock().unwrap_or_else(PoisonError::into_inner).note(fleet, clock_s());
        false
    };
    // It ends with the coordinator, which lives as long as the stage does.
    let _ = control.wait_for(note).await;
}
