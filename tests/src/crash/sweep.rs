//! One strategy and one victim: rollout after rollout, the victim dies one step later.

use super::operator::{self, Release};
use super::point::{Ended, Point};
use super::step::{Moment, Note, Step, clock_s};
use super::watch::{Aim, Watch};
use super::{ROLLING, Strategy, Victim, is_alive};
use anyhow::{Context as _, bail, ensure};
use baton_cli::demo::load::{Config, Load, Report, executions};
use baton_cli::demo::stage::control::Control;
use baton_cli::demo::stage::release::{Behaviour, archive};
use baton_cli::demo::stage::{HAPROXY, SERVICE, Setup, Stage};
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Whatever dies, a rollout is over within a minute.
const PATIENCE: Duration = Duration::from_secs(60);
/// A step counts as the last one once so many rollouts in a row came to their end before it: how many there are differs a
/// little from one to the next.
const MISSES: u32 = 2;
/// Requests a second: some in every window of a few milliseconds of some rollout, and few enough for several sweeps at once.
const RATE: u32 = 60;
/// The clock of a failure begins with its phase, and a phase when the generator comes to it.
const SKEW: Duration = Duration::from_millis(50);
/// Whoever was killed is gone by then, and otherwise was not killed.
const DYING: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What is killed at which steps of which rollouts.
#[derive(Debug, Clone)]
pub struct Sweep {
    pub strategy: Strategy,
    pub victim: Victim,
    /// Every so many steps: 1 is each.
    pub stride: u64,
    /// The first step, from 1.
    pub from: u64,
    /// No step after this one.
    pub to: u64,
}

/// What came of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct Swept {
    pub strategy: Strategy,
    pub victim: Victim,
    /// The highest number of a step at which it died.
    pub steps: u64,
    pub points: Vec<Point>,
    pub requests: u64,
    pub failed: u64,
    pub seconds: f64,
}

impl Sweep {
    #[must_use]
    pub const fn whole(strategy: Strategy, victim: Victim) -> Self {
        Self { strategy, victim, stride: 1, from: 1, to: u64::MAX }
    }

    /// Kills at one step after the other, and tells of each death.
    ///
    /// # Errors
    /// When a stage does not stand, or the victim cannot be traced.
    pub async fn run(&self, setup: impl Fn() -> Setup, tell: impl Fn(&Self, &Point)) -> anyhow::Result<Swept> {
        let begun = Instant::now();
        let mut points: Vec<Point> = Vec::new();
        let mut scene = None;
        'steps: for at in (self.from..=self.to).step_by(usize::try_from(self.stride)?) {
            for moment in [Moment::Before, Moment::After] {
                for miss in 1.. {
                    let stands = match scene.take() {
                        Some(scene) => scene,
                        None => Scene::enter(self, setup()).await?,
                    };
                    let mut stands: Scene = stands;
                    let Some(point) = stands.kill_at(at, moment).await? else {
                        scene = Some(stands);
                        if miss < MISSES {
                            continue;
                        }
                        break 'steps;
                    };
                    tell(self, &point);
                    // What a violation leaves behind is no place to look for the next.
                    scene = Some(stands).filter(|_| point.violations.is_empty());
                    points.push(point);
                    break;
                }
            }
        }
        Ok(Swept {
            strategy: self.strategy,
            victim: self.victim,
            steps: points.iter().map(|point| point.step.number).max().unwrap_or_default(),
            requests: points.iter().map(|point| point.requests).sum(),
            failed: points.iter().map(|point| point.failed).sum(),
            seconds: begun.elapsed().as_secs_f64().round(),
            points,
        })
    }
}

/// A stage with a first release live, under traffic.
struct Scene {
    sweep: Sweep,
    stage: Stage,
    control: Control,
    manifest: String,
    load: Load,
    /// When the phase of the traffic began, in seconds since 1970.
    marked: f64,
    version: u64,
}

/// What one rollout with a tracer at its victim came to.
struct Rollout {
    ended: anyhow::Result<Ended>,
    killed: Option<Step>,
    /// When clients could connect again, where they could not.
    outage: Option<Outage>,
    rests: bool,
}

/// What clients met from the phase before the death until they could connect again.
struct Outage {
    /// When it died, since the phase began.
    died_s: f64,
    traffic: Report,
}

