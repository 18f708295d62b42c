//! `baton history [SERVICE]` and `baton show ROLLOUT`: what became of rollouts, and what the load balancers counted.

use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::history::{one, table};
use baton_core::problem::Problem;
use baton_proto::v1::HistoryRequest;
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
/// When the coordinator cannot be asked, or knows no such service.
pub async fn history(args: HistoryArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let request =
        HistoryRequest { service: args.service.unwrap_or_default(), limit: args.limit, ..HistoryRequest::default() };
    let mut connection = Connection::open(context.connect)?;
    let asked = request.service.clone();
    let list = connection.control.history(request).await?.into_inner();
    if list.rollouts.is_empty() && !asked.is_empty() {
        // A service that was removed has a history. One that has none may not even be there.
        connection.view(&asked).await.map_err(|problem| problem.help("baton status shows every service"))?;
    }
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
    let list = Connection::open(context.connect)?.control.history(request).await?.into_inner();
    let record = list.rollouts.first().ok_or_else(|| {
        Problem::new(code::UNKNOWN_NAME, format!("no rollout {} is known", args.rollout)).help("baton history lists them")
    })?;
    context.output.answer(&one(record));
    context.output.json(record);
    Ok(Exit::Done)
}
