//! `baton freeze SERVICE|--all` and `baton unfreeze SERVICE|--all`.

use super::target::one_service;
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::page::Page;
use crate::render::units::duration;
use baton_proto::v1::FreezeRequest;
use clap::Args;
use serde_json::json;
use std::time::Duration;

/// What is frozen.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct WhatArgs {
    /// One service
    pub service: Option<String>,
    /// Every service, also those that come
    #[arg(long)]
    pub all: bool,
}

/// `baton freeze`.
#[derive(Debug, Args)]
pub struct FreezeArgs {
    #[command(flatten)]
    pub what: WhatArgs,
    /// For whoever is refused
    #[arg(long, value_name = "TEXT")]
    pub why: String,
    /// How long; until `baton unfreeze` where it is not given
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub lasts: Option<Duration>,
}

/// `baton unfreeze`.
#[derive(Debug, Args)]
pub struct UnfreezeArgs {
    #[command(flatten)]
    pub what: WhatArgs,
}

/// Refuses new releases for a while. Going back stays possible.
///
/// # Errors
/// When there is no such service, or it is refused.
pub async fn freeze(args: FreezeArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let FreezeArgs { what, why, lasts } = args;
    let service = named(&mut connection, &what).await?;
    let lasts_ms = lasts.map_or(0, |lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX).max(1));
    connection.control.freeze(FreezeRequest { service: service.clone(), why, lasts_ms }).await?;
    let until = lasts.map_or_else(|| "until baton unfreeze".to_owned(), |lasts| format!("for {}", duration(lasts)));
    Ok(tell(&service, "frozen", &format!("frozen {until}; going back stays possible"), context))
}

/// Ends a freeze.
///
/// # Errors
/// When there is no such service, or it is refused.
pub async fn unfreeze(args: UnfreezeArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let service = named(&mut connection, &args.what).await?;
    let request = FreezeRequest { service: service.clone(), ..FreezeRequest::default() };
    let reply = connection.control.unfreeze(request).await?.into_inner();
    let words = if reply.unchanged { "was not frozen" } else { "not frozen any more" };
    Ok(tell(&service, if reply.unchanged { "unchanged" } else { "unfrozen" }, words, context))
}

async fn named(connection: &mut Connection, what: &WhatArgs) -> Result<String, Failure> {
    match what.service.as_deref() {
        Some(service) => Ok(one_service(connection, Some(service)).await?.0.name),
        None => Ok(String::new()),
    }
}

fn tell(service: &str, outcome: &str, words: &str, context: Context<'_>) -> Exit {
    let who = if service.is_empty() { "every service" } else { service };
    context.output.answer(Page::new().text(format!("{who}: {words}")));
    context.output.json(&json!({ "service": service, "outcome": outcome, "exit": Exit::Done.code() }));
    context.output.next("baton status");
    Exit::Done
}
