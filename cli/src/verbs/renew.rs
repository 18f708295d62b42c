//! `baton restart [SERVICE]` and `baton rehearse [SERVICE [HOST]]`: the same release, started anew.

use super::confirm;
use super::retry::follow;
use super::target::{WaitArgs, one_service};
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::page::{Line, Page};
use crate::render::table::Table;
use crate::render::units::duration;
use crate::steps::Steps;
use baton_proto::v1::{PlaceRequest, ServiceRequest};
use clap::Args;

/// `baton restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// The service, where there are several
    pub service: Option<String>,
    /// Do it without asking, also where nobody serves meanwhile
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// `baton rehearse`.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// The service, where there are several
    pub service: Option<String>,
    /// The host; one that serves where none is named
    pub host: Option<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Starts every instance anew, host by host and with everything a release has to pass.
///
/// # Errors
/// When it is refused, or nothing more is heard.
pub async fn restart(args: RestartArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let (service, _) = one_service(&mut connection, args.service.as_deref()).await?;
    if service.restart_interrupts && !args.yes {
        let what = format!("nobody serves {} while its instances start anew", service.name);
        let why = "every host gives its place up, and all at once";
        if !confirm::interrupts(&what, why, "baton restart --yes does it", context)? {
            return Ok(Exit::Refused);
        }
    }
    let request = ServiceRequest { service: service.name.clone(), why: String::new() };
    let rollout = connection.control.restart(request).await?.into_inner().rollout;
    follow(&connection, &service, rollout, args.wait, context).await
}

/// Drains one host, starts its instance anew and brings it back, and tells how long each part took.
///
/// # Errors
/// When it is refused, or nothing more is heard.
pub async fn rehearse(args: RehearseArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let (service, _) = one_service(&mut connection, args.service.as_deref()).await?;
    let (name, host) = (service.name.clone(), args.host.unwrap_or_default());
    let request = PlaceRequest { service: name, host, ..PlaceRequest::default() };
    let rollout = connection.control.rehearse(request).await?.into_inner().rollout;
    let steps = Steps::of(connection.clone(), &service.name, &rollout);
    let exit = follow(&connection, &service, rollout, args.wait, context).await?;
    let (host, took) = steps.end();
    if took.is_empty() {
        return Ok(exit);
    }
    let mut table = Table::new(&["STEP", "TIME"]);
    for (step, time) in &took {
        table.row(vec![Line::of(step), Line::of(duration(*time))]);
    }
    // Beside the answer, which is how it ended: programs read the steps of `watch --json-lines`.
    context.output.note(Page::new().text(format!("{host}, step by step:")).extend(table.page()));
    Ok(exit)
}
