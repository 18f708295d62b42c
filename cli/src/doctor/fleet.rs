//! The fleet, as the coordinator sees it.

use super::{Check, mends, now};
use crate::connection::Connection;
use crate::errors::from_wire;
use crate::render::units::counted;
use baton_proto::problem::code;
use baton_proto::v1::{
    AuthorityStatusRequest, AuthorityView, CertificateView, FleetView, HostView, ListCertificatesRequest, ListTokensRequest,
    MemberView, VerifyAuditRequest,
};

const DAY: i64 = 24 * 3600;
/// A host's certificate that ends so soon was not renewed.
const LATE: i64 = 14 * DAY;
/// Tokens are for today.
const LONG_LIVED: u64 = 7 * 24 * 3600 * 1000;
/// For so long everybody has time to move to another authority: a host that is away for the last third of its certificate's life, too.
const AUTHORITY_LASTS: i64 = 90 * DAY;
/// Of what is wrong with the audit log, and of commands that say why.
const FAULTS_SHOWN: usize = 3;

const FLEET: [&str; 9] = [
    "coordinator's store",
    "hosts",
    "agents' versions",
    "hosts' problems",
    "services",
    "rollouts",
    "balancers",
    "members",
    "releases",
];
const ADMIN: [&str; 4] = ["hosts' certificates", "tokens", "audit log", "one authority"];

pub(super) async fn checks(reached: Option<(Connection, String)>) -> Vec<Check> {
    let skipped = |names: &[&'static str], why: &str| names.iter().map(|name| Check::skipped(name, why)).collect::<Vec<_>>();
    let Some((mut connection, role)) = reached else {
        return skipped(&[&FLEET[..], &ADMIN[..]].concat(), "the coordinator was not reached");
    };
    let view = connection.view("").await;
    let mut checks = match &view {
        Ok(view) => of(view),
        Err(problem) => skipped(&FLEET, &problem.to_string()),
    };
    let hosts = view.map(|view| view.hosts).unwrap_or_default();
    match role.as_str() {
        "admin" => checks.extend(of_admins(&mut connection, &hosts).await),
        _ => checks.extend(skipped(&ADMIN, "only an admin may look")),
    }
    checks
}

fn of(view: &FleetView) -> Vec<Check> {
    let mine = env!("CARGO_PKG_VERSION");
    let hosts = view.hosts.iter();
    let name = |host: &HostView| host.name.clone();
    let problem = |problem: &baton_proto::v1::Problem| format!("B{:04} {}", problem.code, problem.what);
    let others: Vec<_> = hosts
        .clone()
        .filter(|host| !host.agent_version.is_empty() && host.agent_version != mine)
        .map(|host| format!("{} runs {}", host.name, host.agent_version))
        .collect();
    // Each problem says best what mends it.
    let fixes = |problems: Vec<&baton_proto::v1::Problem>, otherwise: &str| {
        let helps: std::collections::BTreeSet<String> =
            problems.into_iter().filter(|it| !it.help.is_empty()).map(|it| it.help.clone()).collect();
        if helps.is_empty() { otherwise.to_owned() } else { helps.into_iter().collect::<Vec<_>>().join("; ") }
    };
    let pools = || hosts.clone().flat_map(|host| host.pools.iter().map(move |pool| (host, pool)));
    let is_astray = |it: &&MemberView| {
        it.problem.is_some() || !it.running.is_empty() && (it.running != it.wanted || it.on_disk != it.running)
    };
    let is = |member: &MemberView| match &member.problem {
        Some(why) => format!(": {}", problem(why)),
        None => format!(" is {}", member.running),
    };
    let astray = pools().flat_map(|(host, pool)| {
        let members = pool.members.iter().filter(is_astray);
        members.map(move |member| format!("{} in {} on {}{}", member.key, pool.pool, host.name, is(member)))
    });
    let astray_for = pools().flat_map(|(_, pool)| &pool.members).filter_map(|member| member.problem.as_ref()).collect();
    let astray_at = pools().filter(|(_, pool)| pool.members.iter().any(|it| is_astray(&it))).map(|(host, _)| &host.name);
    let paused = view.services.iter().filter_map(|service| service.rollout.as_ref().map(|rollout| (service, rollout)));
    let paused = paused.filter(|(_, rollout)| matches!(rollout.state.as_str(), "paused" | "failed"));
    vec![
        Check::unless(
            FLEET[0],
            view.problems.iter().map(problem),
            "it is written, and has room",
            &fixes(view.problems.iter().collect(), "baton status"),
        ),
        Check::unless(
            FLEET[1],
            hosts.clone().filter(|host| !host.connected || host.waits_for_acceptance).map(|host| {
                format!("{} {}", host.name, if host.connected { "waits to be accepted" } else { "is not connected" })
            }),
            format!("{} connected", view.hosts.len()),
            &absent(&view.hosts),
        ),
        match others.is_empty() {
            true => Check::good(FLEET[2], mine),
            false => Check::warning(FLEET[2], others.join("; "), "install the same version on every host"),
        },
        Check::unless(
            FLEET[3],
            hosts.clone().flat_map(|host| host.problems.iter().map(|it| format!("{}: {}", name(host), problem(it)))),
            "none",
            &fixes(
                hosts.clone().flat_map(|host| &host.problems).collect(),
                &why(hosts.clone().filter(|host| !host.problems.is_empty()).map(|host| &host.name)),
            ),
        ),
        Check::unless(
            FLEET[4],
            view.services.iter().filter(|it| it.health != "healthy").map(|it| format!("{} is {}", it.name, it.health)),
            format!("{} healthy", view.services.len()),
            &why(view.services.iter().filter(|it| it.health != "healthy").map(|it| &it.name)),
        ),
        Check::unless(
            FLEET[5],
            paused.clone().map(|(service, rollout)| format!("{} of {} is {}", rollout.id, service.name, rollout.state)),
            "none stands still",
            &format!("{}, then baton resume or baton rollback", why(paused.map(|(service, _)| &service.name))),
        ),
        Check::unless(
            FLEET[6],
            pools().filter_map(|(host, pool)| Some(format!("{}: {}", host.name, problem(pool.problem.as_ref()?)))),
            "they answer",
            &why(pools().filter(|(_, pool)| pool.problem.is_some()).map(|(host, _)| &host.name)),
        ),
        match astray.collect::<Vec<_>>() {
            astray if astray.is_empty() => Check::good(FLEET[7], "as wanted, now and after a restart"),
            astray => Check::warning(
                FLEET[7],
                astray.join("; "),
                fixes(astray_for, &format!("wait for the rollout under way; else {}", why(astray_at))),
            ),
        },
        Check::unless(
            FLEET[8],
            hosts
                .flat_map(|host| host.instances.iter().map(move |it| (host, it)))
                .filter(|(_, instance)| instance.state == "failed")
                .map(|(host, instance)| format!("{} {} on {} failed", instance.key, instance.version, host.name)),
            "no instance failed",
            "baton why SERVICE",
        ),
    ]
}

/// What brings hosts back, each as it is away.
/// Where the reasons of these are said: some are enough to begin with.
fn why<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: std::collections::BTreeSet<&String> = names.collect();
    names.into_iter().take(FAULTS_SHOWN).map(|name| format!("baton why {name}")).collect::<Vec<_>>().join("; ")
}

