//! The pools that services are deployed into.

use super::front::Front;

/// A pool as its load balancer's owner declared it: where clients come in, and on which ports instances may be.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    pub name: &'static str,
    /// What is tried with it, in words.
    pub scene: &'static str,
    pub front: Front,
    pub listen: u16,
    pub ports: &'static [u16],
}

/// One for each placement behind HAProxy: two ports and the new starts beside the old, one port and it takes its place. And one
/// for each other load balancer.
pub const POOLS: [Pool; 4] = [
    Pool { name: "shop", scene: "side by side", front: Front::Haproxy, listen: 8080, ports: &[8101, 8102] },
    Pool { name: "till", scene: "in place", front: Front::Haproxy, listen: 8081, ports: &[8201] },
    Pool { name: "desk", scene: "behind nginx", front: Front::Nginx, listen: 8082, ports: &[8301, 8302] },
    Pool { name: "mail", scene: "behind Envoy", front: Front::Envoy, listen: 8083, ports: &[8401, 8402] },
];

impl Pool {
    /// The pools of a kind of load balancer.
    pub fn behind(front: Front) -> impl Iterator<Item = &'static Self> {
        POOLS.iter().filter(move |pool| pool.front == front)
    }
}
