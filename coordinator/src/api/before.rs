//! A service as the audit log compares it, before and after a command.

use baton_core::fleet::Fleet;
use baton_core::name::ServiceName;
use serde_json::{Value, json};

/// What moves by itself, and would be noise in the log.
const MOVES: [&str; 3] = ["progressed", "wave_done", "evidence"];

/// The service and its newest rollout; versions beside digests.
pub(super) fn state(fleet: &Fleet, name: &ServiceName) -> Value {
    let service = fleet.services.get(name);
    let version = |id: Option<baton_core::name::ReleaseId>| {
        id.and_then(|id| fleet.releases.get(&id)).map(|release| release.version.to_string())
    };
    let of_service = fleet.rollouts.values().filter(|rollout| rollout.service == *name);
    let rollout = of_service.max_by_key(|rollout| (rollout.state.is_active(), rollout.started)).map(|rollout| {
        let mut value = serde_json::to_value(rollout).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            MOVES.iter().for_each(|field| drop(fields.remove(*field)));
            fields.insert("to_version".to_owned(), json!(version(Some(rollout.to))));
        }
        value
    });
    json!({
        "service": service,
        "version": version(service.and_then(|service| service.committed)),
        "rollout": rollout,
    })
}

/// What people decided about the whole fleet and its hosts.
pub(super) fn fleet(fleet: &Fleet) -> Value {
    let hosts = fleet.hosts.iter().map(|(name, host)| {
        (
            name.to_string(),
            json!({
                "accepted": host.accepted,
                "maintenance": host.maintenance,
                "dead_balancer": host.dead_balancer,
                "labels": host.labels,
            }),
        )
    });
    json!({ "hosts": hosts.collect::<serde_json::Map<_, _>>(), "freeze": fleet.freeze, "fence": fleet.fence })
}
