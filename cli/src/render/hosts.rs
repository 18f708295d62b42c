//! Hosts: what runs there, and what their balancer does.

use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::millis;
use crate::errors::{from_wire, problem_page};
use baton_core::problem::Code;
use baton_proto::problem::code;
use baton_proto::v1::{HostView, InstanceView, Problem, Stamp};

/// `baton hosts list`.
#[must_use]
pub fn list(hosts: &[HostView]) -> Page {
    if hosts.is_empty() {
        let mut page = Page::new();
        page.text("no host joined yet");
        return page;
    }
    let mut table = Table::new(&["HOST", "ADDRESS", "AGENT", "VERSION", "RUNS", "BALANCES"]);
    for host in hosts {
        table.row(vec![
            Line::of(&host.name),
            Line::of(address(host)),
            agent(host),
            Line::of(&host.agent_version),
            Line::of(runs(host)),
            Line::of(host.pools.iter().map(|pool| pool.pool.as_str()).collect::<Vec<_>>().join(", ")),
        ]);
    }
    table.page()
}

/// `rack=a role=web`.
fn labels(host: &HostView) -> String {
    let mut labels: Vec<_> = host.labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
    labels.sort();
    labels.join(" ")
}

fn address(host: &HostView) -> &str {
    if host.address.is_empty() { "–" } else { &host.address }
}

fn agent(host: &HostView) -> Line {
    if let Some(since) = host.rebooting_ms {
        return Line::default().span(Tone::Busy, format!("rebooting for {}", millis(since)));
    }
    if let Some(order) = &host.maintenance {
        let ahead = if host.to_be_rebooted { ", to be rebooted" } else { "" };
        let drained = format!("drained by {} for {}{ahead}", order.by, millis(order.since_ms));
        let silent = if host.silent_ms == 0 { String::new() } else { format!(" for {}", millis(host.silent_ms)) };
        return match host.connected {
            true => Line::default().span(Tone::Busy, drained),
            false => Line::default().span(Tone::Bad, format!("silent{silent}, {drained}")),
        };
    }
    match (host.connected, host.silent_ms) {
        (true, _) if host.waits_for_acceptance => Line::default().span(Tone::Busy, "waits to be accepted"),
        (true, _) if !host.problems.is_empty() => Line::default().span(Tone::Bad, "connected, has problems"),
        (true, _) => Line::default().span(Tone::Good, "connected"),
        (false, silent) => Line::default().span(Tone::Bad, away(host, silent)),
    }
}

fn away(host: &HostView, silent_ms: u64) -> String {
    match (turned_away(host), silent_ms) {
        (Some(why), _) => why.to_owned(),
        (None, 0) if host.waits_for_acceptance => "waits to be accepted, not connected".to_owned(),
        (None, 0) => "not connected".to_owned(),
        (None, silent) => format!("silent for {}", millis(silent)),
    }
}

/// Why it cannot come back by itself.
fn turned_away(host: &HostView) -> Option<&'static str> {
    host.problems.iter().find_map(|problem| match u16::try_from(problem.code).map(Code) {
        Ok(code::REFUSED) => Some("certificate revoked or replaced"),
        Ok(code::CERTIFICATE_TIME) => Some("certificate ended"),
        _ => None,
    })
}

fn runs(host: &HostView) -> String {
    let runs = host.instances.iter().map(|instance| format!("{} {}", instance.key, instance.version));
    runs.collect::<Vec<_>>().join(", ")
}

