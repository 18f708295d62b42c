//! `baton hosts accept HOST…`.

use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::page::Page;
use crate::render::units::counted;
use baton_proto::v1::{FleetView, HostRequest};
use clap::Args;
use serde_json::json;

/// `baton hosts accept`.
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// Hosts that wait for it
    #[arg(value_name = "HOST", required_unless_present = "all")]
    pub hosts: Vec<String>,
    /// Every host that waits: look at `baton hosts list` first
    #[arg(long, conflicts_with = "hosts")]
    pub all: bool,
}

/// Says of hosts that they belong here. Those before one that is refused stay accepted.
///
/// # Errors
/// When one never joined, or the coordinator cannot be asked.
pub(super) async fn run(args: AcceptArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let hosts = if args.all { waiting(&connection.view("").await?) } else { args.hosts };
    for host in &hosts {
        connection.control.accept_host(HostRequest { host: host.clone(), ..HostRequest::default() }).await?;
    }
    let output = context.output;
    let text = match hosts.as_slice() {
        [] => "no host waits to be accepted".to_owned(),
        [one] => format!("{one} is accepted: manifests may name it"),
        more => format!("{} are accepted: manifests may name them", counted(more.len() as u64, "host", "hosts")),
    };
    output.answer(Page::new().text(text));
    output.json(&json!({ "accepted": hosts }));
    output.next("baton hosts list");
    Ok(Exit::Done)
}

/// The hosts that wait for it.
pub(super) fn waiting(view: &FleetView) -> Vec<String> {
    view.hosts.iter().filter(|host| host.waits_for_acceptance).map(|host| host.name.clone()).collect()
}
