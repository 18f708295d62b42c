//! How the driver has requests divided: Baton's file of routes, whether Envoy reads it, and what came of it.

use super::admin::{self, Counters};
use super::routes::{self, FILE, Routes, Splits, Version};
use super::{AT_ONCE, Envoy, LOOK};
use crate::balancer::driver::{PoolSeen, SplitSeen};
use crate::balancer::{durable, problem};
use baton_core::fleet::split::{Side, TrafficSplit};
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

/// What is known of the routes.
#[derive(Debug, Default)]
pub(super) struct Dividing {
    /// The owner's; none where he gave none, or they cannot be used.
    routes: Option<Routes>,
    /// Why they cannot be.
    trouble: Option<Problem>,
    /// What Baton's file says, and what is in effect.
    on_disk: Version,
    running: Option<Version>,
    /// Clusters whose endpoints can be chosen by side.
    sided: BTreeSet<PoolName>,
    /// The Envoy that was asked for them while there was no pool.
    pub(super) surveyed: Option<String>,
    tallies: BTreeMap<PoolName, Tally>,
}

/// Requests since a split came into effect.
#[derive(Debug, Default)]
struct Tally {
    stable: u64,
    trial: u64,
    /// What each endpoint had been sent when it was looked at last.
    last: BTreeMap<SocketAddr, u64>,
    /// What rules had decided when the split came into effect.
    ruled: u64,
}

impl Dividing {
    /// Whether requests to a pool can be divided.
    pub(super) fn is_prepared(&self, pool: &PoolName) -> bool {
        self.running.is_some() && self.sided.contains(pool) && self.clusters().contains(pool)
    }

    /// The pools that the owner's routes lead to.
    pub(super) fn clusters(&self) -> BTreeSet<PoolName> {
        self.routes.as_ref().map(Routes::clusters).unwrap_or_default()
    }

    pub(super) fn trouble(&self) -> Option<Problem> {
        self.trouble.clone()
    }

    /// Takes down whether a cluster's endpoints can be chosen by side.
    pub(super) fn learn(&mut self, pool: &PoolName, sided: bool) {
        if sided {
            self.sided.insert(pool.clone());
        } else {
            self.sided.remove(pool);
        }
    }

    /// Another Envoy: nothing that was learnt of the one before is known of it.
    pub(super) fn forget(&mut self) {
        self.sided.clear();
        self.running = None;
        self.tallies.clear();
    }

    /// What the last look found of a pool, with these requests to its members since.
    pub(super) fn seen(&mut self, pool: &PoolName, members: Option<&PoolSeen>, counters: &Counters) -> Option<SplitSeen> {
        let on_disk = self.on_disk.splits.get(pool).cloned();
        let running = self.running.as_ref().and_then(|running| running.splits.get(pool)).cloned();
        if on_disk.is_none() && running.is_none() {
            self.tallies.remove(pool);
            return None;
        }
        let ruled = counters.ruled(&routes::ruled(pool));
        let tally = self.tallies.entry(pool.clone()).or_insert_with(|| Tally { ruled, ..Tally::default() });
        for (address, member) in members.into_iter().flatten() {
            let last = tally.last.insert(*address, member.requests).unwrap_or(member.requests);
            let came = member.requests.saturating_sub(last);
            match member.side.0 {
                Side::Stable => tally.stable += came,
                Side::Trial => tally.trial += came,
            }
        }
        let Tally { stable, trial, ruled: before, .. } = tally;
        Some(SplitSeen { running, on_disk, stable: *stable, trial: *trial, ruled: ruled.saturating_sub(*before) })
    }
}

impl Envoy {
    fn routes_path(&self) -> PathBuf {
        self.config.folder.join(FILE)
    }

    /// Reads the owner's routes and, where they or Baton's file are new, writes Baton's anew: with what it divided before.
    ///
    /// # Errors
    /// Those of writing. What is wrong with the owner's file is a note, and what is in effect stays.
    pub(super) async fn follow_routes(&mut self) -> Result<(), Problem> {
        let Some(path) = &self.config.routes else { return Ok(()) };
        match Routes::read(path) {
            Ok(routes) => (self.dividing.routes, self.dividing.trouble) = (Some(routes), None),
            Err(problem) => {
                self.dividing.trouble = Some(problem);
                return Ok(());
            }
        }
        let text = fs::read_to_string(self.routes_path()).unwrap_or_default();
        let on_disk = Version::of_file(&text);
        let digest = self.dividing.routes.as_ref().map(|routes| routes.digest.clone()).unwrap_or_default();
        match on_disk {
            Some(version) if version.of == digest => self.dividing.on_disk = version,
            other => self.write_routes(other.unwrap_or_default().splits).await?,
        }
        Ok(())
    }

    /// Writes the routes with these splits; not yet in effect.
    async fn write_routes(&mut self, splits: Splits) -> Result<(), Problem> {
        let path = self.routes_path();
        let dividing = &mut self.dividing;
        let Some(routes) = &dividing.routes else { return Ok(()) };
        let last = dividing.running.as_ref().map_or(0, |running| running.number).max(dividing.on_disk.number);
        let version = Version { number: last + 1, of: routes.digest.clone(), splits };
        let written = durable::replace_readable(&path, routes.render(&version)).await;
        written.map_err(|error| problem::state_file(&path, &error))?;
        tracing::info!(version = version.text(), "Envoy's routes");
        dividing.on_disk = version;
        Ok(())
    }

    /// Takes down which routes are in effect.
    pub(super) fn hear_routes(&mut self, counters: &Counters) {
        let name = self.dividing.routes.as_ref().map(|routes| routes.name.as_str());
        self.dividing.running = name.and_then(|name| counters.routes(name)).map(|text| {
            // Somebody else's routes divide nothing that is known here.
            Version::parse(text).unwrap_or_default()
        });
    }

    /// Divides a pool's requests so, and waits a moment until it is in effect.
    pub(super) async fn divide_routes(&mut self, pool: &PoolName, split: Option<&TrafficSplit>) -> Result<(), Problem> {
        let mut splits = self.dividing.on_disk.splits.clone();
        match split {
            Some(split) => splits.insert(pool.clone(), split.clone()),
            None => splits.remove(pool),
        };
        let before = admin::counters(&self.config.admin).await?;
        self.hear_routes(&before);
        self.write_routes(splits).await?;
        let Some(name) = self.dividing.routes.as_ref().map(|routes| routes.name.clone()) else { return Ok(()) };
        let asked = self.dividing.on_disk.text();
        let since = Instant::now();
        loop {
            let now = admin::counters(&self.config.admin).await?;
            if now.routes(&name) == Some(asked.as_str()) {
                self.hear_routes(&now);
                self.dividing.tallies.remove(pool);
                return Ok(());
            }
            let refused = now.refused_routes(&name) > before.refused_routes(&name);
            if refused || since.elapsed() >= AT_ONCE {
                let how = if refused { "refused" } else { "did not take over" };
                return Err(problem::changing_hands(format!("Envoy {how} the routes {asked}; its log says why")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