impl Scene {
    async fn enter(sweep: &Sweep, setup: Setup) -> anyhow::Result<Self> {
        let hosts = if sweep.strategy == Strategy::Handover { 1 } else { 2 };
        let (place, front) = (sweep.strategy.place(), sweep.victim.front());
        let stage = Stage::raise(Setup { place, front, hosts, ..setup }).await?;
        let control = stage.control().await?;
        let manifest = stage.manifest();
        ensure!(manifest.contains(ROLLING), "the stage's manifest has another strategy");
        let rollout = control.deploy(&manifest, "0", &good(&stage, 0)?).await?;
        let ended = timeout(PATIENCE, control.wait_ended(&rollout)).await.context("the first release")??;
        ensure!(ended.state == "succeeded", "the first release ended {}\n{}", ended.state, stage.last_words());
        let load = Load::start(Config::new(stage.frontend(), RATE))?;
        let manifest = manifest.replace(ROLLING, sweep.strategy.lines());
        Ok(Self { sweep: sweep.clone(), stage, control, manifest, load, marked: clock_s(), version: 0 })
    }

    /// One rollout, in which the victim dies at this step. None: the rollout was over before the victim came to it.
    async fn kill_at(&mut self, at: u64, moment: Moment) -> anyhow::Result<Option<Point>> {
        self.version += 1;
        let rollout = self.roll(at, moment).await?;
        let traffic = self.load.mark().await?;
        self.marked = clock_s();
        let mut violations = Vec::new();
        let ended = match rollout.ended {
            Ok(ended) => {
                violations.extend(ended.objection());
                Some(ended)
            }
            Err(error) => {
                violations.push(format!("{error:#}\n{}\n{}", operator::page(&self.control).await, self.stage.last_words()));
                None
            }
        };
        if ended.is_some() && !rollout.rests {
            let page = operator::page(&self.control).await;
            violations.push(format!("no rest within {PATIENCE:?}: {page}\n{}", self.stage.last_words()));
        }
        let mut point = Point {
            step: rollout.killed.clone().unwrap_or(Step { number: at, call: String::new(), path: String::new() }),
            moment,
            ended,
            requests: traffic.requests,
            failed: traffic.failed,
            cut: 0,
            violations,
        };
        if let Some(outage) = &rollout.outage {
            self.judge_outage(outage, &mut point)?;
        }
        self.judge(&traffic, &mut point)?;
        point.step.path = point.step.told(self.stage.folder());
        match rollout.killed {
            Some(_) => Ok(Some(point)),
            None if point.violations.is_empty() => Ok(None),
            None => bail!("with nobody killed: {}", point.violations.join("\n")),
        }
    }

