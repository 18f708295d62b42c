//! What operators ask, at rest and in the middle of things.

use super::text::{NOW, World, host, release, shop};
use baton_core::fleet::report::ReleaseState;
use baton_core::name::RolloutId;
use baton_core::rollout::command::{Accepted, Command, Deploy, apply, objections};
use baton_core::rollout::plan::plan;
use baton_core::rollout::{Consent, Direction, RolloutState, interlock};
use baton_core::strategy::Placement;
use std::sync::Arc;

const REST: &str = "in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1";
const ROLLING: &str = "in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n lb1";

fn id() -> RolloutId {
    RolloutId::new("r-9").expect("an id")
}

fn deploy(world: &World, version: &str) -> Deploy {
    let service = world.fleet.services[&shop()].clone();
    Deploy::new(id(), shop(), service, release(version), "ana".into())
}

#[track_caller]
fn refused(text: &str, change: impl Fn(&mut Deploy), code: u16) {
    let mut world = World::parse(text);
    let mut deploy = deploy(&world, "v3");
    change(&mut deploy);
    let before = world.fleet.clone();
    let problem = apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW).expect_err("it is refused");
    assert_eq!(problem.code.0, code, "{problem}");
    assert!(problem.help.is_some(), "{problem} says what helps");
    assert_eq!(world.fleet, before, "a refusal changes nothing");
}

#[test]
fn a_deploy_starts_a_rollout_with_hosts_that_are_down_first() {
    let mut world = World::parse("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:unready:in\n lb1");
    let deploy = deploy(&world, "v3");
    let accepted = apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW);
    assert_eq!(accepted, Ok(Accepted::Rollout(id())));
    let rollout = &world.fleet.rollouts[&id()];
    assert_eq!(rollout.hosts, [host("web2"), host("web1")]);
    assert_eq!(rollout.from, Some(release("v1").id()));
}

#[test]
fn deploying_what_is_live_does_nothing() {
    let mut world = World::parse(REST);
    let deploy = deploy(&world, "v1");
    assert_eq!(apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW), Ok(Accepted::AlreadyLive));
    assert!(world.fleet.rollouts.is_empty());
}

#[test]
fn deploying_the_same_release_twice_attaches_to_its_rollout() {
    let mut world = World::parse(ROLLING);
    let deploy = deploy(&world, "v2");
    let accepted = apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW);
    assert_eq!(accepted, Ok(Accepted::Rollout(RolloutId::new("r-1").expect("an id"))));
}

#[test]
fn the_same_release_on_other_hosts_is_another_rollout() {
    let mut world = World::parse(ROLLING);
    let mut deploy = deploy(&world, "v2");
    deploy.service.hosts.retain(|own| *own != host("web1"));
    let problem = apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW).expect_err("it is refused");
    let differs = problem.seen.iter().find(|(label, _)| label == "differs").map(|(_, seen)| seen.as_str());
    assert_eq!((problem.code.0, differs), (701, Some("web1 leaves")), "{problem}");
}

#[test]
fn a_deploy_is_refused_with_a_reason() {
    refused(ROLLING, |_| {}, 701);
    refused(REST, |deploy| deploy.service.hosts.clear(), 702);
    refused(REST, |deploy| deploy.service.hosts.push(host("web9")), 703);
    refused(REST, |deploy| deploy.service.ports = vec![9000], 705);
    refused(
        REST,
        |deploy| {
            deploy.name = baton_core::name::ServiceName::new("cart").expect("a name");
            deploy.service.ports = vec![9000];
        },
        710,
    );
    refused(REST, |deploy| deploy.name = baton_core::name::ServiceName::new("cart").expect("a name"), 704);
}

#[test]
fn a_release_that_does_not_fit_beside_what_a_host_keeps_is_refused_before_anything_is_touched() {
    // Of releases of 100 bytes, with what each host has room for.
    for (rooms, short) in [
        ([None, None], ""),
        ([Some(200), Some(1 << 40)], ""),
        ([Some(199), Some(1 << 40)], "web1"),
        ([Some(0), Some(7)], "web1, web2"),
    ] {
        let mut world = World::parse(REST);
        for (name, room) in ["web1", "web2"].into_iter().zip(rooms) {
            let known = world.fleet.hosts.get_mut(&host(name)).expect("a host");
            known.issued.releases = [(release("v1").id(), release("v1").into())].into_iter().collect();
            let report = &mut known.heard.as_mut().expect("heard").report;
            report.releases = [(release("v1").id(), ReleaseState::Held)].into_iter().collect();
            report.room = room;
        }
        let found = objections(&world.fleet, &deploy(&world, "v3"), NOW);
        let found: Vec<String> = found.iter().map(|problem| format!("{} {}", problem.code, problem.what)).collect();
        let expect = (!short.is_empty()).then(|| format!("B0738 shop v3 does not fit on {short}"));
        assert_eq!(found, Vec::from_iter(expect), "{rooms:?}");
        assert!(objections(&world.fleet, &deploy(&world, "v1"), NOW).is_empty(), "what is there needs no room");
        // What the host no longer has to keep goes by itself.
        for name in ["web1", "web2"] {
            let heard = world.fleet.hosts.get_mut(&host(name)).and_then(|it| it.heard.as_mut()).expect("heard");
            heard.report.releases.insert(release("v0").id(), ReleaseState::Held);
        }
        assert!(objections(&world.fleet, &deploy(&world, "v3"), NOW).is_empty());
    }
}

