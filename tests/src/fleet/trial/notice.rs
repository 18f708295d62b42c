//! How a release was found out that answers its probe: when, by what, and what Baton's report says of it.

use super::client::Phase;
use super::service::Behaviour;
use super::verdict::tenths;
use crate::fleet::host::Host;
use anyhow::Context as _;
use serde::Serialize;
use std::time::Instant;

/// From the first request that failed to the evidence.
const FAILURES_WITHIN_S: f64 = 10.0;
/// How long both releases answered until a slower one was taken back: four looks, two seconds each, prove it where nothing
/// else runs, and the first is over soon.
const SLOWNESS_WITHIN_S: f64 = 20.0;

/// What was noticed.
#[derive(Debug, Clone, Serialize)]
pub struct Notice {
    /// From the first request that failed to the evidence against the release.
    pub after_s: Option<f64>,
    /// What follows is what `baton show ROLLOUT --json` says. The codes of the evidence.
    pub evidence: Vec<String>,
    /// How long both releases answered.
    pub mixed_s: f64,
    pub new_failed: u64,
    pub old_failed: u64,
}

impl Notice {
    /// Asks for the report of a rollout; `seen` is when evidence was there.
    ///
    /// # Errors
    /// When `baton show` gives none.
    pub(super) fn ask(coordinator: &Host, rollout: &str, seen: Option<Instant>, phase: &Phase) -> anyhow::Result<Self> {
        let said = coordinator.run(&["baton", "show", rollout, "--json"])?;
        let said = serde_json::from_str::<serde_json::Value>(&said).context("`baton show --json` wrote no JSON")?;
        let (rollout, proof) = (&said["rollout"], &said["rollout"]["proof"]);
        let evidence = rollout["evidence"].as_array().into_iter().flatten();
        let count = |key: &str| proof[key].as_u64().with_context(|| format!("`baton show --json` has no {key}: {said}"));
        let after = seen.zip(phase.first_failure()).map(|(seen, first)| seen.saturating_duration_since(first));
        Ok(Self {
            after_s: after.map(|after| tenths(after.as_secs_f64())),
            evidence: evidence.filter_map(|evidence| evidence["problem"]["code"].as_str()).map(str::to_owned).collect(),
            mixed_s: tenths(count("mixed_ms")? as f64 / 1000.0),
            new_failed: count("new_failed")?,
            old_failed: count("old_failed")?,
        })
    }

    /// What of it is not as promised, with what clients saw of the release `to`.
    #[must_use]
    pub(super) fn wrong(&self, release: Behaviour, phase: &Phase, to: &str) -> Vec<String> {
        let report = &phase.report;
        let mut wrong = Vec::new();
        let mut unless = |right: bool, what: String| {
            if !right {
                wrong.push(what);
            }
        };
        let (code, in_time) = match release {
            Behaviour::FailsAFifth => ("B0901", self.after_s.is_some_and(|after| after <= FAILURES_WITHIN_S)),
            _ => ("B0904", self.mixed_s <= SLOWNESS_WITHIN_S),
        };
        unless(self.evidence == [code], format!("the evidence should be {code}: {:?}", self.evidence));
        unless(in_time, format!("noticed too late: {self:?}"));
        let elsewhere = report.failed_versions.keys().any(|version| version != to);
        unless(!elsewhere, format!("requests failed elsewhere than on {to}: {:?}", report.failed_versions));
        // The client counts from its own side of the wire; the load balancer never counts what did not happen.
        let fails = release == Behaviour::FailsAFifth;
        let told = if fails { (1..=report.failed).contains(&self.new_failed) } else { self.new_failed == 0 };
        unless(told, format!("the report says that {} requests failed on it, of {}", self.new_failed, report.failed));
        unless(self.old_failed == 0, format!("the report says that {} requests failed on the old release", self.old_failed));
        wrong
    }
}
