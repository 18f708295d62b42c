//! What an act showed, and what of it is wrong.

use super::act::Act;
use super::client::Phase;
use super::idle::Idle;
use super::notice::Notice;
use super::rest::Rest;
use baton_cli::demo::load::Failure;
use baton_cli::demo::load::executions::Executions;
use serde::Serialize;
use std::collections::BTreeMap;

/// How soon a rollout must have ended by itself after what died is back.
pub(super) const BY_ITSELF_WITHIN_S: f64 = 60.0;

/// Everything that was played.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub passed: bool,
    pub acts: Vec<Answer>,
    pub rests: Vec<Rest>,
    /// Before anything was deployed.
    pub idle: Idle,
    /// With services that nobody asks anything.
    pub at_rest: Idle,
}

impl Summary {
    /// Everything that was seen.
    #[must_use]
    pub fn new(acts: Vec<Answer>, rests: Vec<Rest>, idle: Idle, at_rest: Idle) -> Self {
        let good = acts.iter().all(|act| act.wrong.is_empty()) && rests.iter().all(|rest| rest.wrong.is_empty());
        // What an idle host pays is shown beside its goal; goals of that kind are judged where nothing else runs: `bench idle`.
        let passed = good && !(acts.is_empty() && rests.is_empty());
        Self { passed, acts, rests, idle, at_rest }
    }
}

/// One act's measurements.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    pub placement: &'static str,
    pub act: &'static str,
    /// How the rollout ended, in the coordinator's word.
    pub outcome: String,
    /// What `baton deploy` exited with.
    pub exit: i32,
    /// From the operator's command to the rollout's end.
    pub took_s: f64,
    /// From the return of what died to the rollout's end; zero when it ended before.
    pub after_return_s: Option<f64>,
    /// Of a release that only its traffic can tell from a good one.
    pub notice: Option<Notice>,
    pub requests: u64,
    pub failed: u64,
    pub longest_gap_ms: f64,
    pub executions: Executions,
    /// Which version answers where, asked of the instances.
    pub versions: BTreeMap<String, String>,
    pub failures: Vec<Failure>,
    /// Empty: as it should be.
    pub wrong: Vec<String>,
}

/// What an act measured, before it is judged.
#[derive(Debug)]
pub(super) struct Measured {
    pub placement: &'static str,
    pub outcome: String,
    pub exit: i32,
    pub took_s: f64,
    pub after_return_s: Option<f64>,
    pub notice: Option<Notice>,
    pub phase: Phase,
    pub executions: Executions,
    pub versions: BTreeMap<String, String>,
    /// The version that was committed before, and the one deployed.
    pub from: String,
    pub to: String,
    pub hosts: usize,
}

/// Judges an act.
#[must_use]
pub(super) fn judge(act: &Act, measured: Measured) -> Answer {
    let wrong = wrong(act, &measured);
    let report = measured.phase.report;
    Answer {
        placement: measured.placement,
        act: act.name,
        outcome: measured.outcome,
        exit: measured.exit,
        took_s: tenths(measured.took_s),
        after_return_s: measured.after_return_s.map(tenths),
        notice: measured.notice,
        requests: report.requests,
        failed: report.failed,
        longest_gap_ms: report.longest_gap_ms,
        executions: measured.executions,
        versions: measured.versions,
        failures: report.failures,
        wrong,
    }
}

fn wrong(act: &Act, measured: &Measured) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut unless = |right: bool, what: String| {
        if !right {
            wrong.push(what);
        }
    };
    let outcome = measured.outcome.as_str();
    let (succeeded, reverted) = (outcome == "succeeded", outcome == "reverted");
    unless(succeeded || reverted, format!("the rollout ended {outcome}"));
    unless(!act.must_succeed() || succeeded, format!("nothing went wrong, and the rollout ended {outcome}"));
    unless(!act.must_revert() || reverted, format!("the release is broken, and the rollout ended {outcome}"));
    // The table of exit codes: 0 done, 4 rolled back and healthy.
    let expected = if succeeded { 0 } else { 4 };
    unless(measured.exit == expected, format!("`baton deploy` exited {} after {outcome}", measured.exit));
    unless(
        act.fault.is_none() || measured.after_return_s.is_some(),
        "it was over before the fault's step was seen".to_owned(),
    );
    if let Some(after) = measured.after_return_s {
        unless(after <= BY_ITSELF_WITHIN_S, format!("the rollout ended {after:.1} s after the return of what died"));
    }
    let report = &measured.phase.report;
    unless(report.requests > 0, "no client asked anything".to_owned());
    unless(
        act.may_fail_requests() || report.failed == 0,
        format!("{} of {} requests failed", report.failed, report.requests),
    );
    let executions = &measured.executions;
    unless(executions.sent > 0, "no order was sent".to_owned());
    unless(executions.twice == 0, format!("{} orders were executed twice", executions.twice));
    unless(executions.lost == 0, format!("{} acknowledged orders were executed by nobody", executions.lost));
    let unheard = format!("{} orders were executed and never acknowledged", executions.unheard);
    unless(act.may_fail_requests() || executions.unheard == 0, unheard);
    let live = if succeeded { &measured.to } else { &measured.from };
    let as_told = measured.versions.len() == measured.hosts && measured.versions.values().all(|version| version == live);
    unless(as_told, format!("{live} should answer once on each of {} hosts: {:?}", measured.hosts, measured.versions));
    if let Some(notice) = &measured.notice {
        wrong.extend(notice.wrong(act.release, &measured.phase, &measured.to));
    }
    wrong
}

pub(super) fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
