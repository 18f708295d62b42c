//! What the demo has to say in the end: one document for machines, a few lines for people.

use super::DemoArgs;
use super::acts::Act;
use super::stage::Place;
use crate::exit::Exit;
use crate::render::page::{Line, Page, Tone};
use serde::Serialize;
use std::time::Duration;

/// Everything measured.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    balancer: &'static str,
    placement: &'static str,
    rate: u32,
    duration_s: f64,
    rolling: Act,
    broken: Act,
    /// What did not hold; empty when everything did.
    violations: Vec<String>,
}

impl Document {
    pub(super) fn new(args: &DemoArgs, rolling: Act, broken: Act, duration: Duration) -> Self {
        let violations = violations(&rolling, &broken, args.placement != Place::Handover);
        let balancer = match (args.placement, args.balancer) {
            (Place::Handover, _) => "none",
            (_, front) => front.name(),
        };
        let placement = match args.placement {
            Place::InPlace => "in-place",
            Place::SideBySide => "side-by-side",
            Place::Handover => "handover",
        };
        let duration_s = super::load::tally::rounded(duration.as_secs_f64());
        Self { balancer, placement, rate: args.rate, duration_s, rolling, broken, violations }
    }

    pub(super) fn exit(&self) -> Exit {
        if self.violations.is_empty() { Exit::Done } else { Exit::Error }
    }

    pub(super) fn page(&self) -> Page {
        let mut page = Page::new();
        let Self { rolling, broken, .. } = self;
        page.text("");
        page.line(line(
            rolling.failed == 0 && rolling.outcome == "succeeded",
            format!("rolling release  {} on {} hosts in {:.1} s", rolling.outcome, rolling.hosts, rolling.duration_s),
        ));
        page.extend(measured(rolling));
        page.line(line(
            broken.outcome == "reverted",
            format!("broken release   {} after {:.1} s", broken.outcome, broken.duration_s),
        ));
        page.extend(measured(broken));
        if let (Some(after), Some(true)) = (broken.noticed_after_s, broken.all_failures_on_it) {
            page.text(format!("  noticed {after:.1} s after the first failure; every failure was on the new release"));
        }
        for violation in &self.violations {
            page.line(Line::default().span(Tone::Bad, format!("✗ {violation}")));
        }
        page
    }
}

/// What the demo promises, against what was measured.
fn violations(rolling: &Act, broken: &Act, counted: bool) -> Vec<String> {
    let promises = [
        (rolling.requests > 0, "no request was sent during the rolling release".to_owned()),
        (rolling.failed == 0, format!("{} requests of the rolling release failed", rolling.failed)),
        (rolling.outcome == "succeeded", format!("the rolling release ended {}", rolling.outcome)),
        (rolling.traffic.versions.contains_key("2"), "release 2 never answered a request".to_owned()),
        (rolling.orders.twice == 0, format!("{} orders were executed twice", rolling.orders.twice)),
        (rolling.orders.lost == 0, format!("{} acknowledged orders were not executed", rolling.orders.lost)),
        (broken.outcome == "reverted", format!("the broken release ended {}", broken.outcome)),
        (broken.failed > 0 || !counted, "no request of the broken release failed: there was nothing to notice".to_owned()),
        (broken.all_failures_on_it.unwrap_or(!counted), "requests failed that the broken release did not answer".to_owned()),
        (!broken.evidence.is_empty(), "nothing spoke against the broken release".to_owned()),
        (broken.orders.twice == 0, format!("{} orders were executed twice", broken.orders.twice)),
        (broken.orders.lost == 0, format!("{} acknowledged orders were not executed", broken.orders.lost)),
    ];
    promises.into_iter().filter(|(kept, _)| !kept).map(|(_, broken)| broken).collect()
}

fn line(good: bool, text: String) -> Line {
    let (tone, mark) = if good { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
    Line::default().span(tone, mark).plain(" ").span(Tone::Strong, text)
}

fn measured(act: &Act) -> Page {
    let mut page = Page::new();
    let traffic = &act.traffic;
    page.text(format!(
        "  {} failed of {} requests, counted by the client; longest gap {:.0} ms; p50 {:.1} ms, p99 {:.1} ms",
        act.failed, act.requests, traffic.longest_gap_ms, traffic.p50_ms, traffic.p99_ms
    ));
    let versions = traffic.versions.iter().map(|(version, count)| format!("{count} by release {version}"));
    page.text(format!("  answered: {}", versions.collect::<Vec<_>>().join(", ")));
    let orders = &act.orders;
    page.text(format!("  orders: {} sent, {} lost, {} executed twice", orders.sent, orders.lost, orders.twice));
    for failure in traffic.failures.iter().take(3) {
        page.text(format!("  at {:.2} s {}: {}", failure.at_s, failure.kind, failure.text));
    }
    for evidence in &act.evidence {
        page.text(format!("  {evidence}"));
    }
    page
}
