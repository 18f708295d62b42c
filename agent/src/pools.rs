//! Keeps this host's balancer as its pools say, and tells what it says.

use crate::allow::Allow;
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
pub(crate) async fn serve(
    config: Option<BalancerConfig>,
    allow: Allow,
    state: PathBuf,
    wanted: Wanted,
    events: UnboundedSender<Event>,
) {
    let Some(config) = config else { return without(wanted, events, &none_here()).await };
    match balancer::open(config, &state) {
        Ok(balancer) => drive(balancer, &allow, wanted, events).await,
        Err(problem) => {
            let _ = events.send(Event::Obstacle { what: Obstacle::Balancer, problem: Some(problem.clone()) });
            without(wanted, events, &problem).await;
        }
    }
}

async fn drive(mut balancer: Box<dyn Balancer>, allow: &Allow, mut wanted: Wanted, events: UnboundedSender<Event>) {
    let mut noted = None;
    loop {
        let pools = wanted.borrow_and_update().clone();
        let bounded = allow.bound(pools.clone());
        let mut seen = balancer.reconcile(&bounded.pools).await;
        bounded.tell(&mut seen);
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
        let seen = pools.keys().map(|name| (name.clone(), unserved(problem.clone()))).collect();
        let ability = BalancerAbility::default();
        if events.send(Event::Pools { wanted: pools, seen, ability }).is_err() || wanted.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn unserved(problem: Problem) -> PoolReport {
    PoolReport { problem: Some(problem), ..PoolReport::default() }
}

fn none_here() -> Problem {
    Problem::new(Code(400), "this host drives no balancer")
        .help("name one in [balancer] of its /etc/baton/agent.toml, or other hosts in balancer.on of baton.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::Reconciled;
    use baton_core::fleet::spec::Exchange;
    use std::time::Duration;
    use tokio::sync::mpsc::unbounded_channel;

    /// Serves whatever it is told.
    #[derive(Debug)]
    struct Willing;

    impl Balancer for Willing {
        fn reconcile<'a>(&'a mut self, pools: &'a BTreeMap<PoolName, PoolSpec>) -> Reconciled<'a> {
            Box::pin(async { pools.keys().map(|name| (name.clone(), PoolReport::default())).collect() })
        }

        fn poll_after(&self) -> Duration {
            Duration::from_secs(3600)
        }

        fn ability(&self) -> BalancerAbility {
            BalancerAbility::default()
        }

        fn notes(&self) -> Vec<Problem> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn a_pool_that_the_host_keeps_for_itself_never_reaches_the_balancer_and_is_told() {
        let pool = |service: &str| PoolSpec {
            service: service.parse().unwrap(),
            members: BTreeMap::new(),
            drain_deadline: Duration::ZERO,
            slow_start: Duration::ZERO,
            split: None,
            exchange: Exchange::Each,
        };
        let told: BTreeMap<PoolName, PoolSpec> = ["shop", "wiki"].map(|name| (name.parse().unwrap(), pool(name))).into();
        let (_wants, wanted) = watch::channel(told.clone());
        let (sender, mut events) = unbounded_channel();
        let allow = Allow { pools: vec!["shop".to_owned()], ..Allow::default() };
        let driving = drive(Box::new(Willing), &allow, wanted, sender);
        let event = tokio::select! {
            () = driving => panic!("it ended"),
            event = events.recv() => event.unwrap(),
        };
        let Event::Pools { wanted, seen, .. } = event else { panic!("{event:?}") };
        assert_eq!(wanted, told, "the answer is to what was asked");
        let problems: Vec<_> = seen.values().map(|pool| pool.problem.as_ref().map(|problem| problem.code)).collect();
        assert_eq!(problems, [None, Some(Code(564))]);
    }
}
