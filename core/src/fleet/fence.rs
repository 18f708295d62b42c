//! The fence around a coordinator that was restored from a copy: it knows the fleet as it was, the hosts know it as it is.
//!
//! Nobody may have said that it was: a machine set back to a snapshot starts as on any other day. So every coordinator that
//! starts compares what hosts were told with what it remembers, and the first one that was told more puts the fence up.
//!
//! While it stands, nothing is decided and nothing is sent. Each host that connects brings the document it was last told,
//! and what is newer there than in the copy becomes what this coordinator knows.

use super::spec::{HostSpec, Stamp};
use super::{Fleet, Host};
use crate::name::{Epoch, HostName};
use crate::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is left to learn from the hosts. It stays, open, once it has fallen: who was not heard then is read when it comes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Nothing is decided.
    pub stands: bool,
    /// It stands as soon as some host was told more than is remembered here.
    #[serde(default)]
    pub dormant: bool,
    /// Hosts that were not heard since, and what the copy says they were told last.
    pub unheard: BTreeMap<HostName, Stamp>,
    /// Hosts that joined while it is dormant, or that nobody accepted yet, and were not heard since, and what they had been told from
    /// here before that. What is newer is another coordinator's word, and no sign that this store is a copy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joined: BTreeMap<HostName, Stamp>,
    /// Some host had been told more than the copy knows.
    pub moved: bool,
    /// The newest epoch any host spoke of.
    pub seen: Epoch,
}

/// What a host that connects was last told: the stamp, and the document where its agent sends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub stamp: Stamp,
    pub spec: Option<HostSpec>,
}

impl Fence {
    /// Around a fleet as a copy has it. Without a host that was accepted there is nobody to hear, and it does not stand.
    #[must_use]
    pub fn around(fleet: &Fleet) -> Self {
        let told = |(name, host): (&HostName, &Host)| (name.clone(), host.issued.stamp());
        let (accepted, others): (Vec<_>, Vec<_>) = fleet.hosts.iter().partition(|(_, host)| host.accepted);
        let unheard: BTreeMap<_, _> = accepted.into_iter().map(told).collect();
        Self { stands: !unheard.is_empty(), unheard, joined: others.into_iter().map(told).collect(), ..Self::default() }
    }

    /// For a coordinator that starts, before it takes over: it stands when a host proves it to be needed. What is still
    /// awaited since a restore stays so.
    #[must_use]
    pub fn at_start(fleet: &Fleet) -> Self {
        let goes_on = |fence: &&Self| !fence.dormant && (fence.stands || !fence.unheard.is_empty());
        let dormant = || Self { stands: false, dormant: true, ..Self::around(fleet) };
        fleet.fence.as_ref().filter(goes_on).cloned().unwrap_or_else(dormant)
    }

    /// Why nothing is decided.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let names: Vec<&str> = self.unheard.keys().map(HostName::as_str).collect();
        let flags: Vec<String> = names.iter().map(|name| format!("--without {name}")).collect();
        let what = "this coordinator's store is older than its fleet, and it decides nothing until every host has said what it was told";
        Problem::new(Code(1020), what)
            .saw("not heard", names.join(", "))
            .help(format!(
                "bring them back, also one whose certificate was revoked (a token for its name; there: baton-agent join … --replace); or go on \
                 without them: baton recover {} --why TEXT; where another coordinator drives them now, stop this one instead",
                flags.join(" ")
            ))
    }
}

impl Told {
    pub(crate) fn newest(&self) -> Stamp {
        self.spec.as_ref().map_or(self.stamp, HostSpec::stamp)
    }
}
