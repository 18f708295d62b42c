//! What differs between two views of a service, one change a line: for pipes, logs and `--json-lines`.

use super::page::{Line, Tone};
use super::units::counted;
use crate::outcome::{EVIDENCE, state};
use baton_proto::v1::{Problem, ServiceView};
use serde::Serialize;

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Change {
    /// The rollout's state, or the first sight of it.
    Rollout {
        service: String,
        rollout: String,
        state: String,
        from: String,
        to: String,
        by: String,
        why: String,
    },
    /// A host's next step.
    Step {
        service: String,
        host: String,
        step: String,
        detail: String,
        versions: Vec<String>,
    },
    /// Something speaks against the release.
    Evidence {
        service: String,
        host: String,
        problem: Problem,
    },
    /// The rollout as a whole waits for something else than before.
    Waiting {
        service: String,
        reason: String,
        text: String,
    },
    Health {
        service: String,
        health: String,
    },
    /// A sign of life: nothing changed for a while.
    Still {
        service: String,
        hosts_done: u32,
        hosts_total: u32,
        elapsed_ms: u64,
        waiting: Vec<String>,
    },
}

/// The changes from one view to the next, in the order they are read; from nothing, everything worth saying.
#[must_use]
pub fn changes(before: Option<&ServiceView>, after: &ServiceView) -> Vec<Change> {
    // Evidence comes before what it leads to.
    let mut changes = evidence(before, after);
    changes.extend(rollout(before, after));
    changes.extend(steps(before, after));
    changes.extend(waiting(before, after));
    if before.is_none_or(|before| before.health != after.health) {
        changes.push(Change::Health { service: after.name.clone(), health: after.health.clone() });
    }
    changes
}

fn rollout(before: Option<&ServiceView>, after: &ServiceView) -> Vec<Change> {
    let told = |view: &ServiceView| view.rollout.as_ref().map(|rollout| (rollout.id.clone(), rollout.state.clone()));
    if before.and_then(told) == told(after) {
        return Vec::new();
    }
    let change = after.rollout.as_ref().map(|rollout| Change::Rollout {
        service: after.name.clone(),
        rollout: rollout.id.clone(),
        state: rollout.state.clone(),
        from: rollout.from_version.clone(),
        to: rollout.to_version.clone(),
        by: rollout.by.clone(),
        why: match rollout.state.as_str() {
            state::PAUSED => [rollout.paused_by.as_str(), rollout.paused_why.as_str()].join(": "),
            state::REVERTING | state::REVERTED => rollout.turned_by.clone(),
            _ => String::new(),
        },
    });
    change.into_iter().collect()
}

fn steps(before: Option<&ServiceView>, after: &ServiceView) -> Vec<Change> {
    let step_before = |host: &str| {
        let host = before?.hosts.iter().find(|known| known.host == host)?;
        Some((host.step.clone(), host.versions.clone()))
    };
    let changed = after
        .hosts
        .iter()
        .filter(|host| step_before(&host.host).is_none_or(|known| known != (host.step.clone(), host.versions.clone())));
    changed
        .map(|host| Change::Step {
            service: after.name.clone(),
            host: host.host.clone(),
            step: host.step.clone(),
            detail: host.detail.clone(),
            versions: host.versions.clone(),
        })
        .collect()
}

fn evidence(before: Option<&ServiceView>, after: &ServiceView) -> Vec<Change> {
    let id = |view: &ServiceView| view.rollout.as_ref().map(|rollout| rollout.id.clone());
    let same = before.filter(|before| id(before) == id(after));
    let known = same.and_then(|before| before.rollout.as_ref()).map_or(0, |rollout| rollout.evidence.len());
    let evidence = after.rollout.iter().flat_map(|rollout| rollout.evidence.iter().skip(known));
    evidence
        .filter_map(|evidence| {
            Some(Change::Evidence {
                service: after.name.clone(),
                host: evidence.host.clone(),
                problem: evidence.problem.clone()?,
            })
        })
        .collect()
}

fn waiting(before: Option<&ServiceView>, after: &ServiceView) -> Vec<Change> {
    let overall = |view: &ServiceView| view.waiting.iter().find(|waiting| waiting.host.is_empty()).cloned();
    let reason = |view: &ServiceView| overall(view).map(|waiting| waiting.reason);
    match overall(after) {
        Some(waiting) if before.and_then(reason).as_ref() != Some(&waiting.reason) => {
            vec![Change::Waiting { service: after.name.clone(), reason: waiting.reason, text: waiting.text }]
        }
        _ => Vec::new(),
    }
}

