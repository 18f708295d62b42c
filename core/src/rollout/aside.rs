//! Hosts that stand aside: drained for work on them, or skipped by name. They are no targets, and nothing waits for them.

use super::converge::{Step, Way, converge};
use super::place::Place;
use super::routing::Routing;
use super::waiting::Reason;
use crate::fleet::orders::{Maintenance, Order};
use crate::fleet::{Fleet, Host, Service};
use crate::name::HostName;

/// Why a host takes no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside<'a> {
    Drained(&'a Maintenance),
    /// Drained, and told to leave its boot.
    Rebooting(&'a Maintenance),
    Skipped(&'a Order),
}

/// Whether a host of a service stands aside. What is done with a host that is removed with its service is no rollout.
#[must_use]
pub fn aside<'a>(fleet: &'a Fleet, service: &'a Service, host: &HostName) -> Option<Aside<'a>> {
    of(fleet.hosts.get(host), service, host)
}

/// The same, where the host is at hand.
pub(super) fn of<'a>(known: Option<&'a Host>, service: &'a Service, host: &HostName) -> Option<Aside<'a>> {
    let told = |host: &Host| if host.leaves().is_some() { Aside::Rebooting } else { Aside::Drained };
    let maintenance = known.and_then(|host| host.maintenance.as_ref().map(told(host)));
    let aside = maintenance.or_else(|| service.orders.skipped.get(host).map(Aside::Skipped));
    // Asked last: few stand aside, and the hosts of a service may be many.
    aside.filter(|_| service.orders.removal.is_none() && service.hosts.contains(host))
}

impl Aside<'_> {
    /// The next safe step: a drained host leaves every balancer, a skipped one is left alone.
    #[must_use]
    pub fn step(self, place: &Place<'_>, way: Way) -> Step {
        match self {
            Self::Drained(maintenance) | Self::Rebooting(maintenance) if maintenance.stop => converge(place, None, way),
            Self::Drained(_) | Self::Rebooting(_) => drain(place, way),
            Self::Skipped(_) => Step::Done,
        }
    }

    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Drained(Maintenance { order, .. }) => Reason::Drained { by: order.by.clone(), why: order.why.clone() },
            Self::Rebooting(Maintenance { order, .. }) => Reason::Rebooting { by: order.by.clone(), why: order.why.clone() },
            Self::Skipped(order) => Reason::Skipped { by: order.by.clone(), why: order.why.clone() },
        }
    }
}

/// Takes every slot out of the balancers; what runs there goes on running.
fn drain(place: &Place<'_>, way: Way) -> Step {
    for (slot, _) in place.issued() {
        match place.routing(slot, way.drain_deadline) {
            Routing::Drained => {}
            Routing::NotAsked => return Step::Drain(slot),
            Routing::Waiting(reason) | Routing::Unreachable(reason) => return Step::Wait(reason),
        }
    }
    Step::Done
}
