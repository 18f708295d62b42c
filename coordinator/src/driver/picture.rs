//! The fleet as those who ask see it.

use baton_core::analysis::history::Summary;
use baton_core::fleet::Fleet;
use baton_core::fleet::fence::Fence;
use baton_core::name::ServiceName;
use baton_core::problem::Problem;
use baton_core::rollout::waiting::Waiting;
use baton_core::time::Moment;
use std::collections::BTreeMap;

/// What the driver knew at one moment, decided and observed.
///
/// Published whole after each pass that decided something, so what is in it is durable.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    pub at: Moment,
    pub fleet: Fleet,
    /// The number of the last rollout that got an id.
    pub sequence: u64,
    /// Why nothing more happens, by service.
    pub waiting: BTreeMap<ServiceName, Vec<Waiting>>,
    /// What the balancers counted of each service in the last minutes without a rollout.
    pub usual: BTreeMap<ServiceName, Summary>,
    /// At rest: what would be no evidence, of the instances' own metrics and of a Prometheus.
    pub doubts: BTreeMap<ServiceName, [Vec<String>; 2]>,
    /// Why the coordinator itself decides nothing.
    pub trouble: Option<Problem>,
}

impl Picture {
    pub(super) fn new(fleet: &Fleet, at: Moment) -> Self {
        let trouble = fleet.fenced().map(Fence::problem);
        Self { at, fleet: fleet.clone(), trouble, ..Self::default() }
    }
}
