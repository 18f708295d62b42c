//! The two acts: a release that is good and one that is not, both by the commands an operator would type.

use super::load::executions::{self, Executions};
use super::load::{Config, Load, Report};
use super::show::{operator, say};
use super::stage::control::Control;
use super::stage::release::{Behaviour, Fault};
use super::stage::{SERVICE, Stage};
use crate::output::Output;
use anyhow::{Context as _, bail};
use baton_proto::v1::RolloutView;
use serde::Serialize;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

/// How long an instance takes to start, as a real one might.
const START_DELAY: Duration = Duration::from_millis(200);
/// Traffic before an act and after it: what happens at its edges counts, too.
const EDGE: Duration = Duration::from_millis(300);

/// The stage with its traffic.
#[derive(Debug)]
pub(super) struct Theatre {
    pub(super) stage: Stage,
    pub(super) load: Load,
    program: PathBuf,
    control: Control,
}

/// One act, as it was measured.
#[derive(Debug, Serialize)]
pub(super) struct Act {
    pub(super) hosts: u32,
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// From the operator's command to its end.
    pub(super) duration_s: f64,
    /// How the rollout ended, by the coordinator.
    pub(super) outcome: String,
    /// How the operator's command ended.
    pub(super) exit_code: i32,
    /// The client's record of its orders, joined with the instances' own.
    pub(super) orders: Executions,
    /// What spoke against the release.
    pub(super) evidence: Vec<String>,
    pub(super) traffic: Report,
}

impl Theatre {
    /// Deploys the first release, which nobody sees yet, and opens for traffic.
    pub(super) async fn open(stage: Stage, program: PathBuf, rate: u32, output: &Output) -> anyhow::Result<Self> {
        let elsewhere = Fault::ListensElsewhere(stage.places.elsewhere);
        for version in ["1", "2", "4"] {
            stage.build(version, &Behaviour::good(START_DELAY))?;
        }
        stage.build("3", &Behaviour::bad(elsewhere))?;
        let control = stage.control().await?;
        let archive = std::fs::read(stage.workplace().join(format!("{SERVICE}-1.tar.zst")))?;
        let rollout = control.deploy(&stage.manifest(), "1", &archive).await.context("cannot deploy the first release")?;
        let ended = control.wait_ended(&rollout).await?;
        if ended.state != "succeeded" {
            bail!("the first release ended {}: {}", ended.state, evidence(&ended).join("; "));
        }
        let load = Load::start(Config::new(stage.frontend(), rate))?;
        let url = format!("http://{}/", stage.frontend());
        say(output, &format!("release 1 of {SERVICE} serves at {url}, {rate} requests a second arrive there"));
        Ok(Self { stage, load, program, control })
    }

    /// One of the operator's commands, connected to the demo.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let (folder, socket) = operator(self);
        let mut command = Command::new(&self.program);
        command.args(words).current_dir(folder).env("BATON_SOCKET", socket).kill_on_drop(true);
        command
    }
}

pub(super) async fn rolling(theatre: &Theatre, output: &Output) -> anyhow::Result<Act> {
    act(theatre, "2", output).await
}

/// The release listens on a port that is not its own: running, and never ready.
pub(super) async fn broken(theatre: &Theatre, output: &Output) -> anyhow::Result<Act> {
    act(theatre, "3", output).await
}

async fn act(theatre: &Theatre, version: &str, output: &Output) -> anyhow::Result<Act> {
    // What came before belongs to nobody.
    theatre.load.mark().await?;
    tokio::time::sleep(EDGE).await;
    say(output, &format!("$ baton deploy {SERVICE} {version}"));
    let begun = Instant::now();
    let mut command = theatre.command(&["deploy", SERVICE, version]);
    if output.plain || output.is_json() {
        command.arg("--plain");
    }
    // Ours is the one document on stdout; theirs is what people watch meanwhile.
    let quiet = output.is_json().then(Stdio::null);
    let status = command.stdin(Stdio::null()).stdout(quiet.unwrap_or_else(Stdio::inherit)).status().await?;
    let duration_s = super::load::tally::rounded(begun.elapsed().as_secs_f64());
    tokio::time::sleep(EDGE).await;
    let traffic = theatre.load.mark().await?;
    let rollout = rollout_of(&theatre.control, version).await?;
    let orders = executions::join(&traffic.posts, &theatre.stage.logs())?;
    Ok(Act {
        hosts: rollout.hosts_total,
        requests: traffic.requests,
        failed: traffic.failed,
        duration_s,
        evidence: evidence(&rollout),
        outcome: rollout.state,
        exit_code: status.code().unwrap_or(-1),
        orders,
        traffic,
    })
}

async fn rollout_of(control: &Control, version: &str) -> anyhow::Result<RolloutView> {
    let rollout = control.service(SERVICE).await?.rollout.context("the coordinator knows of no rollout")?;
    if rollout.to_version != version {
        bail!("the last rollout was of {}, not of {version}", rollout.to_version);
    }
    Ok(rollout)
}

fn evidence(rollout: &RolloutView) -> Vec<String> {
    let evidence = rollout.evidence.iter().filter_map(|evidence| Some((&evidence.host, evidence.problem.as_ref()?)));
    evidence.map(|(host, problem)| format!("{host}: B{:04} {}", problem.code, problem.what)).collect()
}
