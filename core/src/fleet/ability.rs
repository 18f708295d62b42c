//! What a host's balancer can do: said by its agent before anything is asked of it.

use super::split::{RuleAt, TrafficSplit, UserKey};
use crate::name::PoolName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The balancer an agent drives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerAbility {
    /// Such as `haproxy`; empty: this agent drives none.
    pub driver: String,
    pub split: SplitAbility,
    /// The pools its configuration has; none: not said, or it takes any name.
    #[serde(default)]
    pub pools: Option<BTreeSet<PoolName>>,
    /// The servers its configuration has; a pool that is not here takes any address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<PoolName, PoolServers>,
}

/// The addresses that can be members of a pool, by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolServers {
    pub stable: BTreeSet<SocketAddr>,
    pub trial: BTreeSet<SocketAddr>,
}

/// Which traffic splits a balancer can make true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitAbility {
    /// None, in any pool.
    #[default]
    None,
    /// Every one.
    Everything,
    /// Of each pool what its configuration has been prepared for.
    Prepared(BTreeMap<PoolName, BTreeSet<Feature>>),
}

/// One thing a split may need, such as `share`, `sticky cookie uid` or `header x-beta`. Header names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Feature(pub String);

impl Feature {
    #[must_use]
    pub fn share() -> Self {
        Self("share".to_owned())
    }

    #[must_use]
    pub fn sticky(key: &UserKey) -> Self {
        Self(match key {
            UserKey::Header(name) => format!("sticky header {}", name.to_ascii_lowercase()),
            key => format!("sticky {key}"),
        })
    }

    #[must_use]
    pub fn rule(at: RuleAt, name: &str) -> Self {
        Self(match at {
            RuleAt::Header => format!("header {}", name.to_ascii_lowercase()),
            RuleAt::Cookie => format!("cookie {name}"),
        })
    }
}

impl TrafficSplit {
    /// What a balancer must be able to do to make this split true.
    #[must_use]
    pub fn needs(&self) -> BTreeSet<Feature> {
        let share = self.sticky.as_ref().map_or_else(Feature::share, Feature::sticky);
        let rules = self.rules.iter().map(|rule| Feature::rule(rule.at, &rule.name));
        rules.chain([share]).collect()
    }
}

impl SplitAbility {
    /// What of the needs this balancer does not have for a pool.
    #[must_use]
    pub fn lacks(&self, pool: &PoolName, needs: &BTreeSet<Feature>) -> BTreeSet<Feature> {
        match self {
            Self::Everything => BTreeSet::new(),
            Self::None => needs.clone(),
            Self::Prepared(pools) => {
                let prepared = pools.get(pool);
                needs.iter().filter(|need| !prepared.is_some_and(|has| has.contains(need))).cloned().collect()
            }
        }
    }
}
