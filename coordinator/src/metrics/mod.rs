//! `/metrics` for Prometheus: off unless the configuration says where.

pub mod certificates;
pub mod fleet;
#[cfg(test)]
mod tests;

use crate::api::view;
use crate::driver::Access;
use baton_core::problem::{Code, Problem};
use baton_proto::metrics::Exposition;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::net::TcpListener;

/// Binds the address.
///
/// # Errors
/// B1011 says why it cannot be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Problem> {
    TcpListener::bind(address).await.map_err(|error| {
        Problem::new(Code(1011), format!("the coordinator cannot listen at {address}"))
            .saw("network", error.to_string())
            .help("choose another address (`metrics` in coordinator.toml), or stop what listens there")
    })
}

/// Answers until `until`. `identity` is the folder of the authority and of the coordinator's own certificate.
pub async fn serve(listener: TcpListener, access: Access, identity: PathBuf, until: impl Future<Output = ()>) {
    let text = move || text(access.clone(), identity.clone());
    baton_proto::metrics::serve(listener, text, until).await;
}

async fn text(access: Access, identity: PathBuf) -> String {
    let lives = certificates::lives(identity).await;
    let (picture, now) = (access.picture(), access.now());
    let view = view::fleet(&picture, &access.links().hellos(), now, None);
    let mut out = Exposition::default();
    fleet::metrics(&mut out, &picture, &view, now);
    certificates::metrics(&mut out, &lives);
    out.text()
}
