//! `baton hosts drain HOST`, `baton hosts undrain HOST`, `baton hosts remove HOST`.

use super::target::WaitArgs;
use super::until::{on_host, until, word};
use crate::Context;
use crate::connection::Connection;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::page::Page;
use crate::render::units::{counted, millis};
use baton_proto::v1::{FleetView, HostRequest};
use clap::Args;
use serde_json::json;

/// `baton hosts drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    pub host: String,
    /// Stop its instances too, once nothing leads to them
    #[arg(long)]
    pub stop: bool,
    /// For whoever finds it drained
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    pub why: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// `baton hosts undrain`.
#[derive(Debug, Args)]
pub struct UndrainArgs {
    pub host: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// `baton hosts remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    pub host: String,
    /// Although services name it: it never comes back. Whatever still runs there is out of Baton's hands
    #[arg(long)]
    pub force: bool,
}

/// Takes a host out of every balancer, and waits until they say that nothing leads there.
///
/// # Errors
/// When it is refused, or the coordinator cannot be asked.
pub async fn drain(args: DrainArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let DrainArgs { host, stop, why, wait } = args;
    let request = HostRequest { host: host.clone(), why, stop, force: false };
    let before = cut(&connection.view("").await?, &host);
    connection.control.drain_host(request).await?;
    let exit = settle(&mut connection, &host, wait, context, is_drained).await?;
    let mut became = if stop { "drained and stopped" } else { "drained" }.to_owned();
    match cut(&connection.view("").await?, &host).saturating_sub(before) {
        0 => {}
        cut => {
            let requests = counted(cut, "request was", "requests were");
            became.push_str(&format!("; {requests} cut at the end of the drain (rollout.drain)"));
        }
    }
    Ok(tell(&host, exit, "drained", &became, &format!("baton hosts undrain {host}"), context))
}

/// Brings a host back: on the release that is live now, and into the balancers once that is ready.
///
/// # Errors
/// When it is refused, or the coordinator cannot be asked.
pub async fn undrain(args: UndrainArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let UndrainArgs { host, wait } = args;
    let drained = connection.view("").await?.hosts.iter().any(|it| it.name == host && it.maintenance.is_some());
    connection.control.undrain_host(HostRequest { host: host.clone(), ..HostRequest::default() }).await?;
    let exit = settle(&mut connection, &host, wait, context, is_back).await?;
    let became = if drained { "serves again" } else { "was not drained" };
    Ok(tell(&host, exit, "undrained", became, &format!("baton hosts show {host}"), context))
}

/// Forgets a host: its certificate is not accepted any more, and no pool names it.
///
/// # Errors
/// When something still needs it, or it never joined.
pub async fn remove(args: RemoveArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let mut connection = Connection::open(context.connect)?;
    let RemoveArgs { host, force } = args;
    connection.control.remove_host(HostRequest { host: host.clone(), force, ..HostRequest::default() }).await?;
    Ok(tell(&host, Exit::Done, "removed", "removed, and its certificate is revoked", "baton hosts list", context))
}

async fn settle(
    connection: &mut Connection,
    host: &str,
    wait: WaitArgs,
    context: Context<'_>,
    left: fn(&FleetView, &str) -> Vec<String>,
) -> Result<Exit, Failure> {
    if wait.no_wait {
        return Ok(Exit::Done);
    }
    until(connection, &wait, context, |view| left(view, host)).await
}

/// How many requests to a host were cut so far.
fn cut(view: &FleetView, host: &str) -> u64 {
    let there = view.services.iter().flat_map(|service| &service.hosts).filter(|own| own.host == host);
    there.map(|own| own.cut).sum()
}

fn is_drained(view: &FleetView, host: &str) -> Vec<String> {
    let left = on_host(view, host).filter_map(|(service, waiting)| match waiting {
        Some(("drained" | "rebooting", _)) => None,
        Some((_, text)) => Some(format!("{}: {text}", service.name)),
        None => Some(format!("{}: about to leave the balancers", service.name)),
    });
    let left: Vec<String> = left.collect();
    let silent = silent(view, host).map(|away| {
        format!("{host}: its agent {away}; one that does not come back: baton hosts remove {host} --force gives it up")
    });
    if left.is_empty() { left } else { silent.into_iter().chain(left).collect() }
}

/// How the agent of a host is away.
fn silent(view: &FleetView, host: &str) -> Option<String> {
    let host = view.hosts.iter().find(|it| it.name == host && !it.connected)?;
    Some(if host.silent_ms == 0 {
        "is not connected".to_owned()
    } else {
        format!("is silent for {}", millis(host.silent_ms))
    })
}

fn is_back(view: &FleetView, host: &str) -> Vec<String> {
    let silent = silent(view, host).map(|away| {
        format!("{host}: its agent {away}; it goes back in once it is heard, whether anybody waits here or not")
    });
    let left = on_host(view, host).filter_map(|(service, waiting)| {
        let serves = service.hosts.iter().any(|own| own.host == host && own.step == "serving");
        // A host that waits for its turn in a rollout, or was skipped, is where it should be.
        let text = match waiting {
            Some(("waiting" | "skipped" | "kept", _)) => return None,
            Some((_, text)) => text,
            None if serves || service.committed_version.is_empty() => return None,
            None => "not back in the balancers yet",
        };
        Some(format!("{}: {text}", service.name))
    });
    let left: Vec<String> = left.collect();
    // What they all wait for, first.
    if left.is_empty() { left } else { silent.into_iter().chain(left).collect() }
}

fn tell(host: &str, exit: Exit, done: &'static str, became: &str, next: &str, context: Context<'_>) -> Exit {
    let text = match exit {
        Exit::Done => format!("{host}: {became}"),
        _ => format!("{host}: not yet; the coordinator goes on with it"),
    };
    context.output.answer(Page::new().text(text));
    context.output.json(&json!({ "host": host, "outcome": word(exit, done), "exit": exit.code() }));
    context.output.next(if exit == Exit::Done { next } else { "baton status" });
    exit
}

#[cfg(test)]
mod tests {
    use super::is_back;
    use crate::render::example;

    #[test]
    fn a_host_whose_agent_is_silent_comes_back_without_anybody_who_waits() {
        let mut view = example::fleet();
        view.services[0].waiting.retain(|waiting| waiting.host != "web3");
        view.services[0].hosts.iter_mut().filter(|own| own.host == "web3").for_each(|own| own.step = "agent silent".into());
        assert_eq!(is_back(&view, "web3"), ["shop: not back in the balancers yet"]);
        let web3 = view.hosts.iter_mut().find(|host| host.name == "web3").unwrap();
        (web3.connected, web3.silent_ms) = (false, 61_000);
        assert_eq!(
            is_back(&view, "web3"),
            [
                "web3: its agent is silent for 1 min 1 s; it goes back in once it is heard, whether anybody waits here or not",
                "shop: not back in the balancers yet"
            ]
        );
    }
}
