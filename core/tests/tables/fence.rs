//! A restored coordinator: what it learns from the hosts, and what it does not do before.

use super::text::{NOW, World, host, release, shop};
use baton_core::fleet::fence::{Fence, Told};
use baton_core::fleet::spec::{HostSpec, Restart};
use baton_core::name::{Epoch, Generation};
use baton_core::rollout::RolloutState;
use baton_core::rollout::command::{Accepted, Command, apply, recall};
use baton_core::rollout::interlock;
use baton_core::rollout::plan::plan;

const REST: &str = "in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1";
const ROLLING: &str = "in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n lb1";
const ALL: [&str; 3] = ["lb1", "web1", "web2"];

fn restored(text: &str) -> World {
    let mut world = World::parse(text);
    world.fleet.fence = Some(Fence::around(&world.fleet));
    world
}

/// What a host was told after the copy: the same places, another release.
fn told(world: &World, name: &str, version: &str, epoch: u64) -> Told {
    let mut spec: HostSpec = world.fleet.hosts[&host(name)].issued.clone();
    (spec.epoch, spec.generation) = (Epoch(epoch), Generation(40));
    let release = release(version);
    for (_, instance) in spec.instances.iter_mut() {
        instance.release = release.id();
        instance.restart = Restart::Always;
    }
    spec.releases.insert(release.id(), release.into());
    Told { stamp: spec.stamp(), spec: Some(spec) }
}

fn same(world: &World, name: &str) -> Told {
    let issued = &world.fleet.hosts[&host(name)].issued;
    Told { stamp: issued.stamp(), spec: Some(issued.clone()) }
}

fn hear(world: &mut World, name: &str, told: &Told) {
    recall(&mut world.fleet, &host(name), Some(told), false, NOW).expect("it says what it was told");
}

#[test]
fn nothing_is_planned_commanded_or_let_through_while_a_host_is_missing() {
    let mut world = restored(ROLLING);
    assert!(!plan(&world.fleet, NOW).changes_anything());
    let unfenced = World::parse(ROLLING);
    let proposal = plan(&unfenced.fleet, NOW);
    assert!(proposal.changes_anything() && interlock::check(&unfenced.fleet, &proposal).is_ok());
    let violations = interlock::check(&world.fleet, &proposal).expect_err("the interlock knows the fence too");
    assert!(violations.iter().all(|violation| violation.invariant == 9), "{violations:?}");
    for name in ["lb1", "web1"] {
        let told = same(&world, name);
        hear(&mut world, name, &told);
    }
    let pause = Command::Pause { service: shop(), by: "ana".into(), why: String::new() };
    let refused = apply(&mut world.fleet, pause, NOW).expect_err("one is missing");
    assert_eq!((refused.code.0, refused.seen[0].1.as_str()), (1020, "web2"));
}

#[test]
fn when_nothing_happened_since_the_copy_everything_goes_on() {
    let mut world = restored(ROLLING);
    for name in ALL {
        let told = same(&world, name);
        hear(&mut world, name, &told);
    }
    assert!(world.fleet.fenced().is_none());
    assert!(world.fleet.rollouts.values().all(|rollout| rollout.state != RolloutState::Paused));
    assert!(plan(&world.fleet, NOW).changes_anything() || !plan(&world.fleet, NOW).waiting.is_empty());
}

#[test]
fn what_the_hosts_were_told_is_believed_over_the_copy_under_a_newer_epoch_than_any_has_seen() {
    let mut world = restored(REST);
    for (name, epoch) in [("web1", 7), ("web2", 9)] {
        let told = told(&world, name, "v3", epoch);
        hear(&mut world, name, &told);
    }
    let told = same(&world, "lb1");
    hear(&mut world, "lb1", &told);
    assert_eq!(world.fleet.epoch, Epoch(10));
    let service = &world.fleet.services[&shop()];
    assert_eq!((service.committed, service.previous), (Some(release("v3").id()), Some(release("v1").id())));
    for name in ALL {
        assert_eq!(world.fleet.hosts[&host(name)].issued.epoch, Epoch(10), "{name}");
    }
    let next = plan(&world.fleet, NOW);
    assert!(next.specs.values().flat_map(|spec| spec.instances.values()).all(|it| it.release == release("v3").id()));
}

#[test]
fn a_coordinator_lost_right_after_a_success_is_followed_by_one_that_knows_of_it() {
    let mut world = restored(REST);
    for name in ["web1", "web2"] {
        let mut told = told(&world, name, "v3", 7);
        let instances = &mut told.spec.as_mut().expect("it says").instances;
        instances.iter_mut().for_each(|(_, it)| it.restart = Restart::Never);
        hear(&mut world, name, &told);
    }
    let told = same(&world, "lb1");
    hear(&mut world, "lb1", &told);
    assert_eq!(world.fleet.services[&shop()].committed, Some(release("v3").id()));
}

