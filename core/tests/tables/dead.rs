//! A load balancer that was declared dead: who may be, what goes on without its word, and when its word is needed again.

use super::text::{NOW, World, host, pool, shop};
use baton_core::rollout::balancers::returned;
use baton_core::rollout::command::{Accepted, Command, apply};
use baton_core::rollout::interlock;
use baton_core::rollout::plan::plan;

/// Out of both, and drained as far as the one that speaks knows.
const STUCK: &str = "in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n lb1\n lb2";

fn declare(name: &str) -> Command {
    Command::DeclareDead { host: host(name), by: "ana".into(), why: "burnt".into() }
}

fn refused(world: &mut World, command: Command) -> u16 {
    let before = world.fleet.clone();
    let problem = apply(&mut world.fleet, command, NOW).expect_err("it is refused");
    assert!(problem.help.is_some() && world.fleet == before);
    problem.code.0
}

fn falls_silent(world: &mut World, name: &str) {
    world.fleet.hosts.get_mut(&host(name)).expect("a host").connected = false;
}

/// Whether the next plan stops what runs on `web1`, and the interlock agrees with it.
fn goes_on(world: &World) -> bool {
    let plan = plan(&world.fleet, NOW);
    interlock::check(&world.fleet, &plan).expect("the interlock agrees");
    let issued = &world.fleet.hosts[&host("web1")].issued.instances;
    plan.specs.get(&host("web1")).is_some_and(|spec| spec.instances != *issued)
}

#[test]
fn only_a_silent_load_balancer_can_be_declared_dead_and_never_the_last_one() {
    let mut world = World::parse(STUCK);
    assert_eq!(refused(&mut world, declare("lb2")), 734);
    assert_eq!(refused(&mut world, declare("web1")), 733);
    assert_eq!(refused(&mut world, declare("lb9")), 703);
    falls_silent(&mut world, "lb1");
    falls_silent(&mut world, "lb2");
    assert_eq!(apply(&mut world.fleet, declare("lb2"), NOW), Ok(Accepted::Noted));
    assert_eq!(apply(&mut world.fleet, declare("lb2"), NOW), Ok(Accepted::Unchanged));
    assert_eq!(refused(&mut world, declare("lb1")), 735);
}

#[test]
fn a_rollout_goes_on_without_the_word_of_a_dead_one_and_waits_for_a_silent_one() {
    let mut world = World::parse(STUCK);
    assert!(goes_on(&world), "both speak");
    falls_silent(&mut world, "lb2");
    assert!(!goes_on(&world), "it may be there and route");
    apply(&mut world.fleet, declare("lb2"), NOW).expect("it is silent");
    assert!(goes_on(&world));
    apply(&mut world.fleet, Command::Revive { host: host("lb2"), by: "ana".into() }, NOW).expect("it was dead");
    assert!(!goes_on(&world), "waited for again");
}

#[test]
fn a_dead_one_whose_agent_lives_is_dead_until_its_balancer_answers() {
    let mut world = World::parse(STUCK);
    let problem = baton_core::problem::Problem::new(baton_core::problem::Code(402), "nobody answers");
    let seen = |world: &mut World, problem| {
        let lb2 = world.fleet.hosts.get_mut(&host("lb2")).expect("a host");
        lb2.heard.as_mut().expect("a report").report.pools.get_mut(&pool()).expect("its pool").problem = problem;
    };
    seen(&mut world, Some(problem));
    assert!(!goes_on(&world));
    apply(&mut world.fleet, declare("lb2"), NOW).expect("its balancer says nothing");
    assert!(goes_on(&world) && returned(&world.fleet).is_empty());
    seen(&mut world, None);
    assert_eq!(returned(&world.fleet), [host("lb2")]);
    // Its word counts again before anybody has taken note of that.
    let lb2 = world.fleet.hosts.get_mut(&host("lb2")).expect("a host");
    lb2.issued.generation = lb2.issued.generation.next();
    assert!(!goes_on(&world), "it has not answered its newest spec");
    assert!(world.fleet.services[&shop()].balancer.is_some());
}

#[test]
fn where_all_are_dead_all_are_waited_for() {
    let mut world = World::parse(STUCK);
    for name in ["lb1", "lb2"] {
        falls_silent(&mut world, name);
        let order = baton_core::fleet::orders::Order { by: "ana".into(), why: "burnt".into(), since: NOW };
        world.fleet.hosts.get_mut(&host(name)).expect("a host").dead_balancer = Some(order);
    }
    assert!(!goes_on(&world));
}
