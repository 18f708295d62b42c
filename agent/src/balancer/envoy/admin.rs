//! What Envoy says over its admin endpoint, as values.

use super::listing;
use crate::balancer::ask::{self, Place};
use crate::balancer::problem;
use baton_core::problem::Problem;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

/// One process of Envoy.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) is_live: bool,
    pub(super) state: String,
    /// Who holds the admin endpoint, where that can be seen.
    pub(super) pid: Option<u32>,
    pub(super) uptime_s: u64,
}

/// One endpoint as Envoy has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// `HEALTHY`, `DRAINING` and others, as it was told.
    pub(super) told: String,
    /// Left out of the file, and kept as long as it passes its checks.
    pub(super) lingers: bool,
    /// What Envoy's own checks have against it.
    pub(super) failed: Vec<String>,
    pub(super) weight: u16,
    pub(super) active: u64,
    pub(super) requests: u64,
    pub(super) errors: u64,
}

/// A cluster's endpoints.
pub(super) type Hosts = BTreeMap<SocketAddr, Host>;

/// What came of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counters(BTreeMap<String, Value>);

async fn document(place: &Place, path: &str) -> Result<(Value, Option<u32>), ask::Silence> {
    let answer = ask::get(place, path).await?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    match serde_json::from_str(&body) {
        Ok(value) if answer.status.is_success() => Ok((value, answer.peer)),
        _ => Err(ask::Silence::Garbage(format!("{} {body}", answer.status))),
    }
}

pub(super) async fn server(place: &Place) -> Result<Server, ask::Silence> {
    let (value, pid) = document(place, "/server_info").await?;
    let Some(state) = value["state"].as_str() else { return Err(ask::Silence::Garbage(value.to_string())) };
    let uptime = value["uptime_all_epochs"].as_str().unwrap_or_default().trim_end_matches('s');
    let uptime_s = uptime.parse().unwrap_or_default();
    Ok(Server { is_live: state == "LIVE", state: state.to_owned(), pid, uptime_s })
}

/// The endpoints of every cluster.
pub(super) async fn clusters(place: &Place) -> Result<BTreeMap<String, Hosts>, Problem> {
    let (value, _) = document(place, "/clusters?format=json").await.map_err(|silence| silence.problem(place))?;
    let clusters = value["cluster_statuses"].as_array().into_iter().flatten();
    let named = clusters.filter_map(|cluster| {
        let hosts = cluster["host_statuses"].as_array().into_iter().flatten();
        let hosts = hosts.filter_map(|host| Some((listing::address(&host["address"])?, Host::of(host))));
        Some((cluster["name"].as_str()?.to_owned(), hosts.collect()))
    });
    Ok(named.collect())
}

pub(super) async fn counters(place: &Place) -> Result<Counters, Problem> {
    let path = "/stats?format=json&filter=(version_text|update_rejected|update_failure|parent_connections)";
    let (value, _) = document(place, path).await.map_err(|silence| silence.problem(place))?;
    let stats = value["stats"].as_array().into_iter().flatten();
    Ok(Counters(stats.filter_map(|stat| Some((stat["name"].as_str()?.to_owned(), stat["value"].clone()))).collect()))
}

/// A cluster's own configuration; `None` where Envoy has none of that name.
pub(super) async fn cluster(place: &Place, name: &str) -> Result<Option<Value>, Problem> {
    for resource in ["static_clusters", "dynamic_active_clusters"] {
        let path = format!("/config_dump?resource={resource}");
        let (value, _) = document(place, &path).await.map_err(|silence| silence.problem(place))?;
        let mut found = value["configs"].as_array().into_iter().flatten().map(|config| &config["cluster"]);
        if let Some(cluster) = found.find(|cluster| cluster["name"] == name) {
            return Ok(Some(cluster.clone()));
        }
    }
    Ok(None)
}

