//! Join tokens as the store keeps them: hashed, bounded in uses and in time.

use super::WallTime;
use baton_core::name::{Digest, HostName, OperatorName, ServiceName};
use baton_proto::identity::{Identity, Role};
use std::fmt;
use std::str::FromStr;

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    /// The secret itself is shown once and kept nowhere.
    pub secret_hash: Digest,
    pub admits: Admits,
    pub uses_left: u32,
    pub created: WallTime,
    pub expires: WallTime,
    /// Names it may be redeemed for; empty: any that nobody has.
    pub names: Vec<String>,
    /// Services whoever redeems it may command; empty: all.
    pub services: Vec<ServiceName>,
    /// How long a certificate lasts that it gives, in seconds; as long as others where none is said.
    pub life: Option<i64>,
}

/// What people call a token when they list or revoke it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenId(pub String);

/// What the bearer of a token becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admits {
    Host,
    Operator(Role),
}

/// One attempt to become somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    pub secret_hash: Digest,
    pub name: String,
    /// Of the certificate that is issued if this is granted.
    pub serial: String,
    /// The fingerprint of the authority that signs it.
    pub authority: String,
    pub now: WallTime,
    pub certificate_expires: WallTime,
    /// Whoever asks knows that it takes somebody's place.
    pub replace: bool,
    /// "host" or "operator": what whoever asks is about to be; empty: whatever the token admits.
    pub bearer: String,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    Granted {
        identity: Identity,
        /// Serial numbers of certificates this name had before.
        revoked: Vec<String>,
        services: Vec<ServiceName>,
        /// As [`Token::life`].
        life: Option<i64>,
        /// Whoever made the token said who would come.
        named: bool,
    },
    /// No token has this secret.
    Unknown,
    /// Every use is taken, or the one for this name, or it was revoked.
    Spent,
    Expired,
    /// The token is for a host, and an operator asks, or the other way round.
    ForAnother(Admits),
    /// The token is for other names.
    NameNotAllowed,
    /// Somebody has this name and the token allows to take its place, but whoever asks did not say so.
    NameInUse(Admits),
    /// Somebody has this name, and the token does not say that it may be taken over.
    NameTaken(Admits),
    /// The text cannot be a name.
    NameInvalid(String),
}

/// Who has a name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Had {
    ByNobody,
    /// Somebody whose certificate was not revoked.
    WithACertificate,
    /// A host that was accepted, and whose certificates were revoked: whoever has its name is told what it was told.
    ByAHostWithout,
}

impl Had {
    pub(super) const fn by(certified: bool, accepted: bool) -> Self {
        match (certified, accepted) {
            (true, _) => Self::WithACertificate,
            (false, true) => Self::ByAHostWithout,
            (false, false) => Self::ByNobody,
        }
    }
}

impl Token {
    /// Who the bearer would become under this name, or why not.
    pub(super) fn identity_for(&self, Redemption { name, bearer, .. }: &Redemption) -> Result<Identity, Redeemed> {
        let admits = match self.admits {
            Admits::Host => "host",
            Admits::Operator(_) => "operator",
        };
        if !bearer.is_empty() && bearer != admits {
            return Err(Redeemed::ForAnother(self.admits));
        }
        if !self.names.is_empty() && !self.names.iter().any(|allowed| allowed == name) {
            return Err(Redeemed::NameNotAllowed);
        }
        let invalid = |error: baton_core::name::InvalidName| Redeemed::NameInvalid(error.to_string());
        match self.admits {
            Admits::Host => HostName::new(name).map(Identity::Host).map_err(invalid),
            Admits::Operator(role) => OperatorName::new(name).map(|name| Identity::Operator { role, name }).map_err(invalid),
        }
    }

    /// Why the token cannot be redeemed at all, when it cannot.
    pub(super) fn worthless(&self, now: WallTime) -> Option<Redeemed> {
        if self.expires <= now {
            return Some(Redeemed::Expired);
        }
        (self.uses_left == 0).then_some(Redeemed::Spent)
    }

    /// Why a name that somebody has cannot be had: only a token made for that very name may take it over, and only where
    /// whoever redeems it says that this is meant. Two machines, or two people, may have one name by mistake.
    pub(super) const fn keeps_out(&self, replace: bool, had: Had) -> Option<Redeemed> {
        match (had, self.names.is_empty()) {
            (Had::ByNobody, _) | (Had::ByAHostWithout, false) => None,
            (Had::WithACertificate | Had::ByAHostWithout, true) => Some(Redeemed::NameTaken(self.admits)),
            (Had::WithACertificate, false) if replace => None,
            (Had::WithACertificate, false) => Some(Redeemed::NameInUse(self.admits)),
        }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Admits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Operator(role) => role.fmt(f),
        }
    }
}

/// A word that is neither `host` nor a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `host`, `admin`, `deployer`, `viewer` or `ci`")]
pub struct InvalidRole(String);

impl FromStr for Admits {
    type Err = InvalidRole;
    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        match text {
            "host" => Ok(Self::Host),
            _ => text.parse().map(Self::Operator).map_err(|_| InvalidRole(text.chars().take(80).collect())),
        }
    }
}
