//! A host told to reboot. That it was told and that it is out are one thing: the same record, checked and written at once.

use super::super::interlock;
use super::{Accepted, never_joined};
use crate::fleet::Fleet;
use crate::fleet::orders::Leaving;
use crate::name::HostName;
use crate::problem::{Code, Problem};
use crate::reboot::look::look;
use crate::time::Moment;

/// Only a host that is there, in that boot, and to which nothing leads now: as the planner sees it, and as the interlock does.
pub(super) fn tell(fleet: &mut Fleet, name: &HostName, boot: String, now: Moment) -> Result<Accepted, Problem> {
    let host = fleet.hosts.get(name).ok_or_else(|| never_joined(fleet, &[name]))?;
    let told = host.maintenance.as_ref().and_then(|maintenance| maintenance.reboot.as_ref());
    if matches!(told, Some(Leaving::Told { boot: before, .. }) if *before == boot) {
        return Ok(Accepted::Unchanged);
    }
    let seen = look(fleet, std::slice::from_ref(name), |_| Ok(()), now).remove(name);
    let seen = seen.ok_or_else(|| never_joined(fleet, &[name]))?;
    let why = match (seen.drained, seen.boot) {
        _ if !seen.in_maintenance => Err("nobody took it out of the balancers".to_owned()),
        _ if !seen.connected => Err("it is not connected".to_owned()),
        (Err(why), _) => Err(why),
        (Ok(()), Some(said)) if said == boot => Ok(()),
        (Ok(()), said) => {
            Err(format!("it is in the boot {}, not in {boot}", said.unwrap_or_else(|| "it did not say".to_owned())))
        }
    };
    let why = why.and_then(|()| interlock::reboot(fleet, name).map_err(|violation| violation.to_string()));
    if let Err(why) = why {
        return Err(Problem::new(Code(747), format!("{name} cannot be told to reboot now"))
            .saw("because", why)
            .help("baton reboot shows what it waits for"));
    }
    if let Some(maintenance) = fleet.hosts.get_mut(name).and_then(|host| host.maintenance.as_mut()) {
        maintenance.reboot = Some(Leaving::Told { boot, since: now });
    }
    Ok(Accepted::Noted)
}

/// It stays drained; whoever took it out may bring it back.
pub(super) fn give_up(fleet: &mut Fleet, name: &HostName) -> Result<Accepted, Problem> {
    if !fleet.hosts.contains_key(name) {
        return Err(never_joined(fleet, &[name]));
    }
    let maintenance = fleet.hosts.get_mut(name).and_then(|host| host.maintenance.as_mut());
    let before = maintenance.and_then(|maintenance| maintenance.reboot.take());
    Ok(if before.is_some() { Accepted::Noted } else { Accepted::Unchanged })
}
