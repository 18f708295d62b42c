//! `baton deploy [SERVICE] VERSION`.

use super::target::{TargetArgs, WaitArgs};
use super::{confirm, ending, plan};
use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code, from_wire, warning_page};
use crate::exit::Exit;
use crate::follow::{Ended, Follow, OnPause, interrupted};
use crate::junit;
use crate::manifest::{FileArgs, Loaded, load};
use crate::outcome::{Wish, is_active};
use crate::render::page::Page;
use crate::render::units::millis;
use crate::upload::{Archive, stat, upload};
use baton_core::name::{Digest, Version};
use baton_core::problem::Problem;
use baton_core::release::Artifact;
use baton_core::strategy::Strategy;
use baton_proto::problem::from_status;
use baton_proto::v1::{DeployReply, DeployRequest, FleetView, RolloutView, ServiceRequest, ServiceView};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use tonic::Code;

/// Attempts to hand the request over. It is the same request each time: an accepted one is attached to, not repeated.
const ATTEMPTS: u32 = 5;

const PAUSE: Duration = Duration::from_secs(1);

/// Another rollout is under way.
const BUSY: u16 = 701;

/// `baton deploy`.
#[derive(Debug, Args)]
#[command(override_usage = "baton deploy [OPTIONS] [SERVICE] VERSION")]
pub struct DeployArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub file: FileArgs,
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Write how it went as a JUnit report, for pipelines
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Do not ask before a release during which nobody serves
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub when: WhenArgs,
}

/// When it may begin.
#[derive(Debug, Clone, Default, Args)]
pub struct WhenArgs {
    /// While another rollout is under way: wait until it has ended
    #[arg(long, conflicts_with = "supersede")]
    pub queue: bool,
    /// While another rollout is under way: take its place, from wherever its hosts are
    #[arg(long)]
    pub supersede: bool,
    /// Only if the fleet is still as it was for this plan: `basis` of `baton plan --json`
    #[arg(long, value_name = "BASIS")]
    pub if_plan: Option<String>,
}

/// Deploys and waits for the end.
///
/// # Errors
/// When nothing was changed, or nothing more is heard.
pub async fn run(args: DeployArgs, context: Context<'_>) -> Result<Exit, Failure> {
    // A report that cannot be written is said before anything changes.
    args.junit.as_deref().map_or(Ok(()), junit::may_write)?;
    let done = deploy(&args, context).await;
    let Some(path) = &args.junit else { return done.map(|done| done.exit()) };
    let cases = match &done {
        Ok(Done::Waited(ended)) => junit::cases(ended),
        Ok(Done::Otherwise(exit)) => vec![junit::whole(*exit, "it was not waited for", 0)],
        Err(failure) => vec![junit::whole(failure.exit, &failure.problem.to_string(), 0)],
    };
    let suite = format!("baton deploy {} {}", args.target.service().unwrap_or_default(), args.target.version());
    let written = junit::write(path, &suite.replace("  ", " "), &cases);
    let exit = done?.exit();
    // A report that is missing is not silently green; a rollout that went wrong says more.
    if exit == Exit::Done { written.map(|()| exit).map_err(Into::into) } else { Ok(exit) }
}

/// How a deploy ended here.
enum Done {
    Waited(Box<Ended>),
    /// There was nothing to wait for, or nobody who would.
    Otherwise(Exit),
}

impl Done {
    fn exit(&self) -> Exit {
        match self {
            Self::Waited(ended) => ended.exit,
            Self::Otherwise(exit) => *exit,
        }
    }
}

