//! A host as a reboot sees it: whether anything leads there, whether all of it serves, whether it may go.

use crate::fleet::orders::{Freeze, Leaving};
use crate::fleet::{Fleet, Host, Service};
use crate::name::{HostName, ServiceName};
use crate::problem::{Code, Problem};
use crate::rollout::command::{balanced, frozen, may_drain, may_miss, never_joined, not_deployed_here, running};
use crate::rollout::converge::Step;
use crate::rollout::plan::standings;
use crate::rollout::progress::Standing;
use crate::rollout::queue::freeze;
use crate::rollout::waiting::Reason;
use crate::time::Moment;
use std::collections::{BTreeMap, BTreeSet};

/// Whoever is not rebooted from here.
pub const NOT_ALLOWED: Code = Code(567);

/// What a host says that could not be rebooted.
pub const NOT_REBOOTED: Code = Code(568);

/// A host as it is seen. What is not so says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub connected: bool,
    /// The boot it reported last.
    pub boot: Option<String>,
    /// Somebody took it out of every balancer, and out of every rollout.
    pub in_maintenance: bool,
    /// The boot it was told to leave: it stays out until it says another one.
    pub told: Option<String>,
    /// Every balancer has read back that nothing leads there, and nothing is under way.
    pub drained: Result<(), String>,
    /// Everything that should run there is ready, was for long enough, and is in.
    pub serves: Result<(), String>,
    /// It may be taken out now.
    pub may_go: Result<(), String>,
    /// What its own file says of reboots.
    pub allows: Result<(), Problem>,
    /// Why the host could not do what it was told.
    pub trouble: Option<Problem>,
}

/// A service, and where each of its hosts stands.
struct Known<'a> {
    name: &'a ServiceName,
    service: &'a Service,
    standings: Vec<Standing>,
    /// Those of its hosts that do not serve, for whatever reason, or cannot be asked.
    down: BTreeSet<HostName>,
}

