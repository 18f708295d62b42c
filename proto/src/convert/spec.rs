//! Host specs.

use super::hooks;
use super::split::side;
use super::{InvalidMessage, bytes, duration, keyed, millis, optional, parse, release_id, required};
use crate::v1;
use baton_core::fleet::spec::{Exchange, HostSpec, InstanceSpec, MemberSpec, MemberState, PoolSpec, Restart, Stamp};
use baton_core::fleet::split::Side;
use baton_core::fleet::withdraw::Withdrawal;
use baton_core::fleet::{InstanceKey, MemberKey};
use baton_core::name::PoolName;
use baton_core::release::{Release, Signal};
use baton_core::scrape::Scrape;
use std::time::Duration;

/// The shares a balancer can give.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=256;

impl From<&HostSpec> for v1::HostSpec {
    fn from(spec: &HostSpec) -> Self {
        Self {
            stamp: Some((&spec.stamp()).into()),
            instances: spec.instances.iter().map(write_instance).collect(),
            pools: spec.pools.iter().map(write_pool).collect(),
            releases: spec.releases.values().map(|release| release.as_ref().into()).collect(),
            hooks: spec.hooks.iter().map(hooks::write_spec).collect(),
        }
    }
}

/// A release's id is counted anew here, so that it cannot name anything but its content.
impl TryFrom<v1::HostSpec> for HostSpec {
    type Error = InvalidMessage;
    fn try_from(message: v1::HostSpec) -> Result<Self, InvalidMessage> {
        let stamp: Stamp = required("stamp", message.stamp)?;
        let spec = Self {
            epoch: stamp.epoch,
            generation: stamp.generation,
            instances: keyed("instances", message.instances, |instance| read_instance(&instance))?,
            pools: keyed("pools", message.pools, read_pool)?,
            releases: keyed("releases", message.releases, |release| {
                Release::try_from(release).map(|release| (release.id(), release.into()))
            })?,
            hooks: keyed("hooks", message.hooks, |hook| hooks::read_spec(&hook))?,
        };
        match spec.instances.iter().find(|(_, instance)| !spec.releases.contains_key(&instance.release)) {
            Some((key, _)) => {
                Err(InvalidMessage::new(format!("instances[{key}].release_id"), "names a release that is not in the spec"))
            }
            None => Ok(spec),
        }
    }
}

fn write_instance((key, instance): (&InstanceKey, &InstanceSpec)) -> v1::InstanceSpec {
    v1::InstanceSpec {
        key: key.to_string(),
        release_id: bytes(instance.release.0),
        address: instance.address.to_string(),
        restart_always: instance.restart == Restart::Always,
        start: instance.start,
        fallback: instance.fallback.map(|release| bytes(release.0)).unwrap_or_default(),
        scrape: instance.scrape.as_deref().map(write_scrape),
        withdraw: instance.withdraw.map(write_withdrawal),
    }
}

fn read_instance(message: &v1::InstanceSpec) -> Result<(InstanceKey, InstanceSpec), InvalidMessage> {
    let instance = InstanceSpec {
        release: release_id("release_id", &message.release_id)?,
        address: parse("address", &message.address)?,
        restart: if message.restart_always { Restart::Always } else { Restart::Never },
        start: message.start,
        fallback: Some(&message.fallback).filter(|id| !id.is_empty()).map(|id| release_id("fallback", id)).transpose()?,
        scrape: message.scrape.as_ref().map(read_scrape).transpose().map_err(|error| error.inside("scrape"))?.map(Box::new),
        withdraw: message.withdraw.as_ref().map(read_withdrawal).transpose().map_err(|error| error.inside("withdraw"))?,
    };
    Ok((parse("key", &message.key)?, instance))
}

fn write_withdrawal(it: Withdrawal) -> v1::Withdrawal {
    let (unready_for_ms, drain_deadline_ms) = (millis(it.unready_for), millis(it.drain_deadline));
    v1::Withdrawal { signal: it.signal.name().to_owned(), unready_for_ms, drain_deadline_ms }
}

fn read_withdrawal(message: &v1::Withdrawal) -> Result<Withdrawal, InvalidMessage> {
    let signal = Signal::from_name(&message.signal).ok_or_else(|| InvalidMessage::new("signal", "is no signal of ours"))?;
    let (unready_for, drain_deadline) = (message.unready_for_ms, message.drain_deadline_ms);
    let (unready_for, drain_deadline) = (Duration::from_millis(unready_for), Duration::from_millis(drain_deadline));
    Ok(Withdrawal { signal, unready_for, drain_deadline })
}