async fn deploy(args: &DeployArgs, context: Context<'_>) -> Result<Done, Failure> {
    let loaded = load(&args.file, context.output)?.of(args.target.service())?;
    let version = args.target.version_of(&loaded.manifest.service)?;
    let mut connection = Connection::open(context.connect)?;
    let prepared = tokio::select! {
        prepared = prepare(&mut connection, &loaded, &version, &args.when, context) => prepared?,
        () = interrupted() => {
            context.output.note(Page::new().text("interrupted; nothing was changed"));
            return Ok(Done::Otherwise(Exit::Interrupted));
        }
    };
    let name = loaded.manifest.service.as_str();
    if !args.yes && interrupts(&prepared.before, &loaded) && !confirmed(name, &loaded.manifest.strategy, context)? {
        return Ok(Done::Otherwise(Exit::Refused));
    }
    let DeployReply { rollout, queued, .. } = tokio::select! {
        reply = hand_over(&mut connection, &loaded, args.when.clone().onto(prepared.request)) => reply?,
        () = interrupted() => {
            context.output.note(Page::new().text("interrupted; the rollout may have been accepted"));
            context.output.next(&format!("baton status {name}"));
            return Ok(Done::Otherwise(Exit::Interrupted));
        }
    };
    if queued {
        let behind = active_rollout(&prepared.before, name).map(|active| active.id.as_str()).unwrap_or_default();
        context.output.note(Page::new().text(format!("{rollout} waits until {behind} has ended")));
    }
    if rollout.is_empty() {
        return Ok(Done::Otherwise(ending::nothing_to_do(name, version.as_str(), context.output)));
    }
    if let Some(active) = active_rollout(&prepared.before, name).filter(|active| active.id == rollout) {
        attached(active, context);
    }
    if args.wait.no_wait {
        return Ok(Done::Otherwise(ending::accepted(name, &rollout, context.output)));
    }
    let follow = Follow {
        service: name.to_owned(),
        rollout: Some(rollout),
        wish: Wish::Forward,
        timeout: args.wait.timeout,
        pause: OnPause::End,
    };
    Ok(Done::Waited(Box::new(ending::wait(&connection, follow, context).await?)))
}

impl WhenArgs {
    fn onto(self, request: DeployRequest) -> DeployRequest {
        let Self { queue, supersede, if_plan } = self;
        DeployRequest { queue, supersede, if_plan: if_plan.unwrap_or_default(), ..request }
    }
}

/// What is ready to be asked for, and the fleet as it was before.
struct Prepared {
    request: DeployRequest,
    before: FleetView,
}

/// Everything before the first change: the fleet as it is, and the artifact where it must be.
async fn prepare(
    connection: &mut Connection,
    loaded: &Loaded,
    version: &Version,
    when: &WhenArgs,
    context: Context<'_>,
) -> Result<Prepared, Failure> {
    let before = connection.view("").await?;
    let path = loaded.artifact(version);
    let artifact = if path.exists() {
        let archive = Archive::checked(&path)?;
        let warnings = objects(connection, loaded, request(loaded, version, &archive.artifact), when).await?;
        warnings.iter().for_each(|warning| context.output.note(&warning_page(warning)));
        upload(&mut connection.artifacts, &archive, context.output).await?;
        archive.artifact
    } else {
        match released(connection, loaded, version).await? {
            Some(artifact) => artifact,
            // Says where it was looked for.
            None => Archive::read(&path)?.artifact,
        }
    };
    Ok(Prepared { request: request(loaded, version, &artifact), before })
}

/// Says what no upload would change: a mistake is known before the archive has travelled, with everything else that would be
/// refused after it. What is only refused for now is asked for all the same: it may be the rollout to attach to, or wait its turn.
async fn objects(
    connection: &mut Connection,
    loaded: &Loaded,
    request: DeployRequest,
    when: &WhenArgs,
) -> Result<Vec<Problem>, Failure> {
    let mut plan = connection.control.plan(request).await?.into_inner();
    plan::missing(&mut plan);
    let waits = when.queue || when.supersede;
    let problems = plan.problems.iter().map(from_wire).filter(|problem| !waits || problem.code.0 != BUSY).collect();
    match loaded.conflicts(problems) {
        Some(failure) if failure.exit == Exit::Error => Err(failure),
        _ => Ok(plan.warnings.iter().map(from_wire).collect()),
    }
}

