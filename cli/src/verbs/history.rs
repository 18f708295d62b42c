//! `baton history [SERVICE]` and `baton show ROLLOUT`: what became of rollouts, and what the load balancers counted.

use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::history::{one, table};
use baton_core::problem::Problem;
use baton_proto::v1::{HistoryRequest, RolloutList};
use clap::Args;

/// `baton history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Of this service only
    pub service: Option<String>,
    /// How many, newest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

/// `baton show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Such as r-7f3; `baton history` lists them
    pub rollout: String,
}

/// Lists rollouts.
///
/// # Errors
/// When the coordinator cannot be asked.
pub async fn history(args: HistoryArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let request =
        HistoryRequest { service: args.service.unwrap_or_default(), limit: args.limit, ..HistoryRequest::default() };
    let list = ask(request, context).await?;
    context.output.answer(&table(&list));
    context.output.json(&list);
    context.output.next("baton show ROLLOUT");
    Ok(Exit::Done)
}

/// Shows one rollout.
///
/// # Errors
/// When the coordinator cannot be asked, or knows no such rollout.
pub async fn show(args: ShowArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let request = HistoryRequest { rollout: args.rollout.clone(), limit: 1, ..HistoryRequest::default() };
    let list = ask(request, context).await?;
    let record = list.rollouts.first().ok_or_else(|| {
        Problem::new(code::UNKNOWN_NAME, format!("no rollout {} is known", args.rollout)).help("baton history lists them")
    })?;
    context.output.answer(&one(record));
    context.output.json(record);
    Ok(Exit::Done)
}

async fn ask(request: HistoryRequest, context: Context<'_>) -> Result<RolloutList, Failure> {
    let mut connection = Connection::open(context.connect)?;
    Ok(connection.control.history(request).await?.into_inner())
}
