//! Load balancers: what each member should be, and what the balancer itself says it is.

use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::{count, counted, hundredths, millis};
use crate::errors::{from_wire, problem_page};
use baton_proto::v1::{Correction, HostView, MemberView, PoolView, Problem, SplitView};
use serde::Serialize;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    pub balancer: String,
    pub pool: String,
    /// Empty: the pool as a whole.
    pub member: String,
    pub wanted: String,
    pub running: String,
    pub on_disk: String,
    /// Why, where somebody knows.
    pub problem: String,
    /// The same without what was seen.
    #[serde(skip)]
    pub summary: String,
}

/// `baton balancers list`.
#[must_use]
pub fn list(hosts: &[&HostView]) -> Page {
    if hosts.is_empty() {
        let mut page = Page::new();
        page.text("no agent drives a load balancer");
        return page;
    }
    let mut table = Table::new(&["HOST", "DRIVER", "PROCESS", "POOLS", "OPEN", "IS"]);
    for host in hosts {
        let members = host.pools.iter().flat_map(|pool| &pool.members);
        let mut processes: Vec<String> = host.pools.iter().map(|pool| process(&pool.balancer)).collect();
        processes.retain(|process| !process.is_empty());
        processes.dedup();
        table.row(vec![
            Line::of(&host.name),
            Line::of(or_dash(&host.driver)),
            Line::of(or_dash(&processes.join(", "))),
            Line::of(or_dash(&host.pools.iter().map(|pool| pool.pool.as_str()).collect::<Vec<_>>().join(", "))),
            Line::of(count(members.map(|member| member.in_flight).sum())),
            state(host),
        ]);
    }
    table.page()
}

fn state(host: &HostView) -> Line {
    let drifts = drifted(&[host]);
    if let Some(order) = &host.dead_balancer {
        return Line::default().span(Tone::Busy, format!("declared dead by {} {} ago", order.by, millis(order.since_ms)));
    }
    match (host.connected, host.silent_ms, drifts.as_slice()) {
        (false, 0, _) => Line::default().span(Tone::Bad, "not connected"),
        (false, silent, _) => Line::default().span(Tone::Bad, format!("silent for {}", millis(silent))),
        (true, _, []) => Line::default().span(Tone::Good, "as it should be"),
        (true, _, [drift]) => Line::default().span(Tone::Busy, in_words(drift)),
        // One reason that every pool has is the balancer's.
        (true, _, [drift, rest @ ..]) if !drift.summary.is_empty() && rest.iter().all(|it| it.summary == drift.summary) => {
            Line::default().span(Tone::Busy, drift.summary.clone())
        }
        (true, _, drifts) => {
            Line::default().span(Tone::Busy, format!("{} differences: baton balancers drift", drifts.len()))
        }
    }
}

/// `pid 5973`, of an identity that says more than people read: `5973@1795935353`.
fn process(identity: &str) -> String {
    match identity.split_once('@') {
        Some((pid, _)) if pid.bytes().all(|byte| byte.is_ascii_digit()) => format!("pid {pid}"),
        Some((name, _)) => name.to_owned(),
        None => identity.to_owned(),
    }
}

/// `shop web3/0 is out, wanted ready`.
fn in_words(drift: &Drift) -> String {
    let Drift { pool, member, wanted, running, on_disk, summary, .. } = drift;
    let of = if member.is_empty() { pool.clone() } else { format!("{pool} {member}") };
    match (summary.is_empty(), running == wanted) {
        (false, _) => format!("{of}: {summary}"),
        (true, true) => format!("{of} is {} on disk, wanted {}", or_dash(on_disk), or_dash(wanted)),
        (true, false) => format!("{of} is {}, wanted {}", or_dash(running), or_dash(wanted)),
    }
}

/// `baton balancers show HOST`.
#[must_use]
pub fn show(host: &HostView) -> Page {
    let mut page = Page::new();
    let driver = if host.driver.is_empty() { "a driver that was not said".to_owned() } else { host.driver.clone() };
    page.line(Line::default().span(Tone::Strong, host.name.clone()).plain(format!("  {driver}")));
    pools(&mut page, host);
    for problem in host.problems.iter().chain(host.pools.iter().flat_map(reasons)) {
        page.line(Line::default()).extend(problem_page(&from_wire(problem)));
    }
    page
}

