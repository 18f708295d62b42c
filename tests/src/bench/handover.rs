//! Releases on one host without a balancer, under new connections: what a hand-over costs those who connect in that moment.

use super::{HandoverArgs, Measured, milliseconds, part};
use anyhow::bail;
use baton_cli::demo::load::{Config, Kind, Load, executions};
use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{Place, SERVICE, Setup, Stage};
use serde_json::json;
use std::time::{Duration, Instant};

const EDGE: Duration = Duration::from_millis(500);
/// Every client is new: it connects, asks once, and is gone. Every other one executes something.
const CLIENTS: &[Kind] = &[Kind::NewConnection, Kind::PostNewConnection];

pub(super) async fn run(args: HandoverArgs) -> anyhow::Result<Measured> {
    let setup = Setup {
        hosts: 1,
        place: Place::Handover,
        network: [127, 0, 3],
        healthy_for: Duration::from_millis(args.healthy_ms),
        start_timeout: Duration::from_secs(30),
        ..Setup::new(part()?)
    };
    let stage = Stage::raise(setup).await?;
    let control = stage.control().await?;
    let good = Behaviour::good(Duration::from_millis(args.start_ms));
    let release = async |version: u32| -> anyhow::Result<f64> {
        let archive = std::fs::read(stage.build(&version.to_string(), &good)?)?;
        let begun = Instant::now();
        let rollout = control.deploy(&stage.manifest(), &version.to_string(), &archive).await?;
        let ended = control.wait_ended(&rollout).await?;
        if ended.state != "succeeded" {
            bail!("release {version} ended {}\n{}", ended.state, stage.last_words());
        }
        Ok(milliseconds(begun.elapsed()))
    };
    release(0).await?;

    // Who waits has not failed before its time is over: a machine that is too slow for the rate shows as that, and not as unsent.
    let config = Config::new(stage.frontend(), args.rate);
    let max_open = config.rate as usize * (config.timeout.as_secs() as usize + 1);
    let load = Load::start(Config { clients: CLIENTS, max_open, ..config })?;
    tokio::time::sleep(EDGE).await;
    let mut times = Vec::new();
    let begun = Instant::now();
    let due = || u128::from(args.rate) * begun.elapsed().as_millis() / 1000;
    let mut version = 0;
    while version < args.releases || due() < u128::from(args.connections) {
        version += 1;
        times.push(release(version).await?);
    }
    tokio::time::sleep(EDGE).await;
    let traffic = load.stop().await?;
    let orders = executions::join(&traffic.posts, &stage.logs())?;
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let slowest = times.last().copied().unwrap_or_default();
    let per_second = (traffic.requests as f64 / traffic.duration_s).round();
    let document = json!({
        "releases": version,
        "connections": traffic.requests,
        "connections_per_second": per_second,
        "failed": traffic.failed,
        "refused": traffic.failures.iter().filter(|failure| failure.text.contains("refused")).count(),
        "orders": orders,
        "release_ms": { "p50": median, "max": slowest },
        "versions_seen": traffic.versions.len(),
        "traffic": traffic,
    });
    let mut summary = format!(
        "{SERVICE} on one host, no balancer: {} releases, {} new connections at {per_second:.0}/s\n\n\
         {} failed; {} orders, {} executed twice, {} lost\n\
         a release takes {median:.0} ms, {slowest:.0} at most; the slowest answer took {:.0} ms\n",
        version, traffic.requests, traffic.failed, orders.sent, orders.twice, orders.lost, traffic.max_ms,
    );
    for failure in &traffic.failures {
        summary.push_str(&format!("  {:.3} s  {}\n", failure.at_s, failure.text));
    }
    Ok(Measured { document, summary, good: traffic.failed == 0 && orders.twice == 0 && orders.lost == 0 })
}