/// A sign that somebody still watches, with what is waited for.
#[must_use]
pub fn still(service: &ServiceView, since_view_ms: u64) -> Change {
    let rollout = service.rollout.clone().unwrap_or_default();
    let told = |host: &str, text: &str| if host.is_empty() { text.to_owned() } else { format!("{host} {text}") };
    Change::Still {
        service: service.name.clone(),
        hosts_done: rollout.hosts_done,
        hosts_total: rollout.hosts_total,
        elapsed_ms: rollout.elapsed_ms + since_view_ms,
        waiting: service.waiting.iter().map(|waiting| told(&waiting.host, &waiting.text)).collect(),
    }
}

impl Change {
    /// The change as a line, without its time.
    #[must_use]
    pub fn line(&self) -> Line {
        match self {
            Self::Rollout { service, rollout, state, from, to, by, why } => {
                let tone =
                    if matches!(state.as_str(), "reverting" | "reverted" | "failed") { Tone::Bad } else { Tone::Strong };
                let from = if from.is_empty() { String::new() } else { format!("{from} → ") };
                let line = Line::default()
                    .span(tone, format!("{service} {rollout} {state}"))
                    .plain(format!("  {from}{to} by {by}"));
                match why.as_str() {
                    "" | EVIDENCE => line,
                    why => line.plain(format!(" ({why})")),
                }
            }
            Self::Step { host, step, detail, versions, .. } => {
                let said = [host.as_str(), step, &versions.join(" + "), detail];
                Line::of(said.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("  "))
            }
            Self::Evidence { host, problem, .. } => Line::default()
                .span(Tone::Bad, format!("{host} failed"))
                .plain(format!("  [B{:04}] {}", problem.code, problem.what)),
            Self::Waiting { service, text, .. } => Line::of(format!("{service} waiting: {text}")),
            Self::Health { service, health } => Line::of(format!("{service} service {health}")),
            Self::Still { service, hosts_done, hosts_total, elapsed_ms, waiting } => {
                let hosts = counted((*hosts_total).into(), "host", "hosts");
                let mut said =
                    format!("{service} still {hosts_done} of {hosts} after {}", super::units::millis(*elapsed_ms));
                waiting.iter().take(3).for_each(|waiting| said.extend([" · ", waiting]));
                Line::of(said)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{changes, still};
    use crate::render::example::{service, taken_back};
    use crate::render::page::Look;
    use baton_proto::v1::ServiceView;

    fn told(before: Option<&ServiceView>, after: &ServiceView) -> Vec<String> {
        changes(before, after).iter().map(|change| change.line().to_text(Look::default())).collect()
    }

    #[test]
    fn the_first_view_tells_everything() {
        assert_eq!(
            told(None, &service()),
            [
                "shop r-7f3 running  2.0.4 → 2.1.0 by ana",
                "web2  serving  2.1.0",
                "web3  draining  2.0.4  7 open after 4.1 s (limit 30.0 s)",
                "web4  waiting  2.0.4",
                "shop service healthy",
            ]
        );
    }

    #[test]
    fn numbers_that_move_are_no_change_and_a_step_is() {
        let before = service();
        let mut after = service();
        after.hosts[1].detail = "3 open after 8 s".into();
        after.hosts[0].requests += 500;
        assert!(told(Some(&before), &after).is_empty());
        after.hosts[1].step = "stopping".into();
        assert_eq!(told(Some(&before), &after), ["web3  stopping  2.0.4  3 open after 8 s"]);
    }

    #[test]
    fn evidence_is_told_once_with_its_code() {
        let lines = told(Some(&service()), &taken_back());
        assert_eq!(lines[0], "web2 failed  [B0210] shop 2.1.0 did not become ready on web2 within 60 s");
        assert_eq!(lines[1], "shop r-7f3 reverted  2.0.4 → 2.1.0 by ana");
        assert!(told(Some(&taken_back()), &taken_back()).is_empty());
    }

    #[test]
    fn a_minute_without_a_change_says_what_is_waited_for() {
        assert_eq!(
            still(&service(), 60_000).line().to_text(Look::default()),
            "shop still 1 of 3 hosts after 2 min 48 s · web3 draining on lb1: 7 open after 4.1 s (limit 30.0 s) · web4 its \
             turn comes in wave 3"
        );
    }

    #[test]
    fn json_lines_name_the_event() {
        let lines: Vec<String> =
            changes(None, &service()).iter().map(|change| serde_json::to_string(change).unwrap()).collect();
        assert_eq!(
            lines[0],
            r#"{"event":"rollout","service":"shop","rollout":"r-7f3","state":"running","from":"2.0.4","to":"2.1.0","by":"ana","why":""}"#
        );
        assert!(lines[1].starts_with(r#"{"event":"step","service":"shop","host":"web2","step":"serving""#), "{}", lines[1]);
    }
}
