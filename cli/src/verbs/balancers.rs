//! `baton balancers list`, `baton balancers show HOST` and `baton balancers drift`.

use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::render::balancers;
use baton_core::problem::Problem;
use baton_proto::v1::HostView;
use clap::{Args, Subcommand};
use serde_json::json;

/// `baton balancers`.
#[derive(Debug, Args)]
pub struct BalancersArgs {
    #[command(subcommand)]
    pub what: Option<Balancers>,
}

/// What to do with load balancers. Without a word: list them.
#[derive(Debug, Subcommand)]
pub enum Balancers {
    /// Every load balancer: its process, its pools, what is wrong with it
    List,
    /// One load balancer: what each member should be, and is
    Show { host: String },
    /// Only what is not as it should be
    Drift,
}

/// Shows load balancers, wanted against actual.
///
/// # Errors
/// When the coordinator cannot be asked, or no load balancer is on that host.
pub async fn run(args: BalancersArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let view = Connection::open(context.connect)?.view("").await?;
    let output = context.output;
    let hosts: Vec<&HostView> = view.hosts.iter().filter(|host| balances(host)).collect();
    match args.what.unwrap_or(Balancers::List) {
        Balancers::List => {
            output.answer(&balancers::list(&hosts));
            output.json(&json!({ "balancers": hosts }));
            if let Some(host) = hosts.first() {
                output.next(&format!("baton balancers show {}", host.name));
            }
        }
        Balancers::Show { host } => {
            let host = find(&hosts, &host)?;
            output.answer(&balancers::show(host));
            output.json(host);
            output.next("baton balancers drift");
        }
        Balancers::Drift => {
            output.answer(&balancers::drift(&hosts));
            output.json(&json!({ "drift": balancers::drifted(&hosts) }));
        }
    }
    Ok(Exit::Done)
}

/// Whether a load balancer is there, or is to be.
fn balances(host: &HostView) -> bool {
    !host.driver.is_empty() || !host.pools.is_empty()
}

fn find<'a>(hosts: &[&'a HostView], name: &str) -> Result<&'a HostView, Problem> {
    hosts.iter().find(|host| host.name == name).copied().ok_or_else(|| {
        let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        Problem::new(code::UNKNOWN_NAME, format!("no load balancer on a host called {name}"))
            .saw("there are", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
            .help("name one in [balancer] of its /etc/baton/agent.toml")
    })
}
