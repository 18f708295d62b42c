//! Envoy through the files it watches: one list of endpoints for each pool.
//!
//! A file is the state after a restart, and it carries a version that Envoy says back once the file is in effect; what it
//! rejects it only counts. Out is `DRAINING`: such an endpoint gets nothing new, and keeps its gauges, which are exact. What
//! this agent needs of a cluster is checked before anything is written, because some of Envoy's defaults send requests to
//! who is out. Each member is a zone of its own, because it is of zones that Envoy says how long answers took.
//!
//! Requests are divided by routes: where the owner gave his as a file, Baton writes them for Envoy, with each route to a pool
//! divided. What all this needs in Envoy's configuration stands in `docs/envoy.md`.

mod admin;
mod dividing;
mod listing;
mod observe;
mod routes;

use super::ask::Place;
use super::conduct::Conductor;
use super::drift::Settled;
use super::driver::{Change, Driver, Seen};
use super::journal::{self, Journal};
use super::{Balancer, EnvoyConfig, durable, problem};
use crate::connections::{self, Connection};
use admin::Counters;
use baton_core::fleet::ability::{BalancerAbility, Feature, SplitAbility};
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::TrafficSplit;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use dividing::Dividing;
use listing::{Line, Listing};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For a file to be in effect within the pass that wrote it: Envoy takes one to three milliseconds.
const AT_ONCE: Duration = Duration::from_millis(400);

/// What an Envoy that serves says of itself.
const LIVE: &str = "LIVE";

/// Between two looks at a version.
const LOOK: Duration = Duration::from_millis(1);

/// An endpoint of a pool.
type Endpoint = (PoolName, SocketAddr);

#[derive(Debug)]
struct Envoy {
    config: EnvoyConfig,
    journal: Journal,
    identity: Option<String>,
    pid: Option<u32>,
    /// The admin listener and who holds it: looked for anew when the socket changed.
    holder: Option<(u64, Option<u32>)>,
    /// Clusters that were found fit to be driven.
    suited: BTreeSet<PoolName>,
    /// What runs, of the pools the spec named last.
    now: BTreeMap<PoolName, Listing>,
    /// Endpoints the spec no longer names, with nothing in flight: the next file goes without them.
    done: BTreeSet<Endpoint>,
    /// Seen in Envoy before: when one is gone, its gauges are, too.
    listed: BTreeSet<Endpoint>,
    /// Out, with nothing in flight.
    idle: BTreeSet<Endpoint>,
    /// Envoy's own zone; without one it times no answers.
    zone: String,
    outs: BTreeMap<Endpoint, Instant>,
    /// Already cut since they went out.
    cut: BTreeSet<Endpoint>,
    complaints: BTreeMap<PoolName, String>,
    /// What it counted at the last look.
    counters: Counters,
    /// Files that a power cut could take back.
    unsettled: BTreeSet<PathBuf>,
    dividing: Dividing,
}

/// Opens the driver.
///
/// # Errors
/// [`Problem`] when the agent's state folder cannot be written.
pub(super) fn open(config: EnvoyConfig, state: &Path) -> Result<Box<dyn Balancer>, Problem> {
    std::fs::create_dir_all(state).map_err(|error| problem::state_folder(state, &error))?;
    let settled = Settled::open(config.drift, state.join("drift.json"));
    let envoy = Envoy {
        config,
        journal: Journal::open(state.join("envoy.json")),
        identity: None,
        pid: None,
        holder: None,
        suited: BTreeSet::new(),
        now: BTreeMap::new(),
        done: BTreeSet::new(),
        listed: BTreeSet::new(),
        idle: BTreeSet::new(),
        zone: String::new(),
        outs: BTreeMap::new(),
        cut: BTreeSet::new(),
        complaints: BTreeMap::new(),
        counters: Counters::default(),
        unsettled: BTreeSet::new(),
        dividing: Dividing::default(),
    };
    Ok(Box::new(Conductor::new(envoy, settled)))
}

impl Driver for Envoy {
    async fn observe(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) -> Result<Seen, Problem> {
        self.settle().await?;
        self.write_missing(pools).await?;
        self.follow_routes().await?;
        match admin::ready(&self.config.admin).await {
            Ok(ready) if ready.state == LIVE => self.look(&ready, pools).await,
            Ok(ready) => Err(problem::changing_hands(format!("Envoy says {}", ready.state))),
            Err(silence) => {
                self.hold_out_on_disk(pools).await;
                Err(silence.problem(&self.config.admin))
            }
        }
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), Problem> {
        let going = changes.iter().filter(|change| {
            change.state == MemberState::Out && !self.outs.contains_key(&(change.pool.clone(), change.address))
        });
        let going: Vec<&Change> = going.collect();
        self.journal
            .update(|pools| {
                for change in going {
                    pools.entry(change.pool.clone()).or_default().entry(change.address).or_default().cut = 0;
                }
            })
            .await?;
        let names: BTreeSet<&PoolName> = changes.iter().map(|change| &change.pool).collect();
        let mut asked = BTreeMap::new();
        for name in names {
            let mut listing = self.now.get(name).cloned().unwrap_or_default();
            for change in changes.iter().filter(|change| change.pool == *name) {
                // Another zone is another endpoint for Envoy, with gauges of its own: not while it has requests.
                let before = listing.members.get(&change.address).map(|line| line.zoned);
                let idle = self.idle.contains(&(name.clone(), change.address));
                let zoned = before.is_none_or(|zoned| zoned || idle && change.state == MemberState::Ready);
                let Change { state, weight, side, .. } = *change;
                listing.members.insert(change.address, Line { state, weight, zoned, side });
            }
            listing.members.retain(|address, _| !self.done.contains(&(name.clone(), *address)));
            listing.version += 1;
            self.put(name, &listing).await?;
            tracing::info!(pool = %name, version = listing.version, "Envoy's endpoints");
            asked.insert(name.clone(), listing.version_text());
            self.now.insert(name.clone(), listing);
        }
        // Only a power cut can bring a file before back, and that takes the running Envoy as well.
        let (waited, settled) = tokio::join!(wait_for(&self.config.admin, &asked, &self.counters), settle(&self.unsettled));
        if settled.is_ok() {
            self.unsettled.clear();
        }
        let complaints = waited?;
        self.complaints.retain(|pool, _| !asked.contains_key(pool));
        self.complaints.extend(complaints);
        settled
    }

