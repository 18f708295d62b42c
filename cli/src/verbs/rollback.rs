//! `baton rollback [SERVICE]` and `baton abort [SERVICE]`: back, and waiting for it.

use super::ending;
use super::target::{WaitArgs, one_service};
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::follow::{Follow, OnPause};
use crate::outcome::{Wish, is_active, state};
use crate::render::page::Page;
use baton_proto::v1::{AbortRequest, RollbackRequest, ServiceView};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;

/// `baton rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The service, where there are several
    pub service: Option<String>,
    /// To this version; else to the release before
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Although a hook that has run says that there is no way back
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// `baton abort`.
#[derive(Debug, Args)]
pub struct AbortArgs {
    /// The service, where there are several
    pub service: Option<String>,
    /// End the rollout where it stands: every host keeps the release it was told to run
    #[arg(long)]
    pub keep: bool,
    /// Take deploys out of the queue instead: this one, or all that wait
    #[arg(long, value_name = "ROLLOUT", num_args = 0..=1, default_missing_value = "", conflicts_with = "keep")]
    pub queued: Option<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Turns the rollout under way round, or starts one to the release before.
///
/// # Errors
/// When it is refused, or nothing more is heard.
pub async fn rollback(args: RollbackArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let version = args.to.unwrap_or_default();
    back(args.service.as_deref(), args.wait, Way::Rollback { version, force: args.force }, context).await
}

/// Turns the rollout under way round, ends it where it stands, or takes deploys out of the queue.
///
/// # Errors
/// When there is none, or nothing more is heard.
pub async fn abort(args: AbortArgs, context: Context<'_>) -> Result<Exit, Failure> {
    if args.keep || args.queued.is_some() {
        return stop(args, context).await;
    }
    back(args.service.as_deref(), args.wait, Way::Abort, context).await
}

async fn stop(args: AbortArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let (service, _) = one_service(&mut connection, args.service.as_deref()).await?;
    let name = service.name;
    let (cancel, queued) = (args.queued.is_some(), args.queued.unwrap_or_default());
    let which = queued.clone();
    let request = AbortRequest { service: name.clone(), keep: args.keep, cancel, queued, why: String::new() };
    let rollout = connection.control.abort(request).await?.into_inner().rollout;
    let output = context.output;
    let mut document = json!({ "service": name, "rollout": rollout, "exit": Exit::Done.code() });
    if cancel {
        document["outcome"] = json!("cancelled");
        let taken = if which.is_empty() { "every deploy that waited" } else { which.as_str() };
        output.answer(Page::new().text(format!("{name}: {taken} was taken out of the queue")));
        output.json(&document);
        output.next(&format!("baton status {name}"));
        return Ok(Exit::Done);
    }
    let (service, _) = one_service(&mut connection, Some(&name)).await?;
    let kept = kept(&service);
    document["outcome"] = json!("kept");
    document["hosts"] = json!(kept);
    let mut page = Page::new();
    page.text(format!("{name}: {rollout} ended where it stood; every host keeps the release it was told to run"));
    for (version, hosts) in &kept {
        let runs = if version.is_empty() { "nothing" } else { version };
        page.text(format!("  {runs}  {}", hosts.join(", ")));
    }
    output.answer(&page);
    output.json(&document);
    output.next(&format!("baton retry {name}   or   baton rollback {name}"));
    Ok(Exit::Done)
}

/// The hosts by what runs on them: `2.0.4 + 2.1.0` where two still do.
fn kept(service: &ServiceView) -> BTreeMap<String, Vec<&str>> {
    let mut kept = BTreeMap::<_, Vec<_>>::new();
    for host in &service.hosts {
        kept.entry(host.versions.join(" + ")).or_default().push(host.host.as_str());
    }
    kept
}

enum Way {
    Rollback { version: String, force: bool },
    Abort,
}

async fn back(service: Option<&str>, wait: WaitArgs, way: Way, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let (service, _) = one_service(&mut connection, service).await?;
    let (name, why) = (service.name.clone(), String::new());
    let reply = match way {
        Way::Rollback { version, force } => {
            connection.control.rollback(RollbackRequest { service: name, why, version, force }).await?
        }
        Way::Abort => connection.control.abort(AbortRequest { service: name, why, ..AbortRequest::default() }).await?,
    };
    let rollout = reply.into_inner().rollout;
    if rollout.is_empty() {
        let output = context.output;
        return Ok(match service.rollout.as_ref().filter(|last| last.state == state::REVERTED) {
            Some(last) => ending::taken_back(&service, last, output),
            None => ending::nothing_to_do(&service.name, &service.committed_version, output),
        });
    }
    if wait.no_wait {
        return Ok(ending::accepted(&service.name, &rollout, context.output));
    }
    // The rollout that was under way is to go back; a new one brings the release before, forward.
    let turned = service.rollout.as_ref().is_some_and(|active| is_active(active) && active.id == rollout);
    let follow = Follow {
        service: service.name,
        rollout: Some(rollout),
        wish: if turned { Wish::Back } else { Wish::Forward },
        timeout: wait.timeout,
        pause: OnPause::End,
    };
    Ok(ending::wait(&connection, follow, context).await?.exit)
}
