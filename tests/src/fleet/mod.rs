//! Real hosts on this machine: systemd boots in each, packages are installed in each, and each can be cut off or lose power.
//!
//! ```text
//! namespace baton-fleet        bridge `hub` 10.77.0.1      <- clients, and `nft` for cuts
//!   ├ v-coord ─ eth0 10.77.0.2    coord   baton-coordinator, baton
//!   ├ v-lb1   ─ eth0 10.77.0.11   lb1     baton-agent, HAProxy; lb2 nginx, lb3 Envoy
//!   └ v-web1  ─ eth0 10.77.0.21   web1    baton-agent
//! ```
//!
//! A host is `systemd-nspawn --boot` on an overlay over one debootstrapped folder. Nothing else on the machine is touched: names,
//! routes and addresses live in namespaces, cgroups under `baton-fleet`, and [`down`](life::down) leaves none of it.

pub mod base;
pub mod cgroups;
pub mod contract;
pub mod front;
pub mod host;
pub mod life;
pub mod needs;
pub mod network;
pub mod packages;
pub mod pool;
pub mod provision;
pub mod record;
pub mod run;
pub mod trial;

use std::path::PathBuf;

/// Where a running fleet keeps its hosts' changes and its record.
pub const STATE: &str = "/run/baton-fleet";

/// Where the folder that every host starts from is kept between fleets.
pub const CACHE: &str = "/var/cache/baton-fleet";

/// Everything of one host: its changes over the base, its console, its process.
#[must_use]
pub fn host_folder(name: &str) -> PathBuf {
    PathBuf::from(STATE).join("hosts").join(name)
}
