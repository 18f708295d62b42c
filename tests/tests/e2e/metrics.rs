//! What Prometheus makes of Baton: its checker reads the metrics, a real one scrapes them, and the alerts and the dashboard that
//! are shipped ask for nothing that is not there.

use baton_cli::args::Cli;
use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{BALANCER_HOST, COORDINATOR, SERVICE, Setup, Stage};
use baton_tests::e2e::prometheus::Prometheus;
use baton_tests::e2e::{have, in_time, setup};
use clap::CommandFactory as _;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ALERTS: &str = "packaging/baton-coordinator/root/usr/share/baton/prometheus/alerts.yml";
const CASES: &str = "tests/tests/alerts/cases.yml";
const DASHBOARD: &str = "packaging/baton-coordinator/root/usr/share/baton/grafana/baton.json";

/// So many are sent, and counted.
const REQUESTS: u32 = 40;

/// Between two looks at something that is about to be.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A stage that answers Prometheus, with a release that serves. No traffic yet.
async fn stage() -> Stage {
    let stage = Stage::raise(Setup { metrics: true, ..setup(env!("CARGO_BIN_EXE_bench")) }).await.unwrap();
    let control = stage.control().await.unwrap();
    let archive = std::fs::read(stage.build("1", &Behaviour::good(Duration::ZERO)).unwrap()).unwrap();
    let rollout = control.deploy(&stage.manifest(), "1", &archive).await.unwrap();
    assert_eq!(in_time("the release", control.wait_ended(&rollout)).await.unwrap().state, "succeeded");
    stage
}

/// What a server answers to a GET.
async fn get(address: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
    Ok((head.to_owned(), body.to_owned()))
}

/// The metrics of a part of a stage, as a scraper gets them.
async fn scrape(stage: &Stage, part: &str) -> String {
    let (head, text) = get(stage.metrics(part), "/metrics").await.unwrap();
    assert!(head.contains(" 200 ") && head.contains("text/plain; version=0.0.4"), "{part}: {head}");
    text
}

/// Every name there is, whether it has samples now or not.
fn families(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}

/// Every metric of Baton's that a text mentions.
fn mentioned(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.strip_prefix("baton_").is_some_and(|rest| !rest.is_empty())).map(str::to_owned).collect()
}

