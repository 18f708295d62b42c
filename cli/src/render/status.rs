//! The fleet at a glance.

use super::frame::{frozen, health_tone};
use super::page::{Line, Page, Tone};
use super::table::Table;
use super::units::{counted, millis, share};
use crate::outcome::{self, state};
use baton_proto::v1::{FleetView, HostView, RolloutView, ServiceView};
use std::collections::BTreeMap;

/// Every service on a line, then what is not as it should be.
#[must_use]
pub fn fleet(view: &FleetView) -> Page {
    let mut page = Page::new();
    if view.services.is_empty() {
        page.text(format!("no service yet, {}", counted(view.hosts.len() as u64, "host", "hosts")));
    } else {
        page.extend(services(&view.services));
    }
    for (service, freeze) in view.services.iter().filter_map(|service| Some((service, service.freeze.as_ref()?))) {
        page.line(Line::default().span(Tone::Busy, format!("{} is frozen  ", service.name)).plain(frozen(freeze)));
    }
    if let Some(freeze) = &view.freeze {
        page.line(Line::default().span(Tone::Busy, "every service is frozen  ").plain(frozen(freeze)));
    }
    for (service, hosts) in brought(view) {
        page.text(format!(
            "{service} runs on {}, and nobody deployed it here: the next baton deploy {service} takes it over",
            hosts.join(", ")
        ));
    }
    page.extend(troubles(&view.hosts));
    page
}

/// By service, the hosts that run something of it although nobody deployed it here: another coordinator did.
pub(crate) fn brought(view: &FleetView) -> BTreeMap<&str, Vec<&str>> {
    let mut brought = BTreeMap::<_, Vec<_>>::new();
    for (host, instance) in view.hosts.iter().flat_map(|host| host.instances.iter().map(move |it| (host, it))) {
        let service = instance.key.split('/').next().unwrap_or_default();
        if !view.services.iter().any(|known| known.name == service) {
            let hosts = brought.entry(service).or_default();
            if hosts.last() != Some(&host.name.as_str()) {
                hosts.push(host.name.as_str());
            }
        }
    }
    brought
}

fn services(services: &[ServiceView]) -> Page {
    let mut table = Table::new(&["SERVICE", "LIVE", "SERVICE IS", "HOSTS", "ROLLOUT"]);
    for service in services {
        let live = Some(outcome::live(&service.live, &service.committed_version)).filter(|live| !live.is_empty());
        let health = if service.health.is_empty() { "unknown" } else { &service.health };
        table.row(vec![
            Line::of(&service.name),
            Line::of(live.unwrap_or_else(|| "–".to_owned())),
            Line::default().span(health_tone(health), health),
            Line::of(serving(service)),
            Line::of(
                service
                    .rollout
                    .as_ref()
                    .map_or_else(|| outcome::without_rollout(service).to_owned(), |it| rollout(service, it))
                    + &warm(service),
            ),
        ]);
    }
    table.page()
}

/// The step of a host whose agent is away.
const SILENT: &str = "agent silent";

/// `2 of 4 serve, 1 silent`.
fn serving(service: &ServiceView) -> String {
    let serving = service.hosts.iter().filter(|host| host.serves).count();
    let silent = service.hosts.iter().filter(|host| host.step == SILENT).count();
    let silent = if silent > 0 { format!(", {silent} silent") } else { String::new() };
    format!("{serving} of {} serve{silent}", service.hosts.len())
}

/// `, 2.0.4 warm for 14 min`.
fn warm(service: &ServiceView) -> String {
    match service.warm_version.as_str() {
        "" => String::new(),
        version => format!(", {version} warm for {}", millis(service.warm_left_ms)),
    }
}

/// `r-7f3 to 2.1.0 running, 1 of 3 hosts, 1 min 48 s`; `… waits for approval, previewed by header x-beta=1, …`.
fn rollout(service: &ServiceView, rollout: &RolloutView) -> String {
    let RolloutView { id, to_version, state, hosts_done, hosts_total, .. } = rollout;
    if outcome::is_active(rollout) {
        let elapsed = millis(rollout.elapsed_ms);
        let share = if rollout.share > 0 { format!(", {} of traffic", share(rollout.share)) } else { String::new() };
        let stands = match (outcome::asks_for_approval(service) && state == state::RUNNING, rollout.preview.as_str()) {
            (true, "") => "waits for approval".to_owned(),
            (true, rule) => format!("waits for approval, previewed by {rule}"),
            (false, _) => state.clone(),
        };
        return format!("{id} to {to_version} {stands}, {hosts_done} of {hosts_total} hosts{share}, {elapsed}");
    }
    let word = match state.as_str() {
        state::REVERTED => "rolled back",
        state::PARTIAL if outcome::caught_up(rollout) => "partial, made up for since",
        state => state,
    };
    format!("{id} to {to_version} {word}")
}

/// For so long it is said everywhere that an instance ended by itself; afterwards `baton hosts show` says it.
const FELL_RECENTLY: u64 = 3_600_000;

