//! What an agent reports at once.

use super::process::HEALTHY_FOR;
use baton_core::fleet::report::HostReport;

/// Whether a report says anything new beside how long things have been as they are.
pub(super) fn differs(last: &HostReport, report: &HostReport) -> bool {
    use baton_core::fleet::report::InstanceState::{Failed, Ready, Starting, Stopping, Unready};
    let kind = |report: &HostReport| -> Vec<(u8, bool)> {
        let state = report.instances.values().map(|instance| match &instance.state {
            Starting { .. } => (0, false),
            Ready { since } => (1, since.as_millis() >= u128::from(HEALTHY_FOR)),
            Unready { .. } => (2, false),
            Stopping { .. } => (3, false),
            Failed { .. } => (4, false),
        });
        state.collect()
    };
    let members = |report: &HostReport| -> Vec<_> {
        let pools = report.pools.values().flat_map(|pool| pool.members.iter());
        pools.map(|(key, it)| (key.clone(), it.running, it.on_disk, it.in_flight)).collect()
    };
    let hooks = |report: &HostReport| -> Vec<_> {
        use baton_core::fleet::hooks::HookOutcome::Running;
        report.hooks.iter().map(|(key, it)| (key.clone(), it.attempt, matches!(it.state, Running { .. }))).collect()
    };
    last.observed != report.observed
        || hooks(last) != hooks(report)
        || kind(last) != kind(report)
        || last.instances.keys().ne(report.instances.keys())
        || last.releases != report.releases
        || members(last) != members(report)
}
