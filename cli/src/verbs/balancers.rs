//! `baton balancers list|show|drift`, and `declare-dead` and `revive` for one that does not come back.

use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::output::Output;
use crate::render::balancers;
use crate::render::page::Page;
use baton_core::problem::Problem;
use baton_proto::v1::{FleetView, HostRequest, HostView};
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
    /// It does not come back, or not soon: nobody waits for its word while it says nothing. If it only cannot be reached, it may
    /// go on sending requests to what is stopped then
    DeclareDead {
        /// The host whose load balancer it is
        host: String,
        /// For whoever finds it so
        #[arg(long, value_name = "TEXT")]
        why: String,
    },
    /// Wait for its word again, though it says nothing yet; once it answers, it counts by itself
    Revive { host: String },
}

/// Shows load balancers, wanted against actual.
///
/// # Errors
/// When the coordinator cannot be asked, or no load balancer is on that host.
pub async fn run(args: BalancersArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let output = context.output;
    match args.what.unwrap_or(Balancers::List) {
        Balancers::List => {
            let view = connection.view("").await?;
            let hosts = balancing(&view);
            output.answer(&balancers::list(&hosts));
            output.json(&json!({ "balancers": hosts }));
            if let Some(host) = hosts.first() {
                output.next(&format!("baton balancers show {}", host.name));
            }
        }
        Balancers::Show { host } => {
            let view = connection.view("").await?;
            let host = find(&balancing(&view), &host)?;
            output.answer(&balancers::show(host));
            output.json(host);
            output.next("baton balancers drift");
        }
        Balancers::Drift => {
            let view = connection.view("").await?;
            let hosts = balancing(&view);
            output.answer(&balancers::drift(&hosts));
            output.json(&json!({ "drift": balancers::drifted(&hosts) }));
        }
        Balancers::DeclareDead { host, why } => {
            let request = HostRequest { host: host.clone(), why, ..HostRequest::default() };
            connection.control.declare_dead(request).await?;
            tell(&host, "declared dead", "nobody waits for it until it answers again", output);
        }
        Balancers::Revive { host } => {
            let dead = connection.view("").await?.hosts.iter().any(|it| it.name == host && it.dead_balancer.is_some());
            connection.control.revive(HostRequest { host: host.clone(), ..HostRequest::default() }).await?;
            let words = if dead { "its word is waited for" } else { "it was not declared dead" };
            tell(&host, "revived", words, output);
        }
    }
    Ok(Exit::Done)
}

fn tell(host: &str, outcome: &str, means: &str, output: &Output) {
    output.answer(Page::new().text(format!("{host}: {outcome}; {means}")));
    output.json(&json!({ "host": host, "outcome": outcome, "exit": Exit::Done.code() }));
    output.next("baton balancers list");
}

/// The hosts with a load balancer.
fn balancing(view: &FleetView) -> Vec<&HostView> {
    view.hosts.iter().filter(|host| balances(host)).collect()
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
