//! Who counts failures beside the load balancers, and what keeps what they say from being compared.

use super::page::Page;
use super::units::{count, counted as number_of};
use crate::outcome::state;
use baton_proto::v1::{RolloutView, ServiceView, SourceView};

/// What each of them counted; never "0 failed" where nothing was compared.
pub(super) fn counted(page: &mut Page, rollout: &RolloutView) {
    for source in all(rollout) {
        let side =
            |version: &str, failed: u64, requests: u64| format!("{version}: {} of {}", count(failed), count(requests));
        let said = if source.new_requests == 0 || source.old_requests == 0 {
            "nothing was compared".to_owned()
        } else if source.failures_not_counted {
            let side = |version: &str, requests: u64| format!("{version}: {} requests", count(requests));
            let new = side(&rollout.to_version, source.new_requests);
            let old = side(&rollout.from_version, source.old_requests);
            format!("{new} · {old}; nothing was there that counts failures")
        } else {
            let new = side(&rollout.to_version, source.new_failed, source.new_requests);
            format!("{new} failed · {}", side(&rollout.from_version, source.old_failed, source.old_requests))
        };
        page.text(format!("  {:<12}{said}, by {}", "counted too", source.name));
    }
}

/// Why nothing, or not everything, of it is compared.
pub(super) fn doubts(page: &mut Page, rollout: &RolloutView) {
    for source in all(rollout).filter(|source| !source.doubts.is_empty()) {
        page.text(format!("  {}: no evidence, while", source.name));
        for doubt in &source.doubts {
            page.text(format!("    {doubt}"));
        }
    }
}

/// Why what the load balancers count is no evidence, or not all of it.
pub(super) fn uncounted(page: &mut Page, service: &ServiceView, rollout: &RolloutView) {
    let on_trial = !service.pool.is_empty() && !rollout.from_version.is_empty() && rollout.state != state::REVERTING;
    if !on_trial {
        return;
    }
    let Some(proof) = rollout.proof.as_ref() else { return };
    let missing = match (proof.new_requests > 0, proof.old_requests > 0) {
        (true, true) => None,
        (true, false) => Some(rollout.from_version.as_str()),
        (false, true) => Some(rollout.to_version.as_str()),
        (false, false) => Some("either release"),
    };
    if let Some(missing) = missing {
        page.text(format!("  the load balancers: no evidence, while they have counted no request of {missing}"));
    }
    if !proof.not_counted.is_empty() {
        page.text(format!("  {}: what was answered then is evidence for nobody", proof.not_counted));
    } else if proof.restarts > 0 {
        let times = number_of(proof.restarts.into(), "time", "times");
        page.text(format!("  their counters began anew {times}: what was answered in between is evidence for nobody"));
    }
}

/// In which unit what the load balancers count is compared, once it is.
pub(super) fn unit(page: &mut Page, rollout: &RolloutView) {
    if let Some(proof) = rollout.proof.as_ref().filter(|proof| !proof.unit.is_empty()) {
        page.text(format!("  judged by {}", proof.unit));
    }
}

/// The same of a service at rest, as it would be if a rollout began now.
pub(super) fn at_rest(page: &mut Page, service: &ServiceView) {
    for source in service.sources.iter().filter(|source| !source.doubts.is_empty()) {
        page.text(format!("  {}: no evidence in the next rollout, while", source.name));
        for doubt in &source.doubts {
            page.text(format!("    {doubt}"));
        }
    }
}

fn all(rollout: &RolloutView) -> impl Iterator<Item = &SourceView> {
    rollout.proof.iter().flat_map(|proof| &proof.sources)
}

#[cfg(test)]
mod tests {
    use super::{at_rest, counted, doubts, uncounted, unit};
    use crate::render::page::{Look, Page};
    use baton_core::analysis::counts::Unit;
    use baton_proto::v1::{ProofView, RolloutView, ServiceView, SourceView};

    fn said(render: fn(&mut Page, &RolloutView), source: SourceView) -> String {
        let name = "the instances' own metrics (/metrics)".into();
        let sources = vec![SourceView { name, ..source }];
        let (from_version, to_version) = ("2.0.4".into(), "2.1.0".into());
        let proof = Some(ProofView { sources, ..ProofView::default() });
        let mut page = Page::new();
        render(&mut page, &RolloutView { from_version, to_version, proof, ..RolloutView::default() });
        page.to_text(Look::default())
    }