/// Hosts that are silent or complain, a line each; nothing when all is well.
#[must_use]
pub fn troubles(hosts: &[HostView]) -> Page {
    let mut page = Page::new();
    for host in hosts {
        if host.waits_for_acceptance {
            let text = format!(
                "joined from {}, and waits: baton hosts accept {1}, or baton hosts remove {1}",
                host.address, host.name
            );
            page.line(Line::default().span(Tone::Busy, format!("{}  ", host.name)).plain(text));
        }
        if let Some(order) = &host.maintenance {
            let since = millis(order.since_ms);
            let told = host.rebooting_ms.map(|since| format!("rebooting for {}; ", millis(since))).unwrap_or_default();
            page.line(
                Line::default()
                    .span(Tone::Busy, format!("{}  ", host.name))
                    .plain(format!("{told}drained by {} for {since}: {}", order.by, order.why)),
            );
        }
        if let Some(order) = &host.dead_balancer {
            let text =
                format!("its load balancer was declared dead by {} {} ago: {}", order.by, millis(order.since_ms), order.why);
            page.line(Line::default().span(Tone::Busy, format!("{}  ", host.name)).plain(text));
        }
        // One that reboots is away for that.
        if !host.connected && host.rebooting_ms.is_none() {
            let silent = match host.silent_ms {
                0 => "its agent is not connected".to_owned(),
                ms => format!("its agent has been silent for {}", millis(ms)),
            };
            page.line(Line::default().span(Tone::Bad, format!("{}  ", host.name)).plain(silent));
        }
        for instance in &host.instances {
            let recent = super::hosts::fell(instance).filter(|_| instance.fell_ms < FELL_RECENTLY);
            if let Some((said, problem)) = recent {
                let text = format!("{} {said}: {}", instance.key, problem.what);
                page.line(Line::default().span(Tone::Busy, format!("{}  ", host.name)).plain(text));
            }
        }
        let own = host.problems.iter();
        let instances = host.instances.iter().filter_map(|instance| instance.problem.as_ref());
        let pools = host
            .pools
            .iter()
            .flat_map(|pool| pool.problem.iter().chain(pool.members.iter().filter_map(|member| member.problem.as_ref())));
        let mut said = Vec::new();
        for problem in own.chain(instances).chain(pools) {
            // One socket that does not answer is the trouble of every pool behind it.
            if said.contains(&problem) {
                continue;
            }
            said.push(problem);
            page.line(
                Line::default()
                    .span(Tone::Bad, format!("{}  ", host.name))
                    .plain(format!("[B{:04}] {}", problem.code, problem.what)),
            );
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::{SILENT, fleet};
    use crate::render::example;
    use crate::render::page::Look;
    use baton_proto::v1::{FleetView, WaitingView};

    #[test]
    fn a_fleet_says_its_services_and_what_is_wrong() {
        let mut view = example::fleet();
        view.hosts[1].problems.push(example::never_ready());
        view.services[0].hosts[2].step = SILENT.to_owned();
        assert_eq!(
            fleet(&view).to_text(Look::default()),
            "SERVICE   LIVE    SERVICE IS   HOSTS                    ROLLOUT
shop      2.0.4   healthy      2 of 3 serve, 1 silent   r-7f3 to 2.1.0 running, 1 of 3 hosts, 1 min 48 s
web2  [B0210] shop 2.1.0 did not become ready on web2 within 60 s
web4  its agent has been silent for 2 min 10 s
"
        );
    }

    #[test]
    fn what_waits_for_a_person_says_so_and_whose_requests_reach_it_meanwhile() {
        let mut view = example::fleet();
        let service = &mut view.services[0];
        service.waiting = vec![WaitingView { reason: "approval".into(), ..WaitingView::default() }];
        let said = |view: &FleetView| fleet(view).to_text(Look::default());
        assert!(said(&view).contains("r-7f3 to 2.1.0 waits for approval, 1 of 3 hosts"), "{}", said(&view));
        view.services[0].rollout.as_mut().unwrap().preview = "header:x-beta=1".into();
        assert!(said(&view).contains("waits for approval, previewed by header:x-beta=1, 1 of 3"), "{}", said(&view));
        view.services[0].rollout.as_mut().unwrap().state = "paused".into();
        assert!(said(&view).contains("r-7f3 to 2.1.0 paused, 1 of 3"), "{}", said(&view));
    }

    #[test]
    fn what_hosts_brought_from_another_coordinator_is_named() {
        let mut view = example::fleet();
        assert!(!fleet(&view).to_text(Look::default()).contains("nobody deployed it here"));
        let own = view.services.remove(0);
        let said = fleet(&view).to_text(Look::default());
        let runs: Vec<_> =
            view.hosts.iter().filter(|host| !host.instances.is_empty()).map(|host| host.name.as_str()).collect();
        assert!(said.contains(&format!("{} runs on {}, and nobody deployed it here", own.name, runs.join(", "))), "{said}");
    }

    #[test]
    fn an_empty_fleet_says_so() {
        assert_eq!(fleet(&FleetView::default()).to_text(Look::default()), "no service yet, 0 hosts\n");
    }
}