/// Looks at hosts; those that are none of this fleet are left out.
#[must_use]
pub fn look(
    fleet: &Fleet,
    hosts: &[HostName],
    allows: impl Fn(&HostName) -> Result<(), Problem>,
    now: Moment,
) -> BTreeMap<HostName, Seen> {
    let known: Vec<Known<'_>> = fleet
        .services
        .iter()
        .map(|(name, service)| {
            let standings = standings(fleet, name, now);
            let is_down = |it: &&Standing| it.belongs && (!it.serves || it.grows || !it.connected || it.aside.is_some());
            let down = standings.iter().filter(is_down).map(|it| it.host.clone()).collect();
            Known { name, service, standings, down }
        })
        .collect();
    let mut there = BTreeMap::<&HostName, Vec<(&Known<'_>, &Standing)>>::new();
    for of in &known {
        for standing in of.standings.iter().filter(|standing| standing.belongs) {
            there.entry(&standing.host).or_default().push((of, standing));
        }
    }
    let see = |name: &HostName| {
        let host = fleet.hosts.get(name)?;
        let report = host.report();
        let own = there.get(name).map_or(&[][..], Vec::as_slice);
        let trouble = |problem: &&Problem| problem.code == NOT_REBOOTED;
        let seen = Seen {
            connected: host.connected,
            boot: report.map(|report| report.boot.clone()).filter(|boot| !boot.is_empty()),
            in_maintenance: host.maintenance.is_some(),
            told: told(host).map(ToOwned::to_owned),
            drained: match not_deployed_here(fleet, name) {
                Some(problem) => Err(problem.what.clone()),
                None => own.iter().try_for_each(|(of, standing)| is_drained(of.name, standing)),
            },
            serves: own.iter().try_for_each(|(of, standing)| does_serve(of.name, standing)),
            may_go: may_go(fleet, name, host, own, now),
            allows: allows(name),
            trouble: report.and_then(|report| report.problems.iter().find(trouble).cloned()),
        };
        Some((name.clone(), seen))
    };
    hosts.iter().filter_map(see).collect()
}

/// The boot a host was told to leave, whether it has or not.
#[must_use]
pub fn told(host: &Host) -> Option<&str> {
    match host.maintenance.as_ref()?.reboot.as_ref()? {
        Leaving::Told { boot, .. } => Some(boot),
        Leaving::Ahead => None,
    }
}

fn is_drained(service: &ServiceName, standing: &Standing) -> Result<(), String> {
    match &standing.step {
        Step::Done if standing.aside.is_some() => Ok(()),
        Step::Wait(reason) => Err(format!("{service}: {reason}")),
        _ => Err(format!("{service}: about to leave the balancers")),
    }
}

fn does_serve(service: &ServiceName, standing: &Standing) -> Result<(), String> {
    let unproven = |reason: &Reason| {
        matches!(reason, Reason::Healthy { .. } | Reason::Enrolling { .. } | Reason::Probe { .. } | Reason::Echo)
    };
    match &standing.step {
        // Nothing of it is to run there, or people left it out by name.
        _ if standing.goal.is_none() || matches!(standing.aside.as_deref(), Some(Reason::Skipped { .. })) => Ok(()),
        Step::Wait(reason) if !standing.serves || unproven(reason) => Err(format!("{service}: {reason}")),
        Step::Failed(problem) if !standing.serves => Err(format!("{service}: {problem}")),
        _ if standing.serves && standing.aside.is_none() => Ok(()),
        _ => Err(format!("{service}: not back in the balancers yet")),
    }
}

/// Whether a host may be taken out now: no rollout may need it, no freeze may hold, and enough others must serve, whoever is
/// down for whatever reason.
fn may_go(fleet: &Fleet, name: &HostName, host: &Host, own: &[(&Known<'_>, &Standing)], now: Moment) -> Result<(), String> {
    if !host.connected {
        return Err("it is not connected; it is taken when it returns".to_owned());
    }
    if let Some(problem) = not_deployed_here(fleet, name) {
        return Err(problem.what.clone());
    }
    for (Known { name: of, service, down, .. }, _) in own {
        if let Some(Freeze { order, .. }) = freeze(fleet, Some(service), now) {
            return Err(format!("{of} is frozen by {}: {}", order.by, order.why));
        }
        if let Some(active) = fleet.active_rollout(of) {
            return Err(format!("rollout {} of {of} is under way; baton why {of} says what it waits for", active.id));
        }
        let (total, may_miss) = (service.hosts.len(), may_miss(service));
        let others: Vec<&str> = down.iter().filter(|other| *other != name).map(HostName::as_str).collect();
        if host.maintenance.is_none() && (others.len() >= may_miss || others.len() + 1 >= total) {
            let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
            return Err(format!(
                "too few hosts of {of} would serve: {may_miss} of {total} may be without, and without are {others}"
            ));
        }
    }
    Ok(())
}

/// The hosts that can be meant by every host, and what speaks against rebooting those that were named.
///
/// # Errors
/// B0703: one of them never joined. B0711: a freeze holds. B0712: it balances a service. B0713: too few would serve.
pub fn chosen(fleet: &Fleet, named: &[HostName], now: Moment) -> Result<Vec<HostName>, Problem> {
    let unknown: Vec<&HostName> = named.iter().filter(|host| !fleet.hosts.contains_key(*host)).collect();
    if !unknown.is_empty() {
        return Err(never_joined(fleet, &unknown));
    }
    // Where requests come in is led elsewhere by people first: every host means the others.
    let balances = |host: &HostName| balanced(fleet, host).next().is_some();
    let order: Vec<HostName> = match named {
        [] => {
            let meant = fleet.hosts.iter().filter(|(host, known)| known.accepted && !balances(host));
            meant.map(|(host, _)| host.clone()).collect()
        }
        named => named.to_vec(),
    };
    if order.is_empty() {
        return Err(Problem::new(Code(702), "there is no host to reboot").help("baton hosts list shows every host"));
    }
    for host in &order {
        for (service_name, service) in running(fleet, host) {
            if let Some(freeze) = freeze(fleet, Some(service), now) {
                return Err(frozen(fleet, service_name, freeze, now));
            }
        }
        if fleet.hosts.get(host).is_some_and(|host| host.maintenance.is_none()) {
            may_drain(fleet, host)?;
        }
    }
    if let Some(freeze) = &fleet.freeze.as_ref().filter(|freeze| freeze.holds(now)) {
        return Err(Problem::new(Code(711), format!("the fleet is frozen: {}", freeze.order.why))
            .saw("frozen by", freeze.order.by.clone())
            .help("baton unfreeze --all"));
    }
    Ok(order)
}
