//! `baton releases [list] [SERVICE]`.

use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::releases::releases;
use baton_proto::v1::ServiceRequest;
use clap::{Args, Subcommand};

/// `baton releases`.
#[derive(Debug, Args)]
pub struct ReleasesArgs {
    #[command(subcommand)]
    pub what: Option<Releases>,
}

/// What to do with releases. Without a word: list them.
#[derive(Debug, Subcommand)]
pub enum Releases {
    /// Every release the coordinator knows
    List {
        /// Of this service only
        service: Option<String>,
    },
}

/// Lists releases.
///
/// # Errors
/// When the coordinator cannot be asked.
pub async fn run(args: ReleasesArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let Releases::List { service } = args.what.unwrap_or(Releases::List { service: None });
    let mut connection = Connection::open(context.connect)?;
    let view = connection.view("").await?;
    // The call is about one service: all of them are asked for one by one.
    let names = match service {
        Some(name) => vec![name],
        None => view.services.into_iter().map(|service| service.name).collect(),
    };
    let mut list = baton_proto::v1::ReleaseList::default();
    for service in names {
        let request = ServiceRequest { service, why: String::new() };
        list.releases.extend(connection.control.list_releases(request).await?.into_inner().releases);
    }
    context.output.answer(&releases(&list));
    context.output.json(&list);
    context.output.next("baton deploy SERVICE VERSION");
    Ok(Exit::Done)
}