/// `baton hosts show HOST`.
#[must_use]
pub fn show(host: &HostView) -> Page {
    let mut page = Page::new();
    page.line(Line::default().span(Tone::Strong, host.name.clone()).plain("  ").plain(format!("{}  ", address(host))));
    if let Some(first) = page.0.first_mut() {
        first.0.extend(agent(host).0);
    }
    let spec = format!("issued {}, taken {}", stamp(host.issued.as_ref()), stamp(host.observed.as_ref()));
    let labels = labels(host);
    let mut facts = vec![("agent", host.agent_version.as_str()), ("spec", &spec)];
    facts.extend(Some(("labels", labels.as_str())).filter(|(_, labels)| !labels.is_empty()));
    facts.extend(host.facts.iter().map(|(fact, value)| (fact.as_str(), value.as_str())));
    let widest = facts.iter().map(|(fact, _)| fact.chars().count()).max().unwrap_or(0);
    for (fact, value) in facts {
        page.text(format!("  {fact:<widest$}  {value}"));
    }
    if !host.instances.is_empty() {
        let mut table = Table::new(&["INSTANCE", "RELEASE", "STATE", "TIME", "INCARNATION"]);
        for instance in &host.instances {
            table.row(vec![
                Line::of(&instance.key),
                Line::of(&instance.version),
                Line::default().span(state_tone(&instance.state), instance.state.clone()),
                Line::of(if instance.since_ms == 0 { String::new() } else { millis(instance.since_ms) }),
                Line::of(&instance.incarnation),
            ]);
        }
        page.line(Line::default()).extend(table.page());
    }
    for instance in &host.instances {
        if let Some((said, problem)) = fell(instance) {
            page.line(Line::default()).text(format!("{} {said}", instance.key));
            page.extend(problem_page(&from_wire(problem)));
        }
    }
    super::balancers::pools(&mut page, host);
    let problems = host.problems.iter();
    let instances = host.instances.iter().filter_map(|instance| instance.problem.as_ref());
    let balancers = host
        .pools
        .iter()
        .flat_map(|pool| pool.problem.iter().chain(pool.members.iter().filter_map(|member| member.problem.as_ref())));
    for problem in problems.chain(instances).chain(balancers) {
        page.line(Line::default()).extend(problem_page(&from_wire(problem)));
    }
    page
}

