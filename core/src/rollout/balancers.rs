//! What is known of balancers themselves: what speaks against a deploy, and whether one that was declared dead lives.

use super::aside::aside;
use super::divide;
use crate::fleet::ability::{BalancerAbility, PoolServers};
use crate::fleet::{Fleet, Host, InstanceKey, MemberKey, Service};
use crate::name::{HostName, PoolName, ServiceName, Slot};
use crate::problem::{Code, Problem};
use crate::strategy::{Placement, Strategy};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What keeps every change of a pool from being made until a person mends it: the codes of docs/errors.md.
const MENDED_BY_HAND: [u16; 8] = [403, 405, 411, 430, 432, 435, 436, 437];

/// Those of them that may come of what a rollout asks for.
const OF_A_ROLLOUT: [u16; 1] = [430];

/// The same of one member: something else than Baton decides about it.
const MEMBER_MENDED_BY_HAND: [u16; 1] = [408];

/// So many members without a server are named.
const NAMED: usize = 5;

/// Every balancer that is none, every one that cannot divide requests as the strategy needs it, and every one that says that it cannot
/// be changed, or has no server for a member.
pub(super) fn objections(fleet: &Fleet, name: &ServiceName, service: &Service) -> Vec<Problem> {
    let Some(balancer) = &service.balancer else { return Vec::new() };
    let needs = divide::needs(&service.strategy);
    let objection = |on: &HostName| {
        let ability = fleet.hosts.get(on).map(said)?;
        if ability.is_some_and(|ability| ability.driver.is_empty()) {
            return Some(no_balancer(fleet, on));
        }
        let pools = ability.and_then(|ability| ability.pools.as_ref());
        if let Some(pools) = pools.filter(|pools| !pools.contains(&balancer.pool)) {
            return Some(no_pool(on, &balancer.pool, pools));
        }
        let lacks = ability.map_or_else(|| needs.clone(), |ability| ability.split.lacks(&balancer.pool, &needs));
        if lacks.is_empty() {
            let host = fleet.hosts.get(on)?;
            return stuck(fleet, on, host, name, service)
                .or_else(|| no_server(on, host, &balancer.pool, &members(fleet, name, service), &service.strategy));
        }
        let driver = ability.map_or("not heard yet", |ability| ability.driver.as_str());
        let page = ability.map_or("{haproxy,nginx,envoy}", |ability| ability.driver.as_str());
        let lacks: Vec<String> = lacks.into_iter().map(|feature| feature.0).collect();
        Some(
            Problem::new(
                Code(442),
                format!("the balancer on {on} cannot divide the requests of `{}` as asked", balancer.pool),
            )
            .saw("driver", driver)
            .saw("lacks", lacks.join(", "))
            .help(format!(
                "prepare it as docs/{page}.md says under Dividing requests, or leave out rollout.match, rollout.sticky and \
                 balancer.preview"
            )),
        )
    };
    balancer.on.iter().filter_map(objection).collect()
}

/// Why a balancer that is there would not change this pool. Who is away, or was declared dead, is waited for or not as always.
fn stuck(fleet: &Fleet, on: &HostName, host: &Host, name: &ServiceName, service: &Service) -> Option<Problem> {
    let pool = &service.balancer.as_ref()?.pool;
    let says = host.report().filter(|_| host.connected && host.dead_balancer.is_none())?.pools.get(pool)?;
    // Whoever stands aside is no part of the rollout. Of a new service nobody was told to.
    let stands = |host: &HostName| fleet.services.get(name).and_then(|before| aside(fleet, before, host)).is_some();
    let stays = |key: &MemberKey| service.hosts.contains(&key.host) && !stands(&key.host);
    let members = says.members.iter().filter(|(key, _)| stays(key)).filter_map(|(_, member)| member.problem.as_ref());
    // What a rollout asked for and was refused, the one that takes its place does not ask for.
    let replaces = fleet.active_rollout(name).is_some();
    let is_by_hand = |code: u16| MENDED_BY_HAND.contains(&code) && !(replaces && OF_A_ROLLOUT.contains(&code));
    let whole = says.problem.iter().filter(|problem| is_by_hand(problem.code.0));
    let problem = whole.chain(members.filter(|problem| MEMBER_MENDED_BY_HAND.contains(&problem.code.0))).next()?;
    Some(problem.clone().saw("balancer", on.to_string()))
}

