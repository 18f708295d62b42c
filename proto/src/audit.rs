//! The chain of the audit log: what an entry's hash is over. A coordinator writes it, and whoever has an export can check it.

use baton_core::name::Digest;

/// What stands before the first entry.
#[must_use]
pub fn beginning() -> Digest {
    Digest::of(b"baton audit v1")
}

/// The hash of an entry: over the one before, its number, its time and its text.
#[must_use]
pub fn link(before: &Digest, number: u64, at_seconds: i64, text: &str) -> Digest {
    let mut bytes = Vec::with_capacity(32 + 16 + text.len());
    bytes.extend_from_slice(before.as_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&at_seconds.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    Digest::of(&bytes)
}
