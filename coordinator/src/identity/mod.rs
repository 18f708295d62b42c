//! Who is who: the coordinator's certificate authority, its own or one that was brought.
//!
//! The authority's key never leaves the state folder, a host's or operator's key never leaves its owner: what arrives is a
//! request, of which only the public key is believed; names, roles, dates and uses are the authority's.

pub mod authority;
pub mod brought;
pub mod issuance;
pub mod rotation;
pub mod server;

use crate::store::WallTime;
use baton_core::problem::{Code, Problem};
use rustls::crypto::ring;
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, for what carries a date: certificates and tokens.
#[must_use]
pub fn wall_time() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Bytes nobody can guess.
///
/// # Errors
/// B1006 when the operating system has none, which it does not say after it has started.
pub fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    let filled = ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| Problem::new(Code(1006), "the operating system gives no random bytes"))?;
    Ok(bytes)
}
