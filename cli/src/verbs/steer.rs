//! `baton pause [SERVICE]`, `baton resume [SERVICE]` and `baton promote [SERVICE]`.

use super::target::one_service;
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::page::Page;
use baton_proto::v1::ServiceRequest;
use clap::Args;
use serde_json::json;

/// `baton pause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The service, where there are several
    pub service: Option<String>,
    /// For whoever finds it paused
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    pub why: String,
}

/// `baton resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The service, where there are several
    pub service: Option<String>,
}

/// `baton promote`.
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// The service, where there are several
    pub service: Option<String>,
}

/// Holds the rollout under way. What is half done on a host is finished there.
///
/// # Errors
/// When there is none, or it is refused.
pub async fn pause(args: PauseArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let (service, _) = one_service(&mut connection, args.service.as_deref()).await?;
    let request = ServiceRequest { service: service.name.clone(), why: args.why };
    let rollout = connection.control.pause(request).await?.into_inner().rollout;
    tell(&service.name, &rollout, "paused", context);
    context.output.next(&format!("baton resume {0}   or   baton rollback {0}", service.name));
    Ok(Exit::Done)
}

/// Lets a paused rollout go on.
///
/// # Errors
/// When there is none, or what paused it still stands.
pub async fn resume(args: ResumeArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let (service, _) = one_service(&mut connection, args.service.as_deref()).await?;
    let request = ServiceRequest { service: service.name.clone(), why: String::new() };
    let rollout = connection.control.resume(request).await?.into_inner().rollout;
    tell(&service.name, &rollout, "goes on", context);
    context.output.next(&format!("baton watch {}", service.name));
    Ok(Exit::Done)
}

/// Lets a rollout go on that waits for a person's word, or ends the watch of the wave under way.
///
/// # Errors
/// When there is none, or nobody's word is waited for.
pub async fn promote(args: PromoteArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let (service, _) = one_service(&mut connection, args.service.as_deref()).await?;
    let request = ServiceRequest { service: service.name.clone(), why: String::new() };
    let rollout = connection.control.promote(request).await?.into_inner().rollout;
    tell(&service.name, &rollout, "promoted", context);
    context.output.next(&format!("baton watch {}", service.name));
    Ok(Exit::Done)
}

fn tell(service: &str, rollout: &str, became: &str, context: Context<'_>) {
    context.output.answer(Page::new().text(format!("{service} {rollout}: {became}")));
    context.output.json(&json!({ "service": service, "rollout": rollout, "outcome": became.replace(' ', "_") }));
}
