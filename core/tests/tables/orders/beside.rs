//! What other services on the same hosts change meanwhile, and hosts that people take away.

use super::{Obedient, by, drain, rollout};
use crate::check;
use crate::text::{NOW, World, host, pool, shop};
use baton_core::fleet::spec::MemberState;
use baton_core::fleet::split::Share;
use baton_core::rollout::command::{Command, apply};
use baton_core::rollout::plan::plan;
use baton_core::rollout::{Direction, RolloutState, Turned, interlock};
use baton_core::strategy::{Amount, Wave};
use baton_core::time::Moment;
use std::time::Duration;

fn remove(name: &str) -> Command {
    Command::RemoveHost { host: host(name), force: true, by: by() }
}

#[test]
fn nobody_overtakes_a_host_that_was_told_something_of_another_service() {
    let rest = "web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1";
    let fleet = |first: &str| format!("in-place max=2 v1->v2\n web1 a=v1:ready:in {first}\n {rest}");
    check(&fleet("fetching=v2"), "web1 waits: artifact\n web2 waits: waiting\n web3 waits: waiting");
    check(&fleet("behind"), "web1 waits: agent\n web2 waits: waiting\n web3 waits: waiting");
}

#[test]
fn who_waits_for_an_approval_is_not_stuck_because_another_service_was_deployed() {
    let state_with = |second: &str| {
        let text = "side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:ready:out\n web2 a=v1:ready:in b=v2:";
        let mut world = World::parse(&format!("{text}{second}\n lb1"));
        for rollout in world.fleet.rollouts.values_mut() {
            rollout.strategy.lockstep = true;
            rollout.strategy.parallel = Some(Amount::Percent(100));
            rollout.strategy.waves = vec![Wave { approve: true, ..Wave::of(Amount::Percent(100)) }];
            rollout.strategy.progress_deadline = Duration::from_secs(200);
            rollout.progressed = Moment(0);
        }
        plan(&world.fleet, NOW).rollouts.into_values().map(|rollout| rollout.state).next()
    };
    assert_eq!(state_with("ready:out"), None);
    assert_eq!(state_with("ready:out behind"), None, "it was ready when it was last heard");
    assert_eq!(state_with("starting:out behind"), Some(RolloutState::Paused), "it was not");
}

#[test]
fn the_last_member_that_is_in_stays_until_another_is_though_its_host_was_taken_away() {
    let mut world = Obedient::at("in-place max=1\n web1 a=v1:ready:in silent\n web2 a=v1:starting:out\n lb1");
    world.ask(remove("web1"));
    let members = |world: &Obedient| {
        let told = &world.fleet.hosts[&host("lb1")].issued.pools[&pool()].members;
        told.iter().map(|(member, told)| (member.host.to_string(), told.state)).collect::<Vec<_>>()
    };
    let next = plan(&world.fleet, world.now);
    assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
    next.take(&mut world.fleet);
    let both = [("web1".to_owned(), MemberState::Ready), ("web2".to_owned(), MemberState::Out)];
    assert_eq!(members(&world), both, "if it serves all the same, nobody is cut off");
    world.settle();
    assert_eq!(members(&world), [("web2".to_owned(), MemberState::Ready)]);
}

#[test]
fn a_drained_host_that_a_new_coordinator_never_heard_may_serve_and_goes_out_only_where_it_may() {
    let drained = |second: &str| {
        let text = "in-place max=1\n web1 a=v1:ready:in silent\n web2 a=v1:";
        let mut world = Obedient::at(&format!("{text}{second}\n web3 a=v1:ready:in\n lb1"));
        world.ask(drain("web1", false));
        world.fleet.hosts.get_mut(&host("web1")).expect("a host").heard = None;
        let next = plan(&world.fleet, world.now);
        assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
        next.specs.keys().any(|name| *name == host("lb1"))
    };
    assert!(!drained("starting:in"), "two of three would be without");
    assert!(drained("ready:in"));
}

#[test]
fn a_host_that_was_taken_away_has_no_share_of_the_traffic() {
    let text = "in-place max=1 v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in silent\n lb1";
    let mut fleet = World::parse(text).fleet;
    let share = Wave { share: Some(Share::try_from(500).expect("a share")), ..Wave::of(Amount::Hosts(1)) };
    let active = fleet.rollouts.get_mut(&rollout("r-1")).expect("a rollout");
    active.strategy.waves = vec![share, Wave::of(Amount::Percent(100))];
    apply(&mut fleet, remove("web3"), NOW).expect("it is silent");
    let next = plan(&fleet, NOW);
    next.take(&mut fleet);
    assert!(!plan(&fleet, NOW).changes_anything(), "planning twice changed something");
    assert_eq!(fleet.services[&shop()].hosts.len(), 2);
}

