//! Certificates as the store remembers them: who has which, until when, and which are not accepted any more.

use super::WallTime;

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub serial: String,
    /// As [`baton_proto::identity::Identity`] writes it: `host/web1`.
    pub identity: String,
    /// The fingerprint of the authority that signed it.
    pub authority: String,
    pub issued: WallTime,
    pub expires: WallTime,
    pub revoked: bool,
    /// Somebody called with it, or said that it is kept: whoever has it needs none of those before.
    pub used: bool,
}

/// One certificate asking for the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The serial of the certificate that asks.
    pub shown: String,
    /// The one about to be issued.
    pub next: Certificate,
}