#[test]
fn a_host_that_nobody_accepted_is_told_nothing_though_a_service_names_it() {
    let mut world = World::parse("in-place max=1\n web1 a=v1:ready:in\n web2\n lb1");
    let step = |world: &World| world.tell(&plan(&world.fleet, NOW)).join(", ");
    assert!(step(&world).contains("web2"), "one that is accepted is brought to what is live: {}", step(&world));
    world.fleet.hosts.get_mut(&host("web2")).expect("a host").accepted = false;
    let next = plan(&world.fleet, NOW);
    assert!(next.specs.is_empty(), "{:?}", world.tell(&next));
    let mut bold = next;
    let mut spec = world.fleet.hosts[&host("web1")].issued.clone();
    spec.generation = spec.generation.next();
    bold.specs.insert(host("web2"), spec);
    let violations = interlock::check(&world.fleet, &bold).expect_err("it is refused");
    assert!(violations.iter().any(|it| it.invariant == 20), "{violations:?}");
    let accept = Command::Accept { host: host("web2"), by: "ana".into() };
    assert_eq!(apply(&mut world.fleet, accept.clone(), NOW), Ok(Accepted::Noted));
    assert_eq!(apply(&mut world.fleet, accept, NOW), Ok(Accepted::Unchanged));
}

#[test]
fn a_service_may_get_a_port_behind_those_it_has_and_no_other() {
    refused(REST, |deploy| deploy.service.ports = vec![9000, 8101], 705);
    let mut world = World::parse("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1");
    let mut more = deploy(&world, "v2");
    more.service.ports.push(8102);
    more.service.strategy.placement = Placement::SideBySide;
    apply(&mut world.fleet, Command::Deploy(Box::new(more)), NOW).expect("it is taken");
    let next = plan(&world.fleet, NOW);
    let told = world.tell(&next);
    assert!(told.contains(&"lb1 takes web1/b out".to_owned()), "the new place is known before it is used: {told:?}");
    assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
}

#[test]
fn what_cannot_change_under_a_live_service_is_told_with_the_way_there() {
    let mut world = World::parse(REST);
    world.fleet.services.get_mut(&shop()).expect("a service").ports.push(8102);
    let world = world;
    let said = |ports: &[u16], pool: Option<&str>| -> Vec<String> {
        let mut deploy = deploy(&world, "v2");
        deploy.service.ports = ports.to_vec();
        if let (Some(pool), Some(balancer)) = (pool, deploy.service.balancer.as_mut()) {
            balancer.pool = pool.parse().expect("a name");
        }
        let found = objections(&world.fleet, &deploy, NOW).into_iter().filter(|problem| problem.code.0 == 705);
        found.map(|problem| problem.help.clone().expect("a way")).collect()
    };
    let live = world.fleet.services[&shop()].ports.clone();
    let [first, second] = live[..] else { panic!("{live:?}") };
    let begins = |ports: &[u16], expect: String| {
        let said = said(ports, None);
        assert!(said.len() == 1 && said[0].starts_with(&expect), "{said:?}");
        assert!(said[0].contains("baton services remove shop"), "{said:?}");
    };
    begins(&[second, first], format!("keep them in this order: ports = [{first}, {second}]"));
    begins(&[first], format!("keep ports = [{first}, {second}], and for one instance at a time say placement"));
    begins(&[9000], format!("ports = [{first}, {second}, 9000] is taken"));
    assert_eq!(said(&[first, second, 9000], None), [""; 0]);
    assert_eq!(said(&[9000], Some("other")).len(), 2, "both at once");
}

