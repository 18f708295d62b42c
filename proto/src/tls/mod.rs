//! Mutual TLS: the one place that builds it and reads a peer from it.
//!
//! TLS 1.3 only, on ring. No session tickets, no resumption, no early data: a connection is as old as its certificate check,
//! so that a revoked certificate cannot come back through an old session.

mod channel;
mod client;
mod credentials;
mod credit;
mod door;
mod endpoint;
mod explain;
mod handshakes;
mod held;
mod incoming;
mod knocks;
mod local;
mod notice;
mod pace;
mod peer;
mod places;
mod server;
#[cfg(test)]
mod tests;
mod verify;

pub use channel::{channel, local_channel};
pub use client::{client_config, joining_config, noticing_config};
pub use credentials::{Credentials, TlsError, authority_pin, authority_pins};
pub use endpoint::with_port;
pub use explain::{certificate_problem, connect_problem, date, find_problem, refuses_identity, with_dates};
pub use incoming::incoming;
pub use local::local_incoming;
pub use notice::Notice;
pub use peer::{Closing, Connection, Peer, peer, peer_in};
pub use server::server_config;
pub use verify::verify_coordinator;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use std::sync::Arc;

/// A configuration that new connections read: storing another one is a hot reload, and open connections stay.
pub type Hot<T> = Arc<ArcSwap<T>>;

/// Makes a configuration reloadable.
#[must_use]
pub fn hot<T>(config: Arc<T>) -> Hot<T> {
    Arc::new(ArcSwap::new(config))
}

const ALPN: &[u8] = b"h2";

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
