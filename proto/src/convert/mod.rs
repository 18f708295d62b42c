//! Between messages and `core`'s types: nothing that is wrong gets in.
//!
//! `From<&core>` writes, `TryFrom<message>` reads and checks. Lists of the wire are maps inside: a key that comes twice is
//! refused, because two readers could keep different ones.

mod hooks;
mod problem;
mod release;
mod report;
mod spec;
mod split;
#[cfg(test)]
mod tests;
mod upgrade;

pub use upgrade::{UpgradeOrder, UpgradeReport};

use baton_core::name::{Digest, ReleaseId};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// The longest duration that is taken from a message: adding it to any clock must not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A message that does not mean anything `core` knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct InvalidMessage {
    /// Where, from the outside in: `instances[2].release_id`.
    pub field: String,
    pub what: String,
}

impl InvalidMessage {
    #[must_use]
    pub fn new(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into() }
    }

    /// The same, seen from the message around it.
    #[must_use]
    fn inside(mut self, outer: &str) -> Self {
        let separator = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        self.field = format!("{outer}{separator}{}", self.field);
        self
    }
}

fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, InvalidMessage> {
    text.parse().map_err(|error: T::Err| InvalidMessage::new(field, error.to_string()))
}

fn digest(field: &str, bytes: &[u8]) -> Result<Digest, InvalidMessage> {
    let exact =
        bytes.try_into().map_err(|_| InvalidMessage::new(field, format!("{} bytes where a digest has 32", bytes.len())))?;
    Ok(Digest::from_bytes(exact))
}

fn release_id(field: &str, bytes: &[u8]) -> Result<ReleaseId, InvalidMessage> {
    digest(field, bytes).map(ReleaseId)
}

fn duration(field: &str, millis: u64) -> Result<Duration, InvalidMessage> {
    let duration = Duration::from_millis(millis);
    if duration > LONGEST {
        return Err(InvalidMessage::new(field, format!("{millis} ms is longer than 100 years")));
    }
    Ok(duration)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.min(LONGEST).as_millis()).unwrap_or(u64::MAX)
}

fn bytes(digest: Digest) -> Vec<u8> {
    digest.as_bytes().to_vec()
}

fn present<T>(field: &str, value: Option<T>) -> Result<T, InvalidMessage> {
    value.ok_or_else(|| InvalidMessage::new(field, "is missing"))
}

/// Reads a message that must be there.
fn required<M, T: TryFrom<M, Error = InvalidMessage>>(field: &str, message: Option<M>) -> Result<T, InvalidMessage> {
    T::try_from(present(field, message)?).map_err(|error| error.inside(field))
}

/// Reads a message that may be there.
fn optional<M, T: TryFrom<M, Error = InvalidMessage>>(field: &str, message: Option<M>) -> Result<Option<T>, InvalidMessage> {
    message.map(|message| T::try_from(message).map_err(|error| error.inside(field))).transpose()
}

/// Reads a list whose elements carry their key.
fn keyed<M, K: Ord + Display, V, C: FromIterator<(K, V)>>(
    field: &str,
    messages: Vec<M>,
    read: impl Fn(M) -> Result<(K, V), InvalidMessage>,
) -> Result<C, InvalidMessage> {
    let mut map = BTreeMap::new();
    for (index, message) in messages.into_iter().enumerate() {
        let place = format!("{field}[{index}]");
        let (key, value) = read(message).map_err(|error| error.inside(&place))?;
        if map.contains_key(&key) {
            return Err(InvalidMessage::new(place, format!("`{key}` comes twice")));
        }
        map.insert(key, value);
    }
    Ok(map.into_iter().collect())
}
