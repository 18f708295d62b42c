//! `baton rollback [SERVICE]` and `baton abort [SERVICE]`: back, and waiting for it.

use super::ending;
use super::target::{WaitArgs, one_service};
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::follow::{Follow, OnPause};
use crate::outcome::{Wish, is_active};
use crate::traffic::Tally;
use baton_proto::v1::ServiceRequest;
use clap::Args;

/// `baton rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The service, where there are several
    pub service: Option<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// `baton abort`.
#[derive(Debug, Args)]
pub struct AbortArgs {
    /// The service, where there are several
    pub service: Option<String>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Turns the rollout under way round, or starts one to the release before.
///
/// # Errors
/// When it is refused, or nothing more is heard.
pub async fn rollback(args: RollbackArgs, context: Context<'_>) -> Result<Exit, Failure> {
    back(args.service.as_deref(), args.wait, Way::Rollback, context).await
}

/// Turns the rollout under way round.
///
/// # Errors
/// When there is none, or nothing more is heard.
pub async fn abort(args: AbortArgs, context: Context<'_>) -> Result<Exit, Failure> {
    back(args.service.as_deref(), args.wait, Way::Abort, context).await
}

enum Way {
    Rollback,
    Abort,
}

async fn back(service: Option<&str>, wait: WaitArgs, way: Way, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let (service, before) = one_service(&mut connection, service).await?;
    let request = ServiceRequest { service: service.name.clone(), why: String::new() };
    let reply = match way {
        Way::Rollback => connection.control.rollback(request).await?,
        Way::Abort => connection.control.abort(request).await?,
    };
    let rollout = reply.into_inner().rollout;
    if rollout.is_empty() {
        return Ok(ending::nothing_to_do(&service.name, &service.committed_version, context.output));
    }
    if wait.no_wait {
        return Ok(ending::accepted(&service.name, &rollout, context.output));
    }
    // The rollout that was under way is to go back; a new one brings the release before, forward.
    let turned = service.rollout.as_ref().is_some_and(|active| is_active(active) && active.id == rollout);
    let mut tally = Tally::default();
    tally.observe(&service, &before);
    let follow = Follow {
        service: service.name,
        rollout: Some(rollout),
        wish: if turned { Wish::Back } else { Wish::Forward },
        tally,
        timeout: wait.timeout,
        pause: OnPause::End,
    };
    Ok(ending::wait(&connection, follow, context).await?.exit)
}
