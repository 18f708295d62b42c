//! A small HTTP/1.1 and WebSocket reverse proxy, for the demo, tests and small sites.
//!
//! It is a process of its own, so that the agent can be stopped, upgraded or killed without a request noticing. It is told
//! what to serve over a unix socket, writes that down before it acts, and starts with what is written: after `kill -9` it
//! serves the same members as before.

mod control;
mod division;
mod driver;
mod headers;
mod members;
mod proxy;
mod serve;
mod state;
mod tunnel;
mod upstream;

pub(super) use driver::open;
pub use serve::serve;

use baton_core::name::PoolName;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The arguments of `baton-agent balancer`: the driver passes them, people rarely do.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The unix socket to be told over.
    #[arg(long)]
    pub control: PathBuf,
    /// The file that says what to serve after a restart.
    #[arg(long)]
    pub state: PathBuf,
    /// Where a pool listens, as POOL@ADDRESS:PORT.
    #[arg(long, required = true, value_parser = parse_listen)]
    pub listen: Vec<(PoolName, SocketAddr)>,
}

fn parse_listen(text: &str) -> Result<(PoolName, SocketAddr), String> {
    let (pool, address) = text.split_once('@').ok_or("write POOL@ADDRESS:PORT")?;
    let pool = pool.parse().map_err(|error: baton_core::name::InvalidName| error.to_string())?;
    Ok((pool, address.parse().map_err(|_| format!("`{address}` is no address and port"))?))
}