fn write_scrape(scrape: &Scrape) -> v1::Scrape {
    let Scrape { path, requests, errors } = scrape;
    v1::Scrape { path: path.clone(), requests: requests.to_string(), errors: errors.to_string() }
}

fn read_scrape(message: &v1::Scrape) -> Result<Scrape, InvalidMessage> {
    if !message.path.starts_with('/') {
        return Err(InvalidMessage::new("path", "does not begin with a slash"));
    }
    let (requests, errors) = (parse("requests", &message.requests)?, parse("errors", &message.errors)?);
    Ok(Scrape { path: message.path.clone(), requests, errors })
}

fn write_pool((pool, spec): (&PoolName, &PoolSpec)) -> v1::PoolSpec {
    v1::PoolSpec {
        pool: pool.to_string(),
        service: spec.service.to_string(),
        members: spec.members.iter().map(write_member).collect(),
        drain_deadline_ms: millis(spec.drain_deadline),
        slow_start_ms: millis(spec.slow_start),
        split: spec.split.as_ref().map(Into::into),
        exchange: v1::Exchange::from(spec.exchange).into(),
    }
}

fn read_pool(message: v1::PoolSpec) -> Result<(PoolName, PoolSpec), InvalidMessage> {
    let spec = PoolSpec {
        service: parse("service", &message.service)?,
        members: keyed("members", message.members, read_member)?,
        drain_deadline: duration("drain_deadline_ms", message.drain_deadline_ms)?,
        slow_start: duration("slow_start_ms", message.slow_start_ms)?,
        split: optional("split", message.split)?,
        exchange: exchange(message.exchange)?,
    };
    Ok((parse("pool", &message.pool)?, spec))
}

fn write_member((key, member): (&MemberKey, &MemberSpec)) -> v1::MemberSpec {
    v1::MemberSpec {
        key: key.to_string(),
        address: member.address.to_string(),
        state: v1::MemberState::from(member.state).into(),
        weight: u32::from(member.weight),
        probe: Some((&member.probe).into()),
        trial: member.side == Side::Trial,
    }
}

fn read_member(message: v1::MemberSpec) -> Result<(MemberKey, MemberSpec), InvalidMessage> {
    let weight =
        Some(message.weight).filter(|weight| WEIGHTS.contains(weight)).and_then(|weight| u16::try_from(weight).ok());
    let member = MemberSpec {
        address: parse("address", &message.address)?,
        state: member_state("state", message.state)?,
        weight: weight
            .ok_or_else(|| InvalidMessage::new("weight", format!("{} is not between 1 and 256", message.weight)))?,
        side: side(message.trial),
        probe: required("probe", message.probe)?,
    };
    Ok((parse("key", &message.key)?, member))
}

impl From<Exchange> for v1::Exchange {
    fn from(exchange: Exchange) -> Self {
        match exchange {
            Exchange::Each => Self::Each,
            Exchange::Host => Self::Host,
            Exchange::All => Self::All,
        }
    }
}

fn exchange(number: i32) -> Result<Exchange, InvalidMessage> {
    match v1::Exchange::try_from(number) {
        Ok(v1::Exchange::Each) => Ok(Exchange::Each),
        Ok(v1::Exchange::Host) => Ok(Exchange::Host),
        Ok(v1::Exchange::All) => Ok(Exchange::All),
        Err(_) => Err(InvalidMessage::new("exchange", format!("{number} is no way to change places"))),
    }
}

impl From<MemberState> for v1::MemberState {
    fn from(state: MemberState) -> Self {
        match state {
            MemberState::Ready => Self::Ready,
            MemberState::Drain => Self::Drain,
            MemberState::Out => Self::Out,
        }
    }
}

pub(super) fn member_state(field: &str, number: i32) -> Result<MemberState, InvalidMessage> {
    match v1::MemberState::try_from(number) {
        Ok(v1::MemberState::Ready) => Ok(MemberState::Ready),
        Ok(v1::MemberState::Drain) => Ok(MemberState::Drain),
        Ok(v1::MemberState::Out) => Ok(MemberState::Out),
        Ok(v1::MemberState::Unspecified) | Err(_) => {
            Err(InvalidMessage::new(field, format!("{number} is not a member's state")))
        }
    }
}