#[test]
fn hosts_that_differ_keep_what_they_serve_until_a_person_decides() {
    let mut world = restored(REST);
    for (name, version) in [("web1", "v3"), ("web2", "v1")] {
        let told = told(&world, name, version, 7);
        hear(&mut world, name, &told);
    }
    let told = same(&world, "lb1");
    hear(&mut world, "lb1", &told);
    let service = &world.fleet.services[&shop()];
    assert_eq!(service.committed, Some(release("v1").id()));
    let kept: Vec<_> = service.orders.kept.iter().map(|(host, kept)| (host.as_str(), kept.release)).collect();
    assert_eq!(kept, [("web1", release("v3").id())]);
    let next = plan(&world.fleet, NOW);
    assert!(
        next.specs.get(&host("web1")).is_none_or(|spec| spec.instances == world.fleet.hosts[&host("web1")].issued.instances)
    );
}

#[test]
fn a_rollout_of_an_older_copy_waits_for_a_person() {
    let mut world = restored(ROLLING);
    let newer = told(&world, "web1", "v3", 7);
    hear(&mut world, "web1", &newer);
    let recover =
        |without: &[&str]| Command::Recover { without: without.iter().map(|it| host(it)).collect(), by: "ana".into() };
    assert_eq!(apply(&mut world.fleet, recover(&["web2"]), NOW).expect_err("lb1 is missing too").code.0, 1020);
    assert_eq!(apply(&mut world.fleet, recover(&["web2", "lb1"]), NOW), Ok(Accepted::Noted));
    assert!(world.fleet.rollouts.values().all(|rollout| rollout.state == RolloutState::Paused));
    let committed = world.fleet.services[&shop()].committed;
    assert_eq!(committed, Some(release("v3").id()), "those that were heard agree");
    assert_eq!(apply(&mut world.fleet, recover(&["web2"]), NOW), Ok(Accepted::Unchanged));
}

#[test]
fn a_late_host_is_read_before_it_is_told_anything_and_told_something_newer() {
    let mut world = restored(REST);
    let without = ALL.iter().map(|name| host(name)).collect();
    apply(&mut world.fleet, Command::Recover { without, by: "ana".into() }, NOW).expect("all are named");
    let before = world.fleet.epoch;
    for (name, epoch) in [("web1", 1), ("web2", before.0 + 5)] {
        let told = told(&world, name, "v3", epoch);
        hear(&mut world, name, &told);
        let issued = &world.fleet.hosts[&host(name)].issued;
        assert!(issued.stamp() > told.stamp, "{name}");
        assert!(issued.instances.values().all(|it| it.release == release("v3").id()), "{name}");
    }
    assert_eq!(world.fleet.epoch, Epoch(before.0 + 6));
}

#[test]
fn a_host_that_tells_of_a_newer_document_and_does_not_show_it_is_not_taken_in() {
    let mut world = restored(REST);
    let known = world.fleet.clone();
    for (spec, epoch) in [(false, 7), (true, u64::MAX)] {
        let mut told = told(&world, "web1", "v3", epoch);
        told.spec = told.spec.filter(|_| spec);
        let refused =
            recall(&mut world.fleet, &host("web1"), Some(&told), false, NOW).expect_err("nobody knows what it runs");
        assert_eq!(refused.code.0, 1021);
        assert_eq!(world.fleet, known);
    }
}

/// A coordinator that was started as on any other day.
fn started(text: &str) -> World {
    let mut world = World::parse(text);
    world.fleet.fence = Some(Fence::at_start(&world.fleet));
    world
}

#[test]
fn a_start_on_any_other_day_waits_for_nobody() {
    let mut world = started(ROLLING);
    assert!(plan(&world.fleet, NOW).changes_anything());
    for name in ALL {
        let (told, before) = (same(&world, name), world.fleet.hosts[&host(name)].issued.clone());
        hear(&mut world, name, &told);
        assert_eq!(world.fleet.hosts[&host(name)].issued, before, "nothing new is sent for it");
    }
    assert!(world.fleet.fenced().is_none());
}

#[test]
fn a_coordinator_set_back_to_a_snapshot_finds_out_by_the_first_host_that_was_told_more() {
    let mut world = started(REST);
    let older = same(&world, "lb1");
    hear(&mut world, "lb1", &older);
    assert!(world.fleet.fenced().is_none());
    let newer = told(&world, "web1", "v3", 7);
    hear(&mut world, "web1", &newer);
    assert!(world.fleet.fenced().is_some(), "web2 was not heard");
    assert!(!plan(&world.fleet, NOW).changes_anything());
    let newer = told(&world, "web2", "v3", 7);
    hear(&mut world, "web2", &newer);
    assert!(world.fleet.fenced().is_none());
    assert_eq!((world.fleet.epoch, world.fleet.services[&shop()].committed), (Epoch(8), Some(release("v3").id())));
}

#[test]
fn a_host_that_is_new_to_a_started_coordinator_is_believed_nothing() {
    let mut world = started(REST);
    world.fleet.fence.as_mut().expect("it is there").unheard.remove(&host("web1"));
    let stranger = told(&world, "web1", "v3", 7);
    recall(&mut world.fleet, &host("web1"), Some(&stranger), true, NOW).expect("it may connect");
    assert!(world.fleet.fenced().is_none());
    assert_eq!(world.fleet.services[&shop()].committed, Some(release("v1").id()));
}