#[test]
fn a_port_that_another_service_listens_on_is_refused_and_so_is_listening_on_its_ports() {
    let cart = || baton_core::name::ServiceName::new("cart").expect("a name");
    let alone = |deploy: &mut Deploy, ports: &[u16], listen: &[&str]| {
        deploy.name = cart();
        deploy.service.balancer = None;
        deploy.service.ports = ports.to_vec();
        Arc::make_mut(&mut deploy.release).run.listen =
            listen.iter().map(|address| address.parse().expect("an address")).collect();
    };
    refused(REST, |deploy| alone(deploy, &[9000], &["0.0.0.0:8101"]), 704);
    let mut world = World::parse(REST);
    let mut first = deploy(&world, "v3");
    alone(&mut first, &[9000], &["0.0.0.0:80"]);
    assert!(apply(&mut world.fleet, Command::Deploy(Box::new(first)), NOW).is_ok());
    for (ports, listen) in [(vec![80], vec![]), (vec![9001], vec!["127.0.0.1:80"])] {
        let mut second = deploy(&world, "v3");
        alone(&mut second, &ports, &listen);
        second.name = baton_core::name::ServiceName::new("mail").expect("a name");
        let problem = apply(&mut world.fleet, Command::Deploy(Box::new(second)), NOW).expect_err("cart has it");
        assert_eq!((problem.code.0, problem.what.as_str()), (704, "port 80 on web1, web2 belongs to cart"));
    }
}

#[test]
fn everything_that_speaks_against_a_deploy_is_told_at_once() {
    let mut world = World::parse(REST);
    let mut deploy = deploy(&world, "v3");
    deploy.name = baton_core::name::ServiceName::new("cart").expect("a name");
    let problem = apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW).expect_err("shop has all of it");
    let also: Vec<&str> = problem.seen.iter().map(|(_, also)| also.lines().next().unwrap_or_default()).collect();
    assert_eq!(problem.what, "port 8101 on web1, web2 belongs to shop");
    assert_eq!(also.last(), Some(&"[B0710] the pool shop belongs to shop"), "{problem:?}");
}

#[test]
fn a_deploy_that_finds_another_rollout_under_way_says_what_it_can_do_about_it() {
    let mut world = World::parse(ROLLING);
    let help = |world: &mut World| {
        let deploy = deploy(world, "v3");
        let problem = apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW).expect_err("v2 is under way");
        (problem.code.0, problem.help.clone().unwrap_or_default())
    };
    let instead = "baton deploy --queue waits for its end, --supersede takes its place";
    assert_eq!(help(&mut world), (701, format!("baton watch shop follows it; {instead}")));
    let pause = Command::Pause { service: shop(), by: "ana".into(), why: String::new() };
    apply(&mut world.fleet, pause, NOW).expect("it is paused");
    let paused = "it is paused: baton resume shop lets it go on, baton rollback shop takes it back";
    assert_eq!(help(&mut world), (701, format!("{paused}; {instead}")));
}

#[test]
fn a_live_services_balancer_that_changed_is_shown_as_it_was_and_as_it_would_be() {
    let mut world = World::parse(REST);
    let mut deploy = deploy(&world, "v3");
    deploy.service.balancer = None;
    let problem = apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW).expect_err("it is refused");
    let seen = |label: &str, text: &str| (label.to_owned(), text.to_owned());
    assert_eq!(problem.seen, [seen("live", "pool shop on lb1"), seen("manifest", "no balancer")]);
}

#[test]
fn during_a_rollout_the_release_before_is_not_already_live() {
    let mut world = World::parse(ROLLING);
    let deploy = deploy(&world, "v1");
    let problem = apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW).expect_err("web1 may have v2");
    assert_eq!((problem.code.0, problem.help.as_deref()), (701, Some("baton rollback shop goes back to it")));
}

#[test]
fn rollback_of_a_running_rollout_turns_the_arrow_round() {
    let mut world = World::parse(ROLLING);
    let accepted =
        apply(&mut world.fleet, Command::Rollback { id: id(), service: shop(), by: "ana".into(), force: false }, NOW);
    assert!(accepted.is_ok());
    let rollout = world.fleet.active_rollout(&shop()).expect("a rollout");
    assert_eq!((rollout.state, rollout.direction), (RolloutState::Reverting, Direction::Back));
}

#[test]
fn rollback_at_rest_needs_a_release_to_go_back_to() {
    let mut world = World::parse(REST);
    let rollback = || Command::Rollback { id: id(), service: shop(), by: "ana".into(), force: false };
    assert_eq!(apply(&mut world.fleet, rollback(), NOW).map_err(|problem| problem.code.0), Err(706));
    let v2 = release("v2");
    world.fleet.services.get_mut(&shop()).expect("a service").previous = Some(v2.id());
    assert_eq!(apply(&mut world.fleet, rollback(), NOW), Ok(Accepted::Rollout(id())));
    assert_eq!(world.fleet.rollouts[&id()].to, v2.id());
}

