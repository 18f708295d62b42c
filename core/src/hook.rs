//! Hooks: commands of a release that are run beside its instances, each at one point of a rollout.
//!
//! A hook may do what cannot be done twice, so it is no part of what a host is made to match: it has a key, and whoever runs
//! it writes down that it will before it does.

use crate::name::{HostName, InvalidName, ReleaseId, RolloutId, ServiceName, Slot};
use crate::time::millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The hooks of a release, by their point.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hooks(pub BTreeMap<Point, Hook>);

/// When a hook is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Once a rollout, before any instance or balancer changes.
    BeforeRollout,
    /// Once a release, before its first instance starts anywhere.
    Migrate,
    /// On every host, before what it serves is drained.
    BeforeDrain,
    /// On every host, once the new release serves there and the old one is gone.
    AfterEnroll,
    /// Once a rollout, before it counts as succeeded.
    AfterRollout,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program and its arguments, with the placeholders of [`Point::placeholders`].
    pub command: Vec<String>,
    /// Then it is ended, with everything it started.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// Once it has run, releases from before cannot be gone back to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_way_back: bool,
}

impl Point {
    pub const ALL: [Self; 5] =
        [Self::BeforeRollout, Self::Migrate, Self::BeforeDrain, Self::AfterEnroll, Self::AfterRollout];

    /// The word of manifests, commands and reports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BeforeRollout => "before_rollout",
            Self::Migrate => "migrate",
            Self::BeforeDrain => "before_drain",
            Self::AfterEnroll => "after_enroll",
            Self::AfterRollout => "after_rollout",
        }
    }

    /// Whether every host runs it; else one elected host does.
    #[must_use]
    pub const fn on_every_host(self) -> bool {
        matches!(self, Self::BeforeDrain | Self::AfterEnroll)
    }

    /// What its command may name in braces: a hook of one host for all belongs to no slot.
    #[must_use]
    pub const fn placeholders(self) -> &'static [&'static str] {
        if self.on_every_host() { &crate::release::Placeholders::NAMES } else { &["address", "version"] }
    }

    /// The slot it runs in on a host, beyond all that instances have: so a hook is started, found again and ended as an
    /// instance is, and never meets one.
    #[must_use]
    pub const fn slot(self) -> Slot {
        Slot(
            HOOK_SLOTS
                + match self {
                    Self::BeforeRollout => 0,
                    Self::Migrate => 1,
                    Self::BeforeDrain => 2,
                    Self::AfterEnroll => 3,
                    Self::AfterRollout => 4,
                },
        )
    }

    /// The point whose hooks run in a slot.
    #[must_use]
    pub fn of_slot(slot: Slot) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.slot() == slot)
    }
}

/// The first of the slots that hooks run in.
const HOOK_SLOTS: u8 = 240;

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Hooks {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn at(&self, point: Point) -> Option<&Hook> {
        self.0.get(&point)
    }

    /// How long the slowest may take.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.0.values().map(|hook| hook.timeout).max().unwrap_or_default()
    }
}

/// What happens once: a point of a release or of a rollout, on one host where every host has its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HookKey {
    pub service: ServiceName,
    pub point: Point,
    pub of: Of,
    pub host: Option<HostName>,
}

/// What a hook happens once of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Of {
    Rollout(RolloutId),
    Release(ReleaseId),
}

/// Text that names no hook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a service, a point, what it is of, and perhaps a host, with slashes between")]
pub struct InvalidHookKey(String);

/// `shop/migrate/3f…`, `shop/before_drain/r-7/web1`.
impl fmt::Display for HookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.service, self.point)?;
        match &self.of {
            Of::Rollout(id) => write!(f, "{id}"),
            Of::Release(id) => write!(f, "{id}"),
        }?;
        self.host.iter().try_for_each(|host| write!(f, "/{host}"))
    }
}

impl FromStr for HookKey {
    type Err = InvalidHookKey;

    fn from_str(text: &str) -> Result<Self, InvalidHookKey> {
        let invalid = || InvalidHookKey(text.chars().take(200).collect());
        let name = |_: InvalidName| invalid();
        let parts: Vec<&str> = text.split('/').collect();
        let (service, point, of, host) = match parts.as_slice() {
            [service, point, of] => (service, point, of, None),
            [service, point, of, host] => (service, point, of, Some(host)),
            _ => return Err(invalid()),
        };
        let point: Point = Point::ALL.into_iter().find(|it| it.word() == *point).ok_or_else(invalid)?;
        let of = match point {
            Point::Migrate => Of::Release(ReleaseId(of.parse().map_err(|_| invalid())?)),
            _ => Of::Rollout(of.parse().map_err(name)?),
        };
        let host = host.map(|host| host.parse()).transpose().map_err(name)?;
        if point.on_every_host() != host.is_some() {
            return Err(invalid());
        }
        Ok(Self { service: service.parse().map_err(name)?, point, of, host })
    }
}

impl TryFrom<String> for HookKey {
    type Error = InvalidHookKey;
    fn try_from(text: String) -> Result<Self, InvalidHookKey> {
        text.parse()
    }
}

impl From<HookKey> for String {
    fn from(key: HookKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_as_it_was_written_and_nothing_else_is_one() {
        let release = "0".repeat(64);
        for text in [&format!("shop/migrate/{release}"), "shop/before_rollout/r-7", "shop/before_drain/r-7/web1.example"] {
            assert_eq!(text.parse::<HookKey>().unwrap().to_string(), *text);
        }
        for text in ["", "shop", "shop/migrate/r-7", "shop/before_rollout/r-7/web1", "shop/before_drain/r-7", "a/b/c/d/e"] {
            assert!(text.parse::<HookKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn hooks_run_in_slots_that_no_instance_has() {
        for point in Point::ALL {
            assert_eq!(Point::of_slot(point.slot()), Some(point));
        }
        assert_eq!(Point::of_slot(Slot(7)), None);
    }
}
