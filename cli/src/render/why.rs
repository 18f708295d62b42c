//! One cause, its evidence, and what would unblock it.

use super::page::{Line, Page, Tone};
use super::sources;
use super::status::troubles;
use super::units::millis;
use crate::errors::{from_host, problem_page};
use crate::outcome::{self, EVIDENCE, Wish, state};
use baton_proto::v1::{FleetView, HostView, RolloutView, ServiceView, WaitingView};

/// Why a service is as it is.
#[must_use]
pub fn service(service: &ServiceView, fleet: &FleetView) -> Page {
    let mut page = match &service.rollout {
        Some(rollout) if outcome::is_active(rollout) => active(service, rollout, fleet),
        Some(rollout) => ended(service, rollout),
        None => {
            let mut page = Page::new();
            page.text(format!("{}: {} · {}", service.name, outcome::without_rollout(service), outcome::health(service)));
            at_rest(&mut page, service);
            page
        }
    };
    let concerns = |host: &&HostView| {
        let balances = host.pools.iter().any(|pool| !service.pool.is_empty() && pool.pool == service.pool);
        balances || service.hosts.iter().any(|own| own.host == host.name)
    };
    let hosts: Vec<HostView> = fleet.hosts.iter().filter(concerns).cloned().collect();
    page.extend(troubles(&hosts));
    page
}

fn active(service: &ServiceView, rollout: &RolloutView, fleet: &FleetView) -> Page {
    let mut page = Page::new();
    let verb = match rollout.state.as_str() {
        state::PAUSED => "is paused",
        state::REVERTING => "is going back",
        _ if service.waiting.is_empty() => "is under way",
        _ => "is waiting",
    };
    page.line(Line::default().span(Tone::Strong, format!("{} {} {verb}", service.name, rollout.id)).plain(format!(
        " · {} · {}",
        millis(rollout.elapsed_ms),
        outcome::health(service)
    )));
    waits(&mut page, service);
    sources::uncounted(&mut page, service, rollout);
    sources::unit(&mut page, rollout);
    sources::doubts(&mut page, rollout);
    evidence(&mut page, rollout);
    page.line(Line::of("  you can: ").plain(you_can(service, rollout, fleet)));
    page
}

/// What goes on without a rollout.
fn at_rest(page: &mut Page, service: &ServiceView) {
    if let Some(removal) = &service.removal {
        let since = millis(removal.since_ms);
        page.text(format!("  {} asked {since} ago to remove it: it is gone once nothing below is in the way", removal.by));
    }
    waits(page, service);
}

/// What is waited for, with what was seen and what helps.
fn waits(page: &mut Page, service: &ServiceView) {
    for waiting in causes_first(&service.waiting) {
        let who = if waiting.host.is_empty() { String::new() } else { format!("{}: ", waiting.host) };
        page.text(format!("  {who}{}", waiting.text));
        if let Some(problem) = &waiting.problem {
            for seen in &problem.seen {
                page.text(format!("    {}  {}", seen.label, seen.evidence));
            }
            if !problem.help.is_empty() {
                page.text(format!("    help: {}", problem.help));
            }
        }
    }
}

/// A host that waits for its turn waits because of the others: those come first.
fn causes_first(waiting: &[WaitingView]) -> Vec<&WaitingView> {
    let follows = |waiting: &&WaitingView| matches!(waiting.reason.as_str(), "waiting" | "floor");
    let mut sorted: Vec<&WaitingView> = waiting.iter().collect();
    sorted.sort_by_key(follows);
    sorted
}

fn ended(service: &ServiceView, rollout: &RolloutView) -> Page {
    let mut page = Page::new();
    let exit = outcome::outcome(service, Wish::Forward).unwrap_or(crate::exit::Exit::Done);
    page.line(
        Line::default()
            .span(Tone::Strong, format!("{} {} ({})", service.name, rollout.to_version, rollout.id))
            .plain(format!(": {}", outcome::sentence(service, exit))),
    );
    if !rollout.turned_by.is_empty() && rollout.turned_by != EVIDENCE {
        let did = if rollout.state == state::PARTIAL { "ended it where it stood" } else { "turned it back" };
        page.text(format!("  {} {did}", rollout.turned_by));
    }
    evidence(&mut page, rollout);
    if !service.warm_version.is_empty() {
        let left = millis(service.warm_left_ms);
        page.text(format!("  {} stays warm for {left}: baton rollback {} is a switch", service.warm_version, service.name));
    }
    sources::at_rest(&mut page, service);
    at_rest(&mut page, service);
    if rollout.state == state::PARTIAL && !rollout.completes && !outcome::caught_up(rollout) {
        page.line(Line::of("  you can: ").plain(format!(
            "baton retry {}   ·   {}",
            service.name,
            outcome::way_back(service)
        )));
    }
    if rollout.state == state::FAILED {
        let back = outcome::way_back(service);
        page.line(
            Line::of("  you can: ")
                .plain(format!("{back}   ·   baton deploy {} VERSION with a release that works", service.name)),
        );
    }
    page
}

