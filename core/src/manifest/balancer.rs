//! `[balancer]`: behind what a service runs.

use super::reader::{Reader, quoted};
use super::withdraw::withdraw;
use crate::fleet::BalancerPool;
use crate::name::{PoolName, ServiceName};
use std::time::Duration;

/// The pool in front of the service; inner None: nothing routes to it.
pub(super) fn balancer(reader: &mut Reader<'_, '_>, service: Option<&ServiceName>) -> Option<Option<BalancerPool>> {
    if !reader.has_table("balancer") {
        return Some(None);
    }
    let on = reader.hosts("balancer.on");
    let pool = if reader.value("balancer.pool").is_some() {
        reader.name::<PoolName>("balancer.pool")
    } else {
        let name = service.map(ServiceName::as_str)?;
        reader.note("balancer.pool", quoted(name), None);
        reader.parse_name(name, reader.span("service"))
    };
    let slow_start = reader.duration("balancer.slow_start", Duration::ZERO);
    let withdraw = withdraw(reader);
    Some(Some(BalancerPool { on: on?, pool: pool?, slow_start: slow_start?, withdraw: withdraw? }))
}
