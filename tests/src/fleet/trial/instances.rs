//! Which version answers on every port: asked of the instances themselves, past balancer and Baton.

use super::client::inside;
use crate::fleet::pool::Pool;
use crate::fleet::record::{Fleet, Part};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// By `web1:8101`, the version that answers there; ports on which nobody does are not in it.
///
/// # Errors
/// When the fleet's namespace cannot be entered.
pub(super) fn versions(fleet: &Fleet, pool: &Pool) -> anyhow::Result<BTreeMap<String, String>> {
    let hosts = fleet.every(Part::Web);
    let ports = hosts.flat_map(|host| pool.ports.iter().map(move |port| (host, *port)));
    let asked = ports.map(|(host, port)| (format!("{}:{port}", host.name), SocketAddr::from((host.address, port))));
    let asked = asked.collect::<Vec<_>>();
    inside(move || Ok(asked.into_iter().filter_map(|(name, address)| Some((name, version(address)?))).collect()))
}

fn version(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.trim().to_owned())
}
