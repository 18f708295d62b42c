//! Keeps this host's balancer as its pools say, and tells what it says.

use crate::balancer::{self, Balancer, BalancerConfig};
use crate::reconciler::{Event, Obstacle};
use baton_core::fleet::ability::BalancerAbility;
use baton_core::fleet::report::PoolReport;
use baton_core::fleet::spec::PoolSpec;
use baton_core::name::PoolName;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

type Wanted = watch::Receiver<BTreeMap<PoolName, PoolSpec>>;

/// Drives the balancer for ever: at once for a new spec, and again after as long as the driver asks.
pub(crate) async fn serve(config: Option<BalancerConfig>, state: PathBuf, wanted: Wanted, events: UnboundedSender<Event>) {
    let Some(config) = config else { return without(wanted, events, &none_here()).await };
    match balancer::open(config, &state) {
        Ok(balancer) => drive(balancer, wanted, events).await,
        Err(problem) => {
            let _ = events.send(Event::Obstacle { what: Obstacle::Balancer, problem: Some(problem.clone()) });
            without(wanted, events, &problem).await;
        }
    }
}

async fn drive(mut balancer: Box<dyn Balancer>, mut wanted: Wanted, events: UnboundedSender<Event>) {
    let mut noted = None;
    loop {
        let pools = wanted.borrow_and_update().clone();
        let seen = balancer.reconcile(&pools).await;
        let note = balancer.notes().into_iter().next();
        if note != noted {
            noted.clone_from(&note);
            let _ = events.send(Event::Obstacle { what: Obstacle::Balancer, problem: note });
        }
        let ability = balancer.ability();
        if events.send(Event::Pools { wanted: pools, seen, ability }).is_err() {
            return;
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(balancer.poll_after()) => {}
        }
    }
}

/// Pools that nobody serves are said to be just that: silence would look like a slow balancer.
async fn without(mut wanted: Wanted, events: UnboundedSender<Event>, problem: &Problem) {
    loop {
        let pools = wanted.borrow_and_update().clone();
        let report = |name| (name, PoolReport { problem: Some(problem.clone()), ..PoolReport::default() });
        let seen = pools.keys().cloned().map(report).collect();
        let ability = BalancerAbility::default();
        if events.send(Event::Pools { wanted: pools, seen, ability }).is_err() || wanted.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn none_here() -> Problem {
    Problem::new(Code(400), "this host drives no balancer")
        .help("name one in [balancer] of its /etc/baton/agent.toml, or other hosts in balancer.on of baton.toml")
}
