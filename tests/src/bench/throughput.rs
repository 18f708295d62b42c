//! What the built-in balancer carries beside HAProxy, with the same wrk line, in one run.

use super::balancers::rig::bench::{Bench, places};
use super::balancers::rig::front::Front;
use super::{Measured, ThroughputArgs, part};
use anyhow::{Context as _, bail, ensure};
use baton_core::fleet::report::MemberReport;
use baton_core::fleet::spec::MemberState;
use serde::Serialize;
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// At least this part of HAProxy's requests, and at most so many times its time for 99 of 100.
const PROMISED_REQUESTS: f64 = 0.5;
const PROMISED_P99: f64 = 2.0;

/// For the applications to listen.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(args: ThroughputArgs) -> anyhow::Result<Measured> {
    let places = places();
    let _applications = Applications::start(&places)?;
    let mut command = part()?;
    command.push("balancer".to_owned());
    let haproxy = Front::haproxy(&places).context("HAProxy is not installed")?;
    let (builtin, haproxy) = (serving(Front::builtin(command), &places).await, serving(haproxy, &places).await);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        ours.push(wrk(&args, builtin.front.listen)?);
        theirs.push(wrk(&args, haproxy.front.listen)?);
    }
    let (ours, theirs) = (median(ours)?, median(theirs)?);
    let (requests, p99) = (ours.per_second / theirs.per_second, ours.p99_ms / theirs.p99_ms);
    let good = requests >= PROMISED_REQUESTS && p99 <= PROMISED_P99;
    let row = |name: &str, it: &Carried| format!("{name:<10} {:>12.0} {:>8.2}\n", it.per_second, it.p99_ms);
    let summary = format!(
        "BALANCER   REQUESTS/S   P99 MS\n{}{}\nof HAProxy's requests {requests:.2} (promised: at least {PROMISED_REQUESTS}), of its p99 \
         {p99:.2} (promised: at most {PROMISED_P99})\n",
        row("built-in", &ours),
        row("haproxy", &theirs),
    );
    let document = json!({
        "wrk": line(&args, "URL").join(" "),
        "rounds": args.rounds,
        "builtin": ours,
        "haproxy": theirs,
        "requests_ratio": requests,
        "p99_ratio": p99,
        "promised": { "requests_ratio": PROMISED_REQUESTS, "p99_ratio": PROMISED_P99 },
    });
    Ok(Measured { document, summary, good })
}

/// A balancer with both members in.
async fn serving(front: Front, places: &[SocketAddr]) -> Bench {
    let mut bench = Bench::without_apps(front, places);
    bench.want(0, MemberState::Ready);
    bench.want(1, MemberState::Ready);
    bench.until("both are in", |pool| pool.members.values().all(MemberReport::is_in)).await;
    bench
}

/// What one wrk said, or the median of several.
#[derive(Debug, Clone, Copy, Serialize)]
struct Carried {
    per_second: f64,
    p99_ms: f64,
}

fn line(args: &ThroughputArgs, url: &str) -> Vec<String> {
    let words = ["-t2".to_owned(), format!("-c{}", args.connections), format!("-d{}s", args.seconds)];
    words.into_iter().chain(["--latency".to_owned(), url.to_owned()]).collect()
}

fn wrk(args: &ThroughputArgs, target: SocketAddr) -> anyhow::Result<Carried> {
    let output = Command::new("wrk").args(line(args, &format!("http://{target}/"))).output();
    let output = output.context("wrk cannot be run: apt-get install wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {said}{}", String::from_utf8_lossy(&output.stderr));
    read(&said).with_context(|| format!("wrk said: {said}"))
}

/// Reads what wrk says; an answer that was none is a failure of the bench, not a slow one.
fn read(said: &str) -> anyhow::Result<Carried> {
    let value = |name: &str| said.lines().find_map(|line| line.trim_start().strip_prefix(name)).map(str::trim);
    if let Some(errors) = value("Socket errors:").or_else(|| value("Non-2xx or 3xx responses:")) {
        bail!("requests failed: {errors}");
    }
    let per_second = value("Requests/sec:").context("no requests a second")?.parse()?;
    Ok(Carried { per_second, p99_ms: milliseconds(value("99%").context("no latency")?)? })
}

/// `4.56ms`, `800.00us`, `1.20s`.
fn milliseconds(text: &str) -> anyhow::Result<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let read = units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    read.with_context(|| format!("{text} is no time"))
}

fn median(mut all: Vec<Carried>) -> anyhow::Result<Carried> {
    let middle = all.len() / 2;
    all.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let per_second = all.get(middle).context("nothing was measured")?.per_second;
    all.sort_by(|a, b| a.p99_ms.total_cmp(&b.p99_ms));
    let p99_ms = all.get(middle).context("nothing was measured")?.p99_ms;
    Ok(Carried { per_second, p99_ms })
}

/// What stands behind the balancers: two ports of a program that answers by itself, and faster than any of them.
#[derive(Debug)]
struct Applications {
    process: Child,
    _folder: TempDir,
}

impl Applications {
    fn start(places: &[SocketAddr]) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let mut config =
            "defaults\n  mode http\n  timeout connect 1s\n  timeout client 30s\n  timeout server 30s\nfrontend all\n"
                .to_owned();
        places.iter().for_each(|place| config.push_str(&format!("  bind {place}\n")));
        config.push_str("  http-request return status 200 content-type text/plain string ok\n");
        let path = folder.path().join("applications.cfg");
        fs::write(&path, config)?;
        let binary = std::env::var_os("BATON_HAPROXY").unwrap_or_else(|| "haproxy".into());
        let process =
            Command::new(binary).arg("-db").arg("-f").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let applications = Self { process, _folder: folder };
        let begun = Instant::now();
        while places.iter().any(|place| std::net::TcpStream::connect(place).is_err()) {
            ensure!(begun.elapsed() < PATIENCE, "what should answer behind the balancers does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(applications)
    }
}

impl Drop for Applications {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 5s test @ http://127.0.0.1:80/\n  2 threads and 64 connections\n  Latency Distribution\n     \
        50%    1.90ms\n     99%  800.00us\n  100 requests in 5.00s, 1MB read\nRequests/sec:  27812.54\nTransfer/sec:      3.69MB\n";

    #[test]
    fn what_wrk_says_is_read_and_failed_requests_are_no_throughput() {
        let carried = read(SAID).unwrap();
        assert!((carried.per_second - 27_812.54).abs() < 1e-9 && (carried.p99_ms - 0.8).abs() < 1e-9, "{carried:?}");
        assert!(read(&format!("{SAID}  Socket errors: connect 0, read 3, write 0, timeout 0\n")).is_err());
        assert!(read(&format!("{SAID}  Non-2xx or 3xx responses: 4\n")).is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn of_several_the_one_in_the_middle_counts() {
        let carried = |per_second, p99_ms| Carried { per_second, p99_ms };
        let median = median(vec![carried(3.0, 1.0), carried(1.0, 9.0), carried(2.0, 5.0)]).unwrap();
        assert!((median.per_second - 2.0).abs() < 1e-9 && (median.p99_ms - 5.0).abs() < 1e-9);
    }
}
