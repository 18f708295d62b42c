//! Runs on every host: receives artifacts, starts and stops instances, drives the local balancer, reports what is.

pub mod balancer;
