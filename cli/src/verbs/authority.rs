//! `baton authority`, `baton authority rotate` and `baton authority retire`: who signs certificates.

use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::authority::{name_of, status};
use crate::render::page::Page;
use baton_proto::v1::{AuthorityStatusRequest, AuthorityView, RetireAuthorityRequest, RotateAuthorityRequest};
use clap::{Args, Subcommand};

/// `baton authority`.
#[derive(Debug, Args)]
pub struct AuthorityArgs {
    #[command(subcommand)]
    pub what: Option<Authority>,
}

/// What to do with the authority. Without a word: show it.
#[derive(Debug, Subcommand)]
pub enum Authority {
    /// Who signs, and which authority the certificate of each host and operator is of
    Status,
    /// Make an authority that signs from now on; the one before is believed until it is retired
    Rotate {
        /// Why, for the record
        #[arg(long, value_name = "REASON", default_value = "")]
        why: String,
    },
    /// End the authority before, once nobody needs it any more
    Retire {
        /// Although some have not moved: they join or log in again
        #[arg(long)]
        force: bool,
        /// Why, for the record
        #[arg(long, value_name = "REASON", default_value = "")]
        why: String,
    },
}

/// Shows, rotates or retires.
///
/// # Errors
/// When the coordinator refuses.
pub async fn run(args: AuthorityArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let output = context.output;
    let control = &mut connection.control;
    match args.what.unwrap_or(Authority::Status) {
        Authority::Status => {
            let view = control.authority_status(AuthorityStatusRequest {}).await?.into_inner();
            output.answer(&status(&view));
            output.json(&view);
            output.next(match (view.authorities.len(), view.bearers.iter().all(|bearer| bearer.moved)) {
                (0 | 1, _) => "baton certificates list",
                (_, true) => "baton authority retire",
                (_, false) => "baton hosts list",
            });
        }
        Authority::Rotate { why } => {
            let view = control.rotate_authority(RotateAuthorityRequest { why }).await?.into_inner();
            output.answer(&rotated(&view));
            output.json(&view);
            output.note(Page::new().text("its key is in no backup yet: baton-coordinator backup FILE"));
            output.next("baton authority status");
        }
        Authority::Retire { force, why } => {
            let view = control.retire_authority(RetireAuthorityRequest { why, force }).await?.into_inner();
            output.answer(&retired(&view));
            output.json(&view);
            let left = view.bearers.iter().find(|bearer| !bearer.moved).map(|bearer| bearer.identity.split_once('/'));
            output.next(&match left {
                None => "baton-coordinator backup FILE".to_owned(),
                Some(Some(("host", host))) => {
                    format!("baton token create --name {host}, and on its machine: baton-agent join --replace")
                }
                Some(Some((role, name))) => format!("baton token create --role {role} --name {name}"),
                Some(None) => "baton authority status".to_owned(),
            });
        }
    }
    Ok(Exit::Done)
}

fn rotated(view: &AuthorityView) -> Page {
    let mut page = Page::new();
    let name = |signs| view.authorities.iter().find(|authority| authority.signs == signs).map_or("", name_of);
    page.text(format!("{} signs from now on; {} is believed until it is retired", name(true), name(false)));
    page.text("hosts move by themselves once they are connected, operators with their next command");
    let pipelines = view.bearers.iter().filter(|bearer| !bearer.moved && bearer.identity.starts_with("ci/"));
    for pipeline in pipelines {
        page.text(format!("{} does not renew itself: log in again with a new token", pipeline.identity));
    }
    page
}

fn retired(view: &AuthorityView) -> Page {
    let mut page = Page::new();
    let name = view.authorities.first().map_or("", name_of);
    page.text(format!("{name} is the only authority now; the key of the one before is gone"));
    for left in view.bearers.iter().filter(|bearer| !bearer.moved) {
        let how = if left.identity.starts_with("host/") { "joins" } else { "logs in" };
        page.text(format!("{} was left behind and {how} again", left.identity));
    }
    page
}
