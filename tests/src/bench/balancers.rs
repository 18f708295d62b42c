//! Taking members out and putting them back, over every balancer that is installed: what it costs clients, and how long it
//! takes until the balancer says so.

use super::{BalancersArgs, Measured, milliseconds, part};
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
mod rig;

/// Members of one backend that change at once.
const MANY: usize = 300;

/// How often.
const MANY_TIMES: usize = 5;

pub(super) async fn run(args: BalancersArgs) -> anyhow::Result<Measured> {
    let mut drivers = Vec::new();
    let mut summary = String::new();
    for (name, make) in fronts()? {
        let places = places();
        let Some(front) = make(&places) else { continue };
        let document = cycles(name, Bench::serving(front, &places).await, &args).await?;
        writeln!(
            summary,
            "{name}: {} cycles, {} requests, {} failed, {} POSTs twice; echo {} ms (p99 {}), drained noticed after {} ms (p99 {})",
            document["cycles"],
            document["requests"],
            document["failed"],
            document["posts_twice"],
            document["echo_ms"]["p50"],
            document["echo_ms"]["p99"],
            document["noticed_ms"]["p50"],
            document["noticed_ms"]["p99"],
        )?;
        drivers.push(document);
    }
    let many = many().await?;
    if let Some(many) = &many {
        writeln!(summary, "haproxy: {MANY} members changed at once in {} ms (p50 of {MANY_TIMES})", many["p50"])?;
    }
    let document = json!({ "drivers": drivers, "haproxy_members_at_once": many });
    Ok(Measured { document, summary, good: true })
}

type Make = Box<dyn Fn(&[std::net::SocketAddr]) -> Option<Front>>;

fn fronts() -> anyhow::Result<Vec<(&'static str, Make)>> {
    let mut command = part()?;
    command.push("balancer".to_owned());
    Ok(vec![
        ("builtin", Box::new(move |_| Some(Front::builtin(command.clone())))),
        ("haproxy", Box::new(Front::haproxy)),
        ("nginx", Box::new(Front::nginx)),
        ("nginx-new", Box::new(Front::nginx_new)),
        ("envoy", Box::new(Front::envoy)),
    ])
}

async fn cycles(name: &str, mut bench: Bench, args: &BalancersArgs) -> anyhow::Result<Value> {
    let loads: Vec<Load> = (0..args.clients).map(|_| Load::start(bench.front.listen)).collect();
    let (mut echoes, mut notices) = (Vec::new(), Vec::new());
    for cycle in 0..args.cycles {
        let index = usize::from(cycle % 2);
        let asked = Instant::now();
        bench.want(index, MemberState::Out);
        bench.until("out", |pool| member(pool, index).is_out()).await;
        let out = Instant::now();
        echoes.push(out - asked);
        bench.until("drained", |pool| member(pool, index).is_drained(Duration::MAX)).await;
        let noticed = Instant::now();
        let last = bench.apps[index].last_answer().map_or(out, |last| last.max(out));
        notices.push(noticed.saturating_duration_since(last));
        bench.apps[index].kill();
        bench.apps[index].start();
        let asked = Instant::now();
        bench.want(index, MemberState::Ready);
        bench.until("in again", |pool| member(pool, index).is_in()).await;
        echoes.push(asked.elapsed());
    }
    let (mut requests, mut failures) = (0, Vec::new());
    for load in loads {
        let tally = load.end().await;
        requests += tally.requests.load(Ordering::SeqCst);
        failures.extend(tally.failures.lock().map_err(|_| anyhow::anyhow!("a client died"))?.iter().cloned());
    }
    let twice: usize = bench.apps.iter().map(rig::app::App::posts_twice).sum();
    Ok(json!({
        "driver": name,
        "cycles": args.cycles,
        "requests": requests,
        "failed": failures.len(),
        "failures": failures.iter().take(5).collect::<Vec<_>>(),
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
