//! Asks a Prometheus for the counters of a service's releases, at a steady pace, where the manifest says so.
//!
//! It decides nothing: what comes back is left with the driver. At rest it is asked, too: what a service is usually like is known
//! when a rollout begins.

use crate::driver::Access;
use crate::outgoing::{self, TIMEOUT, Unreached};
use baton_core::analysis::series::{Answer, Sample, instances};
use baton_core::fleet::Fleet;
use baton_core::name::{HostName, ReleaseId, ServiceName, Version};
use baton_core::prometheus::{Prometheus, Subject};
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// A Prometheus itself looks every fifteen seconds at most targets, and every minute at some.
const EVERY: Duration = Duration::from_secs(5);
/// Of an answer: thousands of series.
const ANSWER_MAX: usize = 1 << 20;
/// How much is shown of what it said.
const SHOWN: usize = 200;

/// Asks for ever.
pub(crate) async fn run(access: Access) {
    let mut pictures = access.pictures();
    let mut asking: BTreeMap<ServiceName, (Prometheus, JoinSet<()>)> = BTreeMap::new();
    loop {
        let wanted = wanted(&pictures.borrow_and_update().fleet);
        // What is dropped asks no more.
        asking.retain(|service, (prometheus, _)| wanted.get(service) == Some(prometheus));
        for (service, prometheus) in wanted {
            asking.entry(service.clone()).or_insert_with(|| {
                let mut tasks = JoinSet::new();
                tasks.spawn(ask_steadily(access.clone(), service, prometheus.clone()));
                (prometheus, tasks)
            });
        }
        if pictures.changed().await.is_err() {
            return;
        }
    }
}

/// Who is asked for each service: as its rollout says, else as it was deployed last.
fn wanted(fleet: &Fleet) -> BTreeMap<ServiceName, Prometheus> {
    let of = |(name, service): (&ServiceName, &baton_core::fleet::Service)| {
        let strategy = fleet.active_rollout(name).map_or(&service.strategy, |rollout| &rollout.strategy);
        Some((name.clone(), strategy.prometheus.clone()?))
    };
    fleet.services.iter().filter_map(of).collect()
}

async fn ask_steadily(access: Access, service: ServiceName, prometheus: Prometheus) {
    let pictures = access.pictures();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let releases = releases(&pictures.borrow().fleet, &service);
        let answers = ask(&prometheus, &releases).await;
        access.links().counted(&service, answers);
    }
}

/// A release that is asked about, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    release: ReleaseId,
    version: Version,
    instances: Vec<(HostName, SocketAddr)>,
}

/// The releases of a rollout; at rest the one that serves.
fn releases(fleet: &Fleet, service: &ServiceName) -> Vec<Asked> {
    let committed = fleet.services.get(service).and_then(|service| service.committed);
    let wanted = match fleet.active_rollout(service) {
        Some(rollout) if rollout.from != Some(rollout.to) => [Some(rollout.to), rollout.from],
        _ => [None, committed],
    };
    let asked = |release: ReleaseId| {
        let version = fleet.releases.get(&release)?.version.clone();
        let of = |(host, known): (&HostName, &baton_core::fleet::Host)| {
            let mine = known.issued.instances.iter().filter(|(key, it)| key.service == *service && it.release == release);
            mine.map(|(_, it)| (host.clone(), it.address)).collect::<Vec<_>>()
        };
        let instances = fleet.hosts.iter().flat_map(of).collect();
        Some(Asked { release, version, instances })
    };
    wanted.into_iter().flatten().filter_map(asked).collect()
}

/// Asks about every release, as of one moment: else the one would be known longer than the other.
async fn ask(prometheus: &Prometheus, releases: &[Asked]) -> Vec<(ReleaseId, Answer)> {
    let (mut at, mut answers, mut before) = (None, Vec::new(), None);
    for asked in releases {
        let subject = Subject { version: &asked.version, instances: &asked.instances };
        let queries = prometheus.requests.of(subject).zip(prometheus.errors.of(subject));
        let answer = match &queries {
            None => Err("none of its instances is told to run".to_owned()),
            Some(_) if queries == before => {
                Err("it has the same version as the other one, so the queries do not tell them apart".to_owned())
            }
            Some((requests, errors)) => of_release(prometheus, requests, errors, &mut at).await,
        };
        answers.push((asked.release, answer));
        before = queries;
    }
    answers
}

async fn of_release(prometheus: &Prometheus, requests: &str, errors: &str, at: &mut Option<f64>) -> Answer {
    let requests = query(prometheus, requests, at).await.map_err(|why| format!("requests: {why}"))?;
    let errors = query(prometheus, errors, at).await.map_err(|why| format!("errors: {why}"))?;
    instances(&requests, &errors)
}

/// One instant query. `at`: the moment all queries are about; the first answer says which.
async fn query(prometheus: &Prometheus, query: &str, at: &mut Option<f64>) -> Result<Vec<Sample>, String> {
    let time = at.map(|at| format!("&time={at:.3}")).unwrap_or_default();
    let target = &prometheus.url;
    let path = format!("{}/api/v1/query?query={}{time}", target.path().trim_end_matches('/'), encoded(query));
    let exchange = async {
        let stream = outgoing::connect(target).await.map_err(|unreached| match unreached {
            Unreached::Here(why) | Unreached::There(why) => why,
        })?;
        let (response, _connection) = outgoing::get(stream, target, &path).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| format!("answered {status}, then broke off: {error}"))?;
        vector(status, &body.to_bytes())
    };
    let late = |_| Err(format!("no answer within {} s", TIMEOUT.as_secs()));
    let (samples, seen_at) = timeout(TIMEOUT, exchange).await.unwrap_or_else(late)?;
    *at = at.or(seen_at);
    Ok(samples)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    status: String,
    data: Option<Answered>,
    error_type: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    result_type: String,
    result: serde_json::Value,
}

#[derive(Debug, Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

/// The series of an answer, and the moment they are about.
fn vector(status: StatusCode, body: &[u8]) -> Result<(Vec<Sample>, Option<f64>), String> {
    let other = || format!("answered {status}, and not as a Prometheus does");
    let reply: Reply = serde_json::from_slice(body).map_err(|_| other())?;
    if let Some(kind) = reply.error_type.filter(|_| reply.status == "error") {
        return Err(shown(&format!("{kind}: {}", reply.error.unwrap_or_default())));
    }
    let data = reply.data.filter(|_| reply.status == "success" && status.is_success()).ok_or_else(other)?;
    if data.result_type != "vector" {
        return Err(shown(&format!("the query gives a {} and not counters", data.result_type)));
    }
    let found: Vec<Found> = serde_json::from_value(data.result).map_err(|_| "a series has no plain value".to_owned())?;
    let at = found.first().map(|found| found.value.0).filter(|at| at.is_finite());
    let sample = |found: Found| {
        let value = found.value.1.parse().map_err(|_| "a series has no plain value".to_owned())?;
        Ok((found.metric, value))
    };
    Ok((found.into_iter().map(sample).collect::<Result<_, String>>()?, at))
}

/// A line of foreign text.
fn shown(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(SHOWN).collect()
}

/// As part of a URL's query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
