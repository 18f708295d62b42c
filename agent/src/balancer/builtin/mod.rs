//! A small reverse proxy for HTTP/1.1, HTTP/2 and WebSockets, with or without TLS, for the demo, tests and small sites.
//!
//! It is a process of its own, so that the agent can be stopped, upgraded or killed without a request noticing. It is told
//! what to serve over a unix socket, writes that down before it acts, and starts with what is written: after `kill -9` it
//! serves the same members as before.

mod check;
mod client;
mod control;
mod division;
mod driver;
mod generations;
mod headers;
mod members;
mod proxy;
mod serve;
mod slots;
mod state;
mod takeover;
mod tls;
mod tunnel;
mod upstream;

pub(super) use driver::open;
pub use serve::serve;
pub use tls::TlsFiles;

use baton_core::name::PoolName;
use serde::{Deserialize, Serialize};
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
    /// A pool's certificate, as POOL@FILE; without one its port is in plain text.
    #[arg(long, value_parser = parse_file)]
    pub certificate: Vec<(PoolName, PathBuf)>,
    /// Its key, as POOL@FILE.
    #[arg(long, value_parser = parse_file)]
    pub key: Vec<(PoolName, PathBuf)>,
    /// Whose turn it is.
    #[arg(long, value_enum, default_value_t)]
    pub balance: Balance,
    /// Checks a member fails in a row before it gets no new requests; 0: nobody is checked.
    #[arg(long, default_value_t = 0)]
    pub fall: u32,
    /// Which program with which arguments this is, as its driver tells them apart.
    #[arg(long, default_value = "")]
    pub edition: String,
    /// Take the ports from the process behind the control socket, which then finishes.
    #[arg(long)]
    pub take_over: bool,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The member with the fewest requests in flight for its weight; those alike, in turn.
    LeastRequest,
}

fn parse_listen(text: &str) -> Result<(PoolName, SocketAddr), String> {
    let (pool, address) = of_pool(text, "POOL@ADDRESS:PORT")?;
    Ok((pool, address.parse().map_err(|_| format!("`{address}` is no address and port"))?))
}

fn parse_file(text: &str) -> Result<(PoolName, PathBuf), String> {
    let (pool, file) = of_pool(text, "POOL@FILE")?;
    Ok((pool, file.into()))
}

fn of_pool<'a>(text: &'a str, form: &str) -> Result<(PoolName, &'a str), String> {
    let (pool, rest) = text.split_once('@').ok_or_else(|| format!("write {form}"))?;
    Ok((pool.parse().map_err(|error: baton_core::name::InvalidName| error.to_string())?, rest))
}
