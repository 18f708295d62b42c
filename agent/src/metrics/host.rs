//! One host's numbers. No release, and nothing else that comes and goes without end, is a label.

use super::{Counters, Usage};
use crate::reconciler::{Obstacle, Phase, View};
use baton_core::fleet::InstanceKey;
use baton_core::fleet::report::PoolReport;
use baton_core::name::{PoolName, ServiceName};
use baton_proto::metrics::{Exposition, Kind, flag};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is said, as it was when somebody asked.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub view: &'a View,
    pub counters: &'a Counters,
    /// What may be wrong with the machine, and whether it is.
    pub troubles: [(&'static str, bool); 2],
    pub artifact_bytes: u64,
    /// From when until when the certificate is good. None: it cannot be read, or nobody has looked yet.
    pub certificate: Option<(i64, i64)>,
    pub usage: &'a BTreeMap<InstanceKey, Usage>,
}

/// Adds everything there is to say about a host.
pub fn metrics(out: &mut Exposition, seen: &Seen<'_>) {
    out.family("baton_agent_build_info", Kind::Gauge, "The version of this agent.");
    out.sample("baton_agent_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    session(out, seen);
    certificate(out, seen.certificate);
    out.family("baton_agent_artifact_bytes", Kind::Gauge, "Bytes of the files of all releases on this host.");
    out.sample("baton_agent_artifact_bytes", &[], seen.artifact_bytes as f64);
    problems(out, seen);
    instances(out, seen);
    usage(out, seen.usage);
    pools(out, &seen.view.pools);
}

fn session(out: &mut Exposition, seen: &Seen<'_>) {
    out.family("baton_agent_connected", Kind::Gauge, "Whether there is a session with the coordinator.");
    out.sample("baton_agent_connected", &[], flag(seen.counters.is_connected()));
    out.family(
        "baton_agent_sessions_total",
        Kind::Counter,
        "Sessions with the coordinator that began: all but one are reconnects.",
    );
    out.sample("baton_agent_sessions_total", &[], seen.counters.sessions() as f64);
    out.family("baton_agent_epoch", Kind::Gauge, "The epoch of the spec this host follows.");
    out.sample("baton_agent_epoch", &[], seen.view.observed.epoch.0 as f64);
    out.family("baton_agent_generation", Kind::Gauge, "The generation of the spec this host follows.");
    out.sample("baton_agent_generation", &[], seen.view.observed.generation.0 as f64);
}

fn certificate(out: &mut Exposition, certificate: Option<(i64, i64)>) {
    const NOT_BEFORE: &str = "baton_agent_certificate_not_before_timestamp_seconds";
    const NOT_AFTER: &str = "baton_agent_certificate_not_after_timestamp_seconds";
    out.family(NOT_BEFORE, Kind::Gauge, "When this host's certificate began.");
    out.family(NOT_AFTER, Kind::Gauge, "When this host's certificate ends.");
    if let Some((not_before, not_after)) = certificate {
        out.sample(NOT_BEFORE, &[], not_before as f64);
        out.sample(NOT_AFTER, &[], not_after as f64);
    }
}

fn problems(out: &mut Exposition, seen: &Seen<'_>) {
    out.family("baton_agent_problem", Kind::Gauge, "Whether this host has a problem, by what it is about.");
    let obstacles = Obstacle::ALL.map(|obstacle| (obstacle.word(), seen.view.problems.contains_key(&obstacle)));
    for (about, there) in obstacles.into_iter().chain(seen.troubles) {
        out.sample("baton_agent_problem", &[("about", about)], flag(there));
    }
}

fn instances(out: &mut Exposition, seen: &Seen<'_>) {
    out.family("baton_agent_instances", Kind::Gauge, "Instances on this host, by what they are doing.");
    out.family("baton_agent_probes_total", Kind::Counter, "Probes of instances, by whether the answer was as it should be.");
    out.family(
        "baton_agent_instance_failures_total",
        Kind::Counter,
        "Instances that ended by themselves, were never ready, or could not be started.",
    );
    out.family("baton_agent_instance_restarts_total", Kind::Counter, "Instances that failed and were started once more.");
    for service in services(seen.view) {
        let name = ("service", service.as_str());
        let mut states = STATES.map(|state| (state, 0_u32));
        let phases = seen.view.instances.iter().filter(|(key, _)| key.service == *service).map(|(_, it)| word(&it.phase));
        for phase in phases {
            states.iter_mut().filter(|(state, _)| *state == phase).for_each(|(_, number)| *number += 1);
        }
        for (state, number) in states {
            out.sample("baton_agent_instances", &[name, ("state", state)], f64::from(number));
        }
        let counted = seen.counters.of(service);
        for (result, number) in [("failed", counted.failed()), ("passed", counted.passed())] {
            out.sample("baton_agent_probes_total", &[("result", result), name], number as f64);
        }
        out.sample("baton_agent_instance_failures_total", &[name], counted.failures() as f64);
        out.sample("baton_agent_instance_restarts_total", &[name], counted.restarts() as f64);
    }
}

fn usage(out: &mut Exposition, usage: &BTreeMap<InstanceKey, Usage>) {
    const MEMORY: &str = "baton_agent_instance_resident_memory_bytes";
    const CPU: &str = "baton_agent_instance_cpu_seconds_total";
    out.family(MEMORY, Kind::Gauge, "Resident memory of an instance's processes, added up.");
    out.family(CPU, Kind::Counter, "CPU time of an instance's processes that live; begins anew with each instance.");
    for (key, usage) in usage {
        let slot = key.slot.to_string();
        let labels = [("service", key.service.as_str()), ("slot", slot.as_str())];
        out.sample(MEMORY, &labels, usage.resident_bytes as f64);
        out.sample(CPU, &labels, usage.cpu_seconds);
    }
}

/// The services this host should run or does.
fn services(view: &View) -> BTreeSet<&ServiceName> {
    let wanted = view.told.iter().flat_map(|spec| spec.instances.keys());
    wanted.chain(view.instances.keys()).map(|key| &key.service).collect()
}

const STATES: [&str; 5] = ["failed", "ready", "starting", "stopping", "unready"];

/// The word of `baton-agent status --json` for it.
const fn word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Starting { .. } => "starting",
        Phase::Ready { .. } => "ready",
        Phase::Unready { .. } => "unready",
        Phase::Stopping { .. } => "stopping",
        Phase::Failed { .. } => "failed",
    }
}

fn pools(out: &mut Exposition, pools: &BTreeMap<PoolName, PoolReport>) {
    out.family("baton_agent_pool_up", Kind::Gauge, "Whether this host's load balancer answers for a pool.");
    out.family(
        "baton_agent_member_requests_total",
        Kind::Counter,
        "Requests a member answered, by the load balancer's own count.",
    );
    out.family("baton_agent_member_errors_total", Kind::Counter, "Of these, answered 5xx, unreachable, or broken off.");
    out.family("baton_agent_member_in_flight_requests", Kind::Gauge, "Requests under way at a member.");
    for (name, pool) in pools {
        let pool_label = ("pool", name.as_str());
        out.sample("baton_agent_pool_up", &[pool_label], flag(pool.problem.is_none()));
        for (key, member) in &pool.members {
            let key = key.to_string();
            let labels = [("member", key.as_str()), pool_label];
            out.sample("baton_agent_member_requests_total", &labels, member.requests as f64);
            out.sample("baton_agent_member_errors_total", &labels, member.errors as f64);
            out.sample("baton_agent_member_in_flight_requests", &labels, member.in_flight as f64);
        }
    }
}
