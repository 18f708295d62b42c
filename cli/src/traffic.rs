//! What the load balancers counted of a rollout, as the coordinator kept it: the only ground on which "0 failed" may be said.

use crate::render::units::count;
use baton_proto::v1::ProofView;
use serde::Serialize;

/// The sum over everybody, as `--json` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub seen: u64,
    pub failed: u64,
    /// Broken off at a drain's deadline.
    pub cut: u64,
    /// False: something was answered that nobody counted, so that this is a lower bound.
    pub complete: bool,
}

impl Counted {
    /// None when no request was counted: nothing is known then of failures.
    #[must_use]
    pub fn of(proof: &ProofView) -> Option<Self> {
        let seen = proof.new_requests + proof.old_requests + proof.other_requests;
        let failed = proof.new_failed + proof.old_failed + proof.other_failed;
        let complete = proof.restarts == 0 && proof.not_counted.is_empty();
        (seen > 0).then_some(Self { seen, failed, cut: proof.cut, complete })
    }

    /// The sentence for people. No zero is claimed where a request was cut, which failed for whoever sent it, or not counted.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { seen, failed, cut, complete } = *self;
        let seen = count(seen);
        let cut = if cut > 0 { format!(", {} cut at the drain's deadline", count(cut)) } else { String::new() };
        match (complete, failed) {
            (true, 0) if !cut.is_empty() => format!("{seen} requests seen by the load balancer{cut}"),
            (true, failed) => format!("{} failed of {seen} requests seen by the load balancer{cut}", count(failed)),
            (false, 0) => format!("{seen} requests seen by the load balancer, and more that nobody counted{cut}"),
            (false, failed) => {
                let failed = count(failed);
                format!("at least {failed} failed of at least {seen} requests, and some that nobody counted{cut}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counted;
    use baton_proto::v1::ProofView;

    fn said(proof: &ProofView) -> String {
        Counted::of(proof).unwrap().sentence()
    }

    #[test]
    fn both_releases_count_and_the_oldest_one_too() {
        let proof = ProofView {
            new_requests: 40_000,
            old_requests: 1_200,
            other_requests: 8,
            old_failed: 1,
            ..ProofView::default()
        };
        assert_eq!(said(&proof), "1 failed of 41 208 requests seen by the load balancer");
    }

    #[test]
    fn nothing_is_claimed_without_counters() {
        assert_eq!(Counted::of(&ProofView::default()), None);
        assert_eq!(Counted::of(&ProofView { cut: 2, ..ProofView::default() }), None);
    }

    #[test]
    fn no_zero_is_claimed_where_something_was_not_counted_or_cut() {
        let counted = ProofView { new_requests: 1_148, ..ProofView::default() };
        let forgot = ProofView { restarts: 1, ..counted.clone() };
        assert_eq!(said(&forgot), "1 148 requests seen by the load balancer, and more that nobody counted");
        let away = ProofView { not_counted: "lb1 for 2.0 s".into(), new_failed: 3, ..counted.clone() };
        assert_eq!(said(&away), "at least 3 failed of at least 1 148 requests, and some that nobody counted");
        let cut = ProofView { cut: 2, ..counted };
        assert_eq!(said(&cut), "1 148 requests seen by the load balancer, 2 cut at the drain's deadline");
    }
}
