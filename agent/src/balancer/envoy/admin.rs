//! What Envoy says over its admin endpoint, as values.

use super::listing;
use crate::balancer::ask::{self, Place};
use crate::balancer::problem;
use baton_core::fleet::latency::{BUCKETS, Latency, bucket};
use baton_core::problem::Problem;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Whether Envoy serves.
#[derive(Debug)]
pub(super) struct Ready {
    /// `LIVE`, `INITIALIZING` and others.
    pub(super) state: String,
    /// Who holds the admin endpoint, where that can be seen.
    pub(super) pid: Option<u32>,
}

/// One process of Envoy.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) uptime_s: u64,
    /// The zone it is in; without one it does not say how long answers took.
    pub(super) zone: String,
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
    /// It is a zone of its own.
    pub(super) zoned: bool,
    pub(super) active: u64,
    pub(super) requests: u64,
    pub(super) errors: u64,
}

/// A cluster's endpoints.
pub(super) type Hosts = BTreeMap<SocketAddr, Host>;

/// What came of the files, and of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counters {
    counters: BTreeMap<String, Value>,
    /// How long answers took, by zone.
    took: BTreeMap<String, Latency>,
}

/// For a document and another one that is asked for at the same time.
const BOTH: Duration = ask::TIMEOUT.saturating_mul(2);

async fn document(place: &Place, path: &str) -> Result<(Value, Option<u32>), ask::Silence> {
    let answer = ask::get_within(place, path, BOTH).await?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    match serde_json::from_str(&body) {
        Ok(value) if answer.status.is_success() => Ok((value, answer.peer)),
        _ => Err(ask::Silence::Garbage(format!("{} {body}", answer.status))),
    }
}

/// Asks for nothing but its state.
pub(super) async fn ready(place: &Place) -> Result<Ready, ask::Silence> {
    let answer = ask::get(place, "/ready").await?;
    let state = String::from_utf8_lossy(&answer.body).trim().to_owned();
    let is_state = !state.is_empty() && state.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    match answer.status {
        StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE if is_state => Ok(Ready { state, pid: answer.peer }),
        status => Err(ask::Silence::Garbage(format!("{status} {state}"))),
    }
}

/// What a process of Envoy is: a hundred kilobytes, so not asked for in every look.
pub(super) async fn server(place: &Place) -> Result<Server, Problem> {
    let (value, _) = document(place, "/server_info").await.map_err(|silence| silence.problem(place))?;
    let uptime = value["uptime_all_epochs"].as_str().unwrap_or_default().trim_end_matches('s');
    let uptime_s = uptime.parse().unwrap_or_default();
    // `--service-zone`, where there is one, is in the node already.
    let zone = value["node"]["locality"]["zone"].as_str().unwrap_or_default().to_owned();
    Ok(Server { uptime_s, zone })
}

/// The endpoints of every cluster.
pub(super) async fn clusters(place: &Place) -> Result<BTreeMap<String, Hosts>, Problem> {
    let (value, _) = document(place, "/clusters?format=json").await.map_err(|silence| silence.problem(place))?;
    let clusters = value["cluster_statuses"].as_array().into_iter().flatten();
    let named = clusters.filter_map(|cluster| {
        let hosts = cluster["host_statuses"].as_array().into_iter().flatten();
        let hosts = hosts.filter_map(|host| {
            let address = listing::address(&host["address"])?;
            Some((address, Host::of(host, address)))
        });
        Some((cluster["name"].as_str()?.to_owned(), hosts.collect()))
    });
    Ok(named.collect())
}