#[test]
fn a_host_that_has_crashed_goes_out_though_no_other_of_its_rack_serves() {
    for (first, goes) in [("failed", true), ("starting", false)] {
        let text =
            format!("in-place max=2 v1->v2\n web1 a=v1:{first}:in rack=a\n web2 a=v1:ready:out rack=a\n web3 rack=b\n lb1");
        let mut fleet = World::parse(&text).fleet;
        let label = fleet.hosts[&host("web1")].labels.keys().next().cloned();
        fleet.rollouts.values_mut().for_each(|rollout| rollout.strategy.spread_by = label.clone());
        let next = plan(&fleet, NOW);
        assert_eq!(interlock::check(&fleet, &next), Ok(()), "{first}");
        let told = next
            .specs
            .get(&host("lb1"))
            .map(|spec| spec.pools[&pool()].members.values().any(|it| it.state == MemberState::Ready));
        assert_eq!(told == Some(false), goes, "{first}");
    }
}

#[test]
fn where_releases_cannot_coexist_a_host_that_left_and_was_not_heard_since_is_waited_for() {
    let mut world = Obedient::at("in-place max=100%\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1");
    world.fleet.services.values_mut().for_each(|service| service.strategy.exclusive = true);
    let mut deploy = world.deploy("r-4", "v1");
    deploy.service.hosts = vec![host("web1")];
    world.ask(Command::Deploy(Box::new(deploy)));
    let is_told = |world: &Obedient| !world.fleet.hosts[&host("web2")].issued.instances.is_empty();
    for _ in 0..20 {
        if is_told(&world) {
            world.pass();
        }
    }
    assert!(!is_told(&world), "it is told to run nothing");
    // It never hears that, and the coordinator begins anew.
    let is_cut_off = |world: &mut Obedient| {
        let web2 = world.fleet.hosts.get_mut(&host("web2")).expect("a host");
        (web2.connected, web2.heard) = (false, None);
    };
    is_cut_off(&mut world);
    world.fleet.take_over();
    while !world.fleet.rollouts.values().all(|rollout| rollout.state == RolloutState::Succeeded) {
        world.pass();
        is_cut_off(&mut world);
    }
    let mut deploy = world.deploy("r-5", "v2");
    deploy.service.hosts = vec![host("web1")];
    world.ask(Command::Deploy(Box::new(deploy)));
    for _ in 0..20 {
        world.pass();
        is_cut_off(&mut world);
    }
    world.stand(&[("web1", ""), ("web2", "")]);
    assert_eq!(world.words(), ["web1 exclusive"]);
    world.fleet.hosts.get_mut(&host("web2")).expect("a host").connected = true;
    world.settle();
    world.stand(&[("web1", "v2:in"), ("web2", "")]);
    assert!(world.fleet.hosts[&host("web2")].issued.releases.is_empty(), "nothing is kept of what it left");
}

#[test]
fn hosts_that_leave_together_wait_for_one_that_was_told_something_else_meanwhile() {
    let leave = |second: &str| {
        let text = "side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:ready:in\n web2 a=v1:ready:in b=v2:ready:in";
        let mut world = World::parse(&format!("{text}{second}\n lb1"));
        for rollout in world.fleet.rollouts.values_mut() {
            rollout.strategy.lockstep = true;
            rollout.strategy.parallel = Some(Amount::Percent(100));
        }
        let next = plan(&world.fleet, NOW);
        let told = next.specs.get(&host("lb1")).map(|spec| spec.pools[&pool()].members.values());
        told.map_or(0, |members| members.filter(|member| member.state == MemberState::Out).count())
    };
    assert_eq!(leave(""), 2);
    assert_eq!(leave(" behind"), 0);
}

#[test]
fn wherever_two_hosts_stand_the_planner_asks_for_nothing_that_the_interlock_refuses() {
    const SLOT: [&str; 7] =
        ["v1:none:out", "v1:ready:in", "v1:ready:out", "v2:ready:in", "v2:ready:out", "v2:failed:in", "v2:starting:out"];
    let hosts: Vec<String> = SLOT.iter().flat_map(|a| SLOT.iter().map(move |b| format!("a={a} b={b}"))).collect();
    for (one, two) in hosts.iter().flat_map(|one| hosts.iter().map(move |two| (one, two))) {
        for (goes_back, lockstep) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut world = World::parse(&format!("side-by-side max=1 v1->v2\n web1 {one}\n web2 {two}\n lb1"));
            for rollout in world.fleet.rollouts.values_mut() {
                rollout.strategy.lockstep = lockstep;
                rollout.strategy.parallel = Some(Amount::Percent(100));
                if goes_back {
                    (rollout.direction, rollout.state) = (Direction::Back, RolloutState::Reverting);
                    rollout.turned = Some(Turned::Operator { by: "ana".into() });
                }
            }
            let next = plan(&world.fleet, NOW);
            let checked = interlock::check(&world.fleet, &next);
            assert_eq!(checked, Ok(()), "web1 {one}\nweb2 {two}\nback: {goes_back}, together: {lockstep}");
        }
    }
}
