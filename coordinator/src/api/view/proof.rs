//! What the load balancers counted during a rollout.

use super::millis;
use baton_core::analysis::probes::{Prober, Probes};
use baton_core::analysis::settings::Share;
use baton_core::rollout::Rollout;
use baton_proto::v1::{Notice, ProberView, ProofView};
use std::time::Duration;

/// Shares of failures that are worth knowing about.
const SHOWN: [f64; 3] = [0.01, 0.05, 0.2];

/// None: nobody looked at a balancer, and nobody was to ask through it.
pub(super) fn view(rollout: &Rollout, old: &str) -> Option<ProofView> {
    let judgement = &rollout.judgement;
    let proof = Some(&judgement.proof).filter(|proof| proof.polls > 0 || rollout.strategy.prober.is_some())?;
    let caught = judgement.would_have_caught(&rollout.strategy.guard);
    let (least_serving, least_of) = proof.capacity.least.unwrap_or_default();
    Some(ProofView {
        new_requests: proof.new.requests,
        new_failed: proof.new.errors,
        old_requests: proof.old.requests,
        old_failed: proof.old.errors,
        other_requests: proof.other.requests,
        other_failed: proof.other.errors,
        cut: proof.cut,
        restarts: proof.restarts,
        mixed_ms: proof.mixed().map(millis).unwrap_or_default(),
        quiet_ms: millis(proof.quiet),
        unit: judgement.unit.map(|unit| unit.words().to_owned()).unwrap_or_default(),
        chance: judgement.unit.map(|_| judgement.chance()).unwrap_or_default(),
        would_notice: notices(|share| judgement.would_notice(&rollout.strategy.guard, share)),
        least_serving,
        least_of,
        missed_ms: millis(proof.capacity.missed),
        memory: judgement.memory.words(old).unwrap_or_default(),
        prober: rollout.strategy.prober.as_ref().map(|prober| prober_view(prober, &proof.probes)),
        would_have_caught: caught.map(|share| Share(share).to_string()).unwrap_or_default(),
    })
}

fn prober_view(prober: &Prober, probes: &Probes) -> ProberView {
    ProberView {
        url: prober.target.to_string(),
        asked: probes.asked,
        failed: probes.failed,
        longest_gap_ms: millis(probes.longest_gap),
        unasked: probes.unasked,
        restarts: probes.restarts,
        last_failure: probes.last_failure.clone().unwrap_or_default(),
        last_trouble: probes.last_trouble.clone().unwrap_or_default(),
    }
}

/// How soon regressions are noticed, of those that are at all.
pub(in crate::api) fn notices(within: impl Fn(f64) -> Option<Duration>) -> Vec<Notice> {
    let notice = |share| Some(Notice { share: Share(share).to_string(), within_ms: millis(within(share)?) });
    SHOWN.into_iter().filter_map(notice).collect()
}
