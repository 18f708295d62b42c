//! Taking members out and putting them back, over every balancer that is installed: what it costs clients, and how long it
//! takes until the balancer says so.

use super::{BalancersArgs, HandoverArgs, Measured, handover, milliseconds, part};
use anyhow::Context as _;
use baton_core::fleet::report::MemberReport;
use baton_core::fleet::spec::MemberState;
use baton_core::release::Probe;
use rig::bench::{Bench, member, places};
use rig::front::Front;
use rig::load::Load;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The rig of the contract's tests, which has more than is measured here.
#[path = "../../../agent/tests/balancer/rig/mod.rs"]
#[allow(dead_code, reason = "tests of the contract use the rest")]
pub(super) mod rig;

/// Members of one backend that change at once.
const MANY: usize = 300;

/// How often.
const MANY_TIMES: usize = 5;

/// Until they all are, half of the times.
const MANY_MS: f64 = 50.0;

/// From a member's last answer to its report as drained, in 99 of 100.
const NOTICED_MS: f64 = 20.0;

/// The name of what needs no balancer.
const HANDOVER: &str = "handover";

/// What is promised of one balancer.
#[derive(Debug, Clone, Copy)]
struct Promise {
    /// From what is asked for to its echo, half of the times.
    echo_ms: f64,
    /// Each change is another generation of processes. Whatever an earlier one has in hand anywhere may turn to the member that
    /// went out; its drain is over when that is.
    reloads: bool,
    /// None: each reload of it loses requests of clients that do not look before they write, and how many is told.
    failed: Option<u64>,
}

pub(super) async fn run(args: BalancersArgs) -> anyhow::Result<Measured> {
    let mut drivers = Vec::new();
    let mut summary = String::new();
    let mut missed = Vec::new();
    let is_chosen = |name: &str| args.balancers.is_empty() || args.balancers.iter().any(|chosen| chosen == name);
    for (name, promise, make) in fronts()?.into_iter().filter(|(name, ..)| is_chosen(name)) {
        let places = places();
        let Some(front) = make(&places) else { continue };
        let mut document = cycles(name, promise, Bench::serving(front, &places).await, &args).await?;
        missed.extend(misses(name, promise, &document));
        document["promised"] = json!({
            "echo_p50_ms": promise.echo_ms,
            "noticed_p99_ms": NOTICED_MS,
            "failed": promise.failed,
            "posts_twice": 0,
        });
        writeln!(
            summary,
            "{name}: {} cycles, {} requests in {} s, {} failed, {} POSTs twice; echo {} ms (promised: {}; p99 {}), \
             drained noticed after {} ms (p99 {}, promised: {NOTICED_MS})",
            document["cycles"],
            document["requests"],
            document["seconds"],
            document["failed"],
            document["posts_twice"],
            document["echo_ms"]["p50"],
            promise.echo_ms,
            document["echo_ms"]["p99"],
            document["noticed_ms"]["p50"],
            document["noticed_ms"]["p99"],
        )?;
        drivers.push(document);
    }
    if is_chosen(HANDOVER) {
        let document = handed_over(&args).await?;
        writeln!(
            summary,
            "{HANDOVER}: {} releases, {} connections in {} s, {} failed, {} POSTs twice; a release {} ms (at most {})",
            document["cycles"],
            document["requests"],
            document["seconds"],
            document["failed"],
            document["posts_twice"],
            document["release_ms"]["p50"],
            document["release_ms"]["max"],
        )?;
        for what in ["failed", "posts_twice", "posts_lost"] {
            missed.extend(above(HANDOVER, what, &document[what], 0.0));
        }
        drivers.push(document);
    }
    let many = if is_chosen("haproxy") { many().await? } else { None };
    if let Some(many) = &many {
        writeln!(
            summary,
            "haproxy: {MANY} members changed at once in {} ms (p50 of {MANY_TIMES}; promised: {MANY_MS})",
            many["p50"]
        )?;
        missed.extend(above("haproxy", "members at once, p50 ms", &many["p50"], MANY_MS));
    }
    for missed in &missed {
        writeln!(summary, "missed: {missed}")?;
    }
    let good = missed.is_empty();
    let document = json!({
        "drivers": drivers,
        "haproxy_members_at_once": many,
        "promised_members_at_once_p50_ms": MANY_MS,
        "missed": missed,
    });
    Ok(Measured { document, summary, good })
}

