//! nginx, through a file it includes.
//!
//! nginx has no other way to be told. So everything hangs on the file: it is written before anything changes, which makes it
//! the state after a restart, and it carries its own number, which nginx says back over HTTP. Each change is a reload, so all
//! that is to change changes in one. The exit code of a reload says nothing: a master that cannot do it goes on with the old
//! configuration. And for a tenth of a second after one, workers of both versions take connections: nothing is believed
//! before the old ones have stopped that. nginx counts nothing per member either: drained is when the workers from before
//! are gone, or hold no connection that is, or could become, a request there.
//!
//! What it needs in nginx.conf stands in `docs/nginx.md`.

mod leaving;
mod observe;
mod page;
mod processes;
mod program;
mod reload;

use super::ask::Place as Endpoint;
use super::conduct::Conductor;
use super::driver::{Change, Driver, Seen};
use super::journal::{self, Journal};
use super::{Balancer, NginxConfig, problem};
use crate::connections;
use baton_core::fleet::ability::{BalancerAbility, SplitAbility};
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::TrafficSplit;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use leaving::Leaving;
use page::{Line, Page};
use processes::{Master, Worker};
use reload::{Pending, Refused};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

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
}

/// Opens the driver.
///
/// # Errors
/// [`Problem`] when the agent's state folder cannot be written.
pub(super) fn open(config: NginxConfig, state: &Path) -> Result<Box<dyn Balancer>, Problem> {
    std::fs::create_dir_all(state).map_err(|error| problem::state_folder(state, &error))?;
    let nginx = Nginx {
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
    };
    Ok(Box::new(Conductor::new(nginx)))
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
        self.look(master, pools).await
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), Problem> {
        let mut pools = self.now.pools.clone();
        for change in changes {
            let members = pools.entry(change.pool.clone()).or_default();
            if change.wanted {
                members.insert(change.address, Line { state: change.state, weight: change.weight });
            } else {
                members.remove(&change.address);
            }
        }
        self.begin_outs(changes).await?;
        self.put(pools).await
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

    async fn divide(&mut self, _: &PoolName, _: Option<&TrafficSplit>) -> Result<(), Problem> {
        // Never asked for: see the ability.
        Ok(())
    }

    fn ability(&self) -> BalancerAbility {
        BalancerAbility { driver: "nginx".to_owned(), split: SplitAbility::None }
    }

    fn notes(&self) -> Vec<Problem> {
        self.notes.clone()
    }
}

impl Nginx {
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
