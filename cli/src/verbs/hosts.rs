//! `baton hosts list` and `baton hosts show HOST`; the other words are in [`maintenance`] and [`label`].

use super::{label, maintenance};
use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::hosts;
use baton_core::problem::Problem;
use baton_proto::v1::HostView;
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
        Hosts::Drain(args) => return maintenance::drain(args, context).await,
        Hosts::Undrain(args) => return maintenance::undrain(args, context).await,
        Hosts::Label(args) => return label::run(args, context).await,
        Hosts::Remove(args) => return maintenance::remove(args, context).await,
        Hosts::List => None,
        Hosts::Show { host } => Some(host),
    };
    let view = Connection::open(context.connect)?.view("").await?;
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
            let host = find(&view.hosts, &host)?;
            output.answer(&hosts::show(host));
            output.json(host);
            output.next(&format!("baton why {}", host.name));
        }
    }
    Ok(Exit::Done)
}

fn find<'a>(hosts: &'a [HostView], name: &str) -> Result<&'a HostView, Problem> {
    hosts.iter().find(|host| host.name == name).ok_or_else(|| {
        let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        Problem::new(code::UNKNOWN_NAME, format!("no host called {name} ever joined"))
            .saw("joined", if names.is_empty() { "nobody".to_owned() } else { names.join(", ") })
            .help(format!("baton token create --name {name}"))
    })
}