/// `ended by itself 3 times, last 2 min ago`, and how; of what is down for good its problem says it.
pub(super) fn fell(instance: &InstanceView) -> Option<(String, &Problem)> {
    let problem = instance.fell.as_ref().filter(|_| instance.falls > 0 && instance.state != "failed")?;
    let times = match instance.falls {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    Some((format!("ended by itself {times}, last {} ago", millis(instance.fell_ms)), problem))
}

fn state_tone(state: &str) -> Tone {
    match state {
        "ready" => Tone::Good,
        "failed" | "unready" => Tone::Bad,
        _ => Tone::Busy,
    }
}

fn stamp(stamp: Option<&Stamp>) -> String {
    stamp.map_or_else(|| "none".to_owned(), |stamp| format!("{}.{}", stamp.epoch, stamp.generation))
}

#[cfg(test)]
mod tests {
    use super::{list, show};
    use crate::render::example;
    use crate::render::page::Look;
    use baton_proto::v1::{HostView, OrderView};

    #[test]
    fn hosts_say_whether_their_agent_speaks_and_what_runs() {
        assert_eq!(
            list(&example::fleet().hosts).to_text(Look::default()),
            "HOST   ADDRESS    AGENT                   VERSION   RUNS           BALANCES
lb1    10.0.0.2   connected               0.1.0                    shop
web2   10.0.0.2   connected               0.1.0     shop/0 2.1.0
web3   10.0.0.2   connected               0.1.0     shop/0 2.0.4
web4   10.0.0.2   silent for 2 min 10 s   0.1.0     shop/0 2.0.4
"
        );
    }

    #[test]
    fn a_host_that_is_turned_away_is_more_than_silent() {
        let mut host = example::host("web1", "2.1.0");
        (host.connected, host.silent_ms) = (false, 5_000);
        let row = |host: &HostView| list(std::slice::from_ref(host)).to_text(Look::default());
        assert!(row(&host).contains("silent for 5.0 s"), "{}", row(&host));
        for (code, said) in [(507, "certificate revoked or replaced"), (504, "certificate ended")] {
            host.problems = vec![baton_proto::v1::Problem { code, ..Default::default() }];
            assert!(row(&host).contains(said), "{}", row(&host));
        }
    }

    #[test]
    fn a_host_says_that_it_is_to_be_rebooted_and_that_it_reboots_also_while_its_agent_is_away() {
        let mut host = example::host("web2", "2.1.0");
        let order = OrderView { by: "ana".into(), why: "to be rebooted (b-1): a kernel".into(), since_ms: 4_100 };
        (host.maintenance, host.to_be_rebooted) = (Some(order), true);
        let said = |host: &HostView| {
            let hosts = std::slice::from_ref(host);
            let list = list(hosts).to_text(Look::default());
            let row = list.lines().nth(1).and_then(|row| row.split("  ").map(str::trim).filter(|it| !it.is_empty()).nth(2));
            (row.unwrap_or_default().to_owned(), super::super::status::troubles(hosts).to_text(Look::default()))
        };
        let (list, status) = said(&host);
        assert_eq!(list, "drained by ana for 4.1 s, to be rebooted");
        assert_eq!(status, "web2  drained by ana for 4.1 s: to be rebooted (b-1): a kernel\n");
        let of = |host: &HostView| super::super::why::host(host, &example::fleet()).to_text(Look::default());
        assert!(of(&host).contains("you can: wait   ·   baton reboot shows how far it is   ·   baton reboot --cancel"));
        (host.to_be_rebooted, host.rebooting_ms) = (false, Some(130_000));
        for connected in [true, false] {
            host.connected = connected;
            let (list, status) = said(&host);
            assert_eq!(list, "rebooting for 2 min 10 s", "{connected}");
            assert_eq!(status, "web2  rebooting for 2 min 10 s; drained by ana for 4.1 s: to be rebooted (b-1): a kernel\n");
        }
        let text = of(&host);
        assert!(text.contains("rebooting for 2 min 10 s") && text.contains("you can: wait   ·   baton reboot"), "{text}");
        (host.rebooting_ms, host.silent_ms) = (None, 130_000);
        assert_eq!(said(&host).0, "silent for 2 min 10 s, drained by ana for 4.1 s", "it was given up");
        assert!(of(&host).contains("you can: baton hosts undrain web2\n"), "{}", of(&host));
    }

    #[test]
    fn one_host_shows_its_instances_pools_and_problems_whole() {
        let mut balancer = example::balancer(&[("web2/0", 1_200, 3)], "pid 77");
        balancer.pools[0].members[0].running = "out".into();
        balancer.facts.insert("os".into(), "Debian 13".into());
        balancer.problems.push(example::never_ready());
        assert_eq!(
            show(&balancer).to_text(Look::default()),
            "lb1  10.0.0.2  connected, has problems
  agent  0.1.0
  spec   issued 3.12, taken 3.12
  os     Debian 13

pool shop  balancer pid 77
MEMBER   ADDRESS         WEIGHT   WANTED   RUNNING   ON DISK   OPEN   REQUESTS   ERRORS
web2/0   10.0.0.2:8101   100      ready    out       ready     0      1 200      3

error[B0210]: shop 2.1.0 did not become ready on web2 within 60 s
  probe     GET http://127.0.0.1:8104/healthz: connection refused
  last log  INFO \\u{1b}[2Jshop: listening on 127.0.0.1:3000
help: the app ignores {port} (8104)
"
        );
    }

    #[test]
    fn an_instance_that_is_up_again_says_how_it_was_down() {
        let mut host = example::host("web2", "2.1.0");
        host.instances[0].falls = 3;
        host.instances[0].fell_ms = 125_000;
        host.instances[0].fell = Some(example::never_ready());
        let text = show(&host).to_text(Look::default());
        assert!(
            text.contains("\nshop/0 ended by itself 3 times, last 2 min 5 s ago\nerror[B0210]: shop 2.1.0 did"),
            "{text}"
        );
        let short = super::super::status::troubles(std::slice::from_ref(&host)).to_text(Look::default());
        assert_eq!(
            short,
            "web2  shop/0 ended by itself 3 times, last 2 min 5 s ago: shop 2.1.0 did not become ready on web2 within 60 s\n"
        );
        host.instances[0].fell_ms = 3_600_000;
        assert!(super::super::status::troubles(&[host]).0.is_empty(), "what was long ago is not said everywhere");
    }
}
