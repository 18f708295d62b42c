//! Processes whose ports another has taken: each is asked, told and cut like the one that serves, until it is gone.

use super::control::{Answer, Ask, Divided, Told, Wish, Wishes};
use super::driver::{Silence, ask, tell};
use super::takeover;
use crate::balancer::problem;
use crate::durable;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The processes that finish, as last seen.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Their control sockets.
    pub(super) controls: Vec<PathBuf>,
    /// Requests they have in flight, together.
    in_flight: BTreeMap<(PoolName, SocketAddr), u64>,
}

impl Leaving {
    pub(super) fn in_flight(&self, pool: &PoolName, address: SocketAddr) -> u64 {
        self.in_flight.get(&(pool.clone(), address)).copied().unwrap_or_default()
    }

    /// What is in flight is in flight wherever it is. What was counted until now ends with its process, as in any restart.
    fn add(&mut self, serving: &mut Answer, leaving: &Answer) {
        for (pool, members) in &leaving.pools {
            let Some(ahead) = serving.pools.get_mut(pool) else { continue };
            for (address, told) in members {
                if let Some(ahead) = ahead.get_mut(address) {
                    ahead.in_flight += told.in_flight;
                    ahead.oldest_ms = ahead.oldest_ms.max(told.oldest_ms);
                    ahead.out_for_ms = ahead.out_for_ms.max(told.out_for_ms);
                    *self.in_flight.entry((pool.clone(), *address)).or_default() += told.in_flight;
                }
            }
        }
    }
}

/// Looks at every process that leaves, sees to it that it serves the same members as its successor, and adds what is in flight
/// there to what the successor said.
///
/// # Errors
/// One that is there and does not answer: what it still routes to is not known.
pub(super) async fn gather(control: &Path, serving: &mut Answer) -> Result<Leaving, Problem> {
    let mut leaving = Leaving::default();
    for path in takeover::all_left(control).map_err(|error| problem::state_folder(control, &error))? {
        let answer = match look(&path).await? {
            Some(answer) if differs(&answer, serving) => {
                follow(&path, &answer, serving).await?;
                look(&path).await?
            }
            answer => answer,
        };
        let Some(answer) = answer else { continue };
        if differs(&answer, serving) {
            return Err(problem::changing_hands(format!("{} goes on otherwise than {}", answer.identity, serving.identity)));
        }
        leaving.add(serving, &answer);
        leaving.controls.push(path);
    }
    Ok(leaving)
}

/// None: it is gone.
async fn look(path: &Path) -> Result<Option<Answer>, Problem> {
    match ask(path, &Ask::Look {}).await {
        Ok(answer) => Ok(Some(answer)),
        Err(Silence::Nobody(_)) => {
            durable::remove(path).map_err(|error| problem::state_folder(path, &error))?;
            Ok(None)
        }
        // It takes its name away before it ends.
        Err(_) if !path.exists() => Ok(None),
        Err(silence) => Err(silence.problem(path)),
    }
}

async fn follow(path: &Path, behind: &Answer, serving: &Answer) -> Result<(), Problem> {
    let pools: Wishes = both(behind, serving).map(|(pool, _, ahead)| (pool.clone(), wishes(ahead))).collect();
    tell(path, &Ask::Set { pools, seen: None }).await?;
    for (pool, ..) in both(behind, serving) {
        tell(path, &Ask::Divide { pool: pool.clone(), split: split(serving, pool).cloned() }).await?;
    }
    Ok(())
}

fn differs(behind: &Answer, serving: &Answer) -> bool {
    both(behind, serving)
        .any(|(pool, behind_it, ahead)| wishes(behind_it) != wishes(ahead) || split(behind, pool) != split(serving, pool))
}

type Members = BTreeMap<SocketAddr, Told>;

/// The pools that both have.
fn both<'a>(behind: &'a Answer, serving: &'a Answer) -> impl Iterator<Item = (&'a PoolName, &'a Members, &'a Members)> {
    behind.pools.iter().filter_map(|(pool, members)| Some((pool, members, serving.pools.get(pool)?)))
}

fn wishes(members: &Members) -> BTreeMap<SocketAddr, Wish> {
    members.iter().map(|(address, told)| (*address, told.wish)).collect()
}

fn split<'a>(answer: &'a Answer, pool: &PoolName) -> Option<&'a baton_core::fleet::split::TrafficSplit> {
    answer.splits.as_ref()?.get(pool).map(|Divided { split, .. }| split)
}