#[test]
fn what_is_awaited_since_a_restore_is_awaited_after_a_start() {
    let world = restored(REST);
    assert_eq!(Fence::at_start(&world.fleet), Fence::around(&world.fleet));
}

#[test]
fn a_host_that_nobody_accepted_is_not_read_before_somebody_does() {
    for text in [REST, ROLLING] {
        let mut world = World::parse(text);
        world.fleet.hosts.get_mut(&host("web1")).expect("a host").accepted = false;
        world.fleet.fence = Some(Fence::at_start(&world.fleet));
        let before = world.fleet.clone();
        let newer = told(&world, "web1", "v3", 7);
        hear(&mut world, "web1", &newer);
        assert_eq!(world.fleet, before, "neither its epoch nor its releases count, and it proves nothing");
        apply(&mut world.fleet, Command::Accept { host: host("web1"), by: "ana".into() }, NOW).expect("it belongs here");
        hear(&mut world, "web1", &newer);
        assert!(world.fleet.fenced().is_none(), "it came over");
        assert_eq!(world.fleet.epoch, Epoch(8));
        let issued = &world.fleet.hosts[&host("web1")].issued;
        assert!(issued.instances.values().all(|it| it.release == release("v3").id()) && issued.stamp() > newer.stamp);
        let kept: Vec<_> = world.fleet.services[&shop()].orders.kept.keys().map(ToString::to_string).collect();
        assert_eq!(kept, ["web1"]);
    }
}

#[test]
fn a_restored_coordinator_waits_for_no_host_that_nobody_accepted() {
    let mut world = World::parse(REST);
    world.fleet.hosts.get_mut(&host("web1")).expect("a host").accepted = false;
    world.fleet.fence = Some(Fence::around(&world.fleet));
    recall(&mut world.fleet, &host("web9"), None, true, NOW).expect("it only joins");
    for name in ["web2", "lb1"] {
        assert!(world.fleet.fenced().is_some());
        let told = same(&world, name);
        hear(&mut world, name, &told);
    }
    assert!(world.fleet.fenced().is_none());
}

#[test]
fn a_host_that_comes_over_from_a_coordinator_that_was_started_a_million_times_is_not_taken_in() {
    let mut world = started(REST);
    recall(&mut world.fleet, &host("web1"), None, false, NOW).expect("it joins");
    let lies = told(&world, "web1", "v3", 1 << 21);
    let before = world.fleet.clone();
    let refused = recall(&mut world.fleet, &host("web1"), Some(&lies), false, NOW).expect_err("no other has such a lead");
    assert_eq!((refused.code.0, &world.fleet), (1021, &before));
    // A copy may have.
    let mut world = restored(REST);
    let newer = told(&world, "web1", "v3", 1 << 21);
    hear(&mut world, "web1", &newer);
    assert_eq!(world.fleet.hosts[&host("web1")].issued.epoch, Epoch(1 << 21));
}

#[test]
fn a_rollout_that_the_fleet_went_on_from_says_nothing_of_what_is_live_and_is_not_tried_again() {
    for state in [RolloutState::Reverted, RolloutState::Partial] {
        let mut world = World::parse(ROLLING);
        for rollout in world.fleet.rollouts.values_mut() {
            (rollout.state, rollout.ended) = (state, Some(NOW));
        }
        let retry = || Command::Retry { id: "r-9".parse().expect("an id"), service: shop(), host: None, by: "ana".into() };
        assert!(world.fleet.latest_rollout(&shop()).is_some());
        assert!(apply(&mut world.fleet.clone(), retry(), NOW).is_ok(), "it ended short of v2");
        world.fleet.fence = Some(Fence::around(&world.fleet));
        for name in ALL {
            let told = told(&world, name, "v3", 9);
            hear(&mut world, name, &told);
        }
        assert_eq!(world.fleet.services[&shop()].committed, Some(release("v3").id()));
        assert_eq!(world.fleet.latest_rollout(&shop()), None);
        assert_eq!(apply(&mut world.fleet, retry(), NOW).map_err(|problem| problem.code.0), Err(715));
    }
}

#[test]
fn nor_is_one_where_some_hosts_had_gone_on_to_a_release_it_never_heard_of() {
    let mut world = World::parse(ROLLING);
    for rollout in world.fleet.rollouts.values_mut() {
        (rollout.state, rollout.ended) = (RolloutState::Reverted, Some(NOW));
    }
    world.fleet.fence = Some(Fence::around(&world.fleet));
    for (name, version) in [("lb1", "v1"), ("web1", "v3"), ("web2", "v1")] {
        let told = told(&world, name, version, 9);
        hear(&mut world, name, &told);
    }
    let service = &world.fleet.services[&shop()];
    assert_eq!(service.committed, Some(release("v1").id()));
    assert_eq!(service.orders.kept[&host("web1")].release, release("v3").id());
    assert_eq!(world.fleet.latest_rollout(&shop()), None);
}
