//! Who counts failures beside the load balancers, and what keeps what they say from being compared.

use super::page::Page;
use super::units::count;
use baton_proto::v1::{RolloutView, ServiceView, SourceView};

/// What each of them counted; never "0 failed" where nothing was compared.
pub(super) fn counted(page: &mut Page, rollout: &RolloutView) {
    for source in all(rollout) {
        let side =
            |version: &str, failed: u64, requests: u64| format!("{version}: {} of {}", count(failed), count(requests));
        let said = if source.new_requests == 0 || source.old_requests == 0 {
            "nothing was compared".to_owned()
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
    use super::{at_rest, counted, doubts};
    use crate::render::page::{Look, Page};
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
}
