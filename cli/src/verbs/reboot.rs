//! `baton reboot`: hosts rebooted one after the other, each out of the load balancers meanwhile.

use super::agents::confirm;
use super::target::{WaitArgs, duration};
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::follow::interrupted;
use crate::output::Format;
use crate::render::live::Live;
use crate::render::page::Page;
use crate::render::reboot::{line, preview, status};
use baton_proto::problem::{code as wire, from_status};
use baton_proto::v1::{RebootRequest, RebootStatusRequest, RebootView, SteerRebootRequest};
use clap::{ArgGroup, Args};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// A coordinator on a host that reboots is away for less.
const LOST_AFTER: Duration = Duration::from_secs(600);

/// `baton reboot`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").args(["hosts", "service", "all", "pause", "resume", "cancel"]))]
pub struct RebootArgs {
    /// In this order. Where nobody is named: show how far the newest reboots are
    #[arg(value_name = "HOST")]
    pub hosts: Vec<String>,
    /// The hosts of this service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Every host but those of load balancers
    #[arg(long)]
    pub all: bool,
    /// How many may be under way together; never more than the services on them can be without
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub at_once: u32,
    /// How soon a host must be back, and then everything on it must serve; else no further host begins
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub back_within: Duration,
    /// Let no further host begin; those under way finish
    #[arg(long)]
    pub pause: bool,
    /// Let it go on, and wait once more for what failed
    #[arg(long)]
    pub resume: bool,
    /// End it: no further host begins, and those that were drained come back
    #[arg(long)]
    pub cancel: bool,
    /// Why, for whoever finds a host drained
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    pub why: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Shows, begins, or steers reboots.
///
/// # Errors
/// When it is refused, or the coordinator cannot be asked.
pub async fn run(args: RebootArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let steered = [(args.pause, "pause"), (args.resume, "resume"), (args.cancel, "cancel")];
    if let Some((_, to)) = steered.into_iter().find(|(asked, _)| *asked) {
        let request = SteerRebootRequest { to: to.to_owned(), why: args.why };
        let view = connection.control.steer_reboot(request).await?.into_inner();
        return match to {
            "pause" => Ok(tell(&view, Exit::Done, context)),
            _ => follow(&mut connection, view, to == "cancel", &args.wait, context).await,
        };
    }
    if args.hosts.is_empty() && args.service.is_none() && !args.all {
        let view = connection.control.reboot_status(RebootStatusRequest {}).await?.into_inner();
        return Ok(tell(&view, Exit::Done, context));
    }
    let request = RebootRequest {
        hosts: args.hosts,
        service: args.service.unwrap_or_default(),
        at_once: args.at_once,
        back_within_ms: u64::try_from(args.back_within.as_millis()).unwrap_or(u64::MAX),
        why: args.why,
        dry_run: true,
    };
    let would = connection.control.reboot_hosts(request.clone()).await?.into_inner();
    context.output.note(&preview(&would));
    if !args.yes {
        confirm("these hosts would be rebooted, and nobody is there to be asked", context)?;
    }
    let view = connection.control.reboot_hosts(RebootRequest { dry_run: false, ..request }).await?.into_inner();
    follow(&mut connection, view, false, &args.wait, context).await
}

/// Follows until it ends or is paused. It goes on without anybody who follows.
async fn follow(
    connection: &mut Connection,
    first: RebootView,
    cancels: bool,
    wait: &WaitArgs,
    context: Context<'_>,
) -> Result<Exit, Failure> {
    if wait.no_wait {
        return Ok(tell(&first, Exit::Done, context));
    }
    let (began, mut heard) = (Instant::now(), Instant::now());
    let (mut shown, mut view) = (Shown::default(), first);
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    let exit = loop {
        shown.show(&view, context);
        if let Some(exit) = ending(&view, cancels) {
            break exit;
        }
        if wait.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            break Exit::TimedOut;
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = &mut interrupted => break Exit::Interrupted,
        }
        match connection.control.reboot_status(RebootStatusRequest {}).await {
            Ok(next) => (heard, view) = (Instant::now(), next.into_inner()),
            Err(status) => {
                let problem = from_status(&status);
                if heard.elapsed() > LOST_AFTER || matches!(problem.code, wire::NOT_ALLOWED | wire::REFUSED) {
                    return Err(Failure::new(problem, Exit::TimedOut));
                }
            }
        }
    };
    if context.output.redraws(context.output.progress()) {
        shown.live.clear(context.output.progress());
    }
    Ok(tell(&view, exit, context))
}

/// How it ended; None while it goes on. Whoever cancels it and sees it end has what was asked for.
fn ending(view: &RebootView, cancels: bool) -> Option<Exit> {
    match (view.state.as_str(), view.open) {
        ("succeeded", _) => Some(Exit::Done),
        ("aborted", false) => Some(if cancels { Exit::Done } else { Exit::Aborted }),
        ("paused", _) if view.problem.is_some() => Some(Exit::NeedsPerson),
        ("paused", _) => Some(Exit::Waiting),
        _ => None,
    }
}

/// What was shown so far.
#[derive(Default)]
struct Shown {
    live: Live,
    /// The word of each host's state, as it was said last.
    said: BTreeMap<String, String>,
}

impl Shown {
    fn show(&mut self, view: &RebootView, context: Context<'_>) {
        let output = context.output;
        if output.redraws(output.progress()) {
            self.live.draw(output.progress(), &status(view));
            return;
        }
        let mut changed = false;
        for host in &view.hosts {
            if self.said.insert(host.host.clone(), host.state.clone()).as_ref() != Some(&host.state) {
                changed = true;
                output.note(Page::new().line(line(host)));
            }
        }
        if changed && output.format == Format::JsonLines {
            output.json(view);
        }
    }
}

/// The answer, and what comes next.
fn tell(view: &RebootView, exit: Exit, context: Context<'_>) -> Exit {
    let output = context.output;
    output.answer(&status(view));
    let mut document = serde_json::to_value(view).unwrap_or_default();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("exit".to_owned(), exit.code().into());
    }
    output.json(&document);
    let stays_out = view.hosts.iter().find(|host| host.state == "failed");
    output.next(&match (exit, view.state.as_str(), stays_out) {
        (Exit::Interrupted | Exit::TimedOut, ..) => "baton reboot (it goes on)".to_owned(),
        (_, "paused", _) => "baton reboot --resume, or baton reboot --cancel".to_owned(),
        (_, "running", _) => "baton reboot".to_owned(),
        (_, "aborted", Some(host)) => format!("baton hosts undrain {}", host.host),
        _ => "baton hosts list".to_owned(),
    });
    exit
}
