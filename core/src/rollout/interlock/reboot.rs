//! What is true of a host that was told to reboot: nothing leads to it when it is told, nor before it says another boot.

use super::{Check, Violation, violation};
use crate::fleet::orders::Leaving;
use crate::fleet::spec::MemberState;
use crate::fleet::{Fleet, Host, MemberKey};
use crate::name::HostName;
use crate::rollout::plan::Plan;
use std::collections::BTreeMap;

/// 2 and 7: whether nothing leads to a host, now, by what every balancer read back.
///
/// # Errors
/// The first that speaks against telling it to reboot.
pub fn reboot(fleet: &Fleet, host: &HostName) -> Result<(), Violation> {
    let proposal = Plan::default();
    let check = Check { fleet, proposal: &proposal, told: BTreeMap::new() };
    for key in fleet.hosts.get(host).into_iter().flat_map(|known| known.issued.instances.keys()) {
        let member = MemberKey { host: host.clone(), slot: key.slot };
        let Some(service) = fleet.services.get(&key.service) else {
            // Nobody knows here where requests for it come from, but by what the balancers were told.
            let pools = fleet.hosts.values().flat_map(|known| known.issued.pools.values());
            let mut leads = pools.filter(|pool| pool.service == key.service).filter_map(|pool| pool.members.get(&member));
            if leads.any(|told| told.state != MemberState::Out) {
                let what =
                    format!("{host} would reboot, but {member} of {}, which nobody deployed here, is in", key.service);
                return Err(violation(2, &key.service, what));
            }
            continue;
        };
        let Some(pool) = &service.balancer else { continue };
        for balancer in check.counting(pool) {
            check.nothing_leads_to(balancer, &pool.pool, &member).map_err(|why| {
                let invariant = if pool.on.len() > 1 { 7 } else { 2 };
                violation(invariant, &key.service, format!("{host} would reboot, but on {balancer} {why}"))
            })?;
        }
    }
    Ok(())
}

impl Check<'_> {
    /// 3: nothing is led to a host that may go down at any moment.
    pub(super) fn reboots(&self, violations: &mut Vec<Violation>) {
        let leaving = self.fleet.hosts.iter().filter(|(_, known)| may_go_down(known)).map(|(host, _)| host);
        for host in leaving {
            for (balancer, spec) in self.fleet.hosts.keys().filter_map(|on| Some((on, self.after(on)?))) {
                for pool in spec.pools.values() {
                    for (member, told) in &pool.members {
                        if member.host == *host && told.state != MemberState::Out {
                            let what = format!("{member} would be in on {balancer}, but its host was told to reboot");
                            violations.push(violation(3, &pool.service, what));
                        }
                    }
                }
            }
        }
    }
}

/// Whether it was told to leave a boot, and its last word was not from another one.
fn may_go_down(known: &Host) -> bool {
    let Some(Leaving::Told { boot, .. }) = known.maintenance.as_ref().and_then(|work| work.reboot.as_ref()) else {
        return false;
    };
    let said = known.heard.as_ref().map(|heard| heard.report.boot.as_str());
    said.is_none_or(|said| said.is_empty() || said == boot)
}
