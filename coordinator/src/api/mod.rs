//! What the coordinator offers on the wire. It authenticates, authorises, converts, asks the driver; it decides nothing.

mod agent_link;
mod agents;
mod artifacts;
mod audit;
pub mod authority;
mod before;
mod bring;
mod certificates;
mod control;
mod diff;
mod enrollment;
pub mod gate;
mod look;
mod orders;
mod past;
mod preview;
mod reboot;
mod removed;
pub mod revoked;
pub mod roles;
mod tokens;
pub mod used;
pub mod view;

use crate::artifact::Folder;
use crate::audit::Audit;
use crate::driver::Access;
use crate::identity::issuance::Issuance;
use crate::reboots::Reboots;
use crate::store::Store;
use crate::upgrades::Upgrades;
use baton_core::problem::Problem;
use baton_proto::problem::{code, to_status};
use baton_proto::tls::Connection;
use baton_proto::v1::agent_link_server::AgentLinkServer;
use baton_proto::v1::artifacts_server::ArtifactsServer;
use baton_proto::v1::control_server::ControlServer;
use baton_proto::v1::enrollment_server::EnrollmentServer;
use futures_util::Stream;
use gate::GateLayer;
use revoked::Revoked;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Server;
use used::Used;

/// HTTP/2 pings: a peer that vanished without a word is noticed although nothing is sent.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);

/// Calls of one connection at once: an agent has a stream and a few fetches.
const STREAMS: u32 = 64;

/// Streams a peer opened and reset at once before its connection is closed (CVE-2023-44487).
const RESET_STREAMS: usize = 32;

/// All headers of a call together.
const HEADERS_MAX: u32 = 16 * 1024;

/// A report of a host with hundreds of instances, each with its evidence.
const REPORT_MAX: usize = 4 * 1024 * 1024;

/// A manifest, or a chunk of an artifact with what is around it.
const REQUEST_MAX: usize = 1024 * 1024;

/// A request for a certificate, from anybody.
const JOIN_MAX: usize = 32 * 1024;

/// Everything the methods need.
#[derive(Clone)]
pub struct Api {
    pub access: Access,
    pub store: Arc<dyn Store>,
    pub issuance: Arc<Issuance>,
    pub artifacts: Arc<Folder>,
    pub revoked: Revoked,
    pub used: Used,
    pub audit: Arc<Audit>,
    pub upgrades: Upgrades,
    pub reboots: Reboots,
    /// Of certificates, in seconds.
    pub life: i64,
    /// Where hosts and operators connect.
    pub port: u16,
}

impl Api {
    /// Serves connections until `shutdown`; then what is under way may finish.
    ///
    /// # Errors
    /// Only those of `incoming`, which has none.
    pub async fn serve(
        self,
        incoming: impl Stream<Item = io::Result<Connection>>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
            .max_concurrent_streams(STREAMS)
            .http2_max_pending_accept_reset_streams(Some(RESET_STREAMS))
            .http2_max_header_list_size(HEADERS_MAX)
            .layer(GateLayer::new(self.revoked.clone(), self.used.clone(), Arc::clone(&self.audit)))
            .add_service(EnrollmentServer::new(self.clone()).max_decoding_message_size(JOIN_MAX))
            .add_service(AgentLinkServer::new(self.clone()).max_decoding_message_size(REPORT_MAX))
            .add_service(ArtifactsServer::new(self.clone()).max_decoding_message_size(REQUEST_MAX))
            .add_service(ControlServer::new(self).max_decoding_message_size(REQUEST_MAX))
            .serve_with_incoming_shutdown(incoming, shutdown)
            .await
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// The refusal of a word or an option as people wrote it: `--ttl`, `HOST`.
fn wrong(word: &str, what: impl std::fmt::Display) -> Status {
    to_status(Problem::new(code::USAGE, format!("{word} cannot be that: {what}")))
}

/// The refusal of a request that cannot be understood.
fn invalid(field: &str, what: impl Into<String>) -> Status {
    to_status(Problem::new(code::NOT_UNDERSTOOD, "the request cannot be right").saw(field, what.into()))
}
