//! Acts: one rollout each, with at most one thing that goes wrong.

use super::fault::{Fault, When};
use super::service::Behaviour;

/// One rollout and what happens to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act {
    pub name: &'static str,
    pub release: Behaviour,
    pub fault: Option<(Fault, When)>,
}

/// What is played on each placement, in order.
pub(super) const ACTS: &[Act] = &[
    Act { name: "rolling", release: Behaviour::Good, fault: None },
    Act { name: "broken release", release: Behaviour::NeverReady, fault: None },
    faulted("coordinator killed at the start", Fault::Coordinator, When::Started),
    faulted("coordinator killed while a new version starts", Fault::Coordinator, When::Word("healthy")),
    faulted("agent killed on the host in transition", Fault::Agent, When::Word("healthy")),
    faulted("agent killed while its host drains", Fault::Agent, When::Word("draining")),
    faulted("the balancer's agent killed halfway", Fault::BalancersAgent, When::HostsDone(2)),
    faulted("agents upgraded in mid-rollout", Fault::Upgrade, When::HostsDone(1)),
    faulted("balancer killed while a host drains", Fault::Balancer, When::Word("draining")),
    faulted("balancer killed halfway", Fault::Balancer, When::HostsDone(2)),
    faulted("a host loses power in transition", Fault::Power, When::Word("healthy")),
    faulted("a host reboots after its turn", Fault::Reboot, When::HostsDone(1)),
];

const fn faulted(name: &'static str, fault: Fault, when: When) -> Act {
    Act { name, release: Behaviour::Good, fault: Some((fault, when)) }
}

impl Act {
    /// Whether clients may meet failures: only when what carries their requests died, and not by Baton's doing.
    #[must_use]
    pub(super) const fn may_fail_requests(&self) -> bool {
        matches!(self.fault, Some((Fault::Balancer | Fault::Power | Fault::Reboot, _)))
    }

    /// Whether the rollout must bring the new release. With a fault, going back is as good: by itself, and in time.
    #[must_use]
    pub(super) const fn must_succeed(&self) -> bool {
        self.fault.is_none() && matches!(self.release, Behaviour::Good)
    }

    #[must_use]
    pub(super) const fn must_revert(&self) -> bool {
        matches!(self.release, Behaviour::NeverReady)
    }
}
