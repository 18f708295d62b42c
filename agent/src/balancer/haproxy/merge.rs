//! A pool with two backends, seen as one: where a member serves, and where it still does although it should not.

use crate::balancer::decide;
use crate::balancer::driver::{MemberSeen, PoolSeen, Remark};
use crate::balancer::problem;
use baton_core::fleet::spec::{MemberSpec, MemberState, PoolSpec};
use baton_core::fleet::split::Side;
use baton_core::name::PoolName;
use std::net::SocketAddr;

/// The servers of the stable and of the trial backend, one member for each address.
pub(super) fn both(pool: &PoolName, spec: &PoolSpec, stable: PoolSeen, mut trial: PoolSeen) -> PoolSeen {
    let mut seen: PoolSeen = stable
        .into_iter()
        .map(|(address, stable)| {
            let member = match trial.remove(&address) {
                Some(trial) => one(side(spec, address), stable, trial),
                None => alone(pool, spec, address, stable),
            };
            (address, member)
        })
        .collect();
    seen.extend(trial.into_iter().map(|(address, there)| (address, alone_on_trial(pool, spec, address, there))));
    seen
}

/// Without a server in the stable backend a member is on the trial side, whatever is asked of it, and cannot come in on the other.
fn alone_on_trial(pool: &PoolName, spec: &PoolSpec, address: SocketAddr, there: MemberSeen) -> MemberSeen {
    let mut there = MemberSeen { side: (Side::Trial, Side::Trial), ..there };
    let comes = |member: &MemberSpec| member.state != MemberState::Out && decide::side(spec, member) == Side::Stable;
    let member = spec.members.iter().find(|(_, member)| member.address == address && comes(member));
    if let Some((key, _)) = member.filter(|_| there.told == MemberState::Out && there.on_disk == MemberState::Out) {
        there.remark = Remark::Refused(problem::server_missing(pool.as_str(), key, address));
    }
    there
}

fn side(spec: &PoolSpec, address: SocketAddr) -> Side {
    let member = spec.members.values().find(|member| member.address == address);
    member.map_or(Side::Stable, |member| decide::side(spec, member))
}

/// A member that serves on a side it should not serve on is on that side until it is out there.
fn one(wanted: Side, stable: MemberSeen, trial: MemberSeen) -> MemberSeen {
    let (own, other, elsewhere) = match wanted {
        Side::Stable => (stable, trial, Side::Trial),
        Side::Trial => (trial, stable, Side::Stable),
    };
    let at = |other: MemberState| if other == MemberState::Out { wanted } else { elsewhere };
    let remark = match (own.remark, other.remark) {
        (own @ Remark::Refused(_), _) => own,
        (_, other @ Remark::Refused(_)) => other,
        (Remark::None, other) => other,
        (_, Remark::Later) => Remark::Later,
        (own, _) => own,
    };
    let latency = own.latency.zip(other.latency).map(|(mut own, other)| {
        own += &other;
        own
    });
    MemberSeen {
        told: own.told.min(other.told),
        running: own.running.min(other.running),
        on_disk: own.on_disk.min(other.on_disk),
        side: (at(other.told), at(other.on_disk)),
        in_flight: own.in_flight + other.in_flight,
        out_for: own.out_for.min(other.out_for),
        requests: own.requests + other.requests,
        errors: own.errors + other.errors,
        latency,
        remark,
        ..own
    }
}

/// Without a server in the trial backend, a member cannot be on trial.
fn alone(pool: &PoolName, spec: &PoolSpec, address: SocketAddr, mut stable: MemberSeen) -> MemberSeen {
    let member = spec.members.iter().find(|(_, member)| member.address == address);
    if let Some((key, member)) = member.filter(|(_, member)| decide::side(spec, member) == Side::Trial) {
        match member.state {
            MemberState::Out => stable.side = (Side::Trial, Side::Trial),
            MemberState::Ready | MemberState::Drain => {
                stable.remark = Remark::Refused(problem::server_missing(&super::trial(pool), key, address));
            }
        }
    }
    stable
}
