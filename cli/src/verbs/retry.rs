//! `baton retry [SERVICE [HOST]]` and `baton skip [SERVICE] HOST`: the ways on after a host or a hook failed.

use super::ending;
use super::target::{WaitArgs, one_service};
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::follow::{Follow, OnPause};
use crate::outcome::Wish;
use crate::render::page::Page;
use baton_proto::v1::{PlaceRequest, ServiceView};
use clap::Args;
use serde_json::json;

/// `baton retry`.
#[derive(Debug, Args)]
pub struct RetryArgs {
    /// The service, where there are several
    pub service: Option<String>,
    /// One host of it; all that failed or were skipped where none is named
    pub host: Option<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// `baton skip`.
#[derive(Debug, Args)]
#[command(override_usage = "baton skip [OPTIONS] [SERVICE] HOST\n       baton skip [OPTIONS] SERVICE [HOST] --hook POINT")]
pub struct SkipArgs {
    /// The host; before it the service, where there are several
    #[arg(required = true, num_args = 1..=2, value_name = "HOST")]
    words: Vec<String>,
    /// This hook did happen, on the host where one is named: it is not run (again), and the rollout goes on
    #[arg(long, value_name = "POINT")]
    pub hook: Option<String>,
    /// For the record
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    pub why: String,
}

/// Tries again what failed, and takes skipped hosts back in.
///
/// # Errors
/// When there is nothing to try again, or nothing more is heard.
pub async fn retry(args: RetryArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let (service, _) = one_service(&mut connection, args.service.as_deref()).await?;
    let (name, host) = (service.name.clone(), args.host.clone().unwrap_or_default());
    let request = PlaceRequest { service: name, host, ..PlaceRequest::default() };
    let rollout = connection.control.retry(request).await?.into_inner().rollout;
    if rollout.is_empty() {
        let who = args.host.as_deref().unwrap_or("every host that was skipped");
        let words = format!("{}: {who} takes part again and catches up", service.name);
        context.output.answer(Page::new().text(words));
        context.output.json(&json!({ "service": service.name, "outcome": "taken_back_in", "exit": Exit::Done.code() }));
        context.output.next(&format!("baton status {}", service.name));
        return Ok(Exit::Done);
    }
    follow(&connection, &service, rollout, args.wait, context).await
}

/// Leaves a host out of rollouts, by name and on the record.
///
/// # Errors
/// When nobody would be left, or the host is not of the service.
pub async fn skip(args: SkipArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    if let Some(hook) = args.hook {
        return vouch(&mut connection, (hook, args.words, args.why), context).await;
    }
    let named = (args.words.len() > 1).then(|| args.words[0].as_str());
    let host = args.words.last().cloned().unwrap_or_default();
    let (service, _) = one_service(&mut connection, named).await?;
    let request =
        PlaceRequest { service: service.name.clone(), host: host.clone(), why: args.why, ..PlaceRequest::default() };
    let reply = connection.control.skip(request).await?.into_inner();
    let words = if reply.unchanged { "was skipped already" } else { "left out until baton retry" };
    context.output.answer(Page::new().text(format!("{} {host}: {words}", service.name)));
    let outcome = if reply.unchanged { "unchanged" } else { "skipped" };
    let document = json!({
        "service": service.name,
        "host": host,
        "rollout": reply.rollout,
        "outcome": outcome,
        "exit": Exit::Done.code(),
    });
    context.output.json(&document);
    context.output.next(&match reply.rollout.as_str() {
        "" => format!("baton retry {} {host}", service.name),
        _ => format!("baton watch {}", service.name),
    });
    Ok(Exit::Done)
}

/// Says that a hook did happen.
async fn vouch(
    connection: &mut Connection,
    (hook, words, why): (String, Vec<String>, String),
    context: Context<'_>,
) -> Result<Exit, Failure> {
    let host = words.get(1).cloned().unwrap_or_default();
    let (service, _) = one_service(connection, words.first().map(String::as_str)).await?;
    let name = service.name;
    let request = PlaceRequest { service: name.clone(), host, why, hook: hook.clone() };
    let reply = connection.control.skip(request).await?.into_inner();
    context.output.answer(Page::new().text(format!("{name}: {hook} counts as done")));
    context.output.json(&json!({
        "service": name,
        "hook": hook,
        "rollout": reply.rollout,
        "outcome": "vouched_for",
        "exit": Exit::Done.code(),
    }));
    context.output.next(&format!("baton watch {name}"));
    Ok(Exit::Done)
}

/// Waits for a rollout that brings a release, unless nobody wants to wait.
///
/// # Errors
/// When nothing more is heard of it.
pub(super) async fn follow(
    connection: &Connection,
    service: &ServiceView,
    rollout: String,
    wait: WaitArgs,
    context: Context<'_>,
) -> Result<Exit, Failure> {
    if wait.no_wait {
        return Ok(ending::accepted(&service.name, &rollout, context.output));
    }
    let follow = Follow {
        service: service.name.clone(),
        rollout: Some(rollout),
        wish: Wish::Forward,
        timeout: wait.timeout,
        pause: OnPause::End,
    };
    Ok(ending::wait(connection, follow, context).await?.exit)
}
