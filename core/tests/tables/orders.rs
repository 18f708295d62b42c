//! Orders carried out by a fleet that does at once what it is told: where each of them ends.

mod added;
mod back;
mod begun;
mod beside;
mod every;
mod forgetting;
mod hooks;
mod over;
mod preview;
mod withdraw;
mod work;

use super::text::{NOW, World, able, host, release, shop};
use baton_core::fleet::Fleet;
use baton_core::fleet::hooks::{HookOutcome, HookReport};
use baton_core::fleet::past::Forgotten;
use baton_core::fleet::report::{
    HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState, SplitReport,
};
use baton_core::fleet::spec::HostSpec;
use baton_core::hook::{HookKey, Point};
use baton_core::name::{HostName, ReleaseId, RolloutId};
use baton_core::problem::{Code, Problem};
use baton_core::rollout::RolloutState;
use baton_core::rollout::command::{Accepted, Busy, Command, Deploy, apply};
use baton_core::rollout::interlock;
use baton_core::rollout::plan::plan;
use baton_core::strategy::OnFailure;
use baton_core::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const REST: &str = "in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1";

/// A fleet and its clock; some hosts cannot run some versions.
#[derive(Default)]
struct Obedient {
    fleet: Fleet,
    now: Moment,
    broken: Vec<(&'static str, &'static str)>,
    /// What becomes of hooks; those that are not here succeed.
    outcomes: BTreeMap<Point, HookOutcome>,
    /// What was forgotten, as a store would keep it.
    forgotten: BTreeMap<ReleaseId, Forgotten>,
    /// Attempts of hooks that hosts were ever told of.
    hooks_told: BTreeSet<(HookKey, u32)>,
}

impl Obedient {
    fn at(text: &str) -> Self {
        Self { fleet: World::parse(text).fleet, now: NOW, ..Self::default() }
    }

    #[track_caller]
    fn ask(&mut self, command: Command) -> Accepted {
        apply(&mut self.fleet, command, self.now).unwrap_or_else(|problem| panic!("{problem}"))
    }

    #[track_caller]
    fn refused(&mut self, command: Command) -> u16 {
        let before = self.fleet.clone();
        let problem = apply(&mut self.fleet, command, self.now).expect_err("it is refused");
        assert!(problem.help.is_some(), "{problem} says what helps");
        assert_eq!(self.fleet, before, "a refusal changes nothing");
        problem.code.0
    }

    /// One pass: what is planned passes the interlock, and everybody does it. Returns whether anything changed.
    #[track_caller]
    fn pass(&mut self) -> bool {
        self.now = self.now + Duration::from_secs(5);
        let next = plan(&self.fleet, self.now);
        interlock::check(&self.fleet, &next).expect("the interlock agrees with the planner");
        next.take(&mut self.fleet);
        self.note(&next);
        assert!(!plan(&self.fleet, self.now).changes_anything(), "planning twice changed something");
        let there = self.fleet.hosts.iter().filter(|(_, host)| host.connected).map(|(name, _)| name.clone());
        there.collect::<Vec<_>>().iter().for_each(|name| self.hear(name));
        next.changes_anything()
    }

    /// A host does what it was told and says so.
    fn hear(&mut self, name: &HostName) {
        let report = self.obeyed(name, &self.fleet.hosts[name].issued);
        if let Some(host) = self.fleet.hosts.get_mut(name) {
            host.heard = Some(baton_core::fleet::Heard { at: self.now, report });
        }
    }