fn absent(hosts: &[HostView]) -> String {
    // A certificate that the coordinator does not take is nothing that its agent could mend by being started.
    let turned_away = |host: &HostView| {
        host.problems
            .iter()
            .find(|it| [code::REFUSED.0, code::CERTIFICATE_TIME.0].map(u32::from).contains(&it.code))
            .cloned()
    };
    let fix = |host: &HostView| match (host.connected, turned_away(host)) {
        (true, _) => format!("baton hosts accept {}", host.name),
        (false, Some(problem)) => format!("{}: {}", host.name, mends(&from_wire(&problem))),
        (false, None) => format!(
            "{}: is the machine up, and its clock right (date -u)? There: systemctl status baton-agent baton-agent-link; \
             journalctl -u baton-agent-link says why it is not here",
            host.name
        ),
    };
    let away = hosts.iter().filter(|host| !host.connected || host.waits_for_acceptance);
    away.map(fix).collect::<Vec<_>>().join("; ")
}

async fn of_admins(connection: &mut Connection, hosts: &[HostView]) -> Vec<Check> {
    let certificates = match connection.control.list_certificates(ListCertificatesRequest {}).await {
        Ok(list) => ending(&list.into_inner().certificates, hosts, now()),
        Err(status) => Check::skipped(ADMIN[0], status.message()),
    };
    let tokens = match connection.control.list_tokens(ListTokensRequest {}).await {
        Ok(list) => {
            let long = list.into_inner().tokens.into_iter().filter(|token| token.ttl_left_ms > LONG_LIVED);
            let long: Vec<_> = long.map(|token| format!("{} ({})", token.id, token.role)).collect();
            match long.is_empty() {
                true => Check::good(ADMIN[1], "none lives longer than a week"),
                false => {
                    Check::warning(ADMIN[1], format!("{} live longer than a week", long.join(", ")), "baton token revoke ID")
                }
            }
        }
        Err(status) => Check::skipped(ADMIN[1], status.message()),
    };
    let audit = match connection.control.verify_audit(VerifyAuditRequest {}).await {
        Ok(verdict) => {
            let verdict = verdict.into_inner();
            // `baton audit verify` says all of them.
            let more = verdict.faults.len().saturating_sub(FAULTS_SHOWN);
            let faults = verdict.faults.into_iter().take(FAULTS_SHOWN).map(|fault| fault.what);
            Check::unless(
                ADMIN[2],
                faults.chain((more > 0).then(|| format!("and {more} more"))),
                format!("{} entries, as they were written", verdict.entries),
                "baton audit verify",
            )
        }
        Err(status) => Check::skipped(ADMIN[2], status.message()),
    };
    let authority = match connection.control.authority_status(AuthorityStatusRequest {}).await {
        Ok(view) => rotating(&view.into_inner()),
        Err(status) => Check::skipped(ADMIN[3], status.message()),
    };
    vec![certificates, tokens, audit, authority]
}