/// Releases on one host without a balancer, for as many requests: nobody is told anything, so there is no echo and no drain to
/// notice; what takes its time is the release.
async fn handed_over(args: &BalancersArgs) -> anyhow::Result<Value> {
    let releases = u32::try_from(args.cycles).unwrap_or(u32::MAX);
    let wanted = HandoverArgs { releases, connections: args.requests, rate: 3000, start_ms: 50, healthy_ms: 100 };
    let Measured { document: seen, .. } = handover::run(wanted).await?;
    Ok(json!({
        "driver": HANDOVER,
        "cycles": seen["releases"],
        "seconds": seen["traffic"]["duration_s"].as_f64().map(f64::round),
        "requests": seen["connections"],
        "failed": seen["failed"],
        "posts_twice": seen["orders"]["twice"],
        "posts_lost": seen["orders"]["lost"],
        "release_ms": seen["release_ms"],
        "promised": { "failed": 0, "posts_twice": 0, "posts_lost": 0 },
    }))
}

/// What of a promise one run did not keep.
fn misses(name: &str, promise: Promise, seen: &Value) -> Vec<String> {
    let times = [
        above(name, "echo, p50 ms", &seen["echo_ms"]["p50"], promise.echo_ms),
        above(name, "drain noticed, p99 ms", &seen["noticed_ms"]["p99"], NOTICED_MS),
    ];
    // Counts of requests of one run, far below what a float holds exactly.
    #[allow(clippy::cast_precision_loss)]
    let failed = promise.failed.and_then(|failed| above(name, "failed", &seen["failed"], failed as f64));
    let twice = above(name, "POSTs twice", &seen["posts_twice"], 0.0);
    times.into_iter().chain([failed, twice]).flatten().collect()
}

/// A figure above its promise, or one that is not there.
fn above(name: &str, what: &str, seen: &Value, promised: f64) -> Option<String> {
    let kept = seen.as_f64().is_some_and(|seen| seen <= promised);
    (!kept).then(|| format!("{name}: {what}: {seen}, promised: at most {promised}"))
}

type Make = Box<dyn Fn(&[std::net::SocketAddr]) -> Option<Front>>;

fn fronts() -> anyhow::Result<Vec<(&'static str, Promise, Make)>> {
    let mut command = part()?;
    command.push("balancer".to_owned());
    let within = |echo_ms| Promise { echo_ms, reloads: false, failed: Some(0) };
    let reloading = Promise { reloads: true, ..within(150.0) };
    Ok(vec![
        ("builtin", within(1.0), Box::new(move |_| Some(Front::builtin(command.clone())))),
        ("haproxy", within(2.0), Box::new(Front::haproxy)),
        ("nginx", Promise { failed: None, ..reloading }, Box::new(Front::nginx)),
        ("nginx-new", reloading, Box::new(Front::nginx_new)),
        ("envoy", within(10.0), Box::new(Front::envoy)),
    ])
}

