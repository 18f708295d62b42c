//! Whether HAProxy says its requests: what it counts beside what was heard. A frontend may log elsewhere, in another format, or
//! only what failed; then how long answers take is not known, and that is said.

use super::family::Family;
use super::look::Look;
use super::text::Stat;
use super::{Haproxy, trial};
use crate::balancer::problem;
use crate::balancer::requests::Requests;
use baton_core::fleet::latency::Latency;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Requests that must have been answered before it counts that they were not heard.
const ENOUGH: u64 = 20;

/// What was counted of each pool.
#[derive(Debug, Default)]
pub(super) struct Hearing(BTreeMap<PoolName, Window>);

/// From one judgement to the next.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Window {
    /// Since when both are counted.
    identity: String,
    done: u64,
    heard: u64,
    /// Whether fewer than half were heard in the last window that was whole.
    misses: bool,
}

impl Hearing {
    /// Takes in what HAProxy counted as done, and what was heard, which is read later and so never behind for that.
    fn take(&mut self, pool: &PoolName, identity: &str, done: u64, heard: u64) {
        let window = self.0.entry(pool.clone()).or_default();
        if window.identity != identity {
            *window = Window { identity: identity.to_owned(), done, heard, misses: window.misses };
        }
        let (new, told) = (done.saturating_sub(window.done), heard.saturating_sub(window.heard));
        if new >= ENOUGH {
            window.misses = told < new.div_ceil(2);
            (window.done, window.heard) = (done, heard);
        }
    }

    fn misses(&self, pool: &PoolName) -> bool {
        self.0.get(pool).is_some_and(|window| window.misses)
    }

    fn missing(&self) -> impl Iterator<Item = &PoolName> {
        self.0.iter().filter(|(_, window)| window.misses).map(|(pool, _)| pool)
    }

    /// Forgets pools that are not the spec's any more.
    pub(super) fn keep<T>(&mut self, pools: &BTreeMap<PoolName, T>) {
        self.0.retain(|pool, _| pools.contains_key(pool));
    }
}

impl Haproxy {
    /// Listens where agent.toml says so, or once more where that failed.
    pub(super) fn listen(&mut self) {
        if let Some(address) = self.config.requests
            && self.requests.as_ref().is_none_or(Result::is_err)
        {
            self.requests = Some(Requests::listen(address).map_err(|error| problem::haproxy_deaf(address, &error)));
        }
    }

    /// Believes the processes of this HAProxy. Gives what belongs to its identity: since when is counted.
    pub(super) async fn hear(&mut self, look: &Look, begun: Option<String>) -> String {
        self.listen();
        let Some(Ok(requests)) = &self.requests else { return String::new() };
        let identity = look.process.identity();
        if self.believed.as_ref() != Some(&identity)
            && let Some(family) = Family::find(look.process.pid).await
        {
            requests.believe(family);
            self.believed = Some(identity);
        }
        requests.expect(look.servers().map(|stat| (stat.text("pxname").to_owned(), stat.text("svname").to_owned())));
        format!("+{}", begun.unwrap_or_else(|| requests.begun()))
    }

    /// Compares what was heard of a pool with what HAProxy counts of it.
    pub(super) fn compare(&mut self, pool: &PoolName, identity: &str, look: &Look) {
        let Some(Ok(requests)) = &self.requests else { return };
        let backends = [pool.to_string(), trial(pool)];
        let (mut done, mut heard) = (0, 0);
        for stat in look.servers().filter(|stat| backends.iter().any(|name| name == stat.text("pxname")) && is_http(stat)) {
            done += stat.requests().saturating_sub(stat.number("scur"));
            heard += requests.of(&[stat.text("pxname")], &stat.text("svname").to_owned()).requests;
        }
        self.hearing.take(pool, identity, done, heard);
    }

    /// How long a server's answers took. Of a connection, HAProxy says how long it lasted, which is no answer's time.
    pub(super) fn latency(&self, pool: &PoolName, stat: &Stat) -> Option<Latency> {
        let requests = self.requests.as_ref()?.as_ref().ok()?;
        let known = is_http(stat) && !self.hearing.misses(pool);
        known.then(|| requests.of(&[stat.text("pxname")], &stat.text("svname").to_owned()).latency())
    }

    /// What keeps requests from being heard.
    pub(super) fn unheard(&self) -> Vec<Problem> {
        let requests = match &self.requests {
            Some(Ok(requests)) => requests,
            Some(Err(problem)) => return vec![problem.clone()],
            None => return Vec::new(),
        };
        let Some(address) = self.config.requests else { return Vec::new() };
        // Without numbers: a note that is another one each time is told each time.
        let missing: Vec<String> = self.hearing.missing().map(|pool| format!("`{pool}`")).collect();
        let speaks = requests.others() > 0;
        let missing = (!missing.is_empty()).then(|| problem::haproxy_unheard(address, &missing.join(", "), speaks));
        missing.into_iter().collect()
    }
}

fn is_http(stat: &Stat) -> bool {
    stat.text("mode") != "tcp"
}

/// # Errors
/// Datagrams from elsewhere are nobody's that can be looked up here.
pub(super) fn check(requests: Option<SocketAddr>) -> Result<(), Problem> {
    match requests.filter(|address| !address.ip().is_loopback()) {
        Some(address) => Err(problem::haproxy_requests_elsewhere(address)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_once_enough_was_answered() {
        let pool: PoolName = "shop".parse().unwrap();
        let mut hearing = Hearing::default();
        let mut at = |identity: &str, done, heard| {
            hearing.take(&pool, identity, done, heard);
            hearing.misses(&pool)
        };
        assert!(!at("1", 100, 0), "before anybody listened");
        assert!(!at("1", 119, 0));
        assert!(at("1", 120, 0));
        assert!(at("1", 139, 19), "until there is enough to say otherwise");
        assert!(!at("1", 141, 21));
        assert!(!at("1", 161, 31), "half of them");
        assert!(at("1", 181, 40), "fewer");
        assert!(at("2", 5, 41), "a reload makes nothing known");
        assert!(!at("2", 25, 61));
        hearing.take(&pool, "2", 45, 61);
        assert_eq!(hearing.missing().collect::<Vec<_>>(), [&pool]);
        hearing.keep(&BTreeMap::<PoolName, ()>::new());
        assert_eq!(hearing.missing().next(), None);
    }
}