    /// Passes until nothing changes any more.
    #[track_caller]
    fn settle(&mut self) {
        for _ in 0..200 {
            if !self.pass() && !self.pass() {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", plan(&self.fleet, self.now).waiting);
    }

    fn obeyed(&self, name: &HostName, spec: &HostSpec) -> HostReport {
        let state = |id| {
            let version = self.fleet.releases.get(&id).map(|release| release.version.to_string()).unwrap_or_default();
            match self.broken.iter().any(|(host, broken)| name.as_str() == *host && version == *broken) {
                true => InstanceState::Failed { problem: Problem::new(Code(210), "did not become ready") },
                false => InstanceState::Ready { since: Duration::from_secs(60) },
            }
        };
        let instances = spec.instances.iter().map(|(key, it)| {
            let (release, start) = (it.release, it.start);
            (key.clone(), InstanceReport { release, incarnation: "1".into(), start, state: state(release) })
        });
        let pools = spec.pools.iter().map(|(name, pool)| {
            let members = pool.members.iter().map(|(key, it)| (key.clone(), MemberReport::quiet(it.state))).collect();
            let split = pool.split.clone().map(|split| SplitReport { split, ..SplitReport::default() });
            (name.clone(), PoolReport { members, split, ..PoolReport::default() })
        });
        let hooks = spec.hooks.iter().map(|(key, told)| {
            let good = HookOutcome::Succeeded { output: Vec::new() };
            let state = self.outcomes.get(&key.point).cloned().unwrap_or(good);
            (key.clone(), HookReport { attempt: told.attempt, state })
        });
        HostReport {
            hooks: hooks.collect(),
            observed: spec.stamp(),
            instances: instances.collect(),
            pools: pools.collect(),
            balancer: Some(able()),
            releases: spec.releases.keys().map(|id| (*id, ReleaseState::Held)).collect(),
            ..HostReport::default()
        }
    }

    fn deploy(&self, id: &str, version: &str) -> Deploy {
        let service = self.fleet.services[&shop()].clone();
        Deploy::new(rollout(id), shop(), service, release(version), "ana".into())
    }

    /// What runs on each host and whether it is in: `v1:in`.
    fn stands(&self) -> BTreeMap<&str, String> {
        let web = self.fleet.hosts.iter().filter(|(name, _)| name.as_str().starts_with("web"));
        web.map(|(name, host)| {
            let told = host.issued.instances.iter().map(|(key, it)| {
                let version = self.fleet.releases.get(&it.release).map(|release| release.version.to_string());
                let member = baton_core::fleet::MemberKey { host: name.clone(), slot: key.slot };
                let mut pools = self.fleet.hosts.values().flat_map(|host| host.issued.pools.values());
                let is_in = pools.any(|pool| {
                    pool.members.get(&member).is_some_and(|it| it.state == baton_core::fleet::spec::MemberState::Ready)
                });
                format!("{}:{}", version.unwrap_or_default(), if is_in { "in" } else { "out" })
            });
            (name.as_str(), told.collect::<Vec<_>>().join("+"))
        })
        .collect()
    }

    #[track_caller]
    fn stand(&self, expected: &[(&str, &str)]) {
        let expected: BTreeMap<&str, String> = expected.iter().map(|(host, what)| (*host, (*what).to_owned())).collect();
        assert_eq!(self.stands(), expected);
    }

    fn state(&self, id: &str) -> Option<RolloutState> {
        self.fleet.rollouts.get(&rollout(id)).map(|rollout| rollout.state)
    }

    fn words(&self) -> Vec<String> {
        let waiting = plan(&self.fleet, self.now).waiting.remove(&shop()).unwrap_or_default();
        waiting
            .iter()
            .map(|it| format!("{} {}", it.host.as_ref().map_or("-", |host| host.as_str()), it.reason.word()))
            .collect()
    }
}

fn rollout(id: &str) -> RolloutId {
    RolloutId::new(id).expect("an id")
}

fn by() -> String {
    "ana".into()
}

fn drain(name: &str, stop: bool) -> Command {
    Command::Drain { host: host(name), stop, reboot: false, by: by(), why: "disk".into() }
}

fn retry(name: Option<&str>) -> Command {
    Command::Retry { id: rollout("r-7"), service: shop(), host: name.map(host), by: by() }
}

#[test]
fn a_drained_host_leaves_the_balancers_takes_no_part_and_comes_back_on_what_is_live() {
    let mut world = Obedient::at(REST);
    assert_eq!(world.ask(drain("web3", false)), Accepted::Noted);
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:out")]);
    assert_eq!(world.words(), ["web3 drained"]);
    let deploy = world.deploy("r-5", "v2");
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    world.stand(&[("web1", "v2:in"), ("web2", "v2:in"), ("web3", "v1:out")]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Partial));
    assert_eq!(world.fleet.rollouts[&rollout("r-5")].left_out[0].host, host("web3"));
    assert_eq!(world.ask(Command::Undrain { host: host("web3"), by: by() }), Accepted::Noted);
    while world.stands()["web3"] != "v2:in" {
        assert_ne!(world.stands()["web3"], "v1:in", "it serves nothing but what is live");
        assert!(world.pass(), "{:?}", world.words());
    }
    assert_eq!(world.ask(Command::Undrain { host: host("web3"), by: by() }), Accepted::Unchanged);
}

#[test]
fn a_host_that_is_drained_to_be_stopped_runs_nothing() {
    let mut world = Obedient::at(REST);
    world.ask(drain("web2", true));
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", ""), ("web3", "v1:in")]);
    world.ask(Command::Undrain { host: host("web2"), by: by() });
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")]);
}

#[test]
fn a_drain_waits_for_the_floor_and_is_refused_where_it_could_only_wait() {
    let mut world = Obedient::at(&REST.replace("web2 a=v1:ready:in", "web2 a=v1:unready:in silent"));
    world.ask(drain("web1", false));
    let next = plan(&world.fleet, world.now);
    assert!(next.specs.is_empty(), "two of three would be without");
    assert!(world.words().contains(&"web1 floor".to_owned()), "{:?}", world.words());
    let mut world = Obedient::at(REST);
    world.ask(drain("web1", false));
    assert_eq!(world.refused(drain("web2", false)), 713);
    assert_eq!(world.refused(drain("lb1", false)), 712);
    assert_eq!(world.refused(drain("web9", false)), 703);
}

#[test]
fn what_was_ended_where_it_stood_is_not_undone_and_goes_on_from_there() {
    for (next, ends) in [("retry", "v2:in"), ("rollback", "v1:in")] {
        let mut world = Obedient::at(REST);
        let deploy = world.deploy("r-5", "v2");
        world.ask(Command::Deploy(Box::new(deploy)));
        while world.stands()["web1"] != "v2:in" {
            world.pass();
        }
        world.ask(Command::Keep { service: shop(), by: by() });
        world.settle();
        assert_eq!(world.state("r-5"), Some(RolloutState::Partial));
        assert_eq!(world.stands()["web1"], "v2:in");
        assert!(world.stands().values().any(|what| what == "v1:in"), "{:?}", world.stands());
        assert!(world.words().contains(&"web1 kept".to_owned()), "{:?}", world.words());
        world.ask(match next {
            "retry" => retry(None),
            _ => Command::Rollback { id: rollout("r-7"), service: shop(), by: by(), force: false },
        });
        world.settle();
        world.stand(&[("web1", ends), ("web2", ends), ("web3", ends)]);
        assert_eq!(world.state("r-7"), Some(RolloutState::Succeeded), "{next}");
        let kept: Vec<_> = world.fleet.rollouts[&rollout("r-7")].brings_back().collect();
        assert_eq!(
            kept,
            if next == "rollback" { vec![release("v2").id()] } else { Vec::new() },
            "what they were brought from"
        );
        assert!(world.fleet.services[&shop()].orders.kept.is_empty());
    }
}

/// A rollout that failed on its first host and pauses there.
fn failed_on_web1() -> Obedient {
    let mut world = Obedient::at(REST);
    world.broken = vec![("web1", "v2")];
    let mut deploy = world.deploy("r-5", "v2");
    deploy.service.strategy.on_failure = OnFailure::Pause;
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
    world
}

#[test]
fn what_failed_is_tried_again_by_a_new_start() {
    let mut world = failed_on_web1();
    let before = world.fleet.hosts[&host("web1")].issued.instances.values().map(|it| it.start).max();
    world.broken.clear();
    world.ask(retry(None));
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
    assert!(world.fleet.hosts[&host("web1")].issued.instances.values().map(|it| it.start).max() > before);
    assert_eq!(world.refused(retry(None)), 715);
}

#[test]
fn what_fails_again_pauses_again() {
    let mut world = failed_on_web1();
    world.ask(retry(Some("web1")));
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
    world.stand(&[("web1", "v2:out"), ("web2", "v1:in"), ("web3", "v1:in")]);
}

#[test]
fn a_skipped_host_is_named_in_a_partial_outcome_and_catches_up_when_it_is_taken_back_in() {
    let mut world = failed_on_web1();
    let skip = |name| Command::Skip { service: shop(), host: host(name), by: by(), why: "disk".into() };
    world.ask(skip("web1"));
    world.settle();
    assert_eq!(world.state("r-5"), Some(RolloutState::Partial));
    assert_eq!(world.fleet.rollouts[&rollout("r-5")].left_out[0].why, "disk");
    world.stand(&[("web1", "v2:out"), ("web2", "v2:in"), ("web3", "v2:in")]);
    assert_eq!(world.ask(skip("web1")), Accepted::Unchanged);
    world.ask(skip("web2"));
    assert_eq!(world.refused(skip("web3")), 713);
    world.broken.clear();
    assert_eq!(world.ask(retry(Some("web1"))), Accepted::Noted);
    world.settle();
    assert_eq!(world.stands()["web1"], "v2:in");
}

#[test]
fn a_deploy_takes_the_place_of_another_and_its_way_back_is_the_first_release() {
    for back in [false, true] {
        let mut world = Obedient::at(REST);
        let second = world.deploy("r-5", "v2");
        world.ask(Command::Deploy(Box::new(second)));
        while world.stands()["web1"] != "v2:in" {
            world.pass();
        }
        let third = world.deploy("r-6", "v3");
        assert_eq!(world.refused(Command::Deploy(Box::new(third.clone()))), 701);
        let third = Deploy { busy: Busy::Supersede, ..third };
        assert_eq!(world.ask(Command::Deploy(Box::new(third))), Accepted::Rollout(rollout("r-6")));
        assert_eq!(world.state("r-5"), Some(RolloutState::Partial));
        if back {
            while world.stands()["web1"] != "v3:in" {
                world.pass();
            }
            world.ask(Command::Abort { service: shop(), by: by() });
        }
        world.settle();
        let ends = if back { "v1:in" } else { "v3:in" };
        world.stand(&[("web1", ends), ("web2", ends), ("web3", ends)]);
    }
}

#[test]
fn a_queued_deploy_begins_when_the_one_before_has_ended_and_can_be_taken_out() {
    for cancelled in [false, true] {
        let mut world = Obedient::at(REST);
        let second = world.deploy("r-5", "v2");
        world.ask(Command::Deploy(Box::new(second)));
        let third = Deploy { busy: Busy::Queue, ..world.deploy("r-6", "v3") };
        assert_eq!(world.ask(Command::Deploy(Box::new(third.clone()))), Accepted::Queued(rollout("r-6")));
        assert_eq!(world.ask(Command::Deploy(Box::new(third))), Accepted::Queued(rollout("r-6")), "and only once");
        if cancelled {
            world.ask(Command::Cancel { service: shop(), queued: Some(rollout("r-6")), by: by() });
            let again = Command::Cancel { service: shop(), queued: None, by: by() };
            assert_eq!(world.refused(again), 714);
        }
        world.settle();
        let ends = if cancelled { "v2:in" } else { "v3:in" };
        world.stand(&[("web1", ends), ("web2", ends), ("web3", ends)]);
    }
}

#[test]
fn a_deploy_queued_before_a_service_asked_for_two_people_waits_for_the_other_one_all_the_same() {
    let mut world = Obedient::at(REST);
    let mut second = world.deploy("r-5", "v2");
    second.service.strategy.second_person = true;
    world.ask(Command::Deploy(Box::new(second)));
    let third = Deploy { busy: Busy::Queue, ..world.deploy("r-6", "v3") };
    world.ask(Command::Deploy(Box::new(third)));
    world.ask(Command::Resume { service: shop(), by: "ben".into() });
    while world.state("r-6").is_none() {
        world.pass();
    }
    assert_eq!(world.state("r-6"), Some(RolloutState::Paused), "it asks, though its own manifest does not");
    world.ask(Command::Resume { service: shop(), by: "ben".into() });
    world.settle();
    world.stand(&[("web1", "v3:in"), ("web2", "v3:in"), ("web3", "v3:in")]);
}

#[test]
fn a_freeze_refuses_what_is_new_and_never_the_way_back_until_it_ends() {
    let hour = Duration::from_secs(3600);
    for service in [Some(shop()), None] {
        let mut world = Obedient::at(REST);
        let deploy = |world: &Obedient, id| Command::Deploy(Box::new(world.deploy(id, "v2")));
        let second = deploy(&world, "r-5");
        world.ask(second);
        world.ask(Command::Freeze { service: service.clone(), lasts: Some(hour), by: by(), why: "holidays".into() });
        let third = Command::Deploy(Box::new(world.deploy("r-6", "v3")));
        assert_eq!(world.refused(third), 711);
        world.ask(Command::Rollback { id: rollout("r-7"), service: shop(), by: by(), force: false });
        world.settle();
        assert_eq!(world.state("r-5"), Some(RolloutState::Reverted));
        assert_eq!(world.refused(Command::Restart { id: rollout("r-8"), service: shop(), by: by() }), 711);
        world.now = world.now + hour;
        let second = deploy(&world, "r-9");
        assert_eq!(world.ask(second), Accepted::Rollout(rollout("r-9")));
    }
}

#[test]
fn a_removed_service_is_drained_stopped_and_forgotten() {
    let mut world = Obedient::at(REST);
    assert_eq!(world.ask(Command::RemoveService { service: shop(), by: by() }), Accepted::Noted);
    let deploy = world.deploy("r-5", "v2");
    assert_eq!(world.refused(Command::Deploy(Box::new(deploy))), 718);
    world.settle();
    assert!(world.fleet.services.is_empty() && world.fleet.releases.is_empty());
    for host in world.fleet.hosts.values() {
        assert!(host.issued.instances.is_empty() && host.issued.releases.is_empty() && host.issued.pools.is_empty());
    }
    assert_eq!(world.ask(Command::RemoveHost { host: host("web1"), force: false, by: by() }), Accepted::Noted);
}

#[test]
fn a_service_nobody_ever_heard_of_again_is_forgotten_at_once() {
    let mut world = Obedient::at("in-place max=1 none->v2\n web1 silent\n lb1");
    world.fleet.rollouts.clear();
    world.ask(Command::RemoveService { service: shop(), by: by() });
    world.pass();
    assert!(world.fleet.services.is_empty());
}

#[test]
fn a_host_is_forgotten_only_when_nothing_needs_it_or_it_never_comes_back() {
    let mut world = Obedient::at(REST);
    let remove = |name: &str, force| Command::RemoveHost { host: host(name), force, by: by() };
    assert_eq!(world.refused(remove("web9", false)), 703);
    assert_eq!(world.refused(remove("web3", false)), 712);
    assert_eq!(world.refused(remove("web3", true)), 712, "it is there, and serves");
    assert_eq!(world.refused(remove("lb1", true)), 712, "the only balancer");
    world.fleet.hosts.get_mut(&host("web3")).expect("a host").connected = false;
    assert_eq!(world.refused(remove("web3", false)), 712);
    assert_eq!(world.ask(remove("web3", true)), Accepted::Noted);
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in")]);
    let pools = &world.fleet.hosts[&host("lb1")].issued.pools;
    assert_eq!(pools.values().map(|pool| pool.members.len()).sum::<usize>(), 2);
}

#[test]
fn a_restart_starts_every_instance_anew_and_a_rehearsal_one() {
    for side in [REST.to_owned(), REST.replace("in-place max=1", "side-by-side max=0")] {
        let mut world = Obedient::at(&side);
        world.ask(Command::Restart { id: rollout("r-5"), service: shop(), by: by() });
        world.settle();
        assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
        let starts = |world: &Obedient| -> Vec<u32> {
            world.fleet.hosts.values().flat_map(|host| host.issued.instances.values().map(|it| it.start)).collect()
        };
        assert_eq!(starts(&world), [1, 1, 1], "{side}");
        world.ask(Command::Rehearse { id: rollout("r-6"), service: shop(), host: Some(host("web2")), by: by() });
        world.settle();
        assert_eq!(world.state("r-6"), Some(RolloutState::Succeeded));
        assert_eq!(starts(&world), [1, 2, 1], "{side}");
        world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")]);
        assert_eq!(world.fleet.services[&shop()].previous, None, "no other release was here");
        world.ask(Command::Skip { service: shop(), host: host("web3"), by: by(), why: "disk".into() });
        world.ask(Command::Rehearse { id: rollout("r-7"), service: shop(), host: Some(host("web2")), by: by() });
        world.settle();
        assert_eq!(world.state("r-7"), Some(RolloutState::Succeeded), "the host that stands aside was not meant");
        world.ask(Command::Restart { id: rollout("r-8"), service: shop(), by: by() });
        world.settle();
        assert_eq!(world.state("r-8"), Some(RolloutState::Partial), "here it was");
    }
}

#[test]
fn a_service_moves_to_other_hosts_without_going_below_its_floor() {
    let mut world = Obedient::at(REST);
    let mut deploy = world.deploy("r-4", "v1");
    deploy.service.hosts = vec![host("web1"), host("web2")];
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "")]);
    let mut deploy = world.deploy("r-5", "v2");
    deploy.service.hosts = vec![host("web3")];
    world.ask(Command::Deploy(Box::new(deploy)));
    let mut least = usize::MAX;
    while world.pass() || world.pass() {
        least = least.min(world.stands().values().filter(|what| what.ends_with(":in")).count());
    }
    world.stand(&[("web1", ""), ("web2", ""), ("web3", "v2:in")]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
    assert!(least >= 1, "nobody served for a while");
}
