//! Traffic splits, what came of them, and what a balancer can do.

use super::{InvalidMessage, keyed, parse, required};
use crate::v1;
use baton_core::fleet::ability::{BalancerAbility, Feature, PoolServers, SplitAbility};
use baton_core::fleet::latency::Latency;
use baton_core::fleet::report::SplitReport;
use baton_core::fleet::split::{Rule, Share, Side, TrafficSplit};
use baton_core::name::PoolName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

impl From<&TrafficSplit> for v1::TrafficSplit {
    fn from(split: &TrafficSplit) -> Self {
        Self {
            share: split.share.places().into(),
            sticky: split.sticky.as_ref().map(ToString::to_string).unwrap_or_default(),
            rules: split.rules.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<v1::TrafficSplit> for TrafficSplit {
    type Error = InvalidMessage;
    fn try_from(message: v1::TrafficSplit) -> Result<Self, InvalidMessage> {
        let share = u16::try_from(message.share).ok().and_then(|places| Share::try_from(places).ok());
        let share = share.ok_or_else(|| InvalidMessage::new("share", format!("{} is more than everything", message.share)));
        let sticky = Some(message.sticky).filter(|key: &String| !key.is_empty());
        let rules = message.rules.iter().map(|rule| parse::<Rule>("rules", rule));
        Ok(Self {
            share: share?,
            sticky: sticky.map(|key| parse("sticky", &key)).transpose()?,
            rules: rules.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&SplitReport> for v1::SplitReport {
    fn from(report: &SplitReport) -> Self {
        Self {
            split: Some((&report.split).into()),
            on_disk: report.on_disk,
            stable: report.stable,
            trial: report.trial,
            ruled: report.ruled,
        }
    }
}

impl TryFrom<v1::SplitReport> for SplitReport {
    type Error = InvalidMessage;
    fn try_from(message: v1::SplitReport) -> Result<Self, InvalidMessage> {
        Ok(Self {
            split: required("split", message.split)?,
            on_disk: message.on_disk,
            stable: message.stable,
            trial: message.trial,
            ruled: message.ruled,
        })
    }
}

impl From<&BalancerAbility> for v1::BalancerAbility {
    fn from(ability: &BalancerAbility) -> Self {
        let pools = match &ability.split {
            SplitAbility::Prepared(pools) => pools
                .iter()
                .map(|(pool, features)| v1::PoolAbility {
                    pool: pool.to_string(),
                    features: features.iter().map(|feature| feature.0.clone()).collect(),
                })
                .collect(),
            SplitAbility::None | SplitAbility::Everything => Vec::new(),
        };
        let names = |pools: &BTreeSet<PoolName>| v1::PoolNames { names: pools.iter().map(ToString::to_string).collect() };
        Self {
            driver: ability.driver.clone(),
            splits_everything: ability.split == SplitAbility::Everything,
            pools,
            known: ability.pools.as_ref().map(names),
            servers: ability.servers.iter().map(servers).collect(),
        }
    }
}

impl TryFrom<v1::BalancerAbility> for BalancerAbility {
    type Error = InvalidMessage;
    fn try_from(message: v1::BalancerAbility) -> Result<Self, InvalidMessage> {
        let pools: BTreeMap<_, _> = keyed("pools", message.pools, |pool| {
            Ok((parse("pool", &pool.pool)?, pool.features.into_iter().map(Feature).collect()))
        })?;
        let split = match (message.splits_everything, pools.is_empty()) {
            (true, _) => SplitAbility::Everything,
            (false, true) => SplitAbility::None,
            (false, false) => SplitAbility::Prepared(pools),
        };
        let names = |known: v1::PoolNames| known.names.iter().map(|name| parse("known", name)).collect();
        let servers = keyed("servers", message.servers, |servers| {
            let addresses = |field, addresses: Vec<String>| {
                addresses.iter().map(|it| parse::<SocketAddr>(field, it)).collect::<Result<BTreeSet<_>, _>>()
            };
            let (stable, trial) = (addresses("stable", servers.stable)?, addresses("trial", servers.trial)?);
            Ok((parse("pool", &servers.pool)?, PoolServers { stable, trial }))
        });
        Ok(Self { driver: message.driver, split, pools: message.known.map(names).transpose()?, servers: servers? })
    }
}

fn servers((pool, servers): (&PoolName, &PoolServers)) -> v1::PoolServers {
    let addresses = |side: &BTreeSet<SocketAddr>| side.iter().map(ToString::to_string).collect();
    v1::PoolServers { pool: pool.to_string(), stable: addresses(&servers.stable), trial: addresses(&servers.trial) }
}

pub(super) const fn side(trial: bool) -> Side {
    if trial { Side::Trial } else { Side::Stable }
}

/// No counts: not counted. Counts of another version's buckets cannot be read by these.
pub(super) fn latency(counts: Vec<u64>) -> Result<Option<Latency>, InvalidMessage> {
    match counts.is_empty() {
        true => Ok(None),
        false => Latency::try_from(counts).map(Some).map_err(|error| InvalidMessage::new("latency", error.to_string())),
    }
}
