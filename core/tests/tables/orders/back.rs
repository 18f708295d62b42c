//! Going back: where it goes when nobody says where to.

use super::{Obedient, REST, by, rollout};
use crate::text::{host, shop};
use baton_core::problem::{Code, Problem};
use baton_core::rollout::command::{Accepted, Command};
use baton_core::rollout::interlock;
use baton_core::rollout::plan::plan;
use baton_core::rollout::{Direction, Evidence, RolloutState};
use baton_core::strategy::{Amount, Wave};
use std::time::Duration;

#[test]
fn a_rollback_goes_to_a_release_by_its_name_and_back_again() {
    let mut world = Obedient::at(REST);
    let to = |id: &str, version: &str| Command::RollbackTo {
        id: rollout(id),
        service: shop(),
        version: baton_core::name::Version::new(version).expect("a version"),
        by: by(),
        force: false,
    };
    assert_eq!(world.refused(to("r-4", "v9")), 721);
    assert_eq!(world.ask(to("r-4", "v1")), Accepted::AlreadyLive);
    let deploy = world.deploy("r-5", "v2");
    world.ask(Command::Deploy(Box::new(deploy)));
    assert_eq!(world.ask(to("r-6", "v1")), Accepted::Rollout(rollout("r-5")), "the arrow turned round");
    world.settle();
    assert_eq!(world.ask(to("r-6", "v2")), Accepted::Rollout(rollout("r-6")));
    world.settle();
    for (id, ends) in [("r-7", "v1:in"), ("r-8", "v2:in")] {
        world.ask(Command::Rollback { id: rollout(id), service: shop(), by: by(), force: false });
        world.settle();
        world.stand(&[("web1", ends), ("web2", ends), ("web3", ends)]);
    }
}

#[test]
fn a_rollback_after_the_release_was_taken_back_goes_no_further() {
    let mut world = Obedient::at(REST);
    let deploy = world.deploy("r-4", "v2");
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    let deploy = world.deploy("r-5", "v3");
    world.ask(Command::Deploy(Box::new(deploy)));
    let rollback = |id: &str| Command::Rollback { id: rollout(id), service: shop(), by: by(), force: false };
    assert_eq!(world.ask(rollback("r-6")), Accepted::Rollout(rollout("r-5")), "the arrow turned round");
    world.settle();
    assert_eq!(world.ask(rollback("r-6")), Accepted::AlreadyLive, "asked a moment too late, not for v1");
    world.stand(&[("web1", "v2:in"), ("web2", "v2:in"), ("web3", "v2:in")]);
}

#[test]
fn a_release_that_its_traffic_speaks_against_while_it_is_watched_is_not_back_before_it_is() {
    let mut world = Obedient::at(REST);
    let mut deploy = world.deploy("r-4", "v2");
    deploy.service.strategy.waves = vec![Wave::of(Amount::Hosts(1)), Wave::of(Amount::Percent(100))];
    deploy.service.strategy.bake = Duration::from_secs(3600);
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    world.stand(&[("web1", "v2:in"), ("web2", "v1:in"), ("web3", "v1:in")]);
    let watched = world.fleet.rollouts.get_mut(&rollout("r-4")).expect("a rollout");
    assert!(watched.wave_done.is_some());
    watched.evidence.push(Evidence { host: host("web1"), problem: Problem::new(Code(901), "v2 fails more often than v1") });
    let mut passes = 0;
    while world.pass() {
        passes += 1;
        if world.state("r-4") == Some(RolloutState::Reverted) {
            world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")]);
        }
    }
    assert!(passes > 1);
    assert_eq!(world.state("r-4"), Some(RolloutState::Reverted));
}

