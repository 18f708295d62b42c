//! One rollout as it stands: the frame that `deploy` and `watch` redraw.

use super::balancers::split_line;
use super::history;
use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::{count, counted, millis};
use crate::outcome::{self, EVIDENCE, state};
use baton_proto::v1::{FreezeView, RolloutView, ServiceHostView, ServiceView};
use std::collections::BTreeMap;
use unicode_width::UnicodeWidthStr as _;

const BAR: usize = 46;

/// A shorter bar says nothing that the words beside it do not.
const BAR_MIN: usize = 8;

/// How a frame is drawn.
#[derive(Debug, Clone, Default)]
pub struct Drawing {
    /// Words only: no bar, no symbols.
    pub plain: bool,
    /// Columns of the terminal; None: as many as it takes.
    pub columns: Option<usize>,
    /// Time since the view arrived; what runs goes on meanwhile.
    pub since_view_ms: u64,
    /// Requests a second by host, where two views were far enough apart to tell.
    pub rates: BTreeMap<String, f64>,
}

/// The frame of a service's rollout; its hosts alone when there never was one.
#[must_use]
pub fn frame(service: &ServiceView, drawing: &Drawing) -> Page {
    let mut page = Page::new();
    match &service.rollout {
        Some(rollout) => {
            page.extend(title(service, rollout, drawing));
            page.line(progress(rollout, drawing));
        }
        None => {
            page.line(
                Line::default()
                    .span(Tone::Strong, service.name.clone())
                    .plain("  ")
                    .span(Tone::Quiet, outcome::without_rollout(service)),
            );
        }
    }
    for (balancer, split) in &service.splits {
        let mut line = Line::default().span(Tone::Quiet, format!("{balancer}  "));
        line.0.extend(split_line(split).0);
        page.line(line);
    }
    page.extend(hosts(service, drawing));
    for waiting in service.waiting.iter().filter(|waiting| waiting.host.is_empty()) {
        page.line(Line::default().span(Tone::Busy, "waiting  ").plain(waiting.text.clone()));
    }
    if let Some(seen) = service.rollout.as_ref().and_then(history::guard) {
        page.line(Line::default().span(Tone::Quiet, "guard    ").plain(seen));
    }
    if !service.warm_version.is_empty() {
        let left = millis(service.warm_left_ms);
        let text = format!("{} for {left} more: baton rollback {} is one switch", service.warm_version, service.name);
        page.line(Line::default().span(Tone::Quiet, "warm     ").plain(text));
    }
    page.extend(orders(service));
    for (host, problem) in service.rollout.iter().flat_map(evidence) {
        page.line(Line::default().span(Tone::Bad, "failed   ").plain(format!("{host}: {problem}")));
    }
    page
}

/// What people decided about the service, and what waits its turn.
fn orders(service: &ServiceView) -> Page {
    let mut page = Page::new();
    let mut line = |word: &str, text: String| {
        page.line(Line::default().span(Tone::Busy, format!("{word:<9}")).plain(text));
    };
    let left_out = service.rollout.iter().flat_map(|rollout| &rollout.left_out);
    for left_out in left_out.filter(|left_out| !left_out.caught_up) {
        line("left out", format!("{}: {} ({})", left_out.host, left_out.why, left_out.by));
    }
    for queued in &service.queue {
        let since = millis(queued.since_ms);
        line("queued", format!("{} to {}, by {} for {since}", queued.rollout, queued.version, queued.by));
    }
    if let Some(freeze) = &service.freeze {
        line("frozen", frozen(freeze));
    }
    if let Some(removal) = &service.removal {
        line("removal", format!("asked for by {}, {} ago", removal.by, millis(removal.since_ms)));
    }
    page
}

/// `by ana for 2 h: holidays; ends in 3 d`.
#[must_use]
pub(crate) fn frozen(freeze: &FreezeView) -> String {
    let order = freeze.order.clone().unwrap_or_default();
    let ends = match freeze.left_ms {
        0 => String::new(),
        left => format!("; ends in {}", millis(left)),
    };
    format!("by {} for {}: {}{ends}", order.by, millis(order.since_ms), order.why)
}

fn evidence(rollout: &RolloutView) -> impl Iterator<Item = (&str, &str)> {
    rollout.evidence.iter().filter_map(|evidence| Some((evidence.host.as_str(), evidence.problem.as_ref()?.what.as_str())))
}

/// `shop 2.1.0  in place · r-7f3 · ana · 1 min 48 s   service healthy`; in two lines where one is too long.
fn title(service: &ServiceView, rollout: &RolloutView, drawing: &Drawing) -> Page {
    let running = outcome::is_active(rollout) && rollout.state != state::PAUSED;
    let elapsed = rollout.elapsed_ms + if running { drawing.since_view_ms } else { 0 };
    let mut facts = vec![rollout.placement.replace('-', " "), rollout.id.clone(), rollout.by.clone(), millis(elapsed)];
    facts.retain(|fact| !fact.is_empty());
    let line = Line::default()
        .span(Tone::Strong, format!("{} {}", service.name, rollout.to_version))
        .plain(format!("  {}", facts.join(" · ")));
    let health = if service.health.is_empty() { "unknown" } else { &service.health };
    let words = match state_words(rollout) {
        Some((tone, words)) => Line::default().span(tone, words).plain("  "),
        None => Line::default(),
    };
    let words = words.span(health_tone(health), format!("service {health}"));
    let both = Line(line.0.iter().cloned().chain(Line::of("  ").0).chain(words.0.iter().cloned()).collect());
    match drawing.columns {
        Some(columns) if both.width() > columns => Page(vec![line, words]),
        _ => Page(vec![both]),
    }
}

