//! nginx, through a file it includes.
//!
//! nginx has no other way to be told. So everything hangs on the file: it is written before anything changes, which makes it
//! the state after a restart, and it carries its own number, which nginx says back over HTTP. Each change is a reload, so all
//! that is to change changes in one. The exit code of a reload says nothing: a master that cannot do it goes on with the old
//! configuration. And for a tenth of a second after one, workers of both versions take connections: nothing is believed
//! before the old ones have stopped that. nginx counts nothing per member either. Drained is when the workers from before
//! are gone, or hold no connection that is, or could become, a request there. And requests are counted here, from what nginx
//! says of each in its log.
//!
//! What it needs in nginx.conf stands in `docs/nginx.md`.

mod leaving;
mod line;
mod logs;
mod observe;
mod page;
mod processes;
mod program;
mod reload;
mod sides;
mod workers;

use super::ask::Place as Endpoint;
use super::conduct::Conductor;
use super::drift::Settled;
use super::driver::{Change, Driver, Seen};
use super::journal::{self, Journal};
use super::requests::Requests;
use super::{Balancer, NginxConfig, problem};
use crate::connections;
use baton_core::fleet::ability::{BalancerAbility, Feature, SplitAbility};
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::TrafficSplit;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use leaving::Leaving;
use page::{Line, Page, Pools};
use processes::{Master, Worker};
use program::Accepted;
use reload::{Pending, Refused};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;
use workers::Workers;

#[derive(Debug)]
struct Nginx {
    config: NginxConfig,
    status: Endpoint,
    journal: Journal,
    /// Workers that said they serve what `now` says; those as young as the oldest of them do, too.
    current: BTreeSet<Worker>,
    /// The workers at the last reload.
    before: BTreeSet<Worker>,
    /// Workers without a master, as found when the master was new to us.
    orphans: BTreeSet<Worker>,
    identity: Option<String>,
    /// What runs now, of the pools the spec named last, and what the file says of all others.
    now: Page,
    outs: BTreeMap<(PoolName, SocketAddr), Instant>,
    pending: Option<Pending>,
    refused: Option<Refused>,
    /// The newest generation this nginx said it serves.
    said: u64,
    /// Since when workers of two versions take connections.
    mixed: Option<Instant>,
    /// Connections that were cut, or counted as cut.
    cut: BTreeSet<u64>,
    leaving: Leaving,
    notes: Vec<Problem>,
    /// The variables its configuration sends requests by.
    divided_by: BTreeSet<String>,
    /// The nginx whose configuration was looked at while there was no pool.
    surveyed: Option<String>,
    /// Whether its configuration lets Baton's own access log stand beside others.
    may_log: Option<bool>,
    /// What is counted of its requests, or why nothing is.
    requests: Result<Requests<Workers>, Problem>,
    /// Requests to both sides of a pool when its split came into effect.
    divided_at: BTreeMap<PoolName, [u64; 2]>,
}

/// Opens the driver.
///
/// # Errors
/// [`Problem`] when the agent's state folder cannot be written.
pub(super) fn open(config: NginxConfig, state: &Path) -> Result<Box<dyn Balancer>, Problem> {
    std::fs::create_dir_all(state).map_err(|error| problem::state_folder(state, &error))?;
    let settled = Settled::open(config.drift, state.join("drift.json"));
    let nginx = Nginx {
        requests: listen(&config),
        status: Endpoint::Tcp(config.status),
        config,
        journal: Journal::open(state.join("nginx.json")),
        current: BTreeSet::new(),
        before: BTreeSet::new(),
        orphans: BTreeSet::new(),
        identity: None,
        now: Page::default(),
        outs: BTreeMap::new(),
        pending: None,
        refused: None,
        said: 0,
        mixed: None,
        cut: BTreeSet::new(),
        leaving: Leaving::default(),
        notes: Vec::new(),
        divided_by: BTreeSet::new(),
        surveyed: None,
        may_log: None,
        divided_at: BTreeMap::new(),
    };
    Ok(Box::new(Conductor::new(nginx, settled)))
}

impl Driver for Nginx {
    async fn observe(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) -> Result<Seen, Problem> {
        let master = match Master::find(&self.config.pid_file) {
            Ok(master) => master,
            Err(problem) => {
                self.hold_out_on_disk(pools).await;
                return Err(problem);
            }
        };
        if self.requests.is_err() {
            self.requests = listen(&self.config);
        }
        self.look(master, pools).await
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), Problem> {
        let mut pools = self.now.pools.clone();
        for change in changes {
            let members = pools.entry(change.pool.clone()).or_default();
            if change.wanted {
                members.insert(change.address, Line { state: change.state, weight: change.weight, side: change.side });
            } else {
                members.remove(&change.address);
            }
        }
        self.begin_outs(changes).await?;
        self.put((pools.clone(), self.now.splits.clone())).await?;
        // What is written before the next look goes on from here.
        self.now.pools = pools;
        Ok(())
    }

