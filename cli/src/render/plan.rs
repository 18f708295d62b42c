//! What a deploy would do.

use super::history::notices;
use super::page::{Line, Page, Tone};
use super::units::{bytes, counted, millis, share};
use crate::outcome;
use baton_proto::v1::{PlanView, PlannedWave};

/// The screen of `baton plan`, without what speaks against it; `upload` bytes are still to be brought to the coordinator.
#[must_use]
pub fn plan(plan: &PlanView, upload: Option<u64>) -> Page {
    let mut page = Page::new();
    let hosts: usize = plan.waves.iter().map(|wave| wave.hosts.len()).sum();
    let hosts = counted(hosts as u64, "host", "hosts");
    let versions = match plan.from_version.as_str() {
        "" => format!("{}  first release, {}", plan.service, plan.to_version),
        from => format!("{}  {} → {}", plan.service, outcome::live(&plan.live, from), plan.to_version),
    };
    if plan.already_live {
        page.line(
            Line::default()
                .span(Tone::Strong, format!("{} {}", plan.service, plan.to_version))
                .plain(" is live already: nothing to do"),
        );
        return page;
    }
    page.line(Line::default().span(Tone::Strong, versions).plain(format!("   {}, {hosts}", manner(plan))));
    let widest = plan.changes.iter().map(|change| change.field.chars().count()).max().unwrap_or(0).max(5);
    for change in &plan.changes {
        let field = format!("{:<widest$}", change.field);
        let line = match (change.before.as_str(), change.after.as_str()) {
            ("", after) => Line::default().span(Tone::Good, "  + ").plain(format!("{field}  {after}")),
            (before, "") => Line::default().span(Tone::Bad, "  - ").plain(format!("{field}  {before}")),
            (before, after) => Line::default().span(Tone::Busy, "  ~ ").plain(format!("{field}  {before} → {after}")),
        };
        page.line(line);
    }
    if let Some(size) = upload {
        page.text(format!("  {:<1$}  {2}, by the deploy", "upload", widest + 2, bytes(size)));
    }
    order(&mut page, plan, widest);
    let back = match plan.from_version.as_str() {
        from if !from.is_empty() && plan.keep_old_ms > 0 => {
            format!("baton rollback {}   {from} stays warm for {}", plan.service, millis(plan.keep_old_ms))
        }
        "" => "nothing to go back to: this is the first release".to_owned(),
        from => format!("baton rollback {}   {from} stays on all hosts", plan.service),
    };
    page.text(format!("  {:<1$}  {back}", "back", widest + 2));
    if !plan.would_notice.is_empty() {
        let notices = notices(&plan.would_notice);
        let first = if plan.together { "" } else { " on the first hosts" };
        page.text(format!("  {:<1$}  of requests that fail{first} it notices {notices}", "guard", widest + 2));
        if let Some(short) = watched_too_shortly(plan) {
            page.text(format!("  {:<1$}  {short}", "", widest + 2));
        }
    }
    page
}

/// That both releases answer side by side, as far as the strategy sees to it, for less time than the guard needs for anything.
fn watched_too_shortly(plan: &PlanView) -> Option<String> {
    let soonest = plan.would_notice.iter().map(|notice| notice.within_ms).min()?;
    // With the last wave nothing is left to compare with; but where all hosts have only one, what was before is.
    let (last, before) = plan.waves.split_last()?;
    let watched: u64 = before.iter().chain(Some(last).filter(|_| plan.together)).map(|wave| wave.bake_ms).sum();
    (watched < soonest).then(|| match watched {
        short if plan.together => {
            format!("it is watched for {} once everybody gets it, which is less (rollout.bake)", millis(short))
        }
        0 => {
            "no wave before the last is watched: a fast rollout is over by then (rollout.waves and rollout.bake)".to_owned()
        }
        short => format!("the waves before the last are watched for {} in all, which is less (rollout.bake)", millis(short)),
    })
}

/// `in place, 1 at a time`, `blue-green, all together`.
fn manner(plan: &PlanView) -> String {
    let placement = plan.placement.replace('-', " ");
    match plan.strategy.as_str() {
        "blue-green" => "blue-green, all together".to_owned(),
        "recreate" => "recreate, all at once".to_owned(),
        "canary" => format!("canary, {placement}, {} at a time", plan.max_unavailable.max(1)),
        _ => format!("{placement}, {} at a time", plan.max_unavailable.max(1)),
    }
}

/// ` · 5% of traffic, watched for 5 min, after approval`.
fn terms(wave: &PlannedWave) -> String {
    let mut terms = Vec::new();
    if wave.share > 0 {
        terms.push(format!("{} of traffic", share(wave.share)));
    }
    if wave.bake_ms > 0 {
        terms.push(format!("watched for {}", millis(wave.bake_ms)));
    }
    if wave.approve {
        terms.push("after approval".to_owned());
    }
    if terms.is_empty() { String::new() } else { format!("   {}", terms.join(", ")) }
}

