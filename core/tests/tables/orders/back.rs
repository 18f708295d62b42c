//! Going back: where it goes when nobody says where to.

use super::{Obedient, REST, by, rollout};
use crate::text::{host, shop};
use baton_core::problem::{Code, Problem};
use baton_core::rollout::command::{Accepted, Command};
use baton_core::rollout::{Evidence, RolloutState};
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
