//! What a pass of the planner takes where there is a lot to look at, and what a whole rollout takes of a processor.

mod fleets;

use super::{Measured, PlanArgs, milliseconds};
use anyhow::{Context as _, ensure};
use baton_core::fleet::Fleet;
use baton_core::rollout::interlock;
use baton_core::rollout::plan::plan;
use baton_simulation::calm;
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
    let simulated = (0..args.rollouts).map(simulated).collect::<anyhow::Result<Vec<_>>>()?;
    let virtual_s = quantile(&simulated.iter().map(|it| it.virtual_s).collect::<Vec<_>>(), 50);
    let simulated = quantile(&simulated.iter().map(|it| it.cpu_ms).collect::<Vec<_>>(), 50);
    let worst = passes.iter().map(|passes| passes.p99_ms).fold(0.0, f64::max);
    let good = worst <= PROMISED_MS && simulated <= PROMISED_MS;
    let mut summary = "FLEET           PASS       HOSTS SERVICES   P50 MS   P99 MS  INTERLOCK P50 MS\n".to_owned();
    for Passes { fleet, pass, hosts, services, p50_ms, p99_ms, interlock_p50_ms } in &passes {
        let line =
            format!("{fleet:<15} {pass:<8} {hosts:>7} {services:>8} {p50_ms:>8.2} {p99_ms:>8.2} {interlock_p50_ms:>17.2}\n");
        summary.push_str(&line);
    }
    summary.push_str(&format!(
        "\na pass takes {worst:.2} ms at most in 99 of 100 (promised: {PROMISED_MS:.0}); a simulated rollout over \
         {SIMULATED_HOSTS} hosts takes {simulated:.0} ms of a processor (promised: {PROMISED_MS:.0}) for {virtual_s:.0} s of \
         simulated time\n"
    ));
    let document = json!({
        "promised_ms": PROMISED_MS,
        "passes": passes,
        "worst_p99_ms": worst,
        "simulated_rollout": { "hosts": SIMULATED_HOSTS, "cpu_p50_ms": simulated, "promised_cpu_ms": PROMISED_MS, "virtual_s": virtual_s },
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

/// What one simulated rollout took, from the command to the success: the planner, the interlock, and the world around them.
#[derive(Debug, Clone, Copy)]
struct Simulated {
    cpu_ms: f64,
    /// How long it took in the simulation: every host reports every four seconds of that, and all that is news is a pass.
    virtual_s: f64,
}

fn simulated(seed: u64) -> anyhow::Result<Simulated> {
    let (mut begun, mut ended) = (None, None);
    let outcome = calm(seed, SIMULATED_HOSTS, &mut |line| {
        let at = line.split_ascii_whitespace().next().and_then(|at| at.parse::<u64>().ok());
        if begun.is_none() && line.contains(" Wish(0, Deploy(") {
            begun = busy().zip(at);
        }
        if begun.is_some() && line.contains(" is Succeeded") {
            ended = busy().zip(at);
        }
    });
    ensure!(outcome.violation.is_none(), "the simulation: {:?}", outcome.violation);
    let ((busy, at), (busy_then, at_then)) = ended.zip(begun).context("the rollout did not succeed")?;
    let virtual_s = milliseconds(Duration::from_millis(at.saturating_sub(at_then))) / 1000.0;
    Ok(Simulated { cpu_ms: milliseconds(busy.saturating_sub(busy_then)), virtual_s })
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
