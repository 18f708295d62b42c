//! Hosts that were here once: the audit log remembers who removed them, and when.

use super::Api;
use crate::audit::chain::Entry;
use crate::driver::Ask;
use crate::store::WallTime;
use baton_core::fleet::Service;
use baton_core::name::HostName;
use baton_core::problem::{Finding, Problem};
use baton_core::rollout::command::NEVER_JOINED;
use std::time::{Duration, SystemTime};

/// How far back the log is read: whoever was removed before that is a stranger again.
const LOOKED_AT: u64 = 10_000;

/// An end of a host: who removed it, and when.
struct Removal {
    host: HostName,
    by: String,
    at: WallTime,
}

impl Api {
    /// A refusal that is about hosts nobody knows; of those that were removed it says so.
    pub(super) async fn recalling(&self, problem: Problem, named: &[HostName]) -> Problem {
        if problem.code != NEVER_JOINED {
            return problem;
        }
        let picture = self.access.picture();
        let unknown: Vec<&HostName> = named.iter().filter(|host| !picture.fleet.hosts.contains_key(*host)).collect();
        match self.removals(&unknown).await {
            Ok(removals) if !removals.is_empty() => told(problem, &unknown, &removals),
            // The log cannot be read, or says nothing of them: the refusal stands as it is.
            _ => problem,
        }
    }

    async fn removals(&self, hosts: &[&HostName]) -> Result<Vec<Removal>, crate::store::StoreError> {
        let mut after = self.audit.heads().borrow().number.saturating_sub(LOOKED_AT);
        let mut removals: Vec<Removal> = Vec::new();
        loop {
            let page = self.audit.after(after).await?;
            let Some(last) = page.last().map(|record| record.number) else { return Ok(removals) };
            for record in &page {
                let Ok(entry) = serde_json::from_str::<Entry>(&record.text) else { continue };
                let host = hosts.iter().find(|host| host.as_str() == entry.about);
                if let Some(host) = host.filter(|_| entry.call == "Control/RemoveHost" && entry.refused.is_none()) {
                    removals.retain(|removal| removal.host != **host);
                    removals.push(Removal { host: (*host).clone(), by: entry.who, at: record.at });
                }
            }
            after = last;
        }
    }
}

fn told(problem: Problem, unknown: &[&HostName], removals: &[Removal]) -> Problem {
    let removed: Vec<&str> = removals.iter().map(|removal| removal.host.as_str()).collect();
    let others: Vec<&str> = unknown.iter().map(|host| host.as_str()).filter(|host| !removed.contains(host)).collect();
    let verb = if removed.len() == 1 { "was" } else { "were" };
    let mut what = format!("{} {verb} removed", removed.join(", "));
    if !others.is_empty() {
        what.push_str(&format!("; {} never joined", others.join(", ")));
    }
    let mut told = Problem::new(problem.code, what);
    for Removal { host, by, at } in removals {
        told = told.saw("removed", format!("{host}: {} by {by}", date(*at)));
    }
    told.seen.extend(Finding::from(problem).seen);
    let first = removed.first().copied().unwrap_or_default();
    told.help(format!(
        "take it out of the manifest, or let it join again: baton token create --name {first}, and on it \
         baton-agent join HOST:PORT --token-file FILE --replace"
    ))
}

fn date(at: WallTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(at.0.try_into().unwrap_or_default()))
}

/// Every host a service is asked to be on.
pub(super) fn hosts_of(shape: &Service) -> Vec<HostName> {
    shape.hosts.iter().chain(shape.balancer.iter().flat_map(|balancer| &balancer.on)).cloned().collect()
}

/// Every host a request names.
pub(super) fn named(ask: &Ask) -> Vec<HostName> {
    match ask {
        Ask::Deploy { shape, .. } => hosts_of(shape),
        Ask::Order(command) => command.host().cloned().into_iter().collect(),
        _ => Vec::new(),
    }
}
