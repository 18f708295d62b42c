//! Which servers this agent has managed: those, and only those, it takes out when they vanish from the spec.

use super::{durable, problem};
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The journal and its file in the agent's state folder.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    pools: Pools,
}

pub(crate) type Pools = BTreeMap<PoolName, BTreeMap<SocketAddr, Entry>>;

/// What is remembered of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Requests cut since it last went out: the balancer does not count them.
    #[serde(default)]
    pub(crate) cut: u64,
}

impl Journal {
    /// Opens the journal. One that cannot be read is as good as none: then nothing is taken out that the spec does not name.
    pub(crate) fn open(path: PathBuf) -> Self {
        let pools = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the balancer's journal is unreadable and starts anew");
                Pools::new()
            }),
            Err(_) => Pools::new(),
        };
        Self { path, pools }
    }

    pub(crate) fn addresses<'a>(&'a self, pool: &PoolName) -> impl Iterator<Item = SocketAddr> + 'a {
        self.pools.get(pool).into_iter().flat_map(|entries| entries.keys().copied())
    }

    pub(crate) fn entry(&self, pool: &PoolName, address: SocketAddr) -> Option<&Entry> {
        self.pools.get(pool)?.get(&address)
    }

    /// Changes the journal and writes it down when that changed anything.
    pub(crate) async fn update(&mut self, change: impl FnOnce(&mut Pools)) -> Result<(), Problem> {
        let mut pools = self.pools.clone();
        change(&mut pools);
        if pools == self.pools {
            return Ok(());
        }
        let text = serde_json::to_string(&pools).unwrap_or_default();
        durable::replace(&self.path, text).await.map_err(|error| problem::state_folder(&self.path, &error))?;
        self.pools = pools;
        Ok(())
    }
}
