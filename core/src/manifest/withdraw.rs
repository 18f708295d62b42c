//! `[balancer] withdraw`: how an instance leaves a balancer that cannot be told.

use super::reader::{Finding, Reader};
use super::{Manifest, codes};
use crate::fleet::withdraw::Withdraw;
use crate::release::{Probe, Signal};
use crate::strategy::Placement;
use std::time::Duration;

const SIGNAL: &str = "balancer.withdraw.signal";
const UNREADY_FOR: &str = "balancer.withdraw.unready_for";
/// A balancer does not ask faster than that, and hardly believes a single answer.
const LEAST: Duration = Duration::from_millis(100);

/// What was said; inner None: nothing.
pub(super) fn withdraw(reader: &mut Reader<'_, '_>) -> Option<Option<Withdraw>> {
    if reader.value(SIGNAL).is_some() {
        let (signal, unready_for) = (reader.choice(SIGNAL).and_then(Signal::from_name), reader.duration(UNREADY_FOR, LEAST));
        return Some(Some(Withdraw { signal: signal?, unready_for: unready_for? }));
    }
    if reader.value(UNREADY_FOR).is_some() {
        let what = "nothing tells the instance to fail its health check";
        let finding = Finding::error(codes::CONTRADICTION, reader.span(UNREADY_FOR), what).label("upon which signal?");
        reader.report(finding.help("add signal = \"SIGUSR1\" beside it, or leave balancer.withdraw out"));
        return None;
    }
    Some(None)
}

/// Refuses where a balancer could not find out, or the next instance would not be where it looks.
pub(super) fn fits(reader: &mut Reader<'_, '_>, manifest: &Manifest) {
    if manifest.balancer.as_ref().is_none_or(|balancer| balancer.withdraw.is_none()) {
        return;
    }
    let strategy = &manifest.strategy;
    if strategy.placement != Placement::InPlace || strategy.exclusive {
        let what = "a balancer that cannot be told knows no other address than the old one's, where nobody would follow";
        let finding =
            Finding::error(codes::CONTRADICTION, reader.span(SIGNAL), what).label("needs an instance in its place");
        reader.report(
            finding.help("use rollout.placement = \"in-place\" with rolling or canary, or leave balancer.withdraw out"),
        );
    }
    if manifest.health.probe == Probe::Tcp {
        let what = "an instance that accepts connections cannot fail a check that only looks for that";
        let finding = Finding::error(codes::CONTRADICTION, reader.span("health.tcp"), what).label("always passes");
        reader.report(finding.help("use health.http, with what the balancers ask, or leave balancer.withdraw out"));
    }
}
