//! Workers from before a reload: what they hold, and what they could still send.
//!
//! After a reload the new worker counts nothing of what the old one serves, so its zero proves nothing. And an old worker
//! does more than finish: with `option idle-close-on-response` it takes one more request from every client connection it
//! left open, and routes it by the state *it* had; nobody can tell it otherwise (`Proxy is disabled.`). Unless the server
//! was in maintenance there too, an idle connection there is therefore a request that may still come.

use super::socket;
use super::text::{Process, Stat, Stream, Workers};
use crate::balancer::problem;
use baton_core::problem::Problem;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

/// What one worker from before a reload still has to do with servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Generation {
    pid: u32,
    /// Client connections without a request.
    idle: u64,
    servers: BTreeMap<SocketAddr, Held>,
    streams: Vec<Stream>,
    /// Connections of which nothing is known but that they are there; each counts at every server.
    unknown: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Held {
    in_flight: u64,
    /// False: it was in maintenance when this worker was told the last time.
    routable: bool,
    names: Vec<(String, String)>,
}

impl Generation {
    /// A process that cannot be asked, only counted from outside.
    pub(super) const fn opaque(pid: u32, connections: u64) -> Self {
        Self { pid, idle: 0, servers: BTreeMap::new(), streams: Vec::new(), unknown: connections }
    }

    /// Requests at a server through this worker, those that may still come counted in.
    pub(super) fn at(&self, address: SocketAddr) -> u64 {
        let held = self.servers.get(&address);
        self.unknown + held.map_or(0, |held| held.in_flight + if held.routable { self.idle } else { 0 })
    }
}

/// The workers a master has.
///
/// # Errors
/// A master that does not answer: then nothing is known of old workers.
pub(super) async fn workers(master: &Path) -> Result<Workers, Problem> {
    let text = socket::ask(master, &["show proc"]).await?.concat();
    Workers::parse(&text).ok_or_else(|| problem::socket_garbage(master, &text))
}

/// Every worker but the current one, of those a master was just seen to have.
///
/// # Errors
/// A reload under way: the worker that answers on the socket is not the master's current one.
pub(super) async fn old(master: &Path, workers: Workers, current: u32) -> Result<Vec<Generation>, Problem> {
    if !workers.current.is_empty() && !workers.current.contains(&current) {
        let seen = format!("{current} answers, {:?} are the master's current workers", workers.current);
        return Err(problem::changing_hands(seen));
    }
    let mut generations = Vec::new();
    for pid in workers.old.into_iter().filter(|pid| *pid != current) {
        generations.extend(look(master, pid).await?);
    }
    Ok(generations)
}

/// One old worker; `None` when it ended since it was listed.
///
/// The order matters: a connection that is idle at the first question and has a request at the last is seen by one of them.
async fn look(master: &Path, pid: u32) -> Result<Option<Generation>, Problem> {
    let commands = [format!("@!{pid} show info"), format!("@!{pid} show sess"), format!("@!{pid} show stat -1 4 -1")];
    let answer = socket::ask(master, &commands).await;
    let blocks = match answer {
        Ok(blocks) => blocks,
        Err(problem) => return if is_gone(master, pid).await? { Ok(None) } else { Err(problem) },
    };
    let process = blocks.iter().find_map(|block| Process::parse(block));
    let stats = blocks.iter().find_map(|block| Stat::parse_all(block));
    let (Some(process), Some(stats)) = (process, stats) else {
        return if is_gone(master, pid).await? { Ok(None) } else { Err(problem::socket_garbage(master, &blocks.concat())) };
    };
    let streams: Vec<Stream> = blocks.iter().flat_map(|block| Stream::parse_all(block)).collect();
    let mut servers: BTreeMap<SocketAddr, Held> = BTreeMap::new();
    for stat in &stats {
        let Some(address) = stat.address() else { continue };
        let held = servers.entry(address).or_default();
        held.in_flight += stat.in_flight();
        held.routable |= !stat.text("status").starts_with("MAINT");
        held.names.push((stat.text("pxname").to_owned(), stat.text("svname").to_owned()));
    }
    let idle = process.connections.saturating_sub(streams.len() as u64);
    Ok(Some(Generation { pid, idle, servers, streams, unknown: 0 }))
}

async fn is_gone(master: &Path, pid: u32) -> Result<bool, Problem> {
    let text = socket::ask(master, &["show proc"]).await?.concat();
    let workers = Workers::parse(&text).ok_or_else(|| problem::socket_garbage(master, &text))?;
    Ok(!workers.old.contains(&pid))
}

/// Ends what old workers have in flight at a server. `shutdown sessions server` is refused there, so it goes one by one.
pub(super) async fn cut(master: &Path, generations: &[Generation], address: SocketAddr) -> Result<u64, Problem> {
    let mut cut = 0;
    for generation in generations {
        let Some(held) = generation.servers.get(&address) else { continue };
        let commands: Vec<String> = generation
            .streams
            .iter()
            .filter(|stream| held.names.contains(&(stream.backend.clone(), stream.server.clone())))
            .map(|stream| format!("@!{} shutdown session {}", generation.pid, stream.id))
            .collect();
        if !commands.is_empty() {
            cut += commands.len() as u64;
            socket::ask(master, &commands).await?;
        }
    }
    Ok(cut)
}
