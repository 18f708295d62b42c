//! The next safe steps for a whole fleet.

use super::Rollout;
use super::waiting::Waiting;
use crate::fleet::Fleet;
use crate::fleet::spec::HostSpec;
use crate::name::{HostName, RolloutId, ServiceName};
use crate::time::Moment;
use std::collections::BTreeMap;

/// What should change, and why not more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rollouts that changed.
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// Services that changed (a rollout ended).
    pub services: BTreeMap<ServiceName, crate::fleet::Service>,
    /// Specs that changed, with their new stamps.
    pub specs: BTreeMap<HostName, HostSpec>,
    /// Why nothing more happens, by service.
    pub waiting: BTreeMap<ServiceName, Vec<Waiting>>,
    /// When to plan again even if nothing is heard.
    pub wake_at: Option<Moment>,
}

/// Plans the next safe steps: pure, and planning twice changes nothing.
#[must_use]
pub fn plan(fleet: &Fleet, now: Moment) -> Plan {
    let _ = (fleet, now);
    Plan::default()
}
