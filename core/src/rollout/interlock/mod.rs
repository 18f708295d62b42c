//! The second opinion: a check of every proposed change against what Baton never does, whatever the planner thought.
//!
//! Named after railway interlocking, and like it wired apart from the timetable: this room asks nothing of the planner's
//! modules and reads specs and reports by itself. A refusal is a bug; the rollout pauses and says so. The numbers are those
//! of the invariants in `ARCHITECTURE.md`.

mod extent;
mod hooks;
mod memory;
mod preview;
mod reboot;
mod record;
mod traffic;

pub use reboot::reboot;

use super::Rollout;
use super::plan::Plan;
use crate::fleet::spec::{HostSpec, InstanceSpec};
use crate::fleet::{Fleet, InstanceKey, Service};
use crate::name::{HostName, RolloutId, ServiceName};
use crate::strategy::Strategy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// An invariant that a proposal would break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub invariant: u8,
    /// None: it concerns every service.
    pub service: Option<ServiceName>,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.invariant, self.what)
    }
}

/// Checks a proposal against the fleet as it is believed to be.
///
/// # Errors
/// Every [`Violation`] found; then nothing of the proposal may be carried out.
pub fn check(fleet: &Fleet, proposal: &Plan) -> Result<(), Vec<Violation>> {
    let check = Check { fleet, proposal, told: told(fleet, proposal) };
    let mut violations = Vec::new();
    check.fencing(&mut violations);
    check.memory(&mut violations);
    check.signs(&mut violations);
    check.reboots(&mut violations);
    for (name, service) in &fleet.services {
        let service = proposal.services.get(name).unwrap_or(service);
        check.one_rollout(name, &mut violations);
        check.stops(name, service, &mut violations);
        check.removals(name, service, &mut violations);
        check.starts(name, service, &mut violations);
        check.entries(name, service, &mut violations);
        check.floor(name, service, &mut violations);
        check.previews(name, service, &mut violations);
        check.disruption(name, service, &mut violations);
        check.blast_radius(name, &mut violations);
        check.exclusion(name, service, &mut violations);
        check.reserve(name, service, &mut violations);
        check.completeness(name, service, &mut violations);
        check.once(name, service, &mut violations);
    }
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

struct Check<'a> {
    fleet: &'a Fleet,
    proposal: &'a Plan,
    /// The hosts that run something of a service, by what they were told or would be, in the order of their names.
    told: BTreeMap<&'a ServiceName, Vec<&'a HostName>>,
}

fn told<'a>(fleet: &'a Fleet, proposal: &'a Plan) -> BTreeMap<&'a ServiceName, Vec<&'a HostName>> {
    let issued = fleet.hosts.iter().map(|(host, known)| (host, &known.issued));
    let mut told = BTreeMap::<_, Vec<_>>::new();
    for (host, spec) in issued.chain(&proposal.specs) {
        for key in spec.instances.keys() {
            told.entry(&key.service).or_default().push(host);
        }
    }
    for hosts in told.values_mut() {
        hosts.sort_unstable();
        hosts.dedup();
    }
    told
}

impl Check<'_> {
    fn strategy_of<'a>(&'a self, name: &ServiceName, service: &'a Service) -> &'a Strategy {
        // As it was persisted; one that begins with the proposal, where another one ends, is only there.
        let goes_on = self.active(name).map(|it| self.fleet.rollouts.get(&it.id).unwrap_or(it));
        let ends = || self.fleet.rollouts.values().find(|it| it.service == *name && it.state.is_active());
        goes_on.or_else(ends).map_or(&service.strategy, |rollout| &rollout.strategy)
    }

    /// The rollout of a service that goes on after the proposal.
    fn active(&self, name: &ServiceName) -> Option<&Rollout> {
        let ids = self.fleet.rollouts.keys().chain(self.proposal.rollouts.keys());
        let mut rollouts = ids.filter_map(|id| self.rollout(id));
        rollouts.find(|rollout| rollout.service == *name && rollout.state.is_active())
    }

    fn rollout(&self, id: &RolloutId) -> Option<&Rollout> {
        self.proposal.rollouts.get(id).or_else(|| self.fleet.rollouts.get(id))
    }

    fn after(&self, host: &HostName) -> Option<&HostSpec> {
        self.proposal.specs.get(host).or_else(|| self.fleet.hosts.get(host).map(|host| &host.issued))
    }

    /// The hosts that run something of a service, by what they were told or would be.
    fn hosts_of(&self, name: &ServiceName) -> impl Iterator<Item = &HostName> {
        self.told.get(name).into_iter().flatten().copied()
    }

    fn issued_instances(&self, name: &ServiceName) -> impl Iterator<Item = (&HostName, &InstanceKey, &InstanceSpec)> {
        let hosts = self.hosts_of(name).filter_map(|host| Some((host, self.fleet.hosts.get(host)?)));
        let all = hosts.flat_map(|(host, it)| it.issued.instances.iter().map(move |it| (host, it)));
        all.filter(move |(_, (key, _))| key.service == *name).map(|(host, (key, spec))| (host, key, spec))
    }
}

fn violation(invariant: u8, service: &ServiceName, what: String) -> Violation {
    Violation { invariant, service: Some(service.clone()), what }
}