/// The pools of the balancer on a host, a table each.
pub(super) fn pools(page: &mut Page, host: &HostView) {
    for pool in &host.pools {
        page.line(Line::default());
        page.line(
            Line::of("pool ").span(Tone::Strong, pool.pool.clone()).plain(format!("  balancer {}", process(&pool.balancer))),
        );
        if let Some(split) = &pool.split {
            page.line(split_line(split));
        }
        let mut table =
            Table::new(&["MEMBER", "ADDRESS", "WEIGHT", "WANTED", "RUNNING", "ON DISK", "OPEN", "REQUESTS", "ERRORS"]);
        for member in &pool.members {
            let differs = |is: &str| if is == member.wanted { Tone::Plain } else { Tone::Busy };
            table.row(vec![
                Line::of(&member.key),
                Line::of(&member.address),
                Line::of(weight(member)),
                Line::of(&member.wanted),
                Line::default().span(differs(&member.running), member.running.clone()),
                Line::default().span(differs(&member.on_disk), member.on_disk.clone()),
                Line::of(open(member)),
                Line::of(count(member.requests)),
                Line::default().span(if member.errors > 0 { Tone::Bad } else { Tone::Plain }, count(member.errors)),
            ]);
        }
        page.extend(table.page());
        for line in corrected(&[host]).filter(|(_, of, _)| *of == pool.pool).map(|it| corrected_line(&it)) {
            page.line(line);
        }
    }
}

const A_DAY_MS: u64 = 24 * 3_600_000;

/// The members that somebody changed by hand today and that were put right: balancer, pool and member.
fn corrected<'a>(hosts: &'a [&'a HostView]) -> impl Iterator<Item = (&'a str, &'a str, &'a MemberView)> {
    let pools = hosts.iter().flat_map(|host| host.pools.iter().map(|pool| (host.name.as_str(), pool)));
    let members = pools.flat_map(|(host, pool)| pool.members.iter().map(move |member| (host, pool.pool.as_str(), member)));
    members.filter(|(_, _, member)| member.corrected.as_ref().is_some_and(|it| it.ago_ms < A_DAY_MS))
}

/// `lb1 shop web2/0 was changed by hand (Out weight 100) 12 s ago, and put right: 3 times since the agent of lb1 was started`.
fn corrected_line((host, pool, member): &(&str, &str, &MemberView)) -> Line {
    let Some(Correction { times, ago_ms, was }) = &member.corrected else { return Line::default() };
    let often = if *times > 1 { format!(": {times} times since the agent of {host} was started") } else { String::new() };
    let text = format!(" was changed by hand ({was}) {} ago, and put right{often}", millis(*ago_ms));
    Line::of(format!("{host} {pool} {}", member.key)).span(Tone::Busy, text)
}

/// `7, oldest 31 s`, where the balancer can tell and the member goes out.
fn open(member: &MemberView) -> String {
    match member.oldest_ms.filter(|_| member.wanted == "out") {
        Some(oldest) => format!("{}, oldest {}", count(member.in_flight), millis(oldest)),
        None => count(member.in_flight),
    }
}

/// A member that is only reported has no weight anybody asked for.
fn weight(member: &MemberView) -> String {
    let side = if member.trial { ", trial" } else { "" };
    let grows = member.full_in_ms.map_or_else(String::new, |left| format!(", all of it in {}", millis(left)));
    if member.wanted.is_empty() { String::new() } else { format!("{}{side}{grows}", member.weight) }
}