/// Whether nobody will serve for a while who does now.
fn interrupts(before: &FleetView, loaded: &Loaded) -> bool {
    let live = service(before, loaded.manifest.service.as_str()).is_some_and(|it| !it.committed_version.is_empty());
    live && loaded.manifest.strategy.interrupts(loaded.manifest.hosts.len())
}

/// Asks whether nobody may serve for a while.
fn confirmed(name: &str, strategy: &Strategy, context: Context<'_>) -> Result<bool, Failure> {
    let why = match strategy.exclusive {
        true => "recreate: the two releases cannot coexist",
        false => "every host is replaced in place, and all at once (see the warning B0118)",
    };
    confirm::interrupts(
        &format!("nobody serves {name} while this release replaces the other"),
        why,
        "baton plan shows for how long; baton deploy --yes does it",
        context,
    )
}

/// The request for a version of the manifest's service.
#[must_use]
pub fn request(loaded: &Loaded, version: &Version, artifact: &Artifact) -> DeployRequest {
    DeployRequest {
        manifest: loaded.text.clone(),
        manifest_path: loaded.path.display().to_string(),
        version: version.to_string(),
        artifact_digest: artifact.digest.as_bytes().to_vec(),
        artifact_size: artifact.size,
        ..DeployRequest::default()
    }
}

/// The artifact of a version that was released before and is still there: for going back to it by name, without its file.
///
/// # Errors
/// When the coordinator cannot be asked.
pub async fn released(connection: &mut Connection, loaded: &Loaded, version: &Version) -> Result<Option<Artifact>, Failure> {
    let ask = ServiceRequest { service: loaded.manifest.service.to_string(), why: String::new() };
    let releases = match connection.control.list_releases(ask).await {
        Ok(reply) => reply.into_inner().releases,
        // A service that is not known yet has no release.
        Err(status) if from_status(&status).code.0 == 709 || status.code() == Code::NotFound => return Ok(None),
        Err(status) => return Err(status.into()),
    };
    for release in releases.iter().filter(|release| release.version == version.as_str()) {
        let Ok(digest) = release.artifact_digest.parse::<Digest>() else { continue };
        let artifact = Artifact { digest, size: release.artifact_size };
        if stat(&mut connection.artifacts, &artifact).await?.complete {
            return Ok(Some(artifact));
        }
    }
    Ok(None)
}

/// Hands the request over; a lost reply is asked for again.
async fn hand_over(connection: &mut Connection, loaded: &Loaded, request: DeployRequest) -> Result<DeployReply, Failure> {
    let mut attempt = 1;
    loop {
        match connection.control.deploy(request.clone()).await {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(status) if !is_lost(status.code()) => {
                let refused = loaded.conflicts(vec![from_status(&status)]);
                return Err(refused.unwrap_or_else(|| status.into()));
            }
            Err(_) if attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(Failure::new(unknown(&from_status(&status)), Exit::TimedOut)),
        }
    }
}

/// Whether the request may have been accepted although nothing said so.
const fn is_lost(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
}

fn unknown(cause: &Problem) -> Problem {
    Problem::new(code::LOST, "it is not known whether the coordinator accepted the rollout")
        .saw("cause", cause.to_string())
        .help("the same command again attaches to it, or asks for it anew")
}

fn service<'a>(view: &'a FleetView, name: &str) -> Option<&'a ServiceView> {
    view.services.iter().find(|service| service.name == name)
}

fn active_rollout<'a>(view: &'a FleetView, name: &str) -> Option<&'a RolloutView> {
    service(view, name)?.rollout.as_ref().filter(|rollout| is_active(rollout))
}

fn attached(active: &RolloutView, context: Context<'_>) {
    let began = millis(active.elapsed_ms);
    context.output.note(Page::new().text(format!("attached to {}, started by {} {began} ago", active.id, active.by)));
}
