//! A host more for what is live: it cannot fail back to anything, and what it lacks is a person's to decide.

use super::super::text::{host, release, shop};
use super::{Obedient, REST, by, retry, rollout};
use baton_core::rollout::RolloutState;
use baton_core::rollout::command::{Accepted, Command};

const TWO: &str = "in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3\n lb1";

/// The same release once more, with a third host that cannot run it.
fn failed_on_web3() -> Obedient {
    let mut world = Obedient::at(TWO);
    world.fleet.services.values_mut().for_each(|service| service.hosts.retain(|it| it.as_str() != "web3"));
    world.broken = vec![("web3", "v1")];
    let mut deploy = world.deploy("r-5", "v1");
    deploy.service.hosts.push(host("web3"));
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    world
}

#[test]
fn one_that_cannot_have_it_pauses_the_rollout_and_the_others_serve() {
    let mut world = failed_on_web3();
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
    let why = world.fleet.rollouts[&rollout("r-5")].pause.clone().expect("it says why").why;
    assert!(why.contains("on web3") && why.ends_with("there is nothing to go back to"), "{why}");
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:out")]);
    world.ask(Command::Skip { service: shop(), host: host("web3"), by: by(), why: "a unit of its own".into() });
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Partial));
    world.broken.clear();
    world.ask(retry(Some("web3")));
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")]);
}

#[test]
fn to_abort_it_ends_it_where_it_stands_whatever_that_host_does() {
    let mut world = failed_on_web3();
    world.ask(Command::Abort { service: shop(), by: by() });
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Partial));
    let lacks: Vec<_> = world.fleet.rollouts[&rollout("r-5")].left_out.iter().map(|it| it.host.clone()).collect();
    assert_eq!(lacks, [host("web3")]);
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:out")]);
}

/// Where v2 is live everywhere.
fn bring_v2(world: &mut Obedient) {
    let deploy = world.deploy("r-5", "v2");
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
}

/// It runs the release before instead, and says so.
fn web2_gives_up(world: &mut Obedient) {
    let web2 = world.fleet.hosts.get_mut(&host("web2")).expect("a host");
    let report = &mut web2.heard.as_mut().expect("it was heard").report;
    report.instances.iter_mut().for_each(|(_, it)| it.release = release("v1").id());
}

#[test]
fn a_host_that_gave_up_what_is_live_starts_it_anew_when_it_is_tried_again_and_no_other_does() {
    let mut world = Obedient::at(REST);
    bring_v2(&mut world);
    assert_eq!(world.refused(retry(None)), 715);
    let starts = |world: &Obedient, name: &str| -> Vec<u32> {
        let issued = &world.fleet.hosts[&host(name)].issued;
        issued.instances.values().map(|it| it.start).collect()
    };
    let before = (starts(&world, "web1"), starts(&world, "web2"));
    web2_gives_up(&mut world);
    assert_eq!(world.ask(retry(Some("web2"))), Accepted::Rollout(rollout("r-7")));
    world.settle();
    assert_eq!(world.state("r-7"), Some(RolloutState::Succeeded));
    assert_eq!(starts(&world, "web1"), before.0);
    assert!(starts(&world, "web2") > before.1);
}

#[test]
fn a_host_that_gave_up_is_not_started_anew_where_that_is_refused_and_nothing_else_is_changed() {
    let mut world = Obedient::at(REST);
    bring_v2(&mut world);
    web2_gives_up(&mut world);
    world.ask(Command::Freeze { service: Some(shop()), lasts: None, by: by(), why: "a holiday".into() });
    assert_eq!(world.refused(retry(None)), 711);
    // That a host takes part again is no release, and needs no end of the freeze.
    world.ask(Command::Skip { service: shop(), host: host("web1"), by: by(), why: "disk".into() });
    assert_eq!(world.ask(retry(None)), Accepted::Noted);
    assert!(world.fleet.services[&shop()].orders.skipped.is_empty());
}

#[test]
fn one_that_was_tried_again_hides_nobody_who_lacks_it() {
    let mut world = Obedient::at("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3\n web4\n lb1");
    let known = |it: &baton_core::name::HostName| !["web3", "web4"].contains(&it.as_str());
    world.fleet.services.values_mut().for_each(|service| service.hosts.retain(known));
    world.broken = vec![("web3", "v1")];
    let mut deploy = world.deploy("r-5", "v1");
    deploy.service.hosts.extend([host("web3"), host("web4")]);
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
    world.ask(Command::Skip { service: shop(), host: host("web4"), by: by(), why: "disk".into() });
    world.broken.clear();
    world.ask(retry(Some("web3")));
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Partial), "web4 never had it");
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in"), ("web4", "")]);
}

#[test]
fn whoever_was_on_the_way_back_to_what_is_live_gets_there_whatever_ends_the_way() {
    let ends: [fn() -> Command; 2] =
        [|| Command::Abort { service: shop(), by: by() }, || Command::Keep { service: shop(), by: by() }];
    for end in ends {
        let mut world = Obedient::at(REST);
        let deploy = world.deploy("r-5", "v2");
        world.ask(Command::Deploy(Box::new(deploy)));
        while world.stands()["web2"] != "v2:in" {
            world.pass();
        }
        world.ask(Command::Keep { service: shop(), by: by() });
        world.settle();
        let kept = world.stands().values().filter(|it| *it == "v2:in").count();
        assert!(kept > 0 && kept < 3, "{:?}", world.stands());
        world.ask(Command::Rollback { id: rollout("r-7"), service: shop(), by: by(), force: false });
        while !world.stands().values().any(|it| it == "v1:out") {
            world.pass();
        }
        world.ask(end());
        world.settle();
        assert!(world.stands().values().all(|it| it.ends_with(":in")), "{:?}", world.stands());
    }
}