fn promtool(words: &[&str], input: &str) -> (bool, String) {
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checking = promtool.spawn().unwrap();
    checking.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let said = checking.wait_with_output().unwrap();
    (said.status.success(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_and_nothing_is_asked_for_that_is_not_there() {
    let stage = stage().await;
    let rollout = stage.control().await.unwrap().service(SERVICE).await.unwrap().rollout.unwrap();
    let mut known = BTreeSet::new();
    for part in [COORDINATOR, "web1", BALANCER_HOST] {
        let text = scrape(&stage, part).await;
        known.extend(families(&text));
        if have("promtool") {
            assert_eq!(promtool(&["check", "metrics"], &text), (true, String::new()), "{part}\n{text}");
        }
        assert!(!text.contains(&rollout.id), "no rollout is a label: {text}");
    }
    for file in [ALERTS, DASHBOARD] {
        let asked = mentioned(&read(file));
        assert!(asked.len() >= 10, "{file}: {asked:?}");
        let missing: Vec<_> = asked.difference(&known).collect();
        assert!(missing.is_empty(), "{file} asks for what nobody says: {missing:?}");
    }
    let page = read("docs/metrics.md");
    let missing: Vec<_> = known.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/metrics.md does not have {missing:?}");
    let gone: Vec<_> = mentioned(&page).into_iter().filter(|name| !known.contains(name)).collect();
    assert!(gone.is_empty(), "docs/metrics.md has {gone:?}, and nobody says that");
}

#[test]
fn every_alert_is_checked_where_it_fires_and_where_it_does_not() {
    let (alerts, cases) = (read(ALERTS), read(CASES));
    let names: BTreeSet<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 10, "{names:?}");
    let mut seen: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for case in cases.split("alertname: ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (fires, quiet) = seen.entry(name).or_default();
        *if rest.trim_start().starts_with("exp_alerts: []") { quiet } else { fires } += 1;
    }
    let untested: Vec<_> = names.iter().filter(|name| !matches!(seen.get(*name), Some((1.., 1..)))).collect();
    assert!(untested.is_empty(), "{CASES} lacks a case that fires or one that does not: {untested:?}");
    if have("promtool") {
        for words in [["check", "rules", ALERTS], ["test", "rules", CASES]] {
            let path = root().join(words[2]);
            let (good, said) = promtool(&[words[0], words[1], path.to_str().unwrap()], "");
            assert!(good, "{said}");
        }
    }
}

#[test]
fn the_commands_that_alerts_name_exist() {
    let alerts = read(ALERTS);
    let mut seen = 0;
    for command in alerts.split('`').skip(1).step_by(2) {
        let words: Vec<&str> = command.split(" {{").next().unwrap().split_whitespace().collect();
        let filled = words.iter().copied().chain(command.contains("{{").then_some("shop"));
        Cli::command().try_get_matches_from(filled).unwrap_or_else(|error| panic!("`{command}`: {error}"));
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
}

/// A Prometheus of this test's own, and what it is asked.
struct Asked(Prometheus);

impl Asked {
    /// One that scrapes these jobs, with the alerts that are shipped.
    async fn start(folder: &Path, jobs: &[(&str, Vec<SocketAddr>)]) -> Self {
        let alerts = root().join(ALERTS);
        Self(in_time("Prometheus listens", Prometheus::start(folder, Some(&alerts), jobs)).await.unwrap())
    }

    /// What its API answers to a question: series by their labels, with the value of each.
    async fn ask(&self, question: &str) -> BTreeMap<String, f64> {
        let encoded: String = question.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let Ok((head, body)) = get(self.0.address, &format!("/api/v1/query?query={encoded}")).await else {
            return BTreeMap::new();
        };
        // It answers before it is ready, and says so.
        if head.contains(" 503 ") {
            return BTreeMap::new();
        }
        let answer: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{question}: {error}: {head}\n{body}"));
        assert_eq!(answer["status"], "success", "{question}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap();
        let value = |one: &Value| (one["metric"].to_string(), one["value"][1].as_str().unwrap().parse().unwrap());
        series.iter().map(value).collect()
    }

    /// Asks until the answer is as it should be.
    async fn until(&self, question: &str, holds: impl Fn(&BTreeMap<String, f64>) -> bool) -> BTreeMap<String, f64> {
        let mut last = BTreeMap::new();
        let asking = async {
            loop {
                last = self.ask(question).await;
                if holds(&last) {
                    return;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let within = tokio::time::timeout(baton_tests::e2e::PATIENCE, asking).await;
        assert!(within.is_ok(), "{question} is {last:?}");
        last
    }

    /// Waits for a question with one answer.
    async fn is(&self, question: &str, number: f64) {
        self.until(question, |answer| answer.values().copied().eq([number])).await;
    }
}

/// Every PromQL of a dashboard, with what Grafana puts in for its variables.
fn expressions(of: &Value) -> Vec<String> {
    match of {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match (name.as_str(), value) {
                ("expr", Value::String(text)) => {
                    vec![text.replace("$__rate_interval", "5s").replace("$service", ".*")]
                }
                _ => expressions(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_real_prometheus_sees_what_is_and_what_happens() {
    if !have("prometheus") {
        return;
    }
    let mut stage = stage().await;
    let agents = stage.agents();
    let jobs = [
        ("coordinator", vec![stage.metrics(COORDINATOR)]),
        ("agents", agents.iter().map(|host| stage.metrics(host)).collect()),
    ];
    let prometheus = Asked::start(stage.folder(), &jobs).await;
    prometheus.until("up == 1", |up| up.len() == 1 + agents.len()).await;
    let hosts = stage.hosts().len() as f64;
    prometheus.is("baton_service_serving_hosts", hosts).await;
    prometheus.is("baton_service_releases", 1.0).await;
    prometheus.is("baton_pool_up", 1.0).await;
    prometheus.is("baton_pool_drift", 0.0).await;
    prometheus.is("sum(baton_agent_instances{state=\"ready\"})", hosts).await;
    prometheus.is("sum(baton_agent_connected)", agents.len() as f64).await;
    // The balancer's host has no release.
    prometheus.is("count(baton_agent_artifact_bytes > 0)", hosts).await;
    // The default: ninety days, begun just now.
    prometheus.is("round((min(baton_agent_certificate_not_after_timestamp_seconds) - time()) / 86400)", 90.0).await;

    let served = "sum(baton_agent_member_requests_total)";
    prometheus.is(served, 0.0).await;
    for _ in 0..REQUESTS {
        get(stage.frontend(), "/").await.unwrap();
    }
    prometheus.is(served, f64::from(REQUESTS)).await;
    // The coordinator hears it from the balancer's host, and says the same.
    prometheus.is("sum(baton_member_requests_total)", f64::from(REQUESTS)).await;
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let asked = expressions(&dashboard);
    assert!(asked.len() >= 20, "{asked:?}");
    for expression in asked.iter().filter(|it| !it.ends_with("> 0")) {
        prometheus.until(expression, |answer| !answer.is_empty()).await;
    }

    stage.kill(COORDINATOR).await.unwrap();
    prometheus.is("up{job=\"coordinator\"}", 0.0).await;
    prometheus.is("sum(baton_agent_connected)", 0.0).await;
    prometheus.is("sum(baton_agent_instances{state=\"ready\"})", hosts).await;
    prometheus.until("ALERTS{alertname=\"BatonCoordinatorAway\"}", |alerts| alerts.len() == 1).await;
    stage.start(COORDINATOR).unwrap();
    prometheus.is("sum(baton_agent_connected)", agents.len() as f64).await;
    prometheus.is("min(baton_agent_sessions_total)", 2.0).await;
    prometheus.is("baton_epoch", 2.0).await;
}