async fn cycles(name: &str, promise: Promise, mut bench: Bench, args: &BalancersArgs) -> anyhow::Result<Value> {
    let loads: Vec<Load> = (0..args.clients).map(|_| Load::start(bench.front.listen)).collect();
    let (mut echoes, mut notices) = (Vec::new(), Vec::new());
    let sent = || loads.iter().map(|load| load.tally.requests.load(Ordering::SeqCst)).sum::<u64>();
    let began = Instant::now();
    let (mut cycles, mut cut) = (0u64, 0u64);
    while cycles < args.cycles || sent() < args.requests {
        let index = usize::from(cycles % 2 == 1);
        cycles += 1;
        let asked = Instant::now();
        bench.want(index, MemberState::Out);
        bench.until("out", |pool| member(pool, index).is_out()).await;
        let out = Instant::now();
        echoes.push(out - asked);
        let drained = bench.until("drained", |pool| member(pool, index).is_drained(Duration::MAX)).await;
        // None of them lasts for as long as a drain may.
        cut += member(&drained, index).cut;
        let noticed = Instant::now();
        let own = bench.apps[index].last_answer(noticed);
        let begun_before = bench.apps.iter().filter_map(|app| app.last_answer(out).filter(|_| promise.reloads));
        let last = begun_before.chain(own).filter(|last| *last <= noticed).fold(out, Instant::max);
        bench.apps.iter().for_each(rig::app::App::forget_answers);
        notices.push(noticed.saturating_duration_since(last));
        bench.apps[index].kill();
        bench.apps[index].start();
        let asked = Instant::now();
        bench.want(index, MemberState::Ready);
        bench.until("in again", |pool| member(pool, index).is_in()).await;
        echoes.push(asked.elapsed());
    }
    let took = began.elapsed();
    let (mut requests, mut failures) = (0, Vec::new());
    for load in loads {
        let tally = load.end().await;
        requests += tally.requests.load(Ordering::SeqCst);
        failures.extend(tally.failures.lock().map_err(|_| anyhow::anyhow!("a client died"))?.iter().cloned());
    }
    let twice: usize = bench.apps.iter().map(rig::app::App::posts_twice).sum();
    Ok(json!({
        "driver": name,
        "cycles": cycles,
        "seconds": took.as_secs_f64().round(),
        "requests": requests,
        "failed": failures.len(),
        "failures": failures.iter().take(5).collect::<Vec<_>>(),
        "cut": cut,
        "posts_twice": twice,
        "echo_ms": spread(&mut echoes)?,
        "noticed_ms": spread(&mut notices)?,
    }))
}

/// All servers of one backend out in one pass: written down, told, and read back.
async fn many() -> anyhow::Result<Option<Value>> {
    let listeners: Vec<TcpListener> = (0..MANY).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let places = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    let Some(front) = Front::haproxy(&places) else { return Ok(None) };
    let mut bench = Bench::without_apps(front, &places);
    for member in bench.pool().members.values_mut() {
        member.probe = Probe::Tcp;
    }
    let mut took = Vec::new();
    for _ in 0..MANY_TIMES {
        let all = |bench: &mut Bench, state| bench.pool().members.values_mut().for_each(|member| member.state = state);
        all(&mut bench, MemberState::Ready);
        bench.until("all are in", |pool| pool.members.values().all(MemberReport::is_in)).await;
        all(&mut bench, MemberState::Out);
        let began = Instant::now();
        bench.until("all are out", |pool| pool.members.values().all(MemberReport::is_out)).await;
        took.push(began.elapsed());
    }
    spread(&mut took).map(Some)
}

fn spread(durations: &mut [Duration]) -> anyhow::Result<Value> {
    durations.sort_unstable();
    let at = |part: f64| -> anyhow::Result<f64> {
        // A place in a list of a few hundred.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let place = ((durations.len() as f64 * part).ceil() as usize).saturating_sub(1);
        Ok(milliseconds(*durations.get(place).context("nothing was measured")?))
    };
    Ok(json!({ "p50": at(0.5)?, "p99": at(0.99)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(echo: f64, noticed: f64, failed: u64, twice: u64) -> Value {
        json!({ "echo_ms": { "p50": echo }, "noticed_ms": { "p99": noticed }, "failed": failed, "posts_twice": twice })
    }

    #[test]
    fn each_figure_above_its_promise_is_named_and_so_is_one_that_is_missing() {
        let strict = Promise { echo_ms: 2.0, reloads: false, failed: Some(0) };
        let lossy = Promise { failed: None, ..strict };
        assert!(misses("a", strict, &run(2.0, 20.0, 0, 0)).is_empty());
        assert!(misses("a", lossy, &run(2.0, 20.0, 64, 0)).is_empty());
        assert_eq!(misses("a", strict, &run(2.1, 20.1, 1, 1)).len(), 4);
        assert_eq!(misses("a", lossy, &run(2.0, 20.0, 64, 1)), ["a: POSTs twice: 1, promised: at most 0"]);
        assert_eq!(misses("a", strict, &json!({})).len(), 4);
    }
}
