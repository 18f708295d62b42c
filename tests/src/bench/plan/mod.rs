//! What a pass of the planner takes where there is a lot to look at, and what a whole rollout takes of a processor.

mod fleets;

use super::{Measured, PlanArgs, milliseconds};
use anyhow::{Context as _, ensure};
use baton_core::fleet::Fleet;
use baton_core::rollout::interlock;
use baton_core::rollout::plan::plan;
use baton_simulation::{Calm, Order};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

/// What Baton promises for one pass over ten thousand hosts, and for a simulated rollout over a hundred.
const PROMISED_MS: f64 = 20.0;
const SIMULATED_HOSTS: u16 = 100;

/// What passes over one fleet take, of a processor.
#[derive(Debug, Serialize)]
struct Passes {
    fleet: &'static str,
    /// What the pass finds to do.
    pass: &'static str,
    hosts: usize,
    services: usize,
    p50_ms: f64,
    p99_ms: f64,
    /// The second opinion, which a pass that decides something asks for as well.
    interlock_p50_ms: f64,
}

pub(super) fn run(args: &PlanArgs) -> anyhow::Result<Measured> {
    let mut passes = Vec::new();
    for (name, fleet) in
        [("one service", fleets::one_service(args.hosts)?), ("many services", fleets::many_services(args.hosts)?)]
    {
        passes.push(measure(name, "one step", &fleet, args.passes)?);
        let next = plan(&fleet, fleets::NOW);
        let mut waits = fleet;
        next.take(&mut waits);
        ensure!(!plan(&waits, fleets::NOW).changes_anything(), "{name}: there should be nothing to do but to wait");
        passes.push(measure(name, "waits", &waits, args.passes)?);
    }
    let in_waves = simulate(Order::InWaves, args.rollouts)?;
    let one_by_one = simulate(Order::OneByOne, 1)?;
    let worst = passes.iter().map(|passes| passes.p99_ms).fold(0.0, f64::max);
    let good = worst <= PROMISED_MS && in_waves.cpu_p50_ms <= PROMISED_MS;
    let mut summary = "FLEET           PASS       HOSTS SERVICES   P50 MS   P99 MS  INTERLOCK P50 MS\n".to_owned();
    for Passes { fleet, pass, hosts, services, p50_ms, p99_ms, interlock_p50_ms } in &passes {
        let line =
            format!("{fleet:<15} {pass:<8} {hosts:>7} {services:>8} {p50_ms:>8.2} {p99_ms:>8.2} {interlock_p50_ms:>17.2}\n");
        summary.push_str(&line);
    }
    summary.push_str(&format!("\na pass takes {worst:.2} ms at most in 99 of 100 (promised: {PROMISED_MS:.0})\n"));
    for (simulated, promised) in
        [(&in_waves, format!("promised: {PROMISED_MS:.0}")), (&one_by_one, "nothing promised".to_owned())]
    {
        let Simulated { order, cpu_p50_ms, passes, looks, virtual_s } = simulated;
        summary.push_str(&format!(
            "a simulated rollout over {SIMULATED_HOSTS} hosts {order} takes {cpu_p50_ms:.1} ms of a processor ({promised}) for \
             {virtual_s:.0} s of simulated time, {passes} passes and {looks} looks of agents\n"
        ));
    }
    let document = json!({
        "promised_ms": PROMISED_MS,
        "passes": passes,
        "worst_p99_ms": worst,
        "simulated_rollout": { "hosts": SIMULATED_HOSTS, "promised_cpu_ms": PROMISED_MS, "in_waves": in_waves, "one_by_one": one_by_one },
    });
    Ok(Measured { document, summary, good })
}

fn measure(name: &'static str, pass: &'static str, fleet: &Fleet, passes: u32) -> anyhow::Result<Passes> {
    let (mut plans, mut checks) = (Vec::new(), Vec::new());
    for _ in 0..passes {
        let before = busy().context("no clock")?;
        let next = plan(fleet, fleets::NOW);
        let planned = busy().context("no clock")?;
        let checked = interlock::check(fleet, &next);
        checks.push(milliseconds(busy().context("no clock")?.saturating_sub(planned)));
        plans.push(milliseconds(planned.saturating_sub(before)));
        if let Err(violations) = checked {
            anyhow::bail!("{name}: the interlock refused {violations:?}");
        }
        ensure!(next.changes_anything() == (pass == "one step"), "{name}: this is no pass for `{pass}`");
    }
    Ok(Passes {
        fleet: name,
        pass,
        hosts: fleet.hosts.len(),
        services: fleet.services.len(),
        p50_ms: quantile(&plans, 50),
        p99_ms: quantile(&plans, 99),
        interlock_p50_ms: quantile(&checks, 50),
    })
}

/// What a simulated rollout took, from the command to the success: the planner, the interlock, and the world around them.
#[derive(Debug, Serialize)]
struct Simulated {
    order: &'static str,
    cpu_p50_ms: f64,
    passes: u64,
    looks: u64,
    /// How long it took in the simulation: every host reports every four seconds of that, and whatever is news is a pass.
    virtual_s: f64,
}

/// Rollouts over one fleet, there and back again.
fn simulate(order: Order, rollouts: u64) -> anyhow::Result<Simulated> {
    let mut calm = Calm::new(SIMULATED_HOSTS, order);
    let mut deploy = || calm.deploy().map_err(|why| anyhow::anyhow!("the simulation: {why}"));
    // The first release of all, and the first that replaces one: from then on one is as the other.
    let mut rolled = deploy().and(deploy())?;
    let mut times = Vec::new();
    for _ in 0..rollouts {
        let before = busy().context("no clock")?;
        rolled = deploy()?;
        times.push(milliseconds(busy().context("no clock")?.saturating_sub(before)));
    }
    Ok(Simulated {
        order: match order {
            Order::InWaves => "in waves (1, 25 %, 100 %; at most 25 % away)",
            Order::OneByOne => "one by one",
        },
        cpu_p50_ms: quantile(&times, 50),
        passes: rolled.passes,
        looks: rolled.looks,
        virtual_s: rolled.took.as_secs_f64(),
    })
}

/// Time on a processor of this thread so far: what others do on this machine is not Baton's cost.
fn busy() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

fn quantile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
}
