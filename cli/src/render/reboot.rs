//! Reboots of hosts, and how far they are.

use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::{counted, millis};
use crate::errors::{from_wire, problem_page};
use baton_proto::v1::{RebootHostView, RebootView};

/// `baton reboot` without hosts, and the frame that is redrawn while one waits.
#[must_use]
pub fn status(view: &RebootView) -> Page {
    let mut page = Page::new();
    if view.id.is_empty() {
        page.text("no reboot of hosts was asked for yet");
        return page;
    }
    page.line(head(view));
    let mut table = Table::new(&["HOST", "STATE", "WHY"]);
    for host in &view.hosts {
        table.row(vec![Line::of(&host.host), state(host), Line::of(&host.why)]);
    }
    page.extend(table.page());
    if let Some(problem) = view.problem.as_ref().filter(|_| view.state == "paused") {
        page.line(Line::default());
        page.extend(problem_page(&from_wire(problem)));
    }
    page
}

/// What it would be, before it is asked for.
#[must_use]
pub fn preview(view: &RebootView) -> Page {
    let mut page = Page::new();
    let hosts = counted(view.hosts.len() as u64, "host", "hosts");
    let text = format!("{hosts} to be drained, rebooted and put back, {} at a time", view.at_once);
    page.line(Line::default().span(Tone::Strong, text));
    for host in &view.hosts {
        // Those whose turn could come now need no words.
        let why = if matches!(host.state.as_str(), "draining" | "waiting") { host.why.as_str() } else { "" };
        page.text(format!("  {}   {why}", host.host).trim_end().to_owned());
    }
    page
}

/// One line for what a host does now, where nothing is redrawn.
#[must_use]
pub fn line(host: &RebootHostView) -> Line {
    let text = if host.why.is_empty() { String::new() } else { format!("  {}", host.why) };
    let mut line = Line::of(format!("{} ", host.host));
    line.0.extend(state(host).0);
    line.plain(text)
}

fn head(view: &RebootView) -> Line {
    let done = view.hosts.iter().filter(|host| host.state == "done").count();
    let tone = match view.state.as_str() {
        "succeeded" => Tone::Good,
        "running" => Tone::Busy,
        _ => Tone::Bad,
    };
    let by = if view.stopped_by.is_empty() { String::new() } else { format!(" by {}", view.stopped_by) };
    let finishes = if view.open && view.state == "aborted" { ", those under way come back" } else { "" };
    Line::default()
        .span(Tone::Strong, "reboot of hosts")
        .plain(format!(" · {} · {} · {} · ", view.id, view.by, millis(view.for_ms)))
        .span(tone, format!("{}{by}{finishes}", view.state))
        .plain(format!(" · {done} of {}", counted(view.hosts.len() as u64, "host", "hosts")))
}

fn state(host: &RebootHostView) -> Line {
    let (tone, mark) = match host.state.as_str() {
        "done" => (Tone::Good, "✓ "),
        "failed" => (Tone::Bad, "✗ "),
        "waiting" | "untouched" | "gone" | "" => (Tone::Quiet, "· "),
        _ => (Tone::Busy, "◐ "),
    };
    let word = if host.state.is_empty() { "–" } else { &host.state };
    Line::default().span(tone, format!("{mark}{word}"))
}

#[cfg(test)]
mod tests {
    use super::{preview, status};
    use crate::render::page::Look;
    use baton_core::problem::{Code, Problem};
    use baton_proto::v1::{RebootHostView, RebootView};

    fn view() -> RebootView {
        let host = |(host, state, why): (&str, &str, &str)| RebootHostView {
            host: host.into(),
            state: state.into(),
            why: why.into(),
            problem: None,
        };
        let hosts =
            [("web1", "done", ""), ("web2", "failed", "it is not back"), ("web3", "waiting", "its turn has not come")];
        let problem = Problem::new(Code(565), "web2 was told to reboot and is not back").saw("for", "600 s").help("look");
        RebootView {
            id: "b-3".into(),
            state: "paused".into(),
            open: true,
            by: "ana".into(),
            for_ms: 61_000,
            at_once: 1,
            failed_host: "web2".into(),
            problem: Some((&problem).into()),
            hosts: hosts.into_iter().map(host).collect(),
            ..RebootView::default()
        }
    }

    #[test]
    fn it_says_where_each_host_stands_and_what_stopped_it() {
        assert_eq!(
            status(&view()).to_text(Look::default()),
            "reboot of hosts · b-3 · ana · 1 min 1 s · paused · 1 of 3 hosts
HOST   STATE       WHY
web1   ✓ done
web2   ✗ failed    it is not back
web3   · waiting   its turn has not come

error[B0565]: web2 was told to reboot and is not back
  for  600 s
help: look
"
        );
        let none = status(&RebootView::default()).to_text(Look::default());
        assert_eq!(none, "no reboot of hosts was asked for yet\n");
    }

    #[test]
    fn before_it_begins_it_says_who_takes_part() {
        let text = preview(&view()).to_text(Look::default());
        assert!(text.starts_with("3 hosts to be drained, rebooted and put back, 1 at a time\n  web1\n"), "{text}");
    }
}
