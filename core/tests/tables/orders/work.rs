//! Work on hosts where releases may take none of them.

use super::super::text::{NOW, World, host, release, shop};
use super::{Obedient, by, drain, rollout};
use baton_core::rollout::RolloutState;
use baton_core::rollout::command::{Accepted, Command, apply};
use baton_core::rollout::plan::plan;

#[test]
fn work_may_take_one_host_also_where_releases_may_take_none() {
    const NONE: &str = "side-by-side max=0\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1";
    let mut world = Obedient::at(NONE);
    assert_eq!(world.ask(drain("web3", false)), Accepted::Noted);
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:out")]);
    assert_eq!(world.refused(drain("web2", false)), 713);
    // Releases go on among the others, and take none of them meanwhile: the interlock sees to that in every pass.
    let deploy = world.deploy("r-5", "v2");
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Partial));
    world.ask(Command::Undrain { host: host("web3"), by: by() });
    world.settle();
    world.ask(drain("web2", true));
    world.settle();
    assert_eq!(world.words(), ["web2 drained"]);

    // The others are not enough where one of them does not serve.
    let mut ill = World::parse(&NONE.replace("web2 a=v1:ready", "web2 a=v1:unready"));
    apply(&mut ill.fleet, drain("web3", false), NOW).expect("it is noted, and waits");
    assert_eq!(
        ill.tell(&plan(&ill.fleet, NOW)).iter().filter(|line| line.contains("web3")).collect::<Vec<_>>(),
        ["web3 waits: floor"]
    );
    assert_eq!(Obedient::at("side-by-side max=0\n web1 a=v1:ready:in\n lb1").refused(drain("web1", false)), 713);
}

#[test]
fn a_host_whose_share_still_grows_is_not_counted_on_whatever_else_it_is_waited_for() {
    let tell = |web1: &str| {
        let mut world = World::parse(&format!("in-place max=1\n web1 a=v1:ready:in{web1}\n web2 a=v1:ready:in\n lb1"));
        apply(&mut world.fleet, drain("web2", false), NOW).expect("it is noted");
        world.tell(&plan(&world.fleet, NOW)).into_iter().filter(|line| line.contains("web2")).collect::<Vec<_>>()
    };
    assert_eq!(tell(""), ["lb1 takes web2/a out"]);
    assert_eq!(tell(":growing"), ["web2 waits: floor"]);
    assert_eq!(tell(":growing behind"), ["web2 waits: floor"]);
}

#[test]
fn a_release_that_nobody_has_any_more_does_not_become_what_is_live() {
    let mut world = Obedient::at("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1");
    world.ask(drain("web1", true));
    world.settle();
    world.broken = vec![("web2", "v2")];
    let mut deploy = world.deploy("r-5", "v2");
    deploy.service.strategy.on_failure = baton_core::strategy::OnFailure::Pause;
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
    // The only one that took part is gone for good.
    world.fleet.hosts.get_mut(&host("web2")).expect("it is there").connected = false;
    world.ask(Command::RemoveHost { host: host("web2"), force: true, by: by() });
    world.ask(Command::Resume { service: shop(), by: by() });
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
    let why = world.fleet.rollouts[&rollout("r-5")].pause.clone().expect("it says why").why;
    assert!(why.starts_with("every host is drained or skipped"), "{why}");
    assert_eq!(world.fleet.services[&shop()].committed, Some(release("v1").id()));
    world.ask(Command::Undrain { host: host("web1"), by: by() });
    world.ask(Command::Resume { service: shop(), by: by() });
    world.settle();
    world.stand(&[("web1", "v2:in")]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
}

#[test]
fn a_host_that_comes_in_is_not_counted_on_whatever_it_has_to_answer_beside_that() {
    let tell = |web1: &str, lb1: &str| {
        let mut world = World::parse(&format!("in-place max=1\n web1 a=v1:ready:in{web1}\n web2 a=v1:ready:in\n lb1{lb1}"));
        apply(&mut world.fleet, drain("web2", false), NOW).expect("it is noted");
        world.tell(&plan(&world.fleet, NOW)).into_iter().filter(|line| line.contains("web2")).collect::<Vec<_>>()
    };
    assert_eq!(tell(" behind", ""), ["lb1 takes web2/a out"]);
    assert_eq!(tell("", " behind"), ["web2 waits: floor"]);
    assert_eq!(tell(" behind", " behind"), ["web2 waits: floor"]);
}

#[test]
fn work_never_takes_the_last_host_that_serves_whatever_became_of_the_others_since() {
    let mut world = Obedient::at("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1");
    world.fleet.hosts.get_mut(&host("web2")).expect("it is there").connected = false;
    world.ask(drain("web1", false));
    world.ask(Command::RemoveHost { host: host("web2"), force: true, by: by() });
    world.settle();
    world.stand(&[("web1", "v1:in")]);
    assert_eq!(world.words(), ["web1 floor"]);
}