/// The members that a service may get, and their addresses, as far as its hosts are known.
fn members(fleet: &Fleet, name: &ServiceName, service: &Service) -> Vec<(MemberKey, SocketAddr)> {
    let of_host = |host: &HostName| {
        let known = fleet.hosts.get(host)?;
        let runs = |slot: &Slot| known.issued.instances.contains_key(&InstanceKey { service: name.clone(), slot: *slot });
        // In place, a release starts where the one before was.
        let slots: Vec<Slot> = match service.strategy.placement {
            Placement::SideBySide => service.slots().collect(),
            Placement::InPlace => service.slots().find(runs).or_else(|| service.slots().next()).into_iter().collect(),
        };
        let member = |slot| Some((MemberKey { host: host.clone(), slot }, known.endpoint(service.port(slot)?)));
        Some(slots.into_iter().filter_map(member).collect::<Vec<_>>())
    };
    service.hosts.iter().filter_map(of_host).flatten().collect()
}

/// That a balancer whose servers people write down has none for some member, on a side it will be asked for.
fn no_server(
    on: &HostName,
    host: &Host,
    pool: &PoolName,
    members: &[(MemberKey, SocketAddr)],
    strategy: &Strategy,
) -> Option<Problem> {
    let ability = said(host).filter(|_| host.connected && host.dead_balancer.is_none())?;
    let PoolServers { stable, trial } = ability.servers.get(pool)?;
    let divides = divide::is_asked(strategy, &ability.split, pool);
    let lack = |at: &str, has: &BTreeSet<SocketAddr>| {
        let missing: Vec<_> = members.iter().filter(|(_, address)| !has.contains(address)).collect();
        let named = |(key, address): &&(MemberKey, SocketAddr)| format!("{address} ({key})");
        let first: Vec<String> = missing.iter().take(NAMED).map(named).collect();
        let rest = missing.len().saturating_sub(NAMED);
        let more = if rest > 0 { format!(", and {rest} more") } else { String::new() };
        (!missing.is_empty()).then(|| (at.to_owned(), format!("{}{more}", first.join(", "))))
    };
    let lacks = [lack("no server at", stable), lack("no server on trial at", trial).filter(|_| divides)];
    let mut lacks = lacks.into_iter().flatten().peekable();
    lacks.peek()?;
    let problem = Problem::new(Code(452), format!("the balancer on {on} has no server for some members of `{pool}`"));
    let problem = lacks.fold(problem, |problem, (what, where_)| problem.saw(what, where_));
    let trial = if divides { format!(" (on trial: to backend {pool}:trial)") } else { String::new() };
    Some(problem.help(format!("add a line `server NAME ADDRESS disabled` for each to backend {pool}{trial}, and reload")))
}

fn said(host: &Host) -> Option<&BalancerAbility> {
    host.report()?.balancer.as_ref()
}

fn no_pool(on: &HostName, pool: &PoolName, pools: &BTreeSet<PoolName>) -> Problem {
    let has: Vec<&str> = pools.iter().map(PoolName::as_str).collect();
    Problem::new(Code(445), format!("the balancer on {on} has no pool `{pool}`"))
        .saw("pools", if has.is_empty() { "none".to_owned() } else { has.join(", ") })
        .help("name one of them in [balancer] pool, or add the pool to the balancer's configuration and reload it")
}

fn no_balancer(fleet: &Fleet, on: &HostName) -> Problem {
    let drives = |(name, host): (&HostName, &Host)| Some(format!("{name} ({})", said(host).map(|it| &it.driver)?));
    let others: Vec<String> = fleet
        .hosts
        .iter()
        .filter(|(_, host)| said(host).is_some_and(|ability| !ability.driver.is_empty()))
        .filter_map(drives)
        .collect();
    Problem::new(Code(443), format!("[balancer] on names {on}, and its agent drives no balancer"))
        .saw("balancers", if others.is_empty() { "on no host of this fleet".to_owned() } else { others.join(", ") })
        .help(format!("name one in [balancer] of /etc/baton/agent.toml on {on}, or other hosts in [balancer] on"))
}

/// Whether a balancer's host is there and its balancer can be believed about a pool.
pub(super) fn answers(host: &Host, pool: &PoolName) -> bool {
    let seen = host.report().and_then(|report| report.pools.get(pool));
    host.connected && seen.is_some_and(|pool| pool.problem.is_none())
}

/// Hosts whose balancer was declared dead and answers for every pool it has: from here on it counts again.
#[must_use]
pub fn returned(fleet: &Fleet) -> Vec<HostName> {
    let dead = fleet.hosts.iter().filter(|(_, host)| host.dead_balancer.is_some());
    let lives = |host: &Host| !host.issued.pools.is_empty() && host.issued.pools.keys().all(|pool| answers(host, pool));
    dead.filter(|(_, host)| lives(host)).map(|(name, _)| name.clone()).collect()
}
