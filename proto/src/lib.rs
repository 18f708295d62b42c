//! What Baton's programs say to each other: the `.proto` files, the code generated from them, conversions to `core`'s types,
//! mutual TLS, and what they say to Prometheus.

pub mod audit;
pub mod convert;
pub mod frame;
pub mod identity;
pub mod metrics;
pub mod problem;
pub mod renewal;
pub mod tls;
pub mod token;
pub mod unit;

/// The version of the conversation itself. An agent says it in its hello; it grows when an old peer could not follow.
pub const PROTOCOL: u32 = 1;

/// The oldest conversation this version can still hold.
pub const OLDEST_PROTOCOL: u32 = 1;

/// Whether this version can talk with one that speaks another protocol: the one before and the one after it can be had.
#[must_use]
pub const fn understands(protocol: u32) -> bool {
    protocol >= OLDEST_PROTOCOL && protocol <= PROTOCOL + 1
}

/// The generated messages, clients and servers.
#[allow(clippy::all, clippy::needless_pass_by_value, missing_debug_implementations, unreachable_pub, rustdoc::all)]
pub mod v1 {
    include!("gen/baton.v1.rs");
}
