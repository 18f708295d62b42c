//! Between releases: the agent is upgraded, removed and installed again, and no application notices.

use super::fault::wait_active;
use crate::fleet::host::Host;
use crate::fleet::pool::Pool;
use crate::fleet::record::{Fleet, Part};
use baton_cli::demo::load::Report;
use serde::Serialize;
use std::collections::BTreeMap;

/// What clients met meanwhile.
#[derive(Debug, Clone, Serialize)]
pub struct Rest {
    pub placement: &'static str,
    /// What happened between releases.
    pub what: &'static str,
    pub requests: u64,
    pub failed: u64,
    /// Empty: as it should be.
    pub wrong: Vec<String>,
}

/// Upgrades every agent of a service, and takes one away for a while; what of the applications is not as before.
///
/// # Errors
/// When `dpkg` refuses.
pub(super) fn disturb(fleet: &Fleet, pool: &Pool) -> anyhow::Result<Vec<String>> {
    let before = units(fleet, pool)?;
    for host in fleet.around(pool) {
        install(host)?;
        wait_active(host, "baton-agent")?;
    }
    let mut wrong = compare("the agents' upgrade", &before, &units(fleet, pool)?);
    if let Some(host) = fleet.every(Part::Web).last() {
        host.run(&["dpkg", "--remove", "baton-agent"])?;
        wrong.extend(compare("an agent's removal", &before, &units(fleet, pool)?));
        install(host)?;
        // A service that was removed is not started by its next installation.
        host.run(&["systemctl", "start", "baton-agent"])?;
        wait_active(host, "baton-agent")?;
        wrong.extend(compare("an agent's return", &before, &units(fleet, pool)?));
    }
    Ok(wrong)
}

/// Judges what clients met meanwhile.
#[must_use]
pub(super) fn judge(placement: &'static str, what: &'static str, mut wrong: Vec<String>, report: &Report) -> Rest {
    if report.failed > 0 || report.requests == 0 {
        wrong.push(format!("{} of {} requests failed", report.failed, report.requests));
    }
    Rest { placement, what, requests: report.requests, failed: report.failed, wrong }
}

fn install(host: &Host) -> anyhow::Result<()> {
    host.run(&["sh", "-c", "dpkg --install /var/tmp/baton/baton-agent_*.deb"]).map(drop)
}

/// By host, what systemd says of the pool's instances: which process, and whether the unit is sound.
pub(super) fn units(fleet: &Fleet, pool: &Pool) -> anyhow::Result<BTreeMap<String, String>> {
    let pattern = format!("baton-{}-*.service", pool.name);
    let asked = ["systemctl", "show", "--property=Id,MainPID,LoadState,ActiveState", &pattern];
    fleet.every(Part::Web).map(|host| Ok((host.name.clone(), host.run(&asked)?))).collect()
}

pub(super) fn compare(after: &str, before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (host, now) in now {
        if !now.contains("LoadState=loaded") || !now.contains("ActiveState=active") {
            wrong.push(format!("after {after}, a unit on {host} is not sound: {now:?}"));
        }
        if before.get(host) != Some(now) {
            wrong.push(format!("after {after}, what runs on {host} is not what ran: {:?}, then {now:?}", before.get(host)));
        }
    }
    wrong
}