impl Host {
    fn of(value: &Value) -> Self {
        let stat = |name: &str| {
            let mut stats = value["stats"].as_array().into_iter().flatten();
            let stat = stats.find(|stat| stat["name"] == name).map(|stat| &stat["value"]);
            // A number is text where it may be large, and not there where it is 0.
            stat.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok())).unwrap_or_default()
        };
        let health = &value["health_status"];
        let failed =
            health.as_object().into_iter().flatten().filter(|(name, value)| name.starts_with("failed") && **value == true);
        Self {
            told: health["eds_health_status"].as_str().unwrap_or("HEALTHY").to_owned(),
            lingers: health["pending_dynamic_removal"] == true,
            failed: failed.map(|(name, _)| name.clone()).collect(),
            weight: value["weight"].as_u64().and_then(|weight| u16::try_from(weight).ok()).unwrap_or(1),
            active: stat("rq_active") + stat("rq_pending_active"),
            // One that could not be sent is an error and not in the total.
            requests: stat("rq_total").max(stat("rq_success") + stat("rq_error")),
            errors: stat("rq_error"),
        }
    }
}

impl Counters {
    /// The version of a pool's file that is in effect.
    pub(super) fn version(&self, pool: &str) -> &str {
        self.0.get(&format!("cluster.{pool}.version_text")).and_then(Value::as_str).unwrap_or_default()
    }

    /// Files of a pool that Envoy would not have.
    pub(super) fn refused(&self, pool: &str) -> u64 {
        let count = |name: &str| self.0.get(&format!("cluster.{pool}.{name}")).and_then(Value::as_u64).unwrap_or_default();
        count("update_rejected") + count("update_failure")
    }

    /// Connections that a process from before a hot restart still has.
    pub(super) fn parent_connections(&self) -> u64 {
        self.0.get("server.parent_connections").and_then(Value::as_u64).unwrap_or_default()
    }
}

/// Whether a cluster can be driven through a file, and safely.
///
/// # Errors
/// What its configuration lacks.
pub(super) fn suits(cluster: &Value, pool: &str, file: &Path) -> Result<(), Problem> {
    let eds = &cluster["eds_cluster_config"];
    let path = &eds["eds_config"]["path_config_source"]["path"];
    let mut lacks = Vec::new();
    if cluster["type"] != "EDS" || path.as_str().map(Path::new) != Some(file) {
        lacks.push(format!("type: EDS, with path_config_source: {{ path: {} }}", file.display()));
    }
    if eds["service_name"].as_str().is_some_and(|name| !name.is_empty() && name != pool) {
        lacks.push(format!("no service_name, or `{pool}`"));
    }
    // With any other, endpoints that are out get requests again as soon as few enough are left.
    let panic = &cluster["common_lb_config"]["healthy_panic_threshold"];
    if !panic.is_object() || panic["value"].as_f64().is_some_and(|percent| percent > 0.0) {
        lacks.push("common_lb_config: { healthy_panic_threshold: { value: 0 } }".to_owned());
    }
    let checked = cluster["health_checks"].as_array().is_some_and(|checks| !checks.is_empty());
    if checked && cluster["ignore_health_on_host_removal"] != true {
        lacks.push("ignore_health_on_host_removal: true".to_owned());
    }
    if lacks.is_empty() { Ok(()) } else { Err(problem::envoy_cluster(pool, &lacks)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_that_would_route_to_who_is_out_is_refused() {
        let file = Path::new("/var/lib/envoy/shop.json");
        let good = json!({
            "type": "EDS",
            "eds_cluster_config": { "eds_config": { "path_config_source": { "path": file } } },
            "common_lb_config": { "healthy_panic_threshold": {} },
        });
        assert_eq!(suits(&good, "shop", file), Ok(()));
        let lacks = |change: &dyn Fn(&mut Value)| {
            let mut cluster = good.clone();
            change(&mut cluster);
            suits(&cluster, "shop", file).unwrap_err().seen[0].1.clone()
        };
        assert!(lacks(&|it| it["common_lb_config"] = json!({})).contains("healthy_panic_threshold"));
        assert!(lacks(&|it| it["health_checks"] = json!([{}])).contains("ignore_health_on_host_removal"));
        assert!(lacks(&|it| it["type"] = json!("STATIC")).contains("path: /var/lib/envoy/shop.json"));
    }
}