    async fn cut(&mut self, pool: &PoolName, address: SocketAddr) -> Result<(), Problem> {
        let fresh: Vec<_> =
            self.leaving.connections_to(address).filter(|it| !self.cut.contains(&it.inode)).cloned().collect();
        for connection in &fresh {
            self.cut.insert(connection.inode);
            // Where the kernel does not offer it, they end with the instance, and nginx hangs up on the client.
            if let Err(error) = connections::end(connection) {
                tracing::info!(%pool, %address, %error, "a connection cannot be ended from here");
            }
        }
        let cut = fresh.len() as u64;
        let counted = |pools: &mut journal::Pools| {
            pools.entry(pool.clone()).or_default().entry(address).or_default().cut += cut;
        };
        self.journal.update(counted).await
    }

    async fn divide(&mut self, pool: &PoolName, split: Option<&TrafficSplit>) -> Result<(), Problem> {
        let mut splits = self.now.splits.clone();
        match split {
            Some(split) => drop(splits.insert(pool.clone(), split.clone())),
            None => drop(splits.remove(pool)),
        }
        let mut pools = self.now.pools.clone();
        pools.entry(pool.clone()).or_default();
        let done = self.put((pools.clone(), splits.clone())).await?;
        (self.now.pools, self.now.splits) = (pools, splits);
        if !done {
            return Err(problem::changing_hands("nginx has not taken over yet how requests are divided"));
        }
        self.divided_at.insert(pool.clone(), self.requests_of_sides(pool));
        Ok(())
    }

    async fn survey(&mut self) {
        let master = Master::find(&self.config.pid_file).map(|master| master.identity()).ok();
        if master.is_some() && self.surveyed != master {
            self.surveyed = master;
            if let Ok(accepted) = program::test(&self.config).await {
                self.learn(&accepted);
            }
        }
    }

    /// Every split, when each pool of the file is one that requests are sent to by its variable.
    fn ability(&self) -> BalancerAbility {
        let known: Vec<PoolName> = self.now.pools.keys().cloned().collect();
        let pools = if known.is_empty() { self.file_pools() } else { known };
        let prepared = !pools.is_empty() && pools.iter().all(|pool| self.is_prepared(pool));
        let split = if prepared { SplitAbility::Everything } else { SplitAbility::None };
        BalancerAbility { driver: "nginx".to_owned(), split, ..BalancerAbility::default() }
    }

    fn lacks(&self, pool: &PoolName, split: &TrafficSplit) -> BTreeSet<Feature> {
        match self.is_prepared(pool) {
            true => sides::unseen(split),
            false => split.needs(),
        }
    }

    /// Each is a reload.
    fn steps(&self) -> u32 {
        3
    }

    fn notes(&self) -> Vec<Problem> {
        let deaf = self.requests.as_ref().err().cloned();
        self.notes.iter().cloned().chain(deaf).collect()
    }
}

fn listen(config: &NginxConfig) -> Result<Requests<Workers>, Problem> {
    let address = workers::address(config.status);
    Requests::listen(address).map_err(|error| problem::nginx_unheard(address, &error))
}

impl Nginx {
    /// Whether nginx.conf sends requests to this pool by its variable.
    fn is_prepared(&self, pool: &PoolName) -> bool {
        sides::variable(pool).is_some_and(|variable| self.divided_by.contains(&variable))
    }

    /// Takes down what a configuration says.
    fn learn(&mut self, accepted: &Accepted) {
        self.divided_by = accepted.divided_by();
        self.may_log = Some(accepted.logs.may_listen());
    }

    /// Has requests to these members counted from the first one on.
    fn expect_requests(&self, pools: &Pools) {
        let Ok(requests) = &self.requests else { return };
        let members = pools.iter().flat_map(|(pool, members)| {
            // Where nginx does not say the upstream, requests count in every pool that has the member.
            let upstreams = [String::new(), pool.to_string(), sides::trial(pool)];
            members.keys().flat_map(move |address| upstreams.clone().into_iter().map(move |upstream| (upstream, *address)))
        });
        requests.expect(members);
    }

    /// Requests to the stable and to the trial side of a pool.
    fn requests_of_sides(&self, pool: &PoolName) -> [u64; 2] {
        let Ok(requests) = &self.requests else { return [0; 2] };
        [requests.to(pool.as_str()), requests.to(&sides::trial(pool))]
    }

    /// What was cut counts from when a member goes out.
    async fn begin_outs(&mut self, changes: &[Change]) -> Result<(), Problem> {
        let going: Vec<_> = changes
            .iter()
            .filter(|change| {
                change.state == MemberState::Out && !self.outs.contains_key(&(change.pool.clone(), change.address))
            })
            .collect();
        self.journal
            .update(|pools| {
                for change in going {
                    pools.entry(change.pool.clone()).or_default().entry(change.address).or_default().cut = 0;
                }
            })
            .await
    }
}