/// An authority that ends soon; a rotation that nobody ended: an authority is believed that need not be, or somebody still needs it.
fn rotating(view: &AuthorityView) -> Check {
    let signer = view.authorities.iter().find(|authority| authority.signs);
    if let Some(left) = signer.map(|it| it.until_seconds - now()).filter(|left| *left < AUTHORITY_LASTS) {
        let days = counted(left.max(0).unsigned_abs() / DAY.unsigned_abs(), "day", "days");
        let what = format!("it ends in {days}, and every certificate with it");
        return Check::warning(ADMIN[3], what, "baton authority rotate --why \"it ends\"");
    }
    let left: Vec<_> = view.bearers.iter().filter(|it| !it.moved).map(|it| it.identity.as_str()).collect();
    match (view.authorities.len(), left.is_empty()) {
        (0 | 1, _) => Check::good(ADMIN[3], "it signs, and no other is believed"),
        (_, true) => Check::warning(ADMIN[3], "everybody has moved to the new one", "baton authority retire"),
        (_, false) => Check::warning(ADMIN[3], format!("to move: {}", left.join(", ")), "baton authority status"),
    }
}

/// Hosts whose newest certificate will end soon, or has ended: those that have are not listed.
fn ending(certificates: &[CertificateView], hosts: &[HostView], now: i64) -> Check {
    let mut newest = std::collections::BTreeMap::<String, _>::new();
    for it in certificates.iter().filter(|it| !it.revoked && it.identity.starts_with("host/")) {
        let late = LATE.min((it.expires_seconds - it.issued_seconds) / 6);
        let kept = newest.entry(it.identity.clone()).or_insert((it.expires_seconds, late));
        if it.expires_seconds > kept.0 {
            *kept = (it.expires_seconds, late);
        }
    }
    let ended = hosts.iter().map(|host| format!("host/{}", host.name)).filter(|identity| !newest.contains_key(identity));
    let ended: Vec<_> =
        ended.map(|identity| format!("{identity} has none that is good: it ended, or was revoked")).collect();
    let late: Vec<_> = newest
        .iter()
        .filter(|(_, (expires, late))| expires - now < *late)
        .map(|(identity, (expires, _))| format!("{identity} ends in {} days", (expires - now) / DAY))
        .collect();
    let fix = match (ended.is_empty(), late.is_empty()) {
        (true, _) => "start its agent: it renews by itself, where its clock and the coordinator's agree (date -u)",
        // All at once end by a clock, and not by neglect.
        (false, _) if newest.is_empty() && ended.len() > 1 => {
            "every host's has ended: compare `date -u` on the coordinator and on a host before anything else"
        }
        (false, true) => {
            "baton why HOST says which of the two; with a token for its name, there: baton-agent join … --replace"
        }
        (false, false) => {
            "baton why HOST says which of the two; with a token for its name, there: baton-agent join … --replace; those that end \
             soon renew by themselves once their agents run"
        }
    };
    Check::unless(ADMIN[0], ended.into_iter().chain(late), format!("{} hosts, none ends soon", newest.len()), fix)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::render::example;

    #[test]
    fn a_certificate_that_was_not_renewed_is_found_by_its_newest() {
        let of = |identity: &str, days: i64, revoked| CertificateView {
            serial: String::new(),
            identity: identity.into(),
            issued_seconds: 0,
            expires_seconds: days * DAY,
            revoked,
        };
        let found =
            ending(&[of("host/web1", 100, false), of("host/web2", 95, false), of("host/web2", 180, false)], &[], 90 * DAY);
        assert_eq!((found.state, found.seen.as_str()), (State::Bad, "host/web1 ends in 10 days"));
        assert_eq!(ending(&[of("host/web1", 100, true), of("viewer/v", 91, false)], &[], 90 * DAY).state, State::Good);
        let gone =
            ending(&[of("host/web1", 180, false)], &[example::host("web1", "1"), example::host("web2", "1")], 90 * DAY);
        assert_eq!((gone.state, gone.seen.starts_with("host/web2 has none")), (State::Bad, true), "{gone:?}");
    }

    #[test]
    fn what_brings_a_host_back_depends_on_why_it_is_away() {
        let away = |name: &str| HostView { connected: false, ..example::host(name, "1") };
        let problem = baton_proto::v1::Problem {
            code: 507,
            what: "the certificate of web2 was revoked".into(),
            help: "baton token create --name web2".into(),
            ..Default::default()
        };
        let revoked = HostView { problems: vec![problem], ..away("web2") };
        let waits = HostView { connected: true, waits_for_acceptance: true, ..example::host("web3", "1") };
        let fix = absent(&[away("web1"), revoked, waits, example::host("web4", "1")]);
        let fixes: Vec<_> = fix.split("; ").collect();
        assert!(fixes[0].starts_with("web1: is the machine up") && fixes[1].starts_with("journalctl"), "{fix}");
        assert_eq!(fixes[2..], ["web2: baton token create --name web2", "baton hosts accept web3"], "{fix}");
    }

    #[test]
    fn a_rotation_that_nobody_ended_is_found() {
        use baton_proto::v1::{AuthorityFacts, BearerView};
        let of = |authorities, moved| AuthorityView {
            authorities: vec![AuthorityFacts::default(); authorities],
            bearers: vec![BearerView { identity: "host/web1".into(), moved, ..BearerView::default() }],
        };
        assert_eq!(rotating(&of(1, true)).state, State::Good);
        for (days, state) in [(2, State::Warning), (89, State::Warning), (91, State::Good)] {
            let signs = AuthorityFacts { signs: true, until_seconds: now() + days * DAY + 60, ..Default::default() };
            let check = rotating(&AuthorityView { authorities: vec![signs], bearers: Vec::new() });
            assert_eq!(check.state, state, "{}", check.seen);
            assert!(days != 2 || check.seen.starts_with("it ends in 2 days"), "{}", check.seen);
        }
        for (moved, seen) in [(true, "everybody has moved to the new one"), (false, "to move: host/web1")] {
            let check = rotating(&of(2, moved));
            assert_eq!((check.state, check.seen.as_str()), (State::Warning, seen));
        }
    }

    #[test]
    fn a_member_that_is_as_wanted_and_cannot_be_changed_is_found_with_what_helps() {
        let mut balancer = example::balancer(&[("web1/0", 9, 0)], "77@1795935353");
        let found = |balancer: &HostView| {
            let view = FleetView { hosts: vec![balancer.clone()], ..FleetView::default() };
            of(&view).into_iter().find(|check| check.name == FLEET[7]).expect("the members")
        };
        assert_eq!(found(&balancer).state, State::Good);
        let problem = baton_proto::v1::Problem { code: 408, what: "it uses agent-check".into(), ..Default::default() };
        let problem = baton_proto::v1::Problem { help: "remove it".into(), ..problem };
        balancer.pools[0].members[0].problem = Some(problem);
        let check = found(&balancer);
        assert_eq!((check.state, check.fix.as_deref()), (State::Warning, Some("remove it")));
        assert_eq!(check.seen, "web1/0 in shop on lb1: B0408 it uses agent-check");
    }

    #[test]
    fn a_fleet_in_the_middle_of_something_is_looked_at_as_a_whole() {
        let checks = of(&example::fleet());
        assert_eq!(checks.len(), FLEET.len());
        assert!(checks.iter().all(|check| (check.state >= State::Warning) == check.fix.is_some()), "{checks:#?}");
    }
}
