//! The fleet's numbers: from the same view that operators see.

use crate::api::view;
use crate::driver::Picture;
use baton_core::rollout::Rollout;
use baton_core::time::Moment;
use baton_proto::metrics::{Exposition, Kind, flag};
use baton_proto::v1::{FleetView, MemberView, PoolView};
use std::collections::BTreeMap;

const HEALTH: [&str; 4] = ["healthy", "degraded", "down", "unknown"];

/// Adds everything there is to say about a fleet.
pub fn metrics(out: &mut Exposition, picture: &Picture, view: &FleetView, now: Moment) {
    out.family("baton_build_info", Kind::Gauge, "The version of this coordinator.");
    out.sample("baton_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    out.family("baton_deciding", Kind::Gauge, "Whether the coordinator decides: 0 while its store fails.");
    out.sample("baton_deciding", &[], flag(picture.trouble.is_none()));
    out.family("baton_epoch", Kind::Gauge, "The epoch it drives: one more with every start of a coordinator.");
    out.sample("baton_epoch", &[], view.epoch as f64);
    hosts(out, picture, view, now);
    pools(out, view);
    members(out, view);
    services(out, picture, view);
    rollouts(out, picture, now);
}

fn hosts(out: &mut Exposition, picture: &Picture, view: &FleetView, now: Moment) {
    out.family("baton_host_connected", Kind::Gauge, "Whether a host's agent is connected.");
    out.family("baton_host_silence_seconds", Kind::Gauge, "Since a host's agent was last heard.");
    out.family("baton_host_problems", Kind::Gauge, "Problems a host reports of itself.");
    out.family("baton_host_maintenance", Kind::Gauge, "Whether a host was taken out of service for work on it.");
    for host in &view.hosts {
        let labels = [("host", host.name.as_str())];
        out.sample("baton_host_maintenance", &labels, flag(host.maintenance.is_some()));
        out.sample("baton_host_connected", &labels, flag(host.connected));
        out.sample("baton_host_problems", &labels, host.problems.len() as f64);
    }
    for (name, host) in &picture.fleet.hosts {
        if let Some(heard) = &host.heard {
            let silence = now.since(heard.at).as_secs_f64();
            out.sample("baton_host_silence_seconds", &[("host", name.as_str())], silence);
        }
    }
}

fn pools(out: &mut Exposition, view: &FleetView) {
    out.family("baton_pool_up", Kind::Gauge, "Whether a pool's load balancer answers and does what it is told.");
    out.family("baton_pool_drift", Kind::Gauge, "Members of a pool, and its split, that are not as they should be.");
    for host in &view.hosts {
        for pool in &host.pools {
            let labels = [("balancer", host.name.as_str()), ("pool", &pool.pool)];
            out.sample("baton_pool_up", &labels, flag(pool.problem.is_none()));
            out.sample("baton_pool_drift", &labels, drift(pool));
        }
    }
}

/// What `baton balancers drift` shows of a pool. One that cannot be read has no drift, but is not up.
fn drift(pool: &PoolView) -> f64 {
    if pool.problem.is_some() {
        return 0.0;
    }
    let differs = |member: &&MemberView| {
        member.problem.is_some() || member.running != member.wanted || member.on_disk != member.wanted
    };
    let split = pool.split.as_ref().is_some_and(|split| split.running != split.wanted || !split.on_disk);
    pool.members.iter().filter(differs).count() as f64 + flag(split)
}

fn members(out: &mut Exposition, view: &FleetView) {
    out.family("baton_member_requests_total", Kind::Counter, "Requests a member answered, by a load balancer's own count.");
    out.family("baton_member_errors_total", Kind::Counter, "Of these, answered 5xx, unreachable, or broken off.");
    let corrections =
        "How often a member was changed by hand and put right, since the agent of its load balancer was started.";
    out.family("baton_member_corrections_total", Kind::Counter, corrections);
    out.family("baton_member_in_flight_requests", Kind::Gauge, "Requests under way at a member.");
    for host in &view.hosts {
        for pool in &host.pools {
            for member in &pool.members {
                let labels = [("balancer", host.name.as_str()), ("member", &member.key), ("pool", &pool.pool)];
                out.sample("baton_member_requests_total", &labels, member.requests as f64);
                out.sample("baton_member_errors_total", &labels, member.errors as f64);
                let corrections = member.corrected.as_ref().map_or(0, |it| it.times);
                out.sample("baton_member_corrections_total", &labels, corrections.into());
                out.sample("baton_member_in_flight_requests", &labels, member.in_flight as f64);
            }
        }
    }
}

fn services(out: &mut Exposition, picture: &Picture, view: &FleetView) {
    out.family("baton_service_health", Kind::Gauge, "How a service is: 1 for the word that holds.");
    out.family("baton_service_hosts", Kind::Gauge, "Hosts of a service.");
    out.family("baton_service_serving_hosts", Kind::Gauge, "Hosts of a service that serve.");
    out.family("baton_service_releases", Kind::Gauge, "Different releases that the hosts of a service serve.");
    out.family("baton_service_waiting", Kind::Gauge, "What a service waits for: hosts, or the rollout itself, by reason.");
    for service in &view.services {
        let name = service.name.as_str();
        for health in HEALTH {
            out.sample("baton_service_health", &[("health", health), ("service", name)], flag(service.health == health));
        }
        out.sample("baton_service_hosts", &[("service", name)], service.hosts.len() as f64);
        let serving = service.hosts.iter().filter(|host| host.serves).count();
        out.sample("baton_service_serving_hosts", &[("service", name)], serving as f64);
        let releases = view::served(&picture.fleet, name).len();
        out.sample("baton_service_releases", &[("service", name)], releases as f64);
        let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
        service.waiting.iter().for_each(|waiting| *reasons.entry(&waiting.reason).or_default() += 1);
        for (reason, number) in reasons {
            out.sample("baton_service_waiting", &[("reason", reason), ("service", name)], f64::from(number));
        }
    }
}

fn rollouts(out: &mut Exposition, picture: &Picture, now: Moment) {
    out.family("baton_rollout_active", Kind::Gauge, "Whether a rollout of a service is under way.");
    out.family("baton_rollout_paused", Kind::Gauge, "Whether it is paused.");
    out.family(
        "baton_rollout_unchanged_seconds",
        Kind::Gauge,
        "Since anything about the rollout under way changed; 0 while there is none.",
    );
    out.family(
        "baton_rollout_requests",
        Kind::Gauge,
        "Requests counted in the rollout under way or the last one, by release.",
    );
    out.family("baton_rollout_errors", Kind::Gauge, "Of these, failed.");
    out.family(
        "baton_rollout_evidence",
        Kind::Gauge,
        "What the guard's bet against the new release is worth; it begins with 1.",
    );
    out.family("baton_rollout_evidence_threshold", Kind::Gauge, "What it must be worth for the release to be taken back.");
    for service in picture.fleet.services.keys() {
        let last = picture.fleet.latest_rollout(service);
        let name = [("service", service.as_str())];
        let active = last.filter(|rollout| rollout.state.is_active());
        let unchanged = active.map_or(0.0, |rollout| now.since(rollout.progressed).as_secs_f64());
        out.sample("baton_rollout_active", &name, flag(active.is_some()));
        out.sample("baton_rollout_unchanged_seconds", &name, unchanged);
        out.sample("baton_rollout_paused", &name, flag(last.is_some_and(|rollout| rollout.pause.is_some())));
        if let Some(rollout) = last {
            rollout_samples(out, service.as_str(), rollout);
        }
    }
}

fn rollout_samples(out: &mut Exposition, service: &str, rollout: &Rollout) {
    let judgement = &rollout.judgement;
    for (release, counts) in [("new", judgement.proof.new), ("old", judgement.proof.old)] {
        let labels = [("release", release), ("service", service)];
        out.sample("baton_rollout_requests", &labels, counts.requests as f64);
        out.sample("baton_rollout_errors", &labels, counts.errors as f64);
    }
    out.sample("baton_rollout_evidence", &[("service", service)], judgement.worth(&rollout.strategy.guard));
    out.sample("baton_rollout_evidence_threshold", &[("service", service)], 1.0 / rollout.strategy.guard.alpha());
}
