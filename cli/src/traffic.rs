//! What the load balancers counted while somebody watched: the only ground on which "0 failed" may be said.

use crate::render::units::count;
use baton_proto::v1::{FleetView, HostView, PoolView, ServiceView};
use serde::Serialize;
use std::collections::BTreeMap;

/// Requests of one service, added up over every balancer's counters from the first view on.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    seen: u64,
    failed: u64,
    cut: u64,
    /// A balancer restarted or lost a count meanwhile: there were more requests than these, and they may have failed.
    broken: bool,
    pools: BTreeMap<String, Counters>,
    cuts: BTreeMap<String, u64>,
}

/// One balancer's counters for the pool, as last seen.
#[derive(Debug, Clone, Default)]
struct Counters {
    /// The balancer's process: another one begins at zero.
    process: String,
    members: BTreeMap<String, (u64, u64)>,
}

/// The sum, as `--json` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub seen: u64,
    pub failed: u64,
    /// Broken off at a drain's deadline.
    pub cut: u64,
    /// False: counters were lost meanwhile, so that this is a lower bound.
    pub complete: bool,
}

impl Tally {
    /// Adds what was counted since the last view; the first one is the baseline.
    pub fn observe(&mut self, service: &ServiceView, fleet: &FleetView) {
        if service.pool.is_empty() {
            return;
        }
        for host in &fleet.hosts {
            for pool in host.pools.iter().filter(|pool| pool.pool == service.pool) {
                self.observe_pool(host, pool);
            }
        }
        for host in &service.hosts {
            // Counts since the member last went out: a smaller one is a new drain.
            let before = self.cuts.insert(host.host.clone(), host.cut);
            self.cut += before.map_or(0, |before| if host.cut >= before { host.cut - before } else { host.cut });
        }
    }

    fn observe_pool(&mut self, host: &HostView, pool: &PoolView) {
        // Nothing was read, so nothing is known: the counters may be old or empty.
        if pool.problem.is_some() || pool.balancer.is_empty() {
            return;
        }
        let known = self.pools.contains_key(&host.name);
        let counters = self.pools.entry(host.name.clone()).or_default();
        if known && counters.process != pool.balancer {
            self.broken = true;
            counters.members.clear();
        }
        counters.process.clone_from(&pool.balancer);
        for member in &pool.members {
            let now = (member.requests, member.errors);
            // A member that comes later starts at zero, unless nothing of this balancer was seen before.
            let before = counters.members.insert(member.key.clone(), now).unwrap_or(if known { (0, 0) } else { now });
            if now.0 < before.0 || now.1 < before.1 {
                self.broken = true;
                continue;
            }
            self.seen += now.0 - before.0;
            self.failed += now.1 - before.1;
        }
    }

    /// The sum; None when no balancer's counters were seen.
    #[must_use]
    pub fn counted(&self) -> Option<Counted> {
        let complete = !self.broken;
        (!self.pools.is_empty()).then_some(Counted { seen: self.seen, failed: self.failed, cut: self.cut, complete })
    }
}

impl Counted {
    /// The sentence for people; None when nothing was counted, because counters come in only every other second at rest: "no
    /// request" could be untrue.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        let Counted { seen, failed, cut, complete } = *self;
        let cut_too = if cut > 0 { format!(", {} cut at the drain's deadline", count(cut)) } else { String::new() };
        if complete && seen == 0 && failed == 0 && cut == 0 {
            return None;
        }
        Some(match (complete, failed) {
            // A request that was cut failed for whoever sent it, whatever the counter of failures says.
            (true, 0) if cut > 0 => {
                format!("{} requests seen by the load balancer, {} cut at the drain's deadline", count(seen), count(cut))
            }
            (true, failed) => {
                format!("{} failed of {} requests seen by the load balancer{cut_too}", count(failed), count(seen))
            }
            // Its counters say nothing about the requests it forgot, so no zero is claimed.
            (false, 0) => format!("the load balancer restarted and lost its counters: failures were not measured{cut_too}"),
            (false, failed) => format!(
                "at least {} failed of at least {} requests: the load balancer restarted and lost its counters{cut_too}",
                count(failed),
                count(seen)
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use crate::render::example::{balancer, service};
    use baton_proto::v1::{FleetView, HostView, Problem, ServiceView};

    fn tell(views: &[HostView]) -> Option<String> {
        let mut tally = Tally::default();
        for view in views {
            tally.observe(&service(), &FleetView { hosts: vec![view.clone()], ..FleetView::default() });
        }
        tally.counted().and_then(|counted| counted.sentence())
    }

    #[test]
    fn what_was_counted_before_somebody_watched_does_not_count() {
        let views = [balancer(&[("web2/0", 500, 9)], "pid 7"), balancer(&[("web2/0", 41_708, 9)], "pid 7")];
        assert_eq!(tell(&views).unwrap(), "0 failed of 41 208 requests seen by the load balancer");
    }

    #[test]
    fn a_new_slot_counts_from_zero_and_one_that_goes_keeps_its_share() {
        let views = [
            balancer(&[("web2/0", 100, 0)], "pid 7"),
            balancer(&[("web2/0", 150, 0), ("web2/1", 10, 1)], "pid 7"),
            balancer(&[("web2/1", 60, 1)], "pid 7"),
        ];
        assert_eq!(tell(&views).unwrap(), "1 failed of 110 requests seen by the load balancer");
    }

    #[test]
    fn no_zero_is_claimed_when_the_balancer_forgot() {
        let restarted = [balancer(&[("web2/0", 100, 0)], "pid 7"), balancer(&[("web2/0", 20, 0)], "pid 9")];
        let told = tell(&restarted).unwrap();
        assert!(!told.contains("0 failed"), "{told}");
        let shrank = [balancer(&[("web2/0", 100, 1)], "pid 7"), balancer(&[("web2/0", 20, 0)], "pid 7")];
        assert!(!tell(&shrank).unwrap().contains("0 failed"));
    }

    #[test]
    fn nothing_is_claimed_without_counters() {
        assert_eq!(tell(&[]), None);
        let mut silent = balancer(&[("web2/0", 100, 0)], "pid 7");
        silent.pools[0].problem = Some(Problem::default());
        assert_eq!(tell(&[silent]), None);
        let idle = balancer(&[("web2/0", 100, 0)], "pid 7");
        assert_eq!(tell(&[idle.clone(), idle]), None);
    }

    #[test]
    fn no_zero_is_claimed_when_requests_were_cut_at_the_deadline() {
        let mut tally = Tally::default();
        let fleet =
            |requests| FleetView { hosts: vec![balancer(&[("web3/0", requests, 0)], "pid 7")], ..FleetView::default() };
        let mut view: ServiceView = service();
        for (requests, cut) in [(10, 5), (20, 7), (30, 0), (40, 1)] {
            view.hosts[1].cut = cut;
            tally.observe(&view, &fleet(requests));
        }
        let told = tally.counted().unwrap().sentence().unwrap();
        assert_eq!(told, "30 requests seen by the load balancer, 3 cut at the drain's deadline");
    }
}