#[test]
fn pause_and_resume_come_back_to_where_it_was() {
    let mut world = World::parse(ROLLING);
    let pause = Command::Pause { service: shop(), by: "ana".into(), why: "lunch".into() };
    assert!(apply(&mut world.fleet, pause, NOW).is_ok());
    assert_eq!(world.fleet.active_rollout(&shop()).map(|it| it.state), Some(RolloutState::Paused));
    assert!(apply(&mut world.fleet, Command::Resume { service: shop(), by: "ana".into() }, NOW).is_ok());
    assert_eq!(world.fleet.active_rollout(&shop()).map(|it| it.state), Some(RolloutState::Running));
}

#[test]
fn what_failed_is_not_resumed() {
    let mut world =
        World::parse("in-place on-failure-pause evidence paused v1->v2\n web1 a=v2:failed:out\n web2 a=v1:ready:in\n lb1");
    let resume = Command::Resume { service: shop(), by: "ana".into() };
    assert_eq!(apply(&mut world.fleet, resume, NOW).map_err(|problem| problem.code.0), Err(707));
}

#[test]
fn commands_without_a_rollout_or_a_service_say_so() {
    let mut world = World::parse(REST);
    let abort = Command::Abort { service: shop(), by: "ana".into() };
    assert_eq!(apply(&mut world.fleet, abort, NOW).map_err(|problem| problem.code.0), Err(708));
    let cart = baton_core::name::ServiceName::new("cart").expect("a name");
    let abort = Command::Abort { service: cart, by: "ana".into() };
    assert_eq!(apply(&mut world.fleet, abort, NOW).map_err(|problem| problem.code.0), Err(709));
}

/// A service of which nothing begins without a second person.
fn asks_for_two(text: &str) -> World {
    let mut world = World::parse(text);
    world.fleet.services.get_mut(&shop()).expect("the service").strategy.second_person = true;
    world
}

#[test]
fn where_two_people_are_asked_a_deploy_waits_for_the_other_one() {
    let mut world = asks_for_two(REST);
    let deploy = deploy(&world, "v3");
    apply(&mut world.fleet, Command::Deploy(Box::new(deploy)), NOW).expect("it is accepted");
    assert_eq!(world.fleet.rollouts[&id()].state, RolloutState::Paused);
    let asked = |by: &str| {
        let by = || by.to_owned();
        let retry = Command::Retry { id: RolloutId::new("r-10").expect("an id"), service: shop(), host: None, by: by() };
        [Command::Resume { service: shop(), by: by() }, Command::Promote { service: shop(), by: by() }, retry]
    };
    for command in asked("ana") {
        let before = world.fleet.clone();
        let problem = apply(&mut world.fleet, command, NOW).expect_err("she asked for it herself");
        assert_eq!(problem.code.0, 736, "{problem}");
        assert_eq!(world.fleet, before);
    }
    for command in asked("ben") {
        let mut world = World { fleet: world.fleet.clone() };
        apply(&mut world.fleet, command, NOW).expect("he is another");
        let rollout = &world.fleet.rollouts[&id()];
        assert_eq!(rollout.state, RolloutState::Running);
        assert_eq!(rollout.consent, Consent::Given { by: "ben".into() });
        // Once it was let, holding and going on is nobody's special right.
        let (service, by, why) = (shop(), "ana".to_owned(), "lunch".to_owned());
        apply(&mut world.fleet, Command::Pause { service, by, why }, NOW).expect("paused");
        apply(&mut world.fleet, Command::Resume { service: shop(), by: "ana".into() }, NOW).expect("resumed");
    }
}

#[test]
fn the_way_back_and_a_restart_wait_for_nobody_else() {
    let restart = Command::Restart { id: id(), service: shop(), by: "ana".into() };
    let back =
        Command::RollbackTo { id: id(), service: shop(), version: release("v0").version, by: "ana".into(), force: false };
    for command in [restart, back.clone()] {
        let mut world = asks_for_two(REST);
        world.fleet.releases.insert(release("v0").id(), release("v0").into());
        world.fleet.services.get_mut(&shop()).expect("the service").previous = Some(release("v0").id());
        apply(&mut world.fleet, command, NOW).expect("it is accepted");
        assert_eq!(world.fleet.rollouts[&id()].state, RolloutState::Pending);
    }
    // A release that was given up while it waited is known, too: to go to it by name is no way round.
    let mut world = asks_for_two(REST);
    world.fleet.releases.insert(release("v0").id(), release("v0").into());
    apply(&mut world.fleet, back, NOW).expect("it is accepted");
    assert_eq!(world.fleet.rollouts[&id()].consent, Consent::Awaited);
}
