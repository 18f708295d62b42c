//! Between releases: one command reboots every host of a service, one after the other.

use super::instances;
use crate::fleet::pool::Pool;
use crate::fleet::provision::journal;
use crate::fleet::record::{Fleet, Part};
use crate::fleet::run::said;
use anyhow::Context as _;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the kernel, or what stands for it, gives every boot anew.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Reboots the hosts of a service as an operator does; what is not as it should be.
///
/// # Errors
/// When a host does not answer, or the command says nothing that can be read.
pub(super) fn reboot(fleet: &Fleet, pool: &Pool) -> anyhow::Result<Vec<String>> {
    let coordinator = fleet.coordinator()?;
    let (versions, before) = (instances::versions(fleet, pool)?, boots(fleet)?);
    let words = ["baton", "reboot", "--service", pool.name, "--yes", "--json", "--why", "a kernel"];
    let ended = coordinator.collect(&[words.as_slice(), &["--back-within", "1m", "--timeout", "5m"]].concat())?;
    let view: Value =
        serde_json::from_slice(&ended.stdout).with_context(|| format!("`baton reboot` said\n{}", said(&ended)))?;
    let mut wrong = Vec::new();
    let hosts = view["hosts"].as_array().into_iter().flatten();
    let done = hosts.filter(|host| host["state"] == "done").count();
    if ended.status.code() != Some(0) || view["state"] != "succeeded" || done != before.len() {
        let first = view["failed_host"].as_str().and_then(|host| fleet.host(host).ok());
        wrong.extend(first.map(|host| journal(host, "baton-agent")));
        wrong.push(format!("the reboots ended with {:?}: {view}", ended.status.code()));
        return Ok(wrong);
    }
    let after = boots(fleet)?;
    let same: Vec<&str> =
        before.iter().filter(|(host, boot)| after.get(*host) == Some(*boot)).map(|(host, _)| host.as_str()).collect();
    if !same.is_empty() {
        wrong.push(format!("{} did not reboot", same.join(", ")));
    }
    let again = instances::versions(fleet, pool)?;
    if again != versions {
        wrong.push(format!("{versions:?} answered before, and {again:?} now"));
    }
    let listed: Value = serde_json::from_str(&coordinator.run(&["baton", "hosts", "list", "--json"])?)?;
    let out = |host: &&Value| !host["maintenance"].is_null() || !host["rebooting_ms"].is_null();
    wrong.extend(listed["hosts"].as_array().into_iter().flatten().filter(out).map(|host| format!("still out: {host}")));
    Ok(wrong)
}

/// By host, the boot it is in.
fn boots(fleet: &Fleet) -> anyhow::Result<BTreeMap<String, String>> {
    fleet.every(Part::Web).map(|host| Ok((host.name.clone(), host.run(&["cat", BOOT])?))).collect()
}