/// `share asked 5%, achieved 4.98% of 41 208 requests, 12 by rules`.
#[must_use]
pub fn split_line(split: &SplitView) -> Line {
    let line = Line::of("share ").plain(format!("asked {}", if split.wanted.is_empty() { "none" } else { &split.wanted }));
    let line = match split.achieved {
        Some(achieved) => {
            let drawn = (split.stable + split.trial).saturating_sub(split.ruled);
            line.plain(format!(", achieved {} of {}", hundredths(achieved), counted(drawn, "request", "requests")))
        }
        None => line,
    };
    let line = if split.ruled > 0 { line.plain(format!(", {} by rules", count(split.ruled))) } else { line };
    if split.running == split.wanted && (split.on_disk || split.running.is_empty()) {
        return line;
    }
    line.span(Tone::Busy, format!(", is {}", if split.running.is_empty() { "not divided" } else { &split.running }))
}

/// `baton balancers drift`.
#[must_use]
pub fn drift(hosts: &[&HostView]) -> Page {
    let drifted = drifted(hosts);
    if drifted.is_empty() {
        let mut page = Page::new();
        page.text(format!("every member is as it should be on {}", counted(hosts.len() as u64, "balancer", "balancers")));
        corrected(hosts).for_each(|it| {
            page.line(corrected_line(&it));
        });
        return page;
    }
    let mut table = Table::new(&["HOST", "POOL", "MEMBER", "WANTED", "RUNNING", "ON DISK", ""]);
    for drift in drifted {
        table.row(vec![
            Line::of(drift.balancer),
            Line::of(drift.pool),
            Line::of(or_dash(&drift.member)),
            Line::of(or_dash(&drift.wanted)),
            Line::default().span(Tone::Busy, or_dash(&drift.running)),
            Line::default().span(Tone::Busy, or_dash(&drift.on_disk)),
            Line::default().span(Tone::Quiet, drift.summary),
        ]);
    }
    let mut page = table.page();
    // Many members may have one reason.
    let mut known = Vec::new();
    for problem in hosts.iter().flat_map(|host| &host.pools).flat_map(reasons) {
        if !known.contains(&problem) {
            page.line(Line::default()).extend(problem_page(&from_wire(problem)));
            known.push(problem);
        }
    }
    for (index, it) in corrected(hosts).enumerate() {
        if index == 0 {
            page.line(Line::default());
        }
        page.line(corrected_line(&it));
    }
    page
}

/// Everything that is not as it should be: states, weights and sides read back, pools nobody asked for, splits.
#[must_use]
pub fn drifted(hosts: &[&HostView]) -> Vec<Drift> {
    let mut drifts = Vec::new();
    for (host, pool) in hosts.iter().flat_map(|host| host.pools.iter().map(move |pool| (host, pool))) {
        let of = |member: &str, wanted: &str, running: &str, on_disk: &str, problem: Option<&Problem>| Drift {
            balancer: host.name.clone(),
            pool: pool.pool.clone(),
            member: member.to_owned(),
            wanted: wanted.to_owned(),
            running: running.to_owned(),
            on_disk: on_disk.to_owned(),
            problem: problem.map(said).unwrap_or_default(),
            summary: problem.map(summary).unwrap_or_default(),
        };
        if let Some(problem) = &pool.problem {
            drifts.push(of("", "", "", "", Some(problem)));
            continue;
        }
        for split in pool.split.iter().filter(|split| split.running != split.wanted || !split.on_disk) {
            let disk = if split.on_disk { split.running.as_str() } else { "another" };
            drifts.push(of("", &split.wanted, &split.running, disk, None));
        }
        for member in pool.members.iter().filter(|member| differs(member)) {
            drifts.push(of(&member.key, &member.wanted, &member.running, &member.on_disk, member.problem.as_ref()));
        }
    }
    drifts
}

fn differs(member: &MemberView) -> bool {
    member.problem.is_some() || member.running != member.wanted || member.on_disk != member.wanted
}

fn reasons(pool: &PoolView) -> impl Iterator<Item = &Problem> {
    pool.problem.iter().chain(pool.members.iter().filter_map(|member| member.problem.as_ref()))
}

fn summary(problem: &Problem) -> String {
    format!("[B{:04}] {}", problem.code, problem.what)
}

