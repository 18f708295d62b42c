//! What is kept of a name that is only ever asked whether it is still the same: a process, a start of an instance.

use crate::name::Digest;
use serde::{Deserialize, Serialize};

/// Two names that differ have the same one less often than once in a billion billions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(super) struct Mark(pub(super) u64);

/// What is stored begins with it, and no name does. Where names themselves were stored they are still read, and who expects
/// a name reads one that is none of those it knows.
const SIGN: char = '#';

impl Mark {
    pub(super) fn of(name: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *Digest::of(name.as_bytes()).as_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl From<String> for Mark {
    fn from(stored: String) -> Self {
        let mark = stored.strip_prefix(SIGN).and_then(|mark| u64::from_str_radix(mark, 16).ok());
        mark.map_or_else(|| Self::of(&stored), Self)
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        format!("{SIGN}{:x}", mark.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_stored_once_has_the_same_mark() {
        let [one, other] = ["4242-1718000000", "4242-1718000001"].map(Mark::of);
        assert_ne!(one, other);
        assert_eq!(Mark::from("4242-1718000000".to_owned()), one);
        assert_eq!(Mark::from(String::from(one)), one, "as it is written now");
    }
}
