//! Runs on every host: receives artifacts, starts and stops instances, drives the local balancer, reports what is.

pub mod balancer;
pub mod boot;
pub mod connections;
pub mod durable;
pub mod ledger;
pub mod probe;
pub mod runtime;
pub mod text;
