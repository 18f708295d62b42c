//! Agents: the package each runs, and how far an upgrade of them is.

use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::{counted, millis};
use crate::errors::{from_wire, problem_page};
use baton_proto::v1::{AgentView, AgentsView, UpgradeView};

/// `baton agents status`, and the frame that is redrawn while one waits.
#[must_use]
pub fn status(view: &AgentsView) -> Page {
    let mut page = Page::new();
    match &view.upgrade {
        Some(upgrade) => {
            page.line(head(upgrade, &view.hosts));
        }
        None => {
            page.text("no upgrade of agents was asked for yet");
        }
    }
    if view.hosts.is_empty() {
        page.text("no host has joined yet");
        return page;
    }
    let wanted = view.upgrade.as_ref().map_or("", |upgrade| &upgrade.version);
    let mut table = Table::new(&["HOST", "AGENT", "PACKAGE", "RING", "STATE", "WHY"]);
    for host in &view.hosts {
        table.row(vec![
            Line::of(&host.host),
            Line::of(or_dash(&host.agent_version)),
            package(host, wanted),
            Line::of(if host.ring == 0 { "–".to_owned() } else { host.ring.to_string() }),
            state(host),
            Line::of(why(host)),
        ]);
    }
    page.extend(table.page());
    let failed = view.upgrade.as_ref().filter(|upgrade| upgrade.state == "paused").and_then(|it| it.problem.as_ref());
    if let Some(problem) = failed {
        page.line(Line::default());
        page.extend(problem_page(&from_wire(problem)));
    }
    page
}

/// What an upgrade would do, before it is asked for.
#[must_use]
pub fn preview(view: &AgentsView) -> Page {
    let mut page = Page::new();
    let Some(upgrade) = &view.upgrade else { return page };
    let text = format!("agents to {} ({}), in rings of {}", upgrade.version, upgrade.architecture, upgrade.rings.join(", "));
    page.line(Line::default().span(Tone::Strong, text));
    for ring in 1..=u32::try_from(upgrade.rings.len()).unwrap_or(u32::MAX) {
        let of_ring =
            view.hosts.iter().filter(|host| host.ring == ring && matches!(host.state.as_str(), "told" | "waiting"));
        let hosts: Vec<&str> = of_ring.map(|host| host.host.as_str()).collect();
        if !hosts.is_empty() {
            page.text(format!("  ring {ring}   {}", hosts.join(", ")));
        }
    }
    for host in view.hosts.iter().filter(|host| matches!(host.state.as_str(), "left-out" | "away" | "done" | "settling")) {
        page.text(format!("  {}   {}", host.host, why(host)));
    }
    page
}

/// One line for what a host does now, where nothing is redrawn.
#[must_use]
pub fn line(host: &AgentView) -> Line {
    let why = why(host);
    let text = if why.is_empty() { String::new() } else { format!("  {why}") };
    let mut line = Line::of(format!("{} ", host.host));
    line.0.extend(state(host).0);
    line.plain(text)
}

fn head(upgrade: &UpgradeView, hosts: &[AgentView]) -> Line {
    let part: Vec<&AgentView> = hosts.iter().filter(|host| host.ring > 0).collect();
    let done = part.iter().filter(|host| host.state == "done").count();
    let tone = match upgrade.state.as_str() {
        "succeeded" => Tone::Good,
        "running" => Tone::Busy,
        _ => Tone::Bad,
    };
    let by = if upgrade.stopped_by.is_empty() { String::new() } else { format!(" by {}", upgrade.stopped_by) };
    let of = counted(part.len() as u64, "host", "hosts");
    Line::default()
        .span(Tone::Strong, format!("agents to {}", upgrade.version))
        .plain(format!(" · {} · {} · {} · ", upgrade.id, upgrade.by, millis(upgrade.for_ms)))
        .span(tone, format!("{}{by}", upgrade.state))
        .plain(format!(" · ring {} of {} · {done} of {of}", upgrade.ring, upgrade.rings.len()))
}