    /// Deploys under a tracer, and starts again who dies.
    async fn roll(&mut self, at: u64, moment: Moment) -> anyhow::Result<Rollout> {
        let (version, archive) = (self.version.to_string(), good(&self.stage, self.version)?);
        let (control, manifest) = (self.control.clone(), self.manifest.clone());
        let agents = match self.sweep.strategy {
            Strategy::Handover => self.stage.hosts(),
            _ => self.stage.agents(),
        };
        let aim = Aim { watched: self.watched()?, victims: self.victims()?, at, moment };
        let bench = self.stage.setup.part.first().cloned().context("no program")?;
        let mut watch = Some(Watch::begin(&bench, &aim).await?);
        let mut operates = std::pin::pin!(async {
            let release = Release { manifest: &manifest, version: &version, archive: &archive };
            let ended = timeout(PATIENCE, operator::deploy(&control, &release)).await;
            let ended = ended.unwrap_or_else(|_| bail!("no end within {PATIENCE:?}"));
            if ended.as_ref().is_ok_and(|ended| ended.state == "paused") {
                control.rollback(SERVICE).await?;
            }
            let rests = ended.is_ok() && timeout(PATIENCE, operator::rest(&control, &agents)).await.is_ok();
            anyhow::Ok((ended, rests))
        });
        let (mut killed, mut outage) = (None::<(Step, f64)>, None);
        let (ended, mut rests) = loop {
            let note = async {
                match &mut watch {
                    Some(watch) => watch.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                done = &mut operates => break done?,
                note = note => match note? {
                    Some(Note::Kills { step, at_s }) => killed = Some((step, at_s)),
                    Some(Note::Killed) => {
                        let at_s = killed.as_ref().map_or_else(clock_s, |(_, at_s)| *at_s);
                        outage = self.died(at_s).await?;
                        watch = None;
                    }
                    Some(Note::Gone) => bail!("{} ended by itself\n{}", self.sweep.victim, self.stage.last_words()),
                    Some(Note::Attached | Note::Step(_)) => {}
                    None => watch = None,
                },
            }
        };
        if let Some(watch) = watch {
            // The rollout was over; the death may have been under way.
            let unread = watch.end().await?.into_iter().find_map(|note| match note {
                Note::Kills { step, at_s } => Some((step, at_s)),
                _ => None,
            });
            let dying = killed.take().or(unread);
            let gone = async {
                while aim.victims.iter().any(|pid| is_alive(*pid as i32)) {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            if let Some((step, at_s)) = dying
                && timeout(DYING, gone).await.is_ok()
            {
                killed = Some((step, at_s));
                outage = self.died(at_s).await?;
                rests = timeout(PATIENCE, operator::rest(&self.control, &agents)).await.is_ok();
            }
        }
        Ok(Rollout { ended, killed: killed.map(|(step, _)| step), outage, rests })
    }

    /// Starts the victim again at once. Where it held clients' connections, returns what they met until they could connect again.
    async fn died(&mut self, at_s: f64) -> anyhow::Result<Option<Outage>> {
        if let Some(part) = self.sweep.victim.restarted() {
            self.stage.start(part)?;
        }
        if !self.sweep.victim.holds_connections() {
            return Ok(None);
        }
        let returns = async {
            while tokio::net::TcpStream::connect(self.stage.frontend()).await.is_err() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        timeout(PATIENCE, returns).await.context("the balancer does not come back")?;
        let died_s = at_s - self.marked;
        let traffic = self.load.mark().await?;
        self.marked = clock_s();
        Ok(Some(Outage { died_s, traffic }))
    }

    /// Who held clients' connections takes those with it, at that instant and at no other, and no order is executed twice.
    fn judge_outage(&self, outage: &Outage, point: &mut Point) -> anyhow::Result<()> {
        let since = outage.died_s - SKEW.as_secs_f64();
        let mut failures = outage.traffic.failures.iter().filter(|_| self.sweep.strategy.serves_throughout());
        let early = failures.find(|failure| failure.at_s < since);
        point.violations.extend(early.map(|early| format!("failed before the death at {since:.3} s: {early:?}")));
        point.requests += outage.traffic.requests;
        point.failed += outage.traffic.failed;
        point.cut = outage.traffic.failed;
        self.judge_orders(&outage.traffic, point)
    }

    fn judge(&self, traffic: &Report, point: &mut Point) -> anyhow::Result<()> {
        if traffic.failed > 0 && self.sweep.strategy.serves_throughout() {
            let failures = traffic.failures.iter().map(|failure| format!("{failure:?}")).collect::<Vec<_>>().join("\n");
            point.violations.push(format!("{} requests failed\n{failures}\n{}", traffic.failed, self.stage.last_words()));
        }
        self.judge_orders(traffic, point)
    }

    fn judge_orders(&self, traffic: &Report, point: &mut Point) -> anyhow::Result<()> {
        let orders = executions::join(&traffic.posts, &self.stage.logs())?;
        if (orders.twice, orders.lost) != (0, 0) {
            point.violations.push(format!("{orders:?}"));
        }
        Ok(())
    }

    fn watched(&self) -> anyhow::Result<u32> {
        let part = self.sweep.victim.watched();
        self.stage.pid(part).with_context(|| format!("{part} does not run"))
    }

    fn victims(&self) -> anyhow::Result<Vec<u32>> {
        match self.sweep.victim {
            Victim::Balancer => {
                let balancers = builtin(&self.stage);
                ensure!(!balancers.is_empty(), "there is no built-in balancer");
                Ok(balancers)
            }
            Victim::Haproxy => {
                let master = self.stage.pid(HAPROXY).context("haproxy does not run")?;
                Ok(std::iter::once(master).chain(children(master)).collect())
            }
            _ => Ok(vec![self.watched()?]),
        }
    }
}

pub(super) fn good(stage: &Stage, version: u64) -> anyhow::Result<Vec<u8>> {
    archive(&stage.setup.part, &version.to_string(), &Behaviour::good(Duration::ZERO))
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The built-in balancer's process: started by this stage's agent, and known by the folder in its arguments.
pub(super) fn builtin(stage: &Stage) -> Vec<u32> {
    let folder = stage.folder().display().to_string();
    let is_ours = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').any(|word| word == "balancer") && line.contains(&folder) && is_alive(*pid as i32)
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}