fn evidence(page: &mut Page, rollout: &RolloutView) {
    for evidence in &rollout.evidence {
        if let Some(problem) = &evidence.problem {
            page.extend(problem_page(&from_host(&evidence.host, problem)));
        }
    }
}

/// What makes progress, by the first cause.
fn you_can(service: &ServiceView, rollout: &RolloutView, fleet: &FleetView) -> String {
    let (name, back) = (&service.name, outcome::way_back(service));
    if let Some(hook) = rollout.hooks.iter().find(|hook| hook.problem.is_some() && rollout.turned_by.is_empty()) {
        let point = &hook.point;
        return format!("baton retry {name}   ·   if it did happen: baton skip {name} --hook {point}   ·   {back}");
    }
    if rollout.state == state::PAUSED && rollout.promotable {
        return format!("as it is: baton promote {name}   ·   to wait once more: baton resume {name}   ·   {back}");
    }
    if rollout.state == state::PAUSED && !rollout.evidence.is_empty() {
        return format!("baton retry {name}   ·   without the host: baton skip {name} HOST   ·   {back}");
    }
    if rollout.state == state::PAUSED {
        return format!("baton resume {name}   ·   {back}");
    }
    if outcome::asks_for_approval(service) {
        return format!("baton promote {name}   ·   {back}");
    }
    let first = causes_first(&service.waiting).into_iter().next();
    let host = first.map_or("", |waiting| waiting.host.as_str());
    match first.map_or("", |waiting| waiting.reason.as_str()) {
        "agent silent" | "never joined" | "agent" => {
            format!(
                "on {host}: systemctl status baton-agent   ·   without it: baton skip {name} {host}   ·   baton abort {name}"
            )
        }
        "balancer unreachable" | "enrolling" => {
            let balances = |host: &&HostView| host.pools.iter().any(|pool| pool.pool == service.pool);
            let of_service: Vec<&HostView> = fleet.hosts.iter().filter(balances).collect();
            let is_silent = |host: &&&HostView| !host.connected || host.pools.iter().any(|pool| pool.problem.is_some());
            let show = of_service.iter().map(|host| format!("baton hosts show {}   ·   ", host.name));
            // Another one has to be left.
            let silent = of_service.iter().filter(is_silent).take(of_service.len() - 1);
            let dead = silent.map(|host| {
                format!("if it does not come back: baton balancers declare-dead {} --why TEXT   ·   ", host.name)
            });
            format!("{}baton abort {name}", show.chain(dead).collect::<String>())
        }
        "exclusive" => {
            let text = first.map_or("", |waiting| waiting.text.as_str());
            let named = |host: &&HostView| text.split([' ', ',']).any(|word| word == host.name);
            let left = |host: &&HostView| !host.connected && service.hosts.iter().all(|own| own.host != host.name);
            let gone = fleet.hosts.iter().filter(left).find(named).map_or_else(String::new, |host| {
                format!("if {0} never comes back: baton hosts remove {0} --force   ·   ", host.name)
            });
            format!("{gone}wait   ·   baton pause {name}   ·   {back}")
        }
        "failed" if rollout.state == state::REVERTING => {
            format!("to go on without it: baton skip {name} {host}   ·   where it stands: baton abort {name} --keep")
        }
        _ if rollout.state == state::REVERTING => format!("wait   ·   baton watch {name}"),
        _ => format!("wait   ·   baton pause {name}   ·   {back}"),
    }
}

