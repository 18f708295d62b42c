//! `baton agents`: the agents' own packages, brought to the hosts in rings.

use super::target::{WaitArgs, duration};
use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::follow::interrupted;
use crate::output::Format;
use crate::package;
use crate::render::agents::{line, preview, status};
use crate::render::live::Live;
use crate::render::page::Page;
use crate::upload::{Archive, upload};
use baton_core::problem::Problem;
use baton_proto::problem::{code as wire, from_status};
use baton_proto::v1::{AgentView, AgentsStatusRequest, AgentsView, SteerAgentsRequest, UpgradeAgentsRequest, UpgradeView};
use clap::{Args, Subcommand};
use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// A coordinator that is upgraded itself is away for less.
const LOST_AFTER: Duration = Duration::from_secs(600);
/// A host that is back on the agent it had, by itself.
const FELL_BACK: u32 = 553;

/// `baton agents`.
#[derive(Debug, Args)]
pub struct AgentsArgs {
    #[command(subcommand)]
    pub what: Option<Agents>,
}

/// What to do with agents. Without a word: show them.
#[derive(Debug, Subcommand)]
pub enum Agents {
    /// The agent of each host: its version, its package, and where it stands in the newest upgrade
    Status,
    /// Bring a package of the agent to the hosts in rings, one host first; a host whose new agent does not come up goes back
    Upgrade(UpgradeArgs),
    /// Tell no further host; those that were told finish
    Pause(ReasonArgs),
    /// Let a paused upgrade go on, and try again what failed
    Resume(ResumeArgs),
    /// End the upgrade where it stands
    Abort(ReasonArgs),
}

/// `baton agents upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// The package: baton-agent_VERSION_ARCHITECTURE.deb
    #[arg(long, value_name = "FILE")]
    pub package: PathBuf,
    /// Only these hosts, in this order; every host otherwise
    #[arg(long, value_name = "HOST,…", value_delimiter = ',')]
    pub hosts: Vec<String>,
    /// How far each ring reaches, those before it among them; the first is of one host whatever stands here
    #[arg(long, value_name = "AMOUNT,…", value_delimiter = ',', default_value = "1,25%,100%")]
    pub rings: Vec<String>,
    /// How long a new agent must have been connected before its host counts
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub healthy_for: Duration,
    /// How soon a new agent must be connected; else its host goes back to the package it had
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub back_within: Duration,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// A word for the record.
#[derive(Debug, Args)]
pub struct ReasonArgs {
    /// Why, for the record
    #[arg(long, value_name = "REASON", default_value = "")]
    pub why: String,
}

/// `baton agents resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    pub reason: ReasonArgs,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Shows agents, upgrades them, or steers an upgrade.
///
/// # Errors
/// When it is refused, or the coordinator cannot be asked.
pub async fn run(args: AgentsArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    match args.what.unwrap_or(Agents::Status) {
        Agents::Status => {
            let view = connection.control.agents_status(AgentsStatusRequest {}).await?.into_inner();
            tell(&view, Exit::Done, context);
            Ok(Exit::Done)
        }
        Agents::Upgrade(args) => begin(&mut connection, args, context).await,
        Agents::Pause(ReasonArgs { why }) => {
            let view = connection.control.pause_agents(SteerAgentsRequest { why }).await?.into_inner();
            tell(&view, Exit::Done, context);
            Ok(Exit::Done)
        }
        Agents::Resume(ResumeArgs { reason, wait }) => {
            let view = connection.control.resume_agents(SteerAgentsRequest { why: reason.why }).await?.into_inner();
            follow(&mut connection, view, &wait, context).await
        }
        Agents::Abort(ReasonArgs { why }) => {
            let view = connection.control.abort_agents(SteerAgentsRequest { why }).await?.into_inner();
            tell(&view, Exit::Done, context);
            Ok(Exit::Done)
        }
    }
}

async fn begin(connection: &mut Connection, args: UpgradeArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let package = package::read(&args.package)?;
    let archive = Archive::read(&args.package)?;
    let request = UpgradeAgentsRequest {
        digest: archive.artifact.digest.as_bytes().to_vec(),
        size: archive.artifact.size,
        version: package.version,
        architecture: package.architecture,
        hosts: args.hosts,
        rings: args.rings,
        healthy_for_ms: millis(args.healthy_for),
        back_within_ms: millis(args.back_within),
        dry_run: true,
    };
    let before = connection.control.agents_status(AgentsStatusRequest {}).await?.into_inner();
    let would = connection.control.upgrade_agents(request.clone()).await?.into_inner();
    let id = |view: &AgentsView| view.upgrade.as_ref().map(|upgrade| upgrade.id.clone());
    // The very same is under way: nothing is begun, it is only followed.
    let attaches = before.upgrade.as_ref().is_some_and(is_open) && id(&before) == id(&would);
    if !attaches {
        context.output.note(&preview(&would));
        if !args.yes {
            confirm("the agents of these hosts would be replaced, and nobody is there to be asked", context)?;
        }
    }
    upload(&mut connection.artifacts, &archive, context.output).await?;
    let view = connection.control.upgrade_agents(UpgradeAgentsRequest { dry_run: false, ..request }).await?.into_inner();
    follow(connection, view, &args.wait, context).await
}

