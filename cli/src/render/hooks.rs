//! The hooks of a rollout: where each was run, and what became of it.

use super::page::Page;
use super::units::millis;
use baton_proto::v1::{HookView, RolloutView};

/// One line a hook, and what it wrote or what went wrong below it; nothing where there is none.
#[must_use]
pub fn hooks(rollout: &RolloutView) -> Page {
    let mut page = Page::new();
    for hook in &rollout.hooks {
        page.text(format!("  {:<16}{}", hook.point, line(hook)));
        for written in &hook.output {
            page.text(format!("    output  {written}"));
        }
        for seen in hook.problem.iter().flat_map(|problem| &problem.seen) {
            page.text(format!("    {}  {}", seen.label, seen.evidence));
        }
    }
    page
}

/// `succeeded on web1`, `running on web1 for 3 s`, `failed on web1, attempt 2: [B0801] …`.
fn line(hook: &HookView) -> String {
    let mut line = format!("{} on {}", hook.state, hook.host);
    if hook.state == "running" {
        line.push_str(&format!(" for {}", millis(hook.since_ms)));
    }
    if hook.attempt > 1 {
        line.push_str(&format!(", attempt {}", hook.attempt));
    }
    if let Some(problem) = &hook.problem {
        line.push_str(&format!(": [B{:04}] {}", problem.code, problem.what));
    }
    if !hook.by.is_empty() {
        line.push_str(&format!(" by {}: {}", hook.by, hook.why));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::hooks;
    use crate::render::page::Look;
    use baton_proto::v1::{HookView, Problem, RolloutView, Seen};

    #[test]
    fn a_hook_says_where_it_ran_what_it_wrote_and_what_went_wrong() {
        let hook = |point: &str, state: &str| HookView {
            point: point.into(),
            host: "web1".into(),
            attempt: 1,
            state: state.into(),
            ..HookView::default()
        };
        let seen = vec![Seen { label: "output".into(), evidence: "locked".into() }];
        let problem = Some(Problem { code: 801, what: "it failed".into(), seen, help: String::new() });
        let rollout = RolloutView {
            hooks: vec![
                HookView { output: vec!["looks good".into()], ..hook("before_rollout", "succeeded") },
                HookView { attempt: 2, problem, ..hook("migrate", "failed") },
                HookView { since_ms: 3_000, ..hook("before_drain", "running") },
                HookView { by: "ana".into(), why: "looked".into(), ..hook("after_rollout", "vouched for") },
            ],
            ..RolloutView::default()
        };
        let expected = "  before_rollout  succeeded on web1
    output  looks good
  migrate         failed on web1, attempt 2: [B0801] it failed
    output  locked
  before_drain    running on web1 for 3.0 s
  after_rollout   vouched for on web1 by ana: looked
";
        assert_eq!(hooks(&rollout).to_text(Look::default()), expected);
        assert_eq!(hooks(&RolloutView::default()).to_text(Look::default()), "");
    }
}
