//! The whole product as real processes on loopback: a coordinator, agents, a load balancer, applications, and traffic.
//!
//! One executable for all of it: the tests wait far more than they work, so they run beside one another.

#![allow(clippy::unwrap_used)]

mod autonomy;
mod bad_manifests;
mod bad_releases;
mod certificates;
mod commands;
mod counting;
mod crash;
mod disk;
mod handover;
mod hooks;
mod identity;
mod judging;
mod kill;
mod metrics;
mod restore;
mod rolling;
mod rotation;
mod secrets;
mod split;
mod strategies;
mod support;
mod two_balancers;