#[test]
fn a_host_that_is_tried_again_beside_what_is_kept_waits_for_the_one_that_is_under_way() {
    let mut world =
        Obedient::at("side-by-side max=1\n web1 a=v1:ready:in b=v1:none:out\n web2 a=v1:ready:in b=v1:none:out\n lb1");
    let mut deploy = world.deploy("r-5", "v2");
    deploy.service.strategy.keep_old = Duration::from_secs(600);
    deploy.service.strategy.on_failure = baton_core::strategy::OnFailure::Pause;
    world.ask(Command::Deploy(Box::new(deploy)));
    let begun = |world: &Obedient| world.stands().values().filter(|what| what.contains("v2")).count();
    for _ in 0..50 {
        if begun(&world) == 2 {
            break;
        }
        world.pass();
    }
    assert_eq!(begun(&world), 2, "web1 has v2 beside v1, and web2 has just been told to start it");
    // web1's crashes, and nothing is heard of web2.
    let heard = |world: &mut Obedient, name: &str, change: &dyn Fn(&mut baton_core::fleet::report::HostReport)| {
        let host = world.fleet.hosts.get_mut(&host(name)).expect("a host");
        change(&mut host.heard.as_mut().expect("a report").report);
    };
    heard(&mut world, "web2", &|report| report.observed = Default::default());
    heard(&mut world, "web1", &|report| {
        let v2 = report.instances.iter_mut().map(|(_, it)| it).find(|it| it.release == crate::text::release("v2").id());
        let problem = Problem::new(Code(210), "it ended");
        v2.expect("v2").state = baton_core::fleet::report::InstanceState::Failed { problem };
    });
    plan(&world.fleet, world.now).take(&mut world.fleet);
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
    let stamp = world.fleet.hosts[&host("web1")].issued.stamp();
    heard(&mut world, "web1", &|report| report.observed = stamp);
    world.ask(Command::Retry { id: rollout("r-6"), service: shop(), host: None, by: by() });
    let next = plan(&world.fleet, world.now);
    interlock::check(&world.fleet, &next).expect("the interlock agrees with the planner");
    next.take(&mut world.fleet);
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
}

#[test]
fn whoever_still_finishes_the_other_release_waits_while_another_host_goes_back_to_the_live_one() {
    for keep_old in [Duration::ZERO, Duration::from_secs(600)] {
        let mut world =
            Obedient::at("side-by-side max=1\n web1 a=v1:ready:in b=v1:none:out\n web2 a=v1:ready:in b=v1:none:out\n lb1");
        let mut deploy = world.deploy("r-5", "v2");
        deploy.service.strategy.waves = [Amount::Hosts(1), Amount::Percent(100)].map(Wave::of).to_vec();
        deploy.service.strategy.keep_old = keep_old;
        world.ask(Command::Deploy(Box::new(deploy)));
        for _ in 0..50 {
            if world.stands().values().filter(|what| what.contains("v2")).count() == 2 {
                break;
            }
            world.pass();
        }
        // Every pass from here on is looked at by the interlock.
        let mut again = world.deploy("r-6", "v1");
        again.busy = baton_core::rollout::command::Busy::Supersede;
        world.ask(Command::Deploy(Box::new(again)));
        world.settle();
        world.stand(&[("web1", "v1:in"), ("web2", "v1:in")]);
    }
}

#[test]
fn a_rollback_while_one_goes_back_already_changes_nothing() {
    let mut world = Obedient::at(REST);
    let deploy = world.deploy("r-5", "v2");
    world.ask(Command::Deploy(Box::new(deploy)));
    world.pass();
    for _ in 0..2 {
        world.ask(Command::Rollback { id: rollout("r-6"), service: shop(), by: by(), force: false });
        assert_eq!(world.fleet.active_rollout(&shop()).map(|it| it.direction), Some(Direction::Back));
    }
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")]);
}

#[test]
fn a_release_that_fails_after_a_first_one_that_never_got_everywhere_takes_nothing_away() {
    let mut world = Obedient::at("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3\n lb1");
    let service = world.fleet.services.get_mut(&shop()).expect("it is there");
    (service.committed, service.previous) = (None, None);
    // The first release came to two of three hosts, and was ended where it stood.
    let first = world.deploy("r-4", "v1");
    world.broken = vec![("web3", "v1"), ("web3", "v2")];
    world.ask(Command::Deploy(Box::new(first)));
    while world.state("r-4") == Some(RolloutState::Running) && world.pass() {}
    world.ask(Command::Keep { service: shop(), by: by() });
    world.settle();
    let serve = [("web1", "v1:in"), ("web2", "v1:in")];
    let are_in = |world: &Obedient| serve.iter().all(|(host, what)| world.stands()[host] == *what);
    assert!(are_in(&world), "{:?}", world.stands());
    let second = world.deploy("r-5", "v2");
    world.ask(Command::Deploy(Box::new(second)));
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
    assert!(are_in(&world), "{:?}", world.stands());
    let why = world.fleet.rollouts[&rollout("r-5")].pause.clone().expect("it says why").why;
    assert!(why.contains("no release was live before"), "{why}");
    // A person may say so, and a release that works goes on from there.
    world.broken.clear();
    let third = baton_core::rollout::command::Deploy { busy: super::Busy::Supersede, ..world.deploy("r-6", "v3") };
    world.ask(Command::Deploy(Box::new(third)));
    world.settle();
    world.stand(&[("web1", "v3:in"), ("web2", "v3:in"), ("web3", "v3:in")]);
}
