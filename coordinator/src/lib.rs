//! Holds what should be, plans the next safe step, sends each agent its document.
//!
//! The driver ([`driver`]) is the single writer: it asks `core` what comes next, has it checked by the interlock, makes it
//! durable in the [`store`], and only then sends it. The [`api`] authenticates, authorises, converts and wakes; it decides
//! nothing.

pub mod api;
pub mod artifact;
pub mod audit;
pub mod backup;
pub mod config;
pub mod driver;
pub mod identity;
mod init;
mod local;
pub mod log;
pub mod metrics;
mod outgoing;
mod prober;
mod prometheus;
pub mod reboots;
pub mod restore;
mod run;
#[cfg(test)]
mod samples;
pub mod state;
pub mod store;
pub mod upgrades;

pub use init::{Initialised, init, init_with};
pub use run::{Running, run, start};
