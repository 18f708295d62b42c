//! What counts as begun, and as one that serves: also in the very plan that turns a rollout round, ends it or begins it.

use super::hooks::{begin, failed, retry};
use super::{Obedient, by, rollout};
use crate::text::{NOW, World, host, release, shop};
use baton_core::fleet::hooks::HookState;
use baton_core::fleet::orders::Queued;
use baton_core::fleet::report::ReleaseState;
use baton_core::hook::Point;
use baton_core::problem::{Code, Problem};
use baton_core::rollout::command::Command;
use baton_core::rollout::plan::plan;
use baton_core::rollout::waiting::Reason;
use baton_core::rollout::{RolloutState, interlock};
use baton_core::strategy::Amount;

/// A world that knows a release before v1.
fn knowing_v0(text: &str) -> World {
    let mut world = World::parse(text);
    let before = release("v0");
    world.fleet.releases.insert(before.id(), before.into());
    world
}

#[test]
fn what_is_still_warm_lets_nobody_overtake_where_the_plan_itself_begins_the_rollout() {
    let text =
        "side-by-side max=1\n web1 a=v1:ready:in b=v0:ready:out fetching=v2\n web2 a=v1:ready:in b=v0:ready:out\n lb1";
    let mut fleet = knowing_v0(text).fleet;
    let service = fleet.services.get_mut(&shop()).expect("a service");
    let (id, shape) = (rollout("r-5"), Box::new(service.clone()));
    service.orders.queue = vec![Queued { id, shape, release: release("v2").id(), by: by(), since: NOW }];
    let next = plan(&fleet, NOW);
    assert_eq!(interlock::check(&fleet, &next), Ok(()));
    assert!(next.rollouts.contains_key(&rollout("r-5")), "it begins");
    let told = |spec: &baton_core::fleet::spec::HostSpec| spec.instances.values().any(|it| it.release == release("v2").id());
    assert!(!next.specs.values().any(told), "web1 comes first, and still fetches");
    next.take(&mut fleet);
    assert!(!plan(&fleet, NOW).changes_anything(), "planning twice changed something");
}

#[test]
fn a_rollout_that_begins_in_the_plan_that_ends_another_goes_by_its_own_strategy() {
    let web = "web1 a=v2:none:out\n web2 a=v2:none:out\n web3 a=v2:none:out";
    let mut fleet = World::parse(&format!("in-place max=1 none->v2 back evidence\n {web}\n lb1")).fleet;
    let service = fleet.services.get_mut(&shop()).expect("a service");
    let mut shape = Box::new(service.clone());
    shape.strategy.parallel = Some(Amount::Percent(100));
    let id = rollout("r-5");
    service.orders.queue = vec![Queued { id, shape, release: release("v1").id(), by: by(), since: NOW }];
    let next = plan(&fleet, NOW);
    assert_eq!(next.rollouts[&rollout("r-1")].state, RolloutState::Reverted);
    let starts = next.specs.values().flat_map(|spec| spec.instances.values());
    assert_eq!(starts.filter(|it| it.release == release("v1").id()).count(), 3, "all at once");
    assert_eq!(interlock::check(&fleet, &next), Ok(()));
}

#[test]
fn a_rollout_that_ends_as_one_with_another_host_begins_is_judged_by_its_own_hosts() {
    let mut fleet = World::parse("in-place max=1 v1->v2\n web1 a=v2:ready:in\n web2 a=v2:ready:in\n lb1").fleet;
    let other = World::parse("in-place max=1\n web3").fleet.hosts.remove(&host("web3")).expect("a host");
    fleet.hosts.insert(host("web3"), other);
    let service = fleet.services.get_mut(&shop()).expect("a service");
    let mut shape = Box::new(service.clone());
    shape.hosts.push(host("web3"));
    let id = rollout("r-5");
    service.orders.queue = vec![Queued { id, shape, release: release("v2").id(), by: by(), since: NOW }];
    let next = plan(&fleet, NOW);
    assert_eq!(next.rollouts[&rollout("r-1")].state, RolloutState::Succeeded);
    assert!(next.rollouts.contains_key(&rollout("r-5")), "it begins");
    assert_eq!(interlock::check(&fleet, &next), Ok(()));
}

#[test]
fn a_silent_host_with_something_to_retire_is_not_back_in_the_plan_that_turns_the_rollout_round() {
    let text = "side-by-side max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in b=v0:ready:out silent\n lb1";
    let mut fleet = knowing_v0(text).fleet;
    let web1 = fleet.hosts.get_mut(&host("web1")).and_then(|host| host.heard.as_mut()).expect("a report");
    let problem = Problem::new(Code(520), "the archive is damaged");
    web1.report.releases.insert(release("v2").id(), ReleaseState::Rejected { problem });
    let next = plan(&fleet, NOW);
    assert_eq!(interlock::check(&fleet, &next), Ok(()));
    assert_eq!(next.rollouts[&rollout("r-1")].state, RolloutState::Reverting, "nobody knows what became of the one before");
    next.take(&mut fleet);
    assert!(!plan(&fleet, NOW).changes_anything(), "planning twice changed something");
}

