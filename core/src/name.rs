//! Names and numbers with one meaning each: no id is a bare string, no generation a bare integer.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::fmt;
use std::str::FromStr;

/// The longest name accepted anywhere: a DNS label, so that a name can become a host, a unit and a folder.
pub const NAME_MAX: usize = 63;

/// A name was empty, too long, or held a character that could not stand in a unit, a path or a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {rule}")]
pub struct InvalidName {
    pub what: &'static str,
    pub text: String,
    pub rule: &'static str,
}

fn check_name(what: &'static str, text: &str, extra: &[char], max: usize) -> Result<(), InvalidName> {
    let invalid = |rule| Err(InvalidName { what, text: text.chars().take(80).collect(), rule });
    if text.is_empty() {
        return invalid("it is empty");
    }
    if text.len() > max {
        return invalid("it is too long");
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return invalid("it must start with a letter or a digit");
    }
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || extra.contains(&c)) {
        return invalid("only ASCII letters, digits, `-` and, for some, `.`, `_`, `+` are allowed");
    }
    Ok(())
}

// Names are keys everywhere, and fleets are copied whole: most lie in the key itself, and a copy of one is no memory.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $extra:expr, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks the text and takes it as a name.
            ///
            /// # Errors
            /// [`InvalidName`] says which rule the text breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                check_name($what, &text, &$extra, $max)?;
                Ok(Self(text.into()))
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }
    };
}

name!(
    /// The name of a service.
    ServiceName, "service name", ['_'], NAME_MAX
);
name!(
    /// The name of a host, as its certificate says it.
    HostName, "host name", ['.'], 253
);
name!(
    /// The name of a pool in a balancer (HAProxy: the backend).
    PoolName, "pool name", ['_', '.'], NAME_MAX
);
name!(
    /// The operators' word for a release of a service, such as `2.1.0`.
    Version, "version", ['.', '_', '+'], NAME_MAX
);
name!(
    /// The id of a rollout, such as `r-7f3`.
    RolloutId, "rollout id", [], NAME_MAX
);
name!(
    /// What a label of a host is about, such as `rack`.
    LabelKey, "label", ['.', '_'], NAME_MAX
);
name!(
    /// What a label of a host says, such as `r12`.
    LabelValue, "label's value", ['.', '_'], NAME_MAX
);
name!(
    /// The name of an operator or of a CI pipeline.
    OperatorName, "operator name", ['.', '_', '@'], NAME_MAX
);

name!(
    /// The id of an upgrade of agents, such as `u-3`.
    UpgradeId, "upgrade id", [], NAME_MAX
);
name!(
    /// The id of reboots that were asked for together, such as `b-3`.
    RebootId, "reboot id", [], NAME_MAX
);
name!(
    /// The version of a package, as the package itself says it: `1.2.0-1~bpo12+1`.
    PackageVersion, "package version", ['.', '_', '+', '~', ':'], NAME_MAX
);
name!(
    /// What machines a package is for, in its own words: `amd64`.
    Architecture, "architecture", ['_'], NAME_MAX
);

/// A BLAKE3 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first twelve digits: enough for people to tell two apart.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            what: "digest",
            text: text.chars().take(80).collect(),
            rule: "a digest is 64 hexadecimal digits",
        };
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| invalid())
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// What a release is: the digest over everything that makes it (see [`crate::release::Release::id`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseId(pub Digest);

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Grows with every start of a coordinator: who drives. Fences a paused, restored or duplicated one.
    Epoch
);
number!(
    /// Grows with every change of one host's spec.
    Generation
);

/// A place on a host where an instance of a service runs: an index into the service's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u8);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