fn order(page: &mut Page, plan: &PlanView, widest: usize) {
    for (nth, wave) in plan.waves.iter().enumerate() {
        let label = match (nth, plan.waves.len()) {
            (0, 1) => "order".to_owned(),
            (nth, _) => format!("wave {}", nth + 1),
        };
        let hosts = if wave.hosts.is_empty() { "the same hosts".to_owned() } else { wave.hosts.join(", ") };
        page.text(format!("  {label:<0$}  {hosts}{1}", widest + 2, terms(wave)));
    }
    let total: usize = plan.waves.iter().map(|wave| wave.hosts.len()).sum();
    if plan.from_version.is_empty() {
        return;
    }
    if !plan.preview.is_empty() {
        let (rule, service) = (&plan.preview, &plan.service);
        let text = format!("{rule} alone leads to {}; the switch waits for baton promote {service}", plan.to_version);
        page.text(format!("  {:<1$}  {text}", "preview", widest + 2));
    }
    let serving = match plan.at_least_serving {
        0 if plan.interrupts => format!(
            "nobody serves from the last stop to the first start: {} at most, if all goes well",
            millis(plan.interrupted_ms)
        ),
        0 if plan.placement != "in-place" => "what runs serves until the next one does".to_owned(),
        0 => "no host serves for a moment".to_owned(),
        least => format!("at least {least} of {} serve at any time", counted(total as u64, "host", "hosts")),
    };
    page.text(format!("  {:<1$}  {serving}", "floor", widest + 2));
}

#[cfg(test)]
mod tests {
    use super::plan;
    use crate::render::page::Look;
    use baton_proto::v1::{Change, Notice, PlanView, PlannedWave};

    fn view() -> PlanView {
        let change = |field: &str, before: &str, after: &str| Change {
            field: field.into(),
            before: before.into(),
            after: after.into(),
        };
        PlanView {
            service: "shop".into(),
            from_version: "2.0.4".into(),
            to_version: "2.1.0".into(),
            placement: "in-place".into(),
            max_unavailable: 1,
            waves: vec![
                PlannedWave { hosts: vec!["web2".into()], ..PlannedWave::default() },
                PlannedWave { hosts: vec!["web1".into(), "web3".into()], ..PlannedWave::default() },
            ],
            changes: vec![
                change("artifact", "1c9e…", "77ab…"),
                change("run.env.RUST_LOG", "", "debug"),
                change("run.user", "shop", ""),
            ],
            at_least_serving: 2,
            would_notice: vec![Notice { share: "20 %".into(), within_ms: 6_000 }],
            ..PlanView::default()
        }
    }

    #[test]
    fn waves_that_are_watched_for_less_than_the_guard_needs_are_said() {
        let mut plan = view();
        let says = |plan: &PlanView| super::watched_too_shortly(plan);
        plan.waves[0].bake_ms = 5_000;
        assert!(says(&plan).unwrap().contains("for 5.0 s in all"), "{:?}", says(&plan));
        plan.waves[0].bake_ms = 6_000;
        assert_eq!(says(&plan), None);
        plan.waves.truncate(1);
        assert!(says(&plan).unwrap().contains("no wave before the last"), "the only wave is the last");
        plan.together = true;
        assert_eq!(says(&plan), None, "what was before is compared");
        plan.waves[0].bake_ms = 5_000;
        assert!(says(&plan).unwrap().starts_with("it is watched for 5.0 s once everybody gets it"), "{:?}", says(&plan));
    }

    #[test]
    fn a_plan_says_what_changes_in_which_order_and_the_way_back() {
        assert_eq!(
            plan(&view(), Some(31_200_000)).to_text(Look::default()),
            "shop  2.0.4 → 2.1.0   in place, 1 at a time, 3 hosts
  ~ artifact          1c9e… → 77ab…
  + run.env.RUST_LOG  debug
  - run.user          shop
  upload              31.2 MB, by the deploy
  wave 1              web2
  wave 2              web1, web3
  floor               at least 2 of 3 hosts serve at any time
  back                baton rollback shop   2.0.4 stays on all hosts
  guard               of requests that fail on the first hosts it notices 20 % within 6.0 s
                      no wave before the last is watched: a fast rollout is over by then (rollout.waves and rollout.bake)
"
        );
    }

    #[test]
    fn the_only_host_serves_meanwhile_where_the_next_one_starts_beside_what_runs() {
        let says = |placement: &str, text: &str| {
            let plan_view = PlanView { placement: placement.into(), at_least_serving: 0, ..view() };
            plan(&plan_view, None).to_text(Look::default()).contains(text)
        };
        assert!(says("in-place", "no host serves for a moment"));
        assert!(says("side-by-side", "what runs serves until the next one does"));
        assert!(says("handover", "what runs serves until the next one does"));
    }

    #[test]
    fn a_release_that_is_live_needs_nothing() {
        let live = PlanView { already_live: true, ..view() };
        assert_eq!(plan(&live, None).to_text(Look::default()), "shop 2.1.0 is live already: nothing to do\n");
    }
}
