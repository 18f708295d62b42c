//! What the load balancers counted during a rollout.

use super::millis;
use baton_core::analysis::probes::{Prober, Probes};
use baton_core::analysis::proof::Cut;
use baton_core::analysis::settings::Share;
use baton_core::analysis::source::Source;
use baton_core::name::HostName;
use baton_core::rollout::{Direction, Rollout};
use baton_core::strategy::Strategy;
use baton_proto::v1::{CutView, Notice, ProberView, ProofView, SourceView};
use std::time::Duration;

/// Shares of failures that are worth knowing about.
const SHOWN: [f64; 3] = [0.01, 0.05, 0.2];

/// None: nobody looked at a balancer or at the memory of instances, nobody was to ask through it, and nobody else counts.
pub(super) fn view(rollout: &Rollout, new: &str, old: &str) -> Option<ProofView> {
    let judgement = &rollout.judgement;
    let sources = sources(rollout, new, old);
    let memory = judgement.memory.words(old).unwrap_or_default();
    let asked = rollout.strategy.prober.is_some() || !sources.is_empty() || !memory.is_empty();
    let proof = Some(&judgement.proof).filter(|proof| proof.polls > 0 || asked)?;
    let compared = judgement.failures.unit.is_some() || sources.iter().any(|source| source.new_requests > 0);
    let caught = judgement.would_have_caught(&rollout.strategy.guard);
    let (least_serving, least_of) = proof.capacity.least.unwrap_or_default();
    // Where the live release takes the place of others, those others are the old side.
    let (before, others) = match rollout.brings_back().next() {
        Some(_) => (&proof.other, &proof.old),
        None => (&proof.old, &proof.other),
    };
    Some(ProofView {
        new_requests: proof.new.requests,
        new_failed: proof.new.errors,
        old_requests: before.requests,
        old_failed: before.errors,
        other_requests: others.requests,
        other_failed: others.errors,
        cut: proof.cut,
        restarts: proof.restarts,
        mixed_ms: proof.mixed().map(millis).unwrap_or_default(),
        quiet_ms: millis(proof.quiet),
        unit: judgement.failures.unit.map(|unit| unit.words().to_owned()).unwrap_or_default(),
        chance: if compared { judgement.chance() } else { String::new() },
        would_notice: notices(|share| judgement.would_notice(&rollout.strategy.guard, share)),
        least_serving,
        least_of,
        missed_ms: millis(proof.capacity.missed),
        memory,
        prober: rollout.strategy.prober.as_ref().map(|prober| prober_view(prober, &proof.probes)),
        sources,
        cuts: proof.cuts.iter().map(cut_view).collect(),
        not_counted: proof.hole().unwrap_or_default(),
        would_have_caught: caught.map(|share| Share(share).to_string()).unwrap_or_default(),
    })
}

/// Who else counts failures, and why what they say is not compared, while it might be. Going back nothing is on trial.
fn sources(rollout: &Rollout, new: &str, old: &str) -> Vec<SourceView> {
    let judgement = &rollout.judgement;
    let on_trial = rollout.state.is_active() && rollout.direction == Direction::Forward && rollout.from.is_some();
    let view = |name: String, source: Option<&Source>, doubts: Vec<String>| {
        let (new, old) = source.map(|source| (source.new, source.old)).unwrap_or_default();
        let (new_requests, new_failed, old_requests, old_failed) = (new.requests, new.errors, old.requests, old.errors);
        let doubts = if on_trial { doubts } else { Vec::new() };
        SourceView { name, new_requests, new_failed, old_requests, old_failed, doubts, failures_not_counted: false }
    };
    let unknown = |view: SourceView| {
        let failures_not_counted = view.new_failed + view.old_failed == 0 && !judgement.counters.count_errors();
        SourceView { failures_not_counted, ..view }
    };
    let [metrics, prometheus] = names(&rollout.strategy);
    let metrics =
        metrics.map(|name| view(name, judgement.metrics.as_ref(), judgement.counters.doubts(new, old))).map(unknown);
    let prometheus = prometheus.map(|name| view(name, judgement.prometheus.as_ref(), judgement.series.doubts(new, old)));
    metrics.into_iter().chain(prometheus).collect()
}

/// Who else counts, as people know them: the instances' own metrics, and a Prometheus.
fn names(strategy: &Strategy) -> [Option<String>; 2] {
    let metrics = strategy.scrape.as_ref().map(|scrape| format!("the instances' own metrics ({})", scrape.path));
    [metrics, strategy.prometheus.as_ref().map(|prometheus| format!("Prometheus at {}", prometheus.url))]
}

/// The same of a service at rest, with what would be no evidence; none where nothing is known of it.
pub(super) fn sources_at_rest(strategy: &Strategy, doubts: Option<&[Vec<String>; 2]>) -> Vec<SourceView> {
    let sources = names(strategy).into_iter().zip(doubts.into_iter().flatten());
    let view = |(name, doubts): (Option<String>, &Vec<String>)| {
        Some(SourceView { name: name?, doubts: doubts.clone(), ..SourceView::default() })
    };
    sources.filter_map(view).collect()
}

fn cut_view((host, cut): (&HostName, &Cut)) -> CutView {
    CutView { host: host.to_string(), requests: cut.requests, oldest_ms: cut.oldest.map(millis) }
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
