//! What people decided about a service or a host beyond its release. It stands until they take it back.

use super::Service;
use crate::name::{HostName, ReleaseId, RolloutId};
use crate::time::Moment;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Who decided something, why, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub by: String,
    pub why: String,
    pub since: Moment,
}

/// A host that is taken out of every balancer for work on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    pub order: Order,
    /// Its instances stop too, once nothing leads to them.
    pub stop: bool,
    /// It is out to be rebooted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot: Option<Leaving>,
}

/// How far the reboot is that a host is out for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// It is told once nothing leads to it.
    Ahead,
    /// It was told to leave this boot. Until it says another one it stays out, whoever asks for it.
    Told { boot: String, since: Moment },
}

/// What stands for one service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Orders {
    /// Hosts that rollouts leave out, by name. They catch up once they are taken back in.
    pub skipped: BTreeMap<HostName, Order>,
    /// Hosts that keep another release than the committed one, because a rollout was ended where it stood.
    pub kept: BTreeMap<HostName, Kept>,
    /// No new release while it lasts. Going back stays allowed.
    pub freeze: Option<Freeze>,
    /// Deploys that wait until the rollout under way has ended, in their order.
    pub queue: Vec<Queued>,
    /// The service is drained, stopped and then forgotten.
    pub removal: Option<Order>,
    /// Hosts that came over from another coordinator with something of it, and are no hosts of it here: what they serve is left
    /// alone until the next deploy.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub brought: BTreeSet<HostName>,
}

/// The release a host keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub release: ReleaseId,
    pub by: String,
}

/// A time without new releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    pub order: Order,
    /// None: until somebody ends it.
    pub until: Option<Moment>,
}

/// A deploy that waits its turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// The id its rollout will have.
    pub id: RolloutId,
    /// Hosts, ports, balancer and strategy as its manifest says.
    pub shape: Box<Service>,
    pub release: ReleaseId,
    pub by: String,
    pub since: Moment,
}

impl Freeze {
    #[must_use]
    pub fn holds(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