/// Why a host is as it is.
#[must_use]
pub fn host(host: &HostView, fleet: &FleetView) -> Page {
    let mut page = super::hosts::show(host);
    if host.rebooting_ms.is_some() {
        page.extend(troubles(std::slice::from_ref(host)));
        page.text("  you can: wait   ·   baton reboot shows how far it is".to_owned());
    } else if !host.connected {
        page.extend(troubles(std::slice::from_ref(host)));
        page.text(format!(
            "  you can: on {0}: baton-agent status says why, its log and systemctl status baton-agent the rest   ·   where its certificate has \
             ended: join again with --replace   ·   where it is gone for good: baton hosts remove {0}",
            host.name
        ));
    }
    if host.maintenance.is_some() && host.rebooting_ms.is_none() {
        if host.connected {
            page.extend(troubles(std::slice::from_ref(host)));
        }
        page.text(match host.to_be_rebooted {
            true => "  you can: wait   ·   baton reboot shows how far it is   ·   baton reboot --cancel".to_owned(),
            false => format!("  you can: baton hosts undrain {}", host.name),
        });
    }
    for service in &fleet.services {
        for waiting in service.waiting.iter().filter(|waiting| waiting.host == host.name) {
            page.line(Line::of(format!("{}  ", service.name)).plain(waiting.text.clone()));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::{host, service};
    use crate::render::example;
    use crate::render::page::Look;
    use baton_proto::v1::{OrderView, Problem, ServiceView, WaitingView};

    #[test]
    fn waiting_names_the_cause_first_and_what_can_be_done() {
        let mut view = example::service();
        view.waiting.reverse();
        assert_eq!(
            service(&view, &example::fleet()).to_text(Look::default()),
            "shop r-7f3 is waiting · 1 min 48 s · service healthy, 1 of 3 hosts on 2.1.0
  web3: draining on lb1: 7 open after 4.1 s (limit 30.0 s)
  web4: its turn comes in wave 3
  you can: wait   ·   baton pause shop   ·   baton rollback shop
web4  its agent has been silent for 2 min 10 s
"
        );
    }

    #[test]
    fn a_release_taken_back_shows_its_evidence_whole_and_escaped() {
        assert_eq!(
            service(&example::taken_back(), &baton_proto::v1::FleetView::default()).to_text(Look::default()),
            r"shop 2.1.0 (r-7f3): rolled back · service healthy on 2.0.4
error[B0210]: shop 2.1.0 did not become ready on web2 within 60 s
  probe     GET http://127.0.0.1:8104/healthz: connection refused
  last log  INFO \u{1b}[2Jshop: listening on 127.0.0.1:3000
help: the app ignores {port} (8104)
"
        );
    }

    #[test]
    fn a_removal_says_what_is_in_its_way_and_what_helps() {
        let mut view = example::taken_back();
        let rollout = view.rollout.as_mut().unwrap();
        (rollout.state, rollout.evidence) = ("succeeded".into(), Vec::new());
        view.removal = Some(OrderView { by: "ana".into(), why: String::new(), since_ms: 600_000 });
        let problem = Some(Problem { help: "name a backend of haproxy.cfg `shop`".into(), ..Problem::default() });
        let text = "the balancer on lb1 does not answer".to_owned();
        view.waiting = vec![WaitingView { host: "web1".into(), reason: "balancer unreachable".into(), text, problem }];
        let of = |view: &ServiceView| service(view, &baton_proto::v1::FleetView::default()).to_text(Look::default());
        let lines = "  ana asked 10 min ago to remove it: it is gone once nothing below is in the way
  web1: the balancer on lb1 does not answer
    help: name a backend of haproxy.cfg `shop`
";
        assert!(of(&view).ends_with(lines), "{}", of(&view));
        view.rollout = None;
        assert!(of(&view).ends_with(lines), "{}", of(&view));
    }

    #[test]
    fn paused_always_names_a_command_that_makes_progress() {
        let mut view = example::service();
        let rollout = view.rollout.as_mut().unwrap();
        rollout.state = "paused".into();
        rollout.paused_by = "baton".into();
        let text = service(&view, &example::fleet()).to_text(Look::default());
        assert!(text.contains("baton resume shop") && text.contains("baton rollback shop"), "{text}");
    }

    #[test]
    fn a_balancer_that_does_not_answer_is_named() {
        let mut view = example::service();
        view.waiting[0].reason = "balancer unreachable".into();
        let text = service(&view, &example::fleet()).to_text(Look::default());
        assert!(text.contains("you can: baton hosts show lb1   ·   baton abort shop"), "{text}");
    }

    #[test]
    fn a_host_that_left_and_is_silent_can_be_removed_where_releases_wait_for_it() {
        let mut view = example::service();
        view.waiting.truncate(1);
        view.waiting[0].reason = "exclusive".into();
        view.waiting[0].text = "the two releases cannot coexist, and web9 is not that far".into();
        let mut fleet = example::fleet();
        fleet.hosts[0] = baton_proto::v1::HostView { name: "web9".into(), ..Default::default() };
        let text = service(&view, &fleet).to_text(Look::default());
        assert!(text.contains("you can: if web9 never comes back: baton hosts remove web9 --force   ·   wait"), "{text}");
        fleet.hosts[0].connected = true;
        let text = service(&view, &fleet).to_text(Look::default());
        assert!(text.contains("you can: wait   ·   baton pause shop"), "it is there: {text}");
    }

    #[test]
    fn a_host_says_what_is_waited_for_there() {
        let fleet = example::fleet();
        let text = host(&fleet.hosts[2], &fleet).to_text(Look::default());
        assert!(text.ends_with("shop  draining on lb1: 7 open after 4.1 s (limit 30.0 s)\n"), "{text}");
    }
}
