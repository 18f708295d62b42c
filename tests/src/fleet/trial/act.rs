//! Acts: one rollout each, with at most one thing that goes wrong.

use super::fault::{Fault, When};
use super::service::Behaviour;
use crate::fleet::front::Front;
use crate::fleet::pool::Pool;

/// One rollout and what happens to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act {
    pub name: &'static str,
    pub release: Behaviour,
    pub fault: Option<(Fault, When)>,
}

const ROLLING: Act = sound("rolling", Behaviour::Good);
const BROKEN: Act = sound("broken release", Behaviour::NeverReady);
const FAILING: Act = sound("a release that fails a fifth of its requests", Behaviour::FailsAFifth);
const AS_ROOT: Act = sound("a release that asks to be root", Behaviour::AsRoot);
const SLOW: Act = sound("a release that takes twice as long", Behaviour::TwiceAsLong);

/// The deaths that a load balancer's driver has to do with.
const AT_THE_FRONT: [Act; 3] = [
    faulted("the balancer's agent killed halfway", Fault::BalancersAgent, When::HostsDone(2)),
    faulted("balancer killed while a host drains", Fault::Balancer, When::Word("draining")),
    faulted("balancer killed halfway", Fault::Balancer, When::HostsDone(2)),
];

/// The other deaths.
const BEHIND_IT: [Act; 8] = [
    faulted("coordinator killed at the start", Fault::Coordinator, When::Started),
    faulted("coordinator killed while a new version starts", Fault::Coordinator, When::Word("healthy")),
    faulted("agent killed on the host in transition", Fault::Agent, When::Word("healthy")),
    faulted("agent killed while its host drains", Fault::Agent, When::Word("draining")),
    faulted("agent's link killed on the host in transition", Fault::Link, When::Word("healthy")),
    faulted("agents upgraded in mid-rollout", Fault::Upgrade, When::HostsDone(1)),
    faulted("a host loses power in transition", Fault::Power, When::Word("healthy")),
    faulted("a host reboots after its turn", Fault::Reboot, When::HostsDone(1)),
];

/// What is played on a pool, in order: what is the same behind every load balancer, behind HAProxy alone.
#[must_use]
pub(super) fn acts(pool: &Pool) -> Vec<Act> {
    let mut acts = vec![ROLLING];
    if pool.front == Front::Haproxy {
        acts.extend([BROKEN, AS_ROOT]);
    }
    acts.extend([FAILING, SLOW]);
    acts.extend(AT_THE_FRONT);
    if pool.front == Front::Haproxy {
        acts.extend(BEHIND_IT);
    }
    acts
}

const fn sound(name: &'static str, release: Behaviour) -> Act {
    Act { name, release, fault: None }
}

const fn faulted(name: &'static str, fault: Fault, when: When) -> Act {
    Act { name, release: Behaviour::Good, fault: Some((fault, when)) }
}

impl Act {
    /// Whether clients may meet failures: when what carries their requests died, and not by Baton's doing, or when the release
    /// itself fails.
    #[must_use]
    pub(super) const fn may_fail_requests(&self) -> bool {
        let died = matches!(self.fault, Some((Fault::Balancer | Fault::Power | Fault::Reboot, _)));
        died || matches!(self.release, Behaviour::FailsAFifth)
    }

    /// Whether the rollout must bring the new release. With a fault, going back is as good: by itself, and in time.
    #[must_use]
    pub(super) const fn must_succeed(&self) -> bool {
        self.fault.is_none() && matches!(self.release, Behaviour::Good)
    }

    #[must_use]
    pub(super) const fn must_revert(&self) -> bool {
        !matches!(self.release, Behaviour::Good)
    }
}