    #[test]
    fn what_was_compared_is_said_and_nothing_is_not_zero() {
        let source =
            SourceView { new_requests: 812, new_failed: 52, old_requests: 2_204, old_failed: 1, ..SourceView::default() };
        let text = said(counted, source.clone());
        let expect = "2.1.0: 52 of 812 failed · 2.0.4: 1 of 2 204, by the instances' own metrics (/metrics)\n";
        assert_eq!(text, format!("  counted too {expect}"));
        let text = said(counted, SourceView { new_failed: 0, old_failed: 0, failures_not_counted: true, ..source.clone() });
        let expect = "2.1.0: 812 requests · 2.0.4: 2 204 requests; nothing was there that counts failures";
        assert_eq!(text, format!("  counted too {expect}, by the instances' own metrics (/metrics)\n"));
        let text = said(counted, SourceView { old_requests: 0, old_failed: 0, ..source });
        assert_eq!(text, "  counted too nothing was compared, by the instances' own metrics (/metrics)\n");
    }

    #[test]
    fn what_would_be_no_evidence_is_said_of_a_service_at_rest() {
        let name = "Prometheus at http://metrics:9090".to_owned();
        let silent = SourceView { name: name.clone(), doubts: vec!["2.0.4: refused".into()], ..SourceView::default() };
        let heard = SourceView { name, ..SourceView::default() };
        let text = |source| {
            let mut page = Page::new();
            at_rest(&mut page, &ServiceView { sources: vec![source], ..ServiceView::default() });
            page.to_text(Look::default())
        };
        let expect = "  Prometheus at http://metrics:9090: no evidence in the next rollout, while\n    2.0.4: refused\n";
        assert_eq!(text(silent), expect);
        assert_eq!(text(heard), "");
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_reason() {
        let source = SourceView { doubts: vec!["web2/1: GET /metrics: answered 404".into()], ..SourceView::default() };
        let expect = "  the instances' own metrics (/metrics): no evidence, while\n    web2/1: GET /metrics: answered 404\n";
        assert_eq!(said(doubts, source), expect);
        assert_eq!(said(doubts, SourceView::default()), "");
    }

    #[test]
    fn the_unit_that_failures_are_compared_in_is_said_once_they_are() {
        for unit_of in [Unit::Requests, Unit::Slots].map(Unit::words) {
            let proof = Some(ProofView { unit: unit_of.to_owned(), ..ProofView::default() });
            let mut page = Page::new();
            unit(&mut page, &RolloutView { proof, ..RolloutView::default() });
            unit(&mut page, &RolloutView { proof: Some(ProofView::default()), ..RolloutView::default() });
            assert_eq!(page.to_text(Look::default()), format!("  judged by {unit_of}\n"));
        }
    }

    #[test]
    fn what_the_load_balancers_did_not_count_is_said_of_a_release_on_trial() {
        let nothing = "  the load balancers: no evidence, while they have counted no request of ";
        let anew = "  their counters began anew 2 times: what was answered in between is evidence for nobody\n";
        let proof = |new_requests, old_requests, restarts| {
            Some(ProofView { new_requests, old_requests, restarts, ..ProofView::default() })
        };
        for (proof, expect) in [
            (None, String::new()),
            (proof(0, 0, 0), format!("{nothing}either release\n")),
            (proof(0, 7, 0), format!("{nothing}2.1.0\n")),
            (proof(7, 0, 2), format!("{nothing}2.0.4\n{anew}")),
            (proof(7, 7, 2), anew.to_owned()),
            (
                proof(7, 7, 2).map(|proof| ProofView { not_counted: "lb1 was away for 2s".into(), ..proof }),
                "  lb1 was away for 2s: what was answered then is evidence for nobody\n".to_owned(),
            ),
            (proof(7, 7, 0), String::new()),
        ] {
            let service = ServiceView { pool: "shop".into(), ..ServiceView::default() };
            let (from_version, to_version) = ("2.0.4".into(), "2.1.0".into());
            let rollout = RolloutView { from_version, to_version, proof, ..RolloutView::default() };
            let said = |service: &ServiceView, rollout: &RolloutView| {
                let mut page = Page::new();
                uncounted(&mut page, service, rollout);
                page.to_text(Look::default())
            };
            assert_eq!(said(&service, &rollout), expect);
            // Where nothing could be compared, nothing is missing.
            assert_eq!(said(&ServiceView::default(), &rollout), "", "behind no load balancer");
            assert_eq!(
                said(&service, &RolloutView { from_version: String::new(), ..rollout.clone() }),
                "",
                "the first release"
            );
            assert_eq!(said(&service, &RolloutView { state: "reverting".into(), ..rollout }), "");
        }
    }
}