/// Asks at a terminal. Without one nobody could answer, so `--yes` must have said it.
pub(super) fn confirm(nobody: &str, context: Context<'_>) -> Result<(), Failure> {
    let refused = |what: &str| Failure::new(Problem::new(code::NOT_CONFIRMED, what).help("--yes says it"), Exit::Refused);
    if !std::io::stdin().is_terminal() || !context.output.progress().is_terminal() {
        return Err(refused(nobody));
    }
    context.output.note(Page::new().text("Go on? [y/N]"));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(refused("nothing was changed")),
    }
}

/// Follows an upgrade until it ends, is paused, or only hosts that are away are left. It goes on without anybody who follows.
async fn follow(
    connection: &mut Connection,
    first: AgentsView,
    wait: &WaitArgs,
    context: Context<'_>,
) -> Result<Exit, Failure> {
    if wait.no_wait {
        tell(&first, Exit::Done, context);
        return Ok(Exit::Done);
    }
    let (began, mut heard) = (Instant::now(), Instant::now());
    let (mut shown, mut view) = (Shown::default(), first);
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    let exit = loop {
        shown.show(&view, context);
        if let Some(exit) = ending(&view) {
            break exit;
        }
        if wait.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            break Exit::TimedOut;
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = &mut interrupted => break Exit::Interrupted,
        }
        match connection.control.agents_status(AgentsStatusRequest {}).await {
            Ok(next) => (heard, view) = (Instant::now(), next.into_inner()),
            Err(status) => {
                let problem = from_status(&status);
                if heard.elapsed() > LOST_AFTER || matches!(problem.code, wire::NOT_ALLOWED | wire::REFUSED) {
                    return Err(Failure::new(problem, Exit::TimedOut));
                }
            }
        }
    };
    shown.end(&view, exit, context);
    Ok(exit)
}

/// How it ended; None while it goes on.
fn ending(view: &AgentsView) -> Option<Exit> {
    let upgrade = view.upgrade.as_ref()?;
    match upgrade.state.as_str() {
        "succeeded" => Some(Exit::Done),
        "aborted" => Some(Exit::Aborted),
        "paused" => Some(match &upgrade.problem {
            None => Exit::Waiting,
            Some(problem) if problem.code == FELL_BACK => Exit::RolledBack,
            Some(_) => Exit::NeedsPerson,
        }),
        // What is left is away, and there is no telling for how long.
        _ => {
            let part = || view.hosts.iter().filter(|host| host.ring > 0);
            let passed = |host: &AgentView| matches!(host.state.as_str(), "done" | "left-out" | "away");
            (part().any(|host| host.state == "done") && part().all(passed)).then_some(Exit::Done)
        }
    }
}

/// What was shown so far.
#[derive(Default)]
struct Shown {
    live: Live,
    /// The word of each host's state, as it was said last.
    said: BTreeMap<String, String>,
    document: Option<AgentsView>,
}

impl Shown {
    fn show(&mut self, view: &AgentsView, context: Context<'_>) {
        let output = context.output;
        if output.redraws(output.progress()) {
            self.live.draw(output.progress(), &status(view));
            return;
        }
        let mut changed = false;
        for host in view.hosts.iter().filter(|host| host.ring > 0) {
            if self.said.insert(host.host.clone(), host.state.clone()).as_ref() != Some(&host.state) {
                changed = true;
                output.note(Page::new().line(line(host)));
            }
        }
        if changed && output.format == Format::JsonLines {
            output.json(view);
            self.document = Some(view.clone());
        }
    }

    fn end(&mut self, view: &AgentsView, exit: Exit, context: Context<'_>) {
        if context.output.redraws(context.output.progress()) {
            self.live.clear(context.output.progress());
        }
        tell(view, exit, context);
    }
}

/// The answer, and what comes next.
fn tell(view: &AgentsView, exit: Exit, context: Context<'_>) {
    let output = context.output;
    output.answer(&status(view));
    let mut document = serde_json::to_value(view).unwrap_or_default();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("exit".to_owned(), exit.code().into());
    }
    output.json(&document);
    let upgrade = view.upgrade.as_ref();
    output.next(match (exit, upgrade.map(|upgrade| upgrade.state.as_str())) {
        (Exit::Interrupted | Exit::TimedOut, _) => "baton agents status (it goes on)",
        (_, Some("running")) => "baton agents status",
        (_, Some("paused")) => "baton agents resume, or baton agents abort",
        _ => "baton hosts list",
    });
}

fn is_open(upgrade: &UpgradeView) -> bool {
    matches!(upgrade.state.as_str(), "running" | "paused")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