    async fn divide(&mut self, pool: &PoolName, split: Option<&TrafficSplit>) -> Result<(), Problem> {
        self.divide_routes(pool, split).await
    }

    /// Every split, when the owner's routes lead to each pool there is and Envoy has them from Baton.
    fn ability(&self) -> BalancerAbility {
        let known: BTreeSet<PoolName> = self.now.keys().cloned().collect();
        let pools = if known.is_empty() { self.dividing.clusters() } else { known };
        let prepared = !pools.is_empty() && pools.iter().all(|pool| self.dividing.is_prepared(pool));
        let split = if prepared { SplitAbility::Everything } else { SplitAbility::None };
        BalancerAbility { driver: "envoy".to_owned(), split, ..BalancerAbility::default() }
    }

    fn lacks(&self, pool: &PoolName, split: &TrafficSplit) -> BTreeSet<Feature> {
        if self.dividing.is_prepared(pool) { BTreeSet::new() } else { split.needs() }
    }

    async fn survey(&mut self) {
        self.look_around().await;
    }

    fn notes(&self) -> Vec<Problem> {
        self.dividing.trouble().into_iter().collect()
    }

    async fn cut(&mut self, pool: &PoolName, address: SocketAddr) -> Result<(), Problem> {
        if !self.cut.insert((pool.clone(), address)) {
            return Ok(());
        }
        let clusters = admin::clusters(&self.config.admin).await?;
        let active = clusters.get(pool.as_str()).and_then(|hosts| hosts.get(&address)).map_or(0, |host| host.active);
        for connection in self.connections_to(address) {
            // Where the kernel does not offer it, they end with the instance.
            if let Err(error) = connections::end(&connection) {
                tracing::info!(%pool, %address, %error, "a connection cannot be ended from here");
            }
        }
        let counted = |pools: &mut journal::Pools| {
            pools.entry(pool.clone()).or_default().entry(address).or_default().cut += active;
        };
        self.journal.update(counted).await
    }
}

impl Envoy {
    fn path(&self, pool: &PoolName) -> PathBuf {
        self.config.folder.join(format!("{pool}.json"))
    }

    /// By a rename into the folder: what is written into the file itself, Envoy never sees.
    async fn write(&mut self, pool: &PoolName, listing: &Listing) -> Result<(), Problem> {
        self.put(pool, listing).await?;
        self.settle().await
    }

    /// The same, but for the wait until it is there after a power cut, too.
    async fn put(&mut self, pool: &PoolName, listing: &Listing) -> Result<(), Problem> {
        let path = self.path(pool);
        let put = durable::put_readable(&path, listing.render(pool.as_str())).await;
        put.map_err(|error| problem::state_file(&path, &error))?;
        self.unsettled.insert(path);
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Problem> {
        settle(&self.unsettled).await?;
        self.unsettled.clear();
        Ok(())
    }

    /// Envoy's own connections to an address.
    fn connections_to(&self, address: SocketAddr) -> Vec<Connection> {
        let ours = self.pid.map(connections::sockets_of);
        let open = connections::open().unwrap_or_default();
        let mut found = open.into_iter().filter(|connection| connection.remote == address).collect::<Vec<_>>();
        found.retain(|connection| ours.as_ref().is_some_and(|ours| ours.contains(&connection.inode)));
        found
    }
}

/// Waits until files are there after a power cut, too. All are in one folder.
async fn settle(unsettled: &BTreeSet<PathBuf>) -> Result<(), Problem> {
    let Some(path) = unsettled.first() else { return Ok(()) };
    durable::settle(path).await.map_err(|error| problem::state_file(path, &error))
}

/// Waits a moment until every file is in effect. Comes back with what came instead.
async fn wait_for(
    place: &Place,
    asked: &BTreeMap<PoolName, String>,
    before: &Counters,
) -> Result<BTreeMap<PoolName, String>, Problem> {
    let since = Instant::now();
    loop {
        let now = admin::counters(place).await?;
        let missing: Vec<_> = asked.iter().filter(|(pool, version)| now.version(pool.as_str()) != **version).collect();
        let refused = missing.iter().any(|(pool, _)| now.refused(pool.as_str()) > before.refused(pool.as_str()));
        if !missing.is_empty() && !refused && since.elapsed() < AT_ONCE {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let how = if refused { "Envoy refused" } else { "Envoy did not take over" };
        let complaint = |(pool, version): (&PoolName, &String)| {
            let text = format!("{how} {version} and has {}; its log says why", now.version(pool.as_str()));
            (pool.clone(), text)
        };
        return Ok(missing.into_iter().map(complaint).collect());
    }
}
