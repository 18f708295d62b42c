//! What is kept of a name that is only ever asked whether it is still the same: a process, a start of an instance.

use crate::name::Digest;
use serde::{Deserialize, Serialize};

/// Two names that differ have the same one less often than once in a billion billions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub(super) struct Mark(u64);

/// As it is written now, and as it once was.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Mark(u64),
    Name(String),
}

impl Mark {
    pub(super) fn of(name: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *Digest::of(name.as_bytes()).as_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl From<Stored> for Mark {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Mark(mark) => Self(mark),
            Stored::Name(name) => Self::of(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_stored_once_has_the_same_mark() {
        let [one, other] = ["4242-1718000000", "4242-1718000001"].map(Mark::of);
        assert_ne!(one, other);
        assert_eq!(Mark::from(Stored::Name("4242-1718000000".to_owned())), one);
        assert_eq!(Mark::from(Stored::Mark(one.0)), one);
    }
}