/// What is said about a rollout that does not simply go forward.
fn state_words(rollout: &RolloutView) -> Option<(Tone, String)> {
    let back = |who: &str| match who {
        "" | EVIDENCE => String::new(),
        who => format!(" ({who})"),
    };
    match rollout.state.as_str() {
        state::PENDING => Some((Tone::Quiet, "about to start".to_owned())),
        state::PAUSED if rollout.paused_by.is_empty() => Some((Tone::Busy, "paused".to_owned())),
        state::PAUSED => Some((Tone::Busy, format!("paused by {}", rollout.paused_by))),
        state::REVERTING => Some((Tone::Bad, format!("going back{}", back(&rollout.turned_by)))),
        state::SUCCEEDED => Some((Tone::Good, "live".to_owned())),
        state::PARTIAL if outcome::caught_up(rollout) => Some((Tone::Good, "live, the last hosts caught up".to_owned())),
        state::PARTIAL => Some((Tone::Bad, format!("partial{}", back(&rollout.turned_by)))),
        state::REVERTED => Some((Tone::Bad, format!("rolled back{}", back(&rollout.turned_by)))),
        state::FAILED => Some((Tone::Bad, "failed".to_owned())),
        _ => None,
    }
}

#[must_use]
pub(crate) fn health_tone(health: &str) -> Tone {
    match health {
        outcome::HEALTHY => Tone::Good,
        "degraded" | "down" => Tone::Bad,
        _ => Tone::Busy,
    }
}

fn progress(rollout: &RolloutView, drawing: &Drawing) -> Line {
    let (done, total) = (rollout.hosts_done, rollout.hosts_total);
    let words = format!("{done} of {}", counted(total.into(), "host", "hosts"));
    let words = if rollout.direction == outcome::BACK { format!("{words} back on {}", from(rollout)) } else { words };
    let bar = drawing.columns.map_or(BAR, |columns| columns.saturating_sub(words.width() + 2).min(BAR));
    if drawing.plain || bar < BAR_MIN {
        return Line::of(words);
    }
    let full = (bar * done.min(total) as usize).checked_div(total as usize).unwrap_or(0);
    let head = if full > 0 && full < bar { "╸" } else { "" };
    let rest = bar - full - usize::from(!head.is_empty());
    let tone = if rollout.direction == outcome::BACK { Tone::Bad } else { Tone::Good };
    Line::default()
        .span(tone, format!("{}{head}", "━".repeat(full)))
        .span(Tone::Quiet, "─".repeat(rest))
        .plain(format!("  {words}"))
}

fn from(rollout: &RolloutView) -> &str {
    if rollout.from_version.is_empty() { "nothing" } else { &rollout.from_version }
}

/// The table of a service's hosts.
#[must_use]
pub fn hosts(service: &ServiceView, drawing: &Drawing) -> Page {
    // Details are sentences: last, so that they push no column aside and are what a narrow terminal cuts.
    let mut table = Table::new(&["HOST", "RELEASE", "STEP", "TIME", "TRAFFIC", "ERRORS", ""]);
    for host in &service.hosts {
        table.row(vec![
            Line::of(&host.host),
            release(host, service.rollout.as_ref()),
            step(host, drawing.plain),
            Line::of(if host.step_ms == 0 { String::new() } else { millis(host.step_ms + drawing.since_view_ms) }),
            Line::of(traffic(host, drawing)),
            Line::default().span(if host.errors > 0 { Tone::Bad } else { Tone::Plain }, errors(host)),
            Line::default().span(Tone::Quiet, host.detail.clone()),
        ]);
    }
    table.page()
}

/// What runs there, and where it goes: `2.0.4 → 2.1.0` while a host is on its way, `2.0.4 + 2.1.0` while both run.
fn release(host: &ServiceHostView, rollout: Option<&RolloutView>) -> Line {
    let goal = rollout.filter(|rollout| outcome::is_active(rollout)).map(|rollout| match rollout.direction.as_str() {
        "back" => from(rollout),
        _ => &rollout.to_version,
    });
    let runs = host.versions.join(" + ");
    let on_its_way = !host.done && host.step != "waiting";
    match goal {
        Some(goal) if on_its_way && host.versions.is_empty() => Line::of(format!("→ {goal}")),
        Some(goal) if on_its_way && !host.versions.iter().any(|version| version == goal) => {
            Line::of(format!("{runs} → {goal}"))
        }
        _ if runs.is_empty() => Line::of("–"),
        _ => Line::of(runs),
    }
}