pub(super) async fn counters(place: &Place) -> Result<Counters, Problem> {
    let path = "/stats?format=json&histogram_buckets=disjoint&\
        filter=(version_text|update_rejected|update_failure|parent_connections|~ruled\\.upstream_rq_total$|\\.zone\\..*\\.upstream_rq_time$)";
    let (value, _) = document(place, path).await.map_err(|silence| silence.problem(place))?;
    let stats = value["stats"].as_array().into_iter().flatten();
    let (mut counters, mut took) = (BTreeMap::new(), BTreeMap::new());
    for stat in stats {
        if let Some(name) = stat["name"].as_str() {
            counters.insert(name.to_owned(), stat["value"].clone());
        }
        for histogram in stat["histograms"].as_array().into_iter().flatten() {
            if let Some(name) = histogram["name"].as_str() {
                took.insert(name.to_owned(), latency(&histogram["buckets"]));
            }
        }
    }
    Ok(Counters { counters, took })
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

/// Envoy's buckets in ours. Those it is told to have in docs/envoy.md are the same.
fn latency(buckets: &Value) -> Latency {
    let mut counts = [0; BUCKETS];
    for one in buckets.as_array().into_iter().flatten() {
        let bound = one["upper_bound"].as_f64().and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok());
        if let Some(count) = bound.and_then(|bound| counts.get_mut(bucket(bound))) {
            *count += one["cumulative"].as_u64().unwrap_or_default();
        }
    }
    Latency::new(counts)
}

impl Host {
    fn of(value: &Value, address: SocketAddr) -> Self {
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
            zoned: value["locality"]["zone"] == listing::zone(address),
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
        self.counters.get(&format!("cluster.{pool}.version_text")).and_then(Value::as_str).unwrap_or_default()
    }

    /// Files of a pool that Envoy would not have.
    pub(super) fn refused(&self, pool: &str) -> u64 {
        let count =
            |name: &str| self.counters.get(&format!("cluster.{pool}.{name}")).and_then(Value::as_u64).unwrap_or_default();
        count("update_rejected") + count("update_failure")
    }

    /// The version of the routes of a name that is in effect; None: no listener has them from a file. Where several have them,
    /// they are in effect once all say so.
    pub(super) fn routes(&self, name: &str) -> Option<&str> {
        let mut versions = self.of_routes(name, "version_text").map(|value| value.as_str().unwrap_or_default());
        let first = versions.next()?;
        Some(if versions.all(|version| version == first) { first } else { "" })
    }

    /// Files of routes that Envoy would not have.
    pub(super) fn refused_routes(&self, name: &str) -> u64 {
        let counts = ["update_rejected", "update_failure"].into_iter().flat_map(|stat| self.of_routes(name, stat));
        counts.filter_map(Value::as_u64).sum()
    }

    fn of_routes<'a>(&'a self, name: &str, stat: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let ending = format!(".rds.{name}.{stat}");
        self.counters.iter().filter(move |(name, _)| name.ends_with(&ending)).map(|(_, value)| value)
    }

    /// Requests that routes of this name got.
    pub(super) fn ruled(&self, route: &str) -> u64 {
        let ending = format!(".route.{route}.upstream_rq_total");
        let counts = self.counters.iter().filter(|(name, _)| name.ends_with(&ending));
        counts.filter_map(|(_, value)| value.as_u64()).sum()
    }

    /// How long the answers of a zone of a pool took, as seen from another.
    pub(super) fn took(&self, pool: &str, from: &str, zone: &str) -> Latency {
        self.took.get(&format!("cluster.{pool}.zone.{from}.{zone}.upstream_rq_time")).cloned().unwrap_or_default()
    }

    /// Connections that a process from before a hot restart still has.
    pub(super) fn parent_connections(&self) -> u64 {
        self.counters.get("server.parent_connections").and_then(Value::as_u64).unwrap_or_default()
    }
}

/// Whether a cluster's endpoints can be chosen by their side, and are all one where nobody asks for a side.
pub(super) fn has_sides(cluster: &Value) -> bool {
    let subsets = &cluster["lb_subset_config"];
    let mut selectors = subsets["subset_selectors"].as_array().into_iter().flatten();
    subsets["fallback_policy"] == "ANY_ENDPOINT" && selectors.any(|selector| selector["keys"] == json!([listing::SIDE]))
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

    #[test]
    fn buckets_that_are_ours_stay_and_others_count_where_they_end() {
        let bound = |millis: f64| json!({ "upper_bound": millis, "interval": 9, "cumulative": 1 });
        let counted = |millis: &[f64]| {
            let latency = latency(&millis.iter().copied().map(bound).collect());
            latency.counts().iter().enumerate().filter(|(_, count)| **count > 0).map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(counted(&[1.0, 2.0, 20.0, 10_000.0]), [0, 1, 7, 23]);
        assert_eq!(counted(&[0.5, 25.0, 250.0, 3_600_000.0]), [0, 8, 15, 24]);
    }

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