fn said(problem: &Problem) -> String {
    let asked = problem.seen.iter().map(|seen| format!(" ({} {})", seen.label, seen.evidence));
    format!("{}{}", summary(problem), asked.take(2).collect::<String>())
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::example;
    use crate::render::page::Look;

    fn text(page: &Page) -> String {
        page.to_text(Look::default())
    }

    #[test]
    fn a_member_changed_by_hand_is_drift() {
        let mut balancer = example::balancer(&[("web2/0", 1_200, 3), ("web3/0", 7, 0)], "77@1795935353+7314078.0");
        balancer.driver = "haproxy".into();
        assert_eq!(text(&drift(&[&balancer])), "every member is as it should be on 1 balancer\n");
        balancer.pools[0].members[1].running = "out".into();
        assert_eq!(
            text(&drift(&[&balancer])),
            "HOST   POOL   MEMBER   WANTED   RUNNING   ON DISK\nlb1    shop   web3/0   ready    out       ready\n"
        );
        assert_eq!(
            text(&list(&[&balancer])),
            "HOST   DRIVER    PROCESS   POOLS   OPEN   IS\nlb1    haproxy   pid 77    shop    0      shop web3/0 is out, wanted ready\n"
        );
    }

    #[test]
    fn what_was_put_right_is_said_although_nothing_differs_any_more() {
        let mut balancer = example::balancer(&[("web2/0", 1_200, 3), ("web3/0", 7, 0)], "77@1795935353");
        let mut correct = |times| {
            let correction = Correction { times, ago_ms: 12_000, was: "Out weight 100".into() };
            balancer.pools[0].members[1].corrected = Some(correction);
            text(&drift(&[&balancer]))
        };
        let said = "every member is as it should be on 1 balancer\n\
                    lb1 shop web3/0 was changed by hand (Out weight 100) 12 s ago, and put right";
        assert_eq!(correct(1), format!("{said}\n"));
        assert_eq!(correct(3), format!("{said}: 3 times since the agent of lb1 was started\n"));
        assert!(text(&show(&balancer)).ends_with("3 times since the agent of lb1 was started\n"));
    }

    #[test]
    fn what_is_in_the_way_is_said_once_with_what_helps() {
        let mut balancer = example::balancer(&[("web2/0", 1_200, 3), ("web3/0", 7, 0)], "77@1795935353");
        let seen = vec![baton_proto::v1::Seen { label: "log".into(), evidence: "a page\nof it".into() }];
        let problem = Problem { code: 413, what: "it does not start".into(), seen, help: "free the port".into() };
        balancer.pools[0].members.iter_mut().for_each(|member| member.problem = Some(problem.clone()));
        let page = text(&drift(&[&balancer]));
        assert_eq!(page.matches("[B0413] it does not start").count(), 2, "{page}");
        assert_eq!((page.matches("error[B0413]").count(), page.matches("help: free the port").count()), (1, 1), "{page}");
        balancer.pools[0].members.pop();
        let page = text(&list(&[&balancer]));
        assert!(page.contains("shop web2/0: [B0413] it does not start\n"), "{page}");
        assert!(drifted(&[&balancer])[0].problem.ends_with("(log a page\nof it)"));
    }

    #[test]
    fn the_share_achieved_stands_beside_the_one_asked_for() {
        let split = SplitView {
            wanted: "5%".into(),
            running: "5%".into(),
            on_disk: true,
            share: 500,
            achieved: Some(498),
            stable: 39_156,
            trial: 2_064,
            ruled: 12,
        };
        let mut page = Page::new();
        page.line(split_line(&split));
        page.line(split_line(&SplitView { wanted: "5%".into(), ..SplitView::default() }));
        assert_eq!(
            text(&page),
            "share asked 5%, achieved 4.98% of 41 208 requests, 12 by rules\nshare asked 5%, is not divided\n"
        );
    }

    #[test]
    fn no_balancer_is_no_panic() {
        assert_eq!(text(&list(&[])), "no agent drives a load balancer\n");
        assert_eq!(text(&drift(&[])), "every member is as it should be on 0 balancers\n");
    }
}