fn package(host: &AgentView, wanted: &str) -> Line {
    match host.package.as_str() {
        // Where it is going stands beside it, while it has not come there.
        has if !wanted.is_empty() && has != wanted && host.ring > 0 && host.state != "left-out" => {
            Line::of(format!("{} → {wanted}", or_dash(has)))
        }
        has => Line::of(or_dash(has)),
    }
}

fn state(host: &AgentView) -> Line {
    let (tone, mark) = match host.state.as_str() {
        "done" => (Tone::Good, "✓ "),
        "failed" => (Tone::Bad, "✗ "),
        "waiting" | "away" | "left-out" | "" => (Tone::Quiet, "· "),
        _ => (Tone::Busy, "◐ "),
    };
    let word = if host.state.is_empty() { "–" } else { &host.state };
    Line::default().span(tone, format!("{mark}{word}"))
}

/// What stands there about it; of a host that takes no part, why it could take none.
fn why(host: &AgentView) -> String {
    if !host.why.is_empty() {
        return host.why.clone();
    }
    match &host.problem {
        Some(problem) => problem.what.clone(),
        None if host.state == "done" || host.state == "settling" => "it runs this package".to_owned(),
        None => String::new(),
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::page::Look;
    use baton_core::problem::{Code, Problem};

    fn host(name: &str, package: &str, ring: u32, state: &str, why: &str) -> AgentView {
        AgentView {
            host: name.into(),
            connected: true,
            agent_version: "1.0.0".into(),
            package: package.into(),
            ring,
            state: state.into(),
            why: why.into(),
            problem: None,
        }
    }

    fn upgrade() -> UpgradeView {
        UpgradeView {
            id: "u-1".into(),
            version: "1.1.0".into(),
            architecture: "amd64".into(),
            state: "running".into(),
            by: "ana".into(),
            for_ms: 12_000,
            rings: vec!["1".into(), "100%".into()],
            ring: 2,
            ..UpgradeView::default()
        }
    }

    #[test]
    fn every_host_has_its_package_its_ring_and_the_reason_it_waits_for() {
        let hosts = vec![
            host("web1", "1.1.0", 1, "done", ""),
            host("web2", "1.0.0", 2, "fetching", "5 of 9 bytes"),
            host("web3", "1.0.0", 2, "left-out", "this host refuses"),
            host("lb1", "", 0, "", ""),
        ];
        let view = AgentsView { upgrade: Some(upgrade()), hosts };
        assert_eq!(
            status(&view).to_text(Look::default()),
            "agents to 1.1.0 · u-1 · ana · 12 s · running · ring 2 of 2 · 1 of 3 hosts\n\
             HOST   AGENT   PACKAGE         RING   STATE        WHY\n\
             web1   1.0.0   1.1.0           1      ✓ done       it runs this package\n\
             web2   1.0.0   1.0.0 → 1.1.0   2      ◐ fetching   5 of 9 bytes\n\
             web3   1.0.0   1.0.0           2      · left-out   this host refuses\n\
             lb1    1.0.0   –               –      · –\n"
        );
        let text = preview(&view).to_text(Look::default());
        assert!(text.contains("agents to 1.1.0 (amd64), in rings of 1, 100%\n"), "{text}");
        assert!(text.contains("  web3   this host refuses\n"), "{text}");
    }

    #[test]
    fn a_failure_is_shown_with_what_was_seen() {
        let problem = Problem::new(Code(553), "the agent 1.1.0 did not come up").saw("journal", "no such option");
        let paused = UpgradeView { state: "paused".into(), problem: Some((&problem).into()), ..upgrade() };
        let view =
            AgentsView { upgrade: Some(paused), hosts: vec![host("web1", "1.0.0", 1, "failed", "it did not come up")] };
        let text = status(&view).to_text(Look::default());
        assert!(text.contains("error[B0553]") && text.contains("no such option"), "{text}");
        assert_eq!(line(&view.hosts[0]).to_text(Look::default()), "web1 ✗ failed  it did not come up");
        assert!(status(&AgentsView::default()).to_text(Look::default()).contains("no host has joined yet"));
    }
}
