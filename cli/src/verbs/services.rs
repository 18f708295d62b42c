//! `baton services list` and `baton services remove SERVICE`.

use super::target::{WaitArgs, one_service};
use super::until::{until, word};
use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::page::Page;
use crate::render::status;
use baton_core::problem::Problem;
use baton_proto::v1::{FleetView, ServiceRequest};
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::{BufRead, IsTerminal};

/// `baton services`.
#[derive(Debug, Args)]
pub struct ServicesArgs {
    #[command(subcommand)]
    pub what: Option<Services>,
}

/// What to do with services. Without a word: list them.
#[derive(Debug, Subcommand)]
pub enum Services {
    /// Every service
    List,
    /// Drain a service, stop it everywhere, and forget it
    Remove(RemoveArgs),
}

/// `baton services remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    pub service: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Lists services, or removes one.
///
/// # Errors
/// When the coordinator cannot be asked, or refuses.
pub async fn run(args: ServicesArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    match args.what.unwrap_or(Services::List) {
        Services::List => {
            let view = connection.view("").await?;
            context.output.answer(&status::fleet(&view));
            context.output.json(&json!({ "services": view.services }));
            context.output.next("baton status SERVICE");
            Ok(Exit::Done)
        }
        Services::Remove(args) => remove(&mut connection, args, context).await,
    }
}

async fn remove(connection: &mut Connection, args: RemoveArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let RemoveArgs { service: name, yes, wait } = args;
    let (service, _) = one_service(connection, Some(&name)).await?;
    if !yes {
        confirm(&format!("{name} stops on {} hosts and is forgotten. Go on? [y/N] ", service.hosts.len()), context)?;
    }
    connection.control.remove_service(ServiceRequest { service: name.clone(), why: String::new() }).await?;
    let exit = match wait.no_wait {
        true => Exit::Done,
        false => until(connection, &wait, context, |view| left(view, &name)).await?,
    };
    let text = match (exit, wait.no_wait) {
        (Exit::Done, false) => format!("{name}: removed"),
        (Exit::Done, true) => format!("{name}: is being removed"),
        _ => format!("{name}: not yet; the coordinator goes on with it"),
    };
    context.output.answer(Page::new().text(text));
    let done = if wait.no_wait { "accepted" } else { "removed" };
    context.output.json(&json!({ "service": name, "outcome": word(exit, done), "exit": exit.code() }));
    context.output.next(&if exit == Exit::Done { "baton status".to_owned() } else { format!("baton why {name}") });
    Ok(exit)
}

fn left(view: &FleetView, name: &str) -> Vec<String> {
    let Some(service) = view.services.iter().find(|service| service.name == name) else { return Vec::new() };
    let waiting = service.waiting.iter().map(|waiting| format!("{}: {}", waiting.host, waiting.text));
    let waiting: Vec<String> = waiting.collect();
    if waiting.is_empty() { vec![format!("{name} is being removed")] } else { waiting }
}

/// Asks at a terminal. Without one nobody could answer, so `--yes` must have said it.
///
/// # Errors
/// When the answer is not yes.
fn confirm(question: &str, context: Context<'_>) -> Result<(), Failure> {
    let refused = |what: &str| Failure::new(Problem::new(code::NOT_CONFIRMED, what).help("--yes says it"), Exit::Refused);
    if !std::io::stdin().is_terminal() || !context.output.progress().is_terminal() {
        return Err(refused("this cannot be taken back, and nobody is there to be asked"));
    }
    context.output.note(Page::new().text(question));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => Err(refused("nothing was changed")),
    }
}
