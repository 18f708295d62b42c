//! The two acts: a release that is good and one that is not, both by the commands an operator would type.

use super::load::executions::{self, Executions};
use super::load::{Config, Load, Report};
use super::show::{operator, say};
use super::stage::control::Control;
use super::stage::release::{Behaviour, Fault};
use super::stage::{Place, SERVICE, Stage};
use crate::output::Output;
use anyhow::{Context as _, bail};
use baton_proto::v1::{FleetView, RolloutView};
use serde::Serialize;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

/// How long an instance takes to start, as a real one might.
const START_DELAY: Duration = Duration::from_millis(200);
/// How many of a hundred requests the broken release fails, while it answers its probe.
const FAILING: u8 = 20;
/// Traffic before an act and after it: what happens at its edges counts, too.
const EDGE: Duration = Duration::from_millis(300);

/// No act takes as long.
const LONGEST_ACT: Duration = Duration::from_secs(300);

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
    /// From the first failed request to the evidence; None where there was not both.
    pub(super) noticed_after_s: Option<f64>,
    /// Whether every failed request was answered by this release; None when none failed.
    pub(super) all_failures_on_it: Option<bool>,
    pub(super) traffic: Report,
}

impl Theatre {
    /// Deploys the first release, which nobody sees yet, and opens for traffic.
    pub(super) async fn open(stage: Stage, program: PathBuf, rate: u32, output: &Output) -> anyhow::Result<Self> {
        for version in ["1", "2", "4"] {
            stage.build(version, &Behaviour::good(START_DELAY))?;
        }
        // Without a load balancer nobody counts requests: what can be noticed there is a release that is never ready.
        let fault = match stage.setup.place {
            Place::Handover => Fault::ListensElsewhere(stage.places.elsewhere),
            Place::InPlace | Place::SideBySide => Fault::Fails(FAILING),
        };
        stage.build("3", &Behaviour::bad(fault))?;
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

/// The release answers its probe, and fails a fifth of its requests: only traffic can tell.
pub(super) async fn broken(theatre: &Theatre, output: &Output) -> anyhow::Result<Act> {
    act(theatre, "3", output).await
}

async fn act(theatre: &Theatre, version: &str, output: &Output) -> anyhow::Result<Act> {
    // What came before belongs to nobody.
    theatre.load.mark().await?;
    let marked = Instant::now();
    tokio::time::sleep(EDGE).await;
    say(output, &format!("$ baton deploy {SERVICE} {version}"));
    let begun = Instant::now();
    let mut command = theatre.command(&["deploy", SERVICE, version]);
    if output.plain || output.is_json() {
        command.arg("--plain");
    }
    // Ours is the one document on stdout; theirs is what people watch meanwhile.
    let quiet = output.is_json().then(Stdio::null);
    let operator = async {
        let status = command.stdin(Stdio::null()).stdout(quiet.unwrap_or_else(Stdio::inherit)).status().await?;
        anyhow::Ok(status)
    };
    let (status, noticed) = tokio::join!(operator, noticed(&theatre.control, version, begun));
    let status = status?;
    let duration_s = super::load::tally::rounded(begun.elapsed().as_secs_f64());
    tokio::time::sleep(EDGE).await;
    let traffic = theatre.load.mark().await?;
    let rollout = rollout_of(&theatre.control, version).await?;
    let orders = executions::join(&traffic.posts, &theatre.stage.logs())?;
    let first_failure = traffic.failures.first().map(|failure| marked + Duration::from_secs_f64(failure.at_s));
    let noticed_after = noticed.zip(first_failure).map(|(noticed, first)| noticed.saturating_duration_since(first));
    Ok(Act {
        noticed_after_s: noticed_after.map(|after| super::load::tally::rounded(after.as_secs_f64())),
        all_failures_on_it: (traffic.failed > 0).then(|| traffic.failed_versions.keys().all(|seen| seen == version)),
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

/// When evidence against the release was there; None when its rollout ended without.
async fn noticed(control: &Control, version: &str, begun: Instant) -> Option<Instant> {
    let of = |fleet: &FleetView| {
        let rollouts = fleet.services.iter().filter_map(|service| service.rollout.as_ref());
        rollouts.filter(|rollout| rollout.to_version == version).map(|it| (it.evidence.is_empty(), is_over(it))).next()
    };
    let decided = |fleet: &FleetView| of(fleet).is_some_and(|(clean, over)| !clean || over);
    // A deploy that was refused begins no rollout: nobody waits for that for ever.
    let seen = tokio::time::timeout_at(begun + LONGEST_ACT, control.wait_for(decided)).await.ok()?.ok()?;
    of(&seen).filter(|(clean, _)| !clean).map(|_| Instant::now())
}

fn is_over(rollout: &RolloutView) -> bool {
    ["succeeded", "reverted", "failed"].contains(&rollout.state.as_str())
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