fn step(host: &ServiceHostView, plain: bool) -> Line {
    let (symbol, tone) = match host.step.as_str() {
        "failed" | "down" | "unready" | "agent silent" | "never joined" => ("✗", Tone::Bad),
        "waiting" | "" => ("·", Tone::Quiet),
        "serving" => ("✓", Tone::Good),
        _ if host.done => ("✓", Tone::Good),
        _ => ("◐", Tone::Busy),
    };
    let line = if plain { Line::default() } else { Line::default().span(tone, format!("{symbol} ")) };
    line.span(tone, host.step.clone())
}

fn traffic(host: &ServiceHostView, drawing: &Drawing) -> String {
    let rate = drawing.rates.get(&host.host).map(|rate| format!("{rate:.1} req/s"));
    let open = (host.in_flight > 0).then(|| format!("{} open", count(host.in_flight)));
    match (rate, open) {
        (None, None) => "–".to_owned(),
        (rate, open) => rate.into_iter().chain(open).collect::<Vec<_>>().join(", "),
    }
}

/// Without a request counted there is nothing to say about errors.
fn errors(host: &ServiceHostView) -> String {
    if host.requests == 0 && host.errors == 0 { "–".to_owned() } else { count(host.errors) }
}

#[cfg(test)]
mod tests {
    use super::{Drawing, frame};
    use crate::render::example::{service, taken_back};
    use crate::render::page::Look;
    use baton_proto::v1::ServiceView;

    fn lines(service: &ServiceView, drawing: &Drawing) -> Vec<String> {
        frame(service, drawing).to_text(Look::default()).lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_rollout_under_way() {
        let drawing = Drawing { rates: [("web2".to_owned(), 9.62)].into(), ..Drawing::default() };
        assert_eq!(
            lines(&service(), &drawing),
            [
                "shop 2.1.0  in place · r-7f3 · ana · 1 min 48 s  service healthy",
                "━━━━━━━━━━━━━━━╸──────────────────────────────  1 of 3 hosts",
                "HOST   RELEASE         STEP         TIME    TRAFFIC     ERRORS",
                "web2   2.1.0           ✓ serving    42 s    9.6 req/s   0",
                "web3   2.0.4 → 2.1.0   ◐ draining   6.0 s   7 open      0        7 open after 4.1 s (limit 30.0 s)",
                "web4   2.0.4           · waiting            –           2",
            ]
        );
    }

    #[test]
    fn what_is_kept_warm_is_said_with_what_is_left() {
        let service = ServiceView { warm_version: "2.0.4".into(), warm_left_ms: 52_000, ..service() };
        let lines = lines(&service, &Drawing::default());
        assert!(lines.contains(&"warm     2.0.4 for 52 s more: baton rollback shop is one switch".to_owned()), "{lines:?}");
    }

    #[test]
    fn plain_is_words_only_and_time_goes_on_between_views() {
        let drawing = Drawing { plain: true, since_view_ms: 5_000, ..Drawing::default() };
        let lines = lines(&service(), &drawing);
        assert_eq!(lines[0], "shop 2.1.0  in place · r-7f3 · ana · 1 min 53 s  service healthy");
        assert_eq!(lines[1], "1 of 3 hosts");
        assert!(lines[3].starts_with("web2   2.1.0           serving"), "{lines:?}");
        assert!(lines[4].contains("11 s"), "{lines:?}");
    }

    #[test]
    fn on_a_narrow_terminal_the_words_come_before_the_bar() {
        let narrow = |columns| {
            let drawing = Drawing { columns: Some(columns), ..Drawing::default() };
            frame(&service(), &drawing).to_text(Look { width: Some(columns), ..Look::default() })
        };
        let lines: Vec<_> = narrow(40).lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "shop 2.1.0  in place · r-7f3 · ana · 1 …",
                "service healthy",
                "━━━━━━━━╸─────────────────  1 of 3 hosts",
                "HOST   RELEASE         STEP         TIM…",
                "web2   2.1.0           ✓ serving    42 …",
                "web3   2.0.4 → 2.1.0   ◐ draining   6.0…",
                "web4   2.0.4           · waiting       …",
            ]
        );
        assert_eq!(narrow(20).lines().nth(2), Some("1 of 3 hosts"));
    }

    #[test]
    fn a_release_taken_back_says_both_words_and_why() {
        let drawing = Drawing { plain: true, ..Drawing::default() };
        let lines = lines(&taken_back(), &drawing);
        assert_eq!(lines[0], "shop 2.1.0  in place · r-7f3 · ana · 1 min 48 s  rolled back  service healthy");
        assert_eq!(lines.last().unwrap(), "failed   web2: shop 2.1.0 did not become ready on web2 within 60 s");
    }

    #[test]
    fn a_service_without_a_rollout_and_without_hosts_is_no_panic() {
        let empty = ServiceView { name: "shop".into(), ..ServiceView::default() };
        assert_eq!(lines(&empty, &Drawing::default())[0], "shop  no rollout yet");
        let mut none = service();
        none.rollout.as_mut().unwrap().hosts_total = 0;
        assert!(lines(&none, &Drawing::default())[1].ends_with("1 of 0 hosts"));
    }
}
