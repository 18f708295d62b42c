//! `kill -9` at durable steps, by a tracer: a few of those that `bench crash` goes through one by one.

use baton_tests::crash::sweep::{Sweep, Swept};
use baton_tests::crash::{Strategy, Victim, may_trace};
use baton_tests::e2e::{require, setup};

/// Steps that are far enough apart for a test, and no multiple of the three that one durable file takes.
const STRIDE: u64 = 5;
const LAST: u64 = 16;

/// Kills at some steps, before the call and after it. None: this machine lets nobody trace.
async fn swept(strategy: Strategy, victim: Victim) -> Option<Swept> {
    if !require("ptrace", may_trace(), "sysctl kernel.yama.ptrace_scope=0, or run as root") {
        return None;
    }
    let sweep = Sweep { stride: STRIDE, to: LAST, ..Sweep::whole(strategy, victim) };
    let swept = sweep.run(|| setup(env!("CARGO_BIN_EXE_bench")), |_, _| {}).await.unwrap();
    for point in &swept.points {
        assert_eq!(point.violations, Vec::<String>::new(), "{} at {:?}", point.moment, point.step);
        assert!(point.requests > 0, "no traffic: {point:#?}");
    }
    Some(swept)
}

/// That it died before and after each of the steps that were aimed at.
fn assert_died(swept: &Swept) {
    assert!(swept.steps > STRIDE && swept.points.len() >= 4, "{:#?}", swept.points);
}

#[tokio::test]
async fn a_coordinator_killed_at_a_durable_step_goes_on_and_no_request_fails() {
    let Some(swept) = swept(Strategy::SideBySide, Victim::Coordinator).await else { return };
    assert_died(&swept);
    assert!(swept.points.iter().all(|point| point.step.path.contains("coordinator/")), "{:#?}", swept.points);
}

#[tokio::test]
async fn an_agent_killed_at_a_durable_step_goes_on_and_no_request_fails() {
    let Some(swept) = swept(Strategy::InPlace, Victim::Agent).await else { return };
    assert_died(&swept);
    assert!(swept.points.iter().any(|point| point.step.path.contains("web1/ledger.json")), "{:#?}", swept.points);
}

#[tokio::test]
async fn an_agent_beside_a_balancer_killed_at_a_durable_step_of_a_switch_costs_no_request() {
    let Some(swept) = swept(Strategy::BlueGreen, Victim::BalancerAgent).await else { return };
    assert_died(&swept);
}
