//! How the requests of a pool are divided between two sides of its members: the stable side and the one on trial.
//!
//! One value for every balancer, and one function, [`side_of`], that says what each of them has to make true. Whoever is on
//! the trial side at some share is there at every larger one: shares only ever grow over the same places in the same order.

mod text;

use serde::{Deserialize, Serialize};
use std::hash::Hasher;
use std::net::IpAddr;
use twox_hash::XxHash32;

/// The places a share is counted in: hundredths of a percent.
pub const PLACES: u16 = 10_000;

/// What HAProxy's `xxh32(7)` starts from: a user is on the same side whichever balancer is asked.
const SEED: u32 = 7;

/// The side of a pool a member belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    #[default]
    Stable,
    Trial,
}

/// Who is sent to the trial side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficSplit {
    /// Of the requests that no rule decides.
    pub share: Share,
    /// What makes a user: each stays on one side as long as the share does not fall. None: every request for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<UserKey>,
    /// Requests that are sent to the trial side whatever the share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

/// A share of traffic in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Share(u16);

/// What tells one user from another: `cookie uid`, `header X-User` or `source`.
///
/// A request without it stays on the stable side until the share is everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UserKey {
    Cookie(String),
    Header(String),
    /// The address the client connects from.
    Source,
}

/// A header or a cookie that leads to the trial side: `header X-Beta = 1`, `cookie cohort = staff`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    pub at: RuleAt,
    pub name: String,
    pub value: String,
}

/// Where a rule looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAt {
    Header,
    Cookie,
}

/// Text that is no share, user key or rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidSplit {
    pub text: String,
    pub expected: &'static str,
}

/// What a request has that a split may ask for. Where a header or cookie stands more than once, its last one counts.
pub trait Asking {
    /// The last value of a header, whatever the case of its name.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The last value of a cookie.
    fn cookie(&self, name: &str) -> Option<&[u8]>;
    /// Where the client connects from.
    fn source(&self) -> IpAddr;
}

/// What sends a request to its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A rule does: the trial side.
    Ruled,
    /// The user's place among the [`PLACES`] does, or that there is no user.
    Placed(Side),
    /// Every request for itself: whoever asks draws or counts, so that [`TrafficSplit::share`] comes out.
    Counted,
}

/// Says where a request belongs: pure, and the same for every balancer.
#[must_use]
pub fn side_of(split: &TrafficSplit, request: &impl Asking) -> Verdict {
    if split.rules.iter().any(|rule| rule.is_met_by(request)) {
        return Verdict::Ruled;
    }
    let Some(key) = &split.sticky else { return Verdict::Counted };
    if split.share == Share::ALL {
        return Verdict::Placed(Side::Trial);
    }
    let place = match key {
        UserKey::Source => Some(match request.source() {
            IpAddr::V4(source) => place_of(&source.octets()),
            IpAddr::V6(source) => place_of(&source.octets()),
        }),
        UserKey::Cookie(name) => request.cookie(name).map(place_of),
        UserKey::Header(name) => request.header(name).map(place_of),
    };
    Verdict::Placed(if place.is_some_and(|place| place < split.share.0) { Side::Trial } else { Side::Stable })
}

/// The place of a user, from 0: on the trial side as soon as the share is larger.
#[must_use]
pub fn place_of(user: &[u8]) -> u16 {
    let mut hash = XxHash32::with_seed(SEED);
    hash.write(user);
    u16::try_from(hash.finish() % u64::from(PLACES)).unwrap_or_default()
}

impl Rule {
    fn is_met_by(&self, request: &impl Asking) -> bool {
        let seen = match self.at {
            RuleAt::Header => request.header(&self.name),
            RuleAt::Cookie => request.cookie(&self.name),
        };
        seen.is_some_and(|seen| seen == self.value.as_bytes())
    }
}

impl Share {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(PLACES);

    /// So many hundredths of a percent; at most everything.
    #[must_use]
    pub const fn of_places(places: u16) -> Self {
        if places > PLACES { Self::ALL } else { Self(places) }
    }

    /// How many of the [`PLACES`].
    #[must_use]
    pub const fn places(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Share {
    type Error = InvalidSplit;
    fn try_from(places: u16) -> Result<Self, InvalidSplit> {
        match places <= PLACES {
            true => Ok(Self(places)),
            false => Err(InvalidSplit { text: places.to_string(), expected: "a share of at most 10000 places" }),
        }
    }
}

impl From<Share> for u16 {
    fn from(share: Share) -> u16 {
        share.0
    }
}

#[cfg(test)]
mod tests;