#[test]
fn a_host_that_left_and_is_told_to_stop_its_last_one_makes_room_for_the_next_in_the_same_plan() {
    let text = "in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:out\n lb1";
    let mut fleet = World::parse(text).fleet;
    let stay = vec![host("web1"), host("web2")];
    fleet.services.values_mut().for_each(|service| service.hosts = stay.clone());
    fleet.rollouts.values_mut().for_each(|rollout| rollout.hosts = stay.clone());
    let next = plan(&fleet, NOW);
    assert_eq!(interlock::check(&fleet, &next), Ok(()));
    assert!(next.specs[&host("web3")].instances.is_empty(), "it stops");
    assert!(next.specs.contains_key(&host("lb1")), "and web1 begins");
    next.take(&mut fleet);
    assert!(!plan(&fleet, NOW).changes_anything(), "planning twice changed something");
}

#[test]
fn a_host_that_was_told_to_come_in_serves_once_its_balancer_says_so_in_answer_to_that() {
    for (balancer, goes) in [("lb1 behind", false), ("lb1", true)] {
        let web = "web1 a=v2:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in";
        let mut fleet = World::parse(&format!("in-place max=1 v1->v2\n {web}\n {balancer}")).fleet;
        fleet.rollouts.values_mut().for_each(|rollout| rollout.strategy.parallel = Some(Amount::Hosts(2)));
        let next = plan(&fleet, NOW);
        assert_eq!(interlock::check(&fleet, &next), Ok(()));
        assert_eq!(next.specs.contains_key(&host("lb1")), goes, "what {balancer} said before is no word of it");
    }
}

#[test]
fn another_attempt_of_a_hook_on_a_host_that_is_removed_before_it_is_told_is_taken_back() {
    let mut world = begin(super::hooks::SIDE, &[Point::Migrate]);
    world.outcomes.insert(Point::Migrate, failed());
    world.story();
    world.ask(retry("r-9"));
    let asked = world.fleet.services[&shop()].hooks.values().next().map(|run| run.host.clone()).expect("it was asked for");
    world.fleet.hosts.get_mut(&asked).expect("a host").connected = false;
    world.ask(Command::RemoveHost { host: asked.clone(), force: true, by: by() });
    world.story();
    assert!(matches!(world.run(Point::Migrate), HookState::Failed { problem } if problem.code == Code(804)));
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused), "a person decides");
    world.outcomes.clear();
    world.ask(retry("r-9"));
    let other = if asked == host("web1") { "web2" } else { "web1" };
    assert_eq!(world.story()[..1], [format!("{other} migrate 3")]);
}

#[test]
fn what_a_host_will_not_start_again_is_said_with_its_reason() {
    let mut fleet = World::parse("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1").fleet;
    let problem = Problem::new(Code(563), "this host's own settings do not allow what the release asks for");
    let web1 = fleet.hosts.get_mut(&host("web1")).and_then(|host| host.heard.as_mut()).expect("a report");
    // It was started anew, and its settings are others now.
    web1.report.instances.clear();
    web1.report.releases.insert(release("v1").id(), ReleaseState::Rejected { problem: problem.clone() });
    let next = plan(&fleet, NOW);
    assert_eq!(interlock::check(&fleet, &next), Ok(()));
    let why: Vec<_> = next.waiting[&shop()].iter().map(|it| (it.host.clone(), it.reason.clone())).collect();
    assert_eq!(why, [(Some(host("web1")), Reason::Failed { problem })]);
}

#[test]
fn a_release_that_is_live_again_while_it_is_warm_falls_back_to_another_one_than_before_in_the_very_plan_that_says_so() {
    let mut world =
        Obedient::at("side-by-side max=0 keep-old\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1");
    for (id, version) in [("r-5", "v2"), ("r-6", "v3"), ("r-7", "v2")] {
        let deploy = world.deploy(id, version);
        world.ask(Command::Deploy(Box::new(deploy)));
        world.settle();
        assert_eq!(world.state(id), Some(RolloutState::Succeeded));
    }
    let web1 = &world.fleet.hosts[&host("web1")].issued;
    let of_v2 = web1.instances.values().find(|told| told.release == release("v2").id()).expect("it serves");
    assert_eq!(of_v2.fallback, Some(release("v3").id()));
}

#[test]
fn back_to_where_nothing_runs_hosts_leave_one_after_the_other_also_where_two_are_in_on_one() {
    let text = "side-by-side max=1 none->v2 back evidence\n web1 a=v1:ready:in b=v2:ready:in\n web2 a=v1:ready:in\n lb1";
    let mut world = World::parse(text);
    for web in ["web1", "web2"] {
        let issued = &mut world.fleet.hosts.get_mut(&host(web)).expect("a host").issued;
        issued.releases.insert(release("v1").id(), release("v1").into());
    }
    let next = plan(&world.fleet, NOW);
    let told = world.tell(&next);
    assert!(told.contains(&"web2 waits: waiting".to_owned()), "{told:?}");
    next.take(&mut world.fleet);
    assert!(!plan(&world.fleet, NOW).changes_anything(), "planning twice changed something");
}
