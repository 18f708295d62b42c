//! The half of an agent that faces the network, as it runs from the package: what it may do.

use super::fault::{LINK, wait_active};
use crate::fleet::host::Host;
use crate::fleet::pool::Pool;
use crate::fleet::provision::main_process;
use crate::fleet::record::{Fleet, Part};
use anyhow::Context as _;

/// By systemd's own measure: 0 is nothing, 10 is everything.
const EXPOSURE: f64 = 2.0;

/// Looks on a host of services, and on a load balancer's; what is not as it should be.
///
/// # Errors
/// When a host does not answer.
pub(super) fn look(fleet: &Fleet) -> anyhow::Result<Vec<String>> {
    let web = fleet.every(Part::Web).next();
    let balancer = fleet.hosts.iter().find(|host| matches!(host.part, Part::Balancer(_)));
    let looked = [web, balancer].into_iter().flatten().map(wrong).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(looked.into_iter().flatten().collect())
}

fn wrong(host: &Host) -> anyhow::Result<Vec<String>> {
    // It starts a moment after the other half.
    wait_active(host, LINK)?;
    let mut wrong = Vec::new();
    let exposure = exposure(host, &format!("{LINK}.service"))?;
    if exposure > EXPOSURE {
        wrong.push(format!("{LINK} on {} is exposed by {exposure}", host.name));
    }
    let status = host.run(&["cat", &format!("/proc/{}/status", main_process(host, LINK)?)])?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let powers = u64::from_str_radix(&field("CapEff:"), 16);
    if field("Uid:").starts_with("0\t") || powers != Ok(0) || field("NoNewPrivs:") != "1" {
        wrong.push(format!("{LINK} on {} has rights: {status}", host.name));
    }
    Ok(wrong)
}

/// The units of a service's instances on a host.
///
/// # Errors
/// When the host does not say.
pub(super) fn named(host: &Host, pool: &Pool) -> anyhow::Result<Vec<String>> {
    let pattern = format!("baton-{}-*.service", pool.name);
    let listed = host.run(&["systemctl", "list-units", "--plain", "--no-legend", &pattern])?;
    Ok(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// How exposed a unit is on a host where it runs, by systemd's own measure.
///
/// # Errors
/// When the host does not say.
pub(super) fn exposure(host: &Host, unit: &str) -> anyhow::Result<f64> {
    let said = host.run(&["systemd-analyze", "security", "--no-pager", unit])?;
    let exposure = said.lines().find_map(|line| line.split_once("Overall exposure level")?.1.rsplit_once(": "));
    exposure.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).with_context(|| format!("no exposure: {said}"))
}
