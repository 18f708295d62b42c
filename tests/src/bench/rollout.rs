//! A rolling release of many hosts, and where its time went.

use super::sampler::Sampler;
use super::timeline::{Life, Split, Witnesses, between, rounded};
use super::{Measured, RolloutArgs, milliseconds, part};
use anyhow::{Context as _, bail, ensure};
use baton_cli::demo::load::{Config, Load, Report, executions};
use baton_cli::demo::stage::release::Behaviour;
use baton_cli::demo::stage::{Front, Place, SERVICE, Setup, Stage};
use serde_json::json;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// What Baton promises to cost at most, for each host.
const PROMISED_MS: f64 = 60.0;
const EDGE: Duration = Duration::from_millis(500);

pub(super) async fn run(args: RolloutArgs) -> anyhow::Result<Measured> {
    ensure!(args.balancer == Front::Haproxy, "the time of a drain is observed at HAProxy: use --balancer haproxy");
    let healthy_for = Duration::from_millis(args.healthy_ms);
    let setup = Setup {
        hosts: args.hosts,
        front: args.balancer,
        place: Place::InPlace,
        network: [127, 0, 1],
        healthy_for,
        start_timeout: Duration::from_secs(30),
        ..Setup::new(part()?)
    };
    let stage = Stage::raise(setup).await?;
    let control = stage.control().await?;
    let good = Behaviour::good(Duration::from_millis(args.start_ms));
    let first = std::fs::read(stage.build("1", &good)?)?;
    let second = std::fs::read(stage.build("2", &good)?)?;
    let rollout = control.deploy(&stage.manifest(), "1", &first).await?;
    let ended = control.wait_ended(&rollout).await?;
    ensure!(ended.state == "succeeded", "the first release ended {}", ended.state);

    let load = Load::start(Config::new(stage.frontend(), args.rate))?;
    tokio::time::sleep(EDGE).await;
    let sync_ms = median_sync(stage.folder())?;
    load.mark().await?;
    let sampler = Sampler::start(stage.folder().join("haproxy.sock"))?;
    let begun = SystemTime::now();
    let rollout = control.deploy(&stage.manifest(), "2", &second).await?;
    let ended = control.wait_ended(&rollout).await?;
    let done = SystemTime::now();
    tokio::time::sleep(EDGE).await;
    let traffic = load.mark().await?;
    let turns = sampler.finish();
    if ended.state != "succeeded" {
        bail!("the rollout ended {}\n{}", ended.state, stage.last_words());
    }

    let mut hosts = Vec::new();
    for (host, address) in stage.hosts().into_iter().zip(&stage.places.hosts) {
        let port = stage.places.ports.first().context("no port")?;
        let log = |version: &str| stage.logs().join(format!("{version}-{address}-{port}.log"));
        let (old, new) = (Life::read(&log("1"))?, Life::read(&log("2"))?);
        let turns = turns.get(&format!("{host}-0")).copied().unwrap_or_default();
        hosts.push(Witnesses { host, from: begun, turns, old, new, healthy_for });
    }
    hosts.sort_by_key(|host| host.turns.out);
    let mut from = begun;
    let mut splits = Vec::new();
    for mut host in hosts {
        host.from = from;
        splits.push(host.split()?);
        from = host.turns.back.context("a host did not come back")?;
    }
    let tail = between(from, done);
    let orders = executions::join(&traffic.posts, &stage.logs())?;
    Ok(measured(&args, &splits, between(begun, done), tail, sync_ms, &traffic, &json!(orders)))
}

/// What it takes this disk to keep a small file: every decision waits for that several times, one after the other.
fn median_sync(folder: &Path) -> anyhow::Result<f64> {
    let path = folder.join("sync");
    let mut times = Vec::new();
    for number in 0..21u8 {
        let begun = Instant::now();
        let mut file = std::fs::File::create(&path)?;
        file.write_all(&[number; 512])?;
        file.sync_all()?;
        times.push(begun.elapsed());
    }
    times.sort();
    times.get(times.len() / 2).map(|median| milliseconds(*median)).context("nothing was measured")
}

fn measured(
    args: &RolloutArgs,
    splits: &[Split],
    wall: f64,
    tail: f64,
    sync_ms: f64,
    traffic: &Report,
    orders: &serde_json::Value,
) -> Measured {
    let hosts = f64::from(args.hosts);
    let unavoidable = splits.iter().map(|split| split.unavoidable).sum::<f64>();
    let overhead = rounded((wall - unavoidable) / hosts);
    let mean = |of: fn(&Split) -> f64| rounded(splits.iter().map(of).sum::<f64>() / hosts);
    let document = json!({
        "hosts": args.hosts,
        "balancer": "haproxy",
        "placement": "in-place",
        "rate": args.rate,
        "wall_ms": wall,
        "unavoidable_ms": rounded(unavoidable),
        "overhead_per_host_ms": overhead,
        "promised_overhead_per_host_ms": PROMISED_MS,
        "mean_ms": {
            "turn": mean(|split| split.turn),
            "drain": mean(|split| split.drain),
            "stop": mean(|split| split.stop),
            "launch": mean(|split| split.launch),
            "start": mean(|split| split.start),
            "healthy_for": mean(|split| split.healthy_for),
            "probe_and_enroll": mean(|split| split.probe_and_enroll),
        },
        "tail_ms": tail,
        "disk_sync_ms": sync_ms,
        "per_host_ms": splits,
        "requests": traffic.requests,
        "failed": traffic.failed,
        "orders": orders,
        "traffic": traffic,
    });
    let mut summary = format!(
        "{SERVICE} on {} hosts, in place, one at a time, behind haproxy, {} requests/s\n\n\
         HOST      WALL   TURN  DRAIN   STOP LAUNCH  START HEALTHY  ENROLL OVERHEAD   (ms)\n",
        args.hosts, args.rate
    );
    for split in splits {
        summary.push_str(&format!(
            "{:<7} {:>6.0} {:>6.1} {:>6.1} {:>6.1} {:>6.1} {:>6.0} {:>7.0} {:>7.1} {:>8.1}\n",
            split.host,
            split.wall,
            split.turn,
            split.drain,
            split.stop,
            split.launch,
            split.start,
            split.healthy_for,
            split.probe_and_enroll,
            split.overhead
        ));
    }
    summary.push_str(&format!(
        "\nwall {:.2} s, unavoidable {:.2} s, overhead {overhead:.1} ms a host (promised: at most {PROMISED_MS:.0}); \
         the disk keeps a file in {sync_ms:.1} ms\n\
         {} failed of {} requests; longest gap {:.0} ms\n",
        wall / 1000.0,
        unavoidable / 1000.0,
        traffic.failed,
        traffic.requests,
        traffic.longest_gap_ms
    ));
    Measured { document, summary, good: overhead <= PROMISED_MS && traffic.failed == 0 }
}
