//! `baton hosts list` and `baton hosts show HOST`; the other words are in [`maintenance`] and [`label`].

use super::{accept, audit, label, maintenance};
use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::{self, hosts};
use baton_core::problem::Problem;
use baton_proto::v1::{HostView, ListAuditRequest};
use clap::{Args, Subcommand};
use serde_json::json;

/// `baton hosts`.
#[derive(Debug, Args)]
pub struct HostsArgs {
    #[command(subcommand)]
    pub what: Option<Hosts>,
}

/// What to do with hosts. Without a word: list them.
#[derive(Debug, Subcommand)]
pub enum Hosts {
    /// Every host that joined
    List,
    /// One host: its instances, its balancer's pools, its problems
    Show { host: String },
    /// Say of hosts that joined under a name of their own choice that they belong here
    Accept(accept::AcceptArgs),
    /// Take a host out of every balancer for work on it, and out of rollouts meanwhile
    Drain(maintenance::DrainArgs),
    /// Bring a drained host back, on the release that is live now
    Undrain(maintenance::UndrainArgs),
    /// Say of a host what a label means: `rack=a`, or `rack-` to take it back
    Label(label::LabelArgs),
    /// Forget a host and revoke its certificate
    Remove(maintenance::RemoveArgs),
}

/// Lists hosts, or shows one.
///
/// # Errors
/// When the coordinator cannot be asked, or no host has that name.
pub async fn run(args: HostsArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let what = match args.what.unwrap_or(Hosts::List) {
        Hosts::Accept(args) => return accept::run(args, context).await,
        Hosts::Drain(args) => return maintenance::drain(args, context).await,
        Hosts::Undrain(args) => return maintenance::undrain(args, context).await,
        Hosts::Label(args) => return label::run(args, context).await,
        Hosts::Remove(args) => return maintenance::remove(args, context).await,
        Hosts::List => None,
        Hosts::Show { host } => Some(host),
    };
    let mut connection = Connection::open(context.connect)?;
    let view = connection.view("").await?;
    let output = context.output;
    match what {
        None => {
            output.answer(&hosts::list(&view.hosts));
            output.json(&json!({ "hosts": view.hosts }));
            match view.hosts.first() {
                Some(host) => output.next(&format!("baton hosts show {}", host.name)),
                None => output.next("baton token create --hosts 3"),
            }
        }
        Some(host) => {
            let Some(host) = view.hosts.iter().find(|known| known.name == host) else {
                return Err(stranger(&mut connection, &view.hosts, &host).await.into());
            };
            output.answer(&hosts::show(host));
            output.json(host);
            output.next(&format!("baton why {}", host.name));
        }
    }
    Ok(Exit::Done)
}

/// No host has this name: was it removed? Who may not read the log, is not told.
async fn stranger(connection: &mut Connection, hosts: &[HostView], name: &str) -> Problem {
    let newest = ListAuditRequest { after: 0, newest: LOOKED_AT };
    let entries = audit::collect(connection, newest).await.unwrap_or_default();
    let removal = entries.iter().rev().find(|entry| render::audit::removes(entry, name));
    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    let what = match removal {
        Some(_) => format!("{name} was removed"),
        None => format!("there is no host called {name}"),
    };
    // A machine that was removed still has what it joined with.
    let replace = if removal.is_some() { " --replace" } else { "" };
    let mut problem = Problem::new(code::UNKNOWN_NAME, what);
    if let Some(entry) = removal {
        problem = problem.saw("removed", render::audit::when_and_who(entry));
    }
    problem
        .saw("joined", if names.is_empty() { "nobody".to_owned() } else { names.join(", ") })
        .help(format!("baton token create --name {name}, and on it: baton-agent join HOST:PORT --token-file FILE{replace}"))
}

/// Entries of the log that are looked at for a removal.
const LOOKED_AT: u64 = 10_000;
