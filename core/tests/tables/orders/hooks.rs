//! Hooks: when they are run, that they are run once, and what follows when they are not run to a good end.

use super::*;
use baton_core::fleet::hooks::{HookSpec, HookState};
use baton_core::hook::{Hook, HookKey, Hooks, Of};
use std::sync::Arc;

pub(super) const SIDE: &str =
    "side-by-side max=1\n web1 a=v1:ready:in b=v1:none:out\n web2 a=v1:ready:in b=v1:none:out\n lb1";

fn hook(point: Point) -> Hook {
    Hook { command: vec![format!("bin/{point}")], timeout: Duration::from_secs(60), no_way_back: false }
}

/// A deploy of v2 with hooks at these points.
fn deploy(world: &Obedient, id: &str, points: &[Point]) -> Deploy {
    let mut deploy = world.deploy(id, "v2");
    Arc::make_mut(&mut deploy.release).hooks = Hooks(points.iter().map(|point| (*point, hook(*point))).collect());
    deploy
}

pub(super) fn begin(text: &str, points: &[Point]) -> Obedient {
    let mut world = Obedient::at(text);
    let deploy = deploy(&world, "r-5", points);
    world.ask(Command::Deploy(Box::new(deploy)));
    world
}

pub(super) fn failed() -> HookOutcome {
    HookOutcome::Failed { problem: Problem::new(Code(801), "migrate failed on web1") }
}

impl Obedient {
    /// Passes until nothing changes, and what hosts were told to run and to start on the way, in order.
    #[track_caller]
    pub(super) fn story(&mut self) -> Vec<String> {
        let mut story: Vec<String> = Vec::new();
        for _ in 0..200 {
            let before = self.fleet.clone();
            if !self.pass() && !self.pass() {
                return story;
            }
            for (name, host) in &self.fleet.hosts {
                let old = &before.hosts[name].issued;
                let hooks = host.issued.hooks.iter().filter(|(key, it)| old.hooks.get(*key) != Some(*it));
                story.extend(hooks.map(|(key, it)| format!("{name} {} {}", key.point, it.attempt)));
                let had = |key| old.instances.get(key).map(|it| it.release);
                let starts = host.issued.instances.iter().filter(|(key, it)| had(*key) != Some(it.release));
                story.extend(starts.map(|_| format!("{name} starts")));
                let stops = old.instances.keys().filter(|key| !host.issued.instances.contains_key(key));
                story.extend(stops.map(|_| format!("{name} stops")));
            }
        }
        panic!("it never comes to rest: {:?}", plan(&self.fleet, self.now).waiting);
    }

    pub(super) fn run(&self, point: Point) -> &HookState {
        let mut runs = self.fleet.services[&shop()].hooks.iter().filter(|(key, _)| key.point == point);
        &runs.next().expect("it was asked for").1.state
    }

    fn vouch(&mut self, point: Point) -> Accepted {
        self.ask(Command::Vouch { service: shop(), point, host: None, by: by(), why: "looked".into() })
    }
}

pub(super) fn retry(id: &str) -> Command {
    Command::Retry { id: rollout(id), service: shop(), host: None, by: by() }
}

#[test]
fn every_hook_is_run_at_its_point_and_once() {
    let mut world = begin(SIDE, &Point::ALL);
    let story = world.story();
    let expected = [
        "web1 before_rollout 1",
        "web1 migrate 1",
        "web1 starts",
        "web1 before_drain 1",
        "web1 stops",
        "web1 after_enroll 1",
        "web2 starts",
        "web2 before_drain 1",
        "web2 stops",
        "web2 after_enroll 1",
        "web1 after_rollout 1",
    ];
    assert_eq!(story, expected);
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
}

#[test]
fn in_place_a_host_runs_its_hook_before_it_is_drained() {
    let mut world = begin("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1", &[Point::BeforeDrain]);
    assert_eq!(world.story(), ["web1 before_drain 1", "web1 starts", "web2 before_drain 1", "web2 starts"]);
}

#[test]
fn where_releases_cannot_coexist_the_migration_waits_until_nobody_runs_the_old_one() {
    let mut world = Obedient::at("in-place max=100%\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1");
    let mut deploy = deploy(&world, "r-5", &[Point::BeforeRollout, Point::Migrate]);
    deploy.service.strategy.exclusive = true;
    world.ask(Command::Deploy(Box::new(deploy)));
    let story = world.story();
    let expected = ["web1 before_rollout 1", "web1 stops", "web2 stops", "web1 migrate 1", "web1 starts", "web2 starts"];
    assert_eq!(story, expected);
}

#[test]
fn hosts_that_enter_together_run_their_hooks_before_any_of_them_does() {
    let mut world = Obedient::at(SIDE);
    let mut deploy = deploy(&world, "r-5", &[Point::BeforeDrain]);
    (deploy.service.strategy.lockstep, deploy.service.strategy.parallel) =
        (true, Some(baton_core::strategy::Amount::Percent(100)));
    world.ask(Command::Deploy(Box::new(deploy)));
    let story = world.story();
    assert_eq!(story[..4], ["web1 starts", "web2 starts", "web1 before_drain 1", "web2 before_drain 1"]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
}

#[test]
fn a_migration_is_run_once_for_a_release_however_often_it_is_deployed() {
    let mut world = begin(SIDE, &[Point::Migrate, Point::BeforeRollout]);
    world.story();
    world.ask(Command::Rollback { id: rollout("r-6"), service: shop(), by: by(), force: false });
    assert_eq!(
        world.story().iter().filter(|line| line.contains("before_rollout")).count(),
        0,
        "going back waits for nothing"
    );
    let again = deploy(&world, "r-7", &[Point::Migrate, Point::BeforeRollout]);
    world.ask(Command::Deploy(Box::new(again)));
    let story = world.story();
    assert_eq!(world.state("r-7"), Some(RolloutState::Succeeded));
    assert!(story.contains(&"web1 before_rollout 1".to_owned()), "{story:?}");
    assert!(!story.iter().any(|line| line.contains("migrate")), "{story:?}");
}

#[test]
fn a_migration_that_failed_holds_everything_until_a_person_asks_for_another_attempt() {
    let mut world = begin(SIDE, &[Point::Migrate]);
    world.outcomes.insert(Point::Migrate, failed());
    assert_eq!(world.story(), ["web1 migrate 1"]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
    assert!(world.words().contains(&"web1 hook".to_owned()), "{:?}", world.words());
    let resume = Command::Resume { service: shop(), by: by() };
    assert_eq!(world.refused(resume), 806);
    world.outcomes.clear();
    world.ask(retry("r-9"));
    assert_eq!(world.story()[..2], ["web1 migrate 2", "web1 starts"]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
}

#[test]
fn what_nobody_knows_is_not_run_again_and_goes_on_by_a_persons_word() {
    let mut world = begin(SIDE, &[Point::Migrate]);
    let problem = Problem::new(Code(803), "nobody knows how migrate ended on web1");
    world.outcomes.insert(Point::Migrate, HookOutcome::Unknown { problem });
    assert_eq!(world.story(), ["web1 migrate 1"]);
    // A coordinator that begins anew, and hosts that are told everything again.
    world.fleet.take_over();
    assert_eq!(world.story(), Vec::<String>::new());
    assert_eq!(world.vouch(Point::Migrate), Accepted::Rollout(rollout("r-5")));
    assert_eq!(world.story()[..1], ["web1 starts"]);
    assert!(matches!(world.run(Point::Migrate), HookState::Vouched { .. }));
    let again = Command::Vouch { service: shop(), point: Point::Migrate, host: None, by: by(), why: String::new() };
    assert_eq!(world.refused(again), 807);
}

#[test]
fn the_first_hook_that_fails_takes_the_rollout_back_where_failures_do() {
    let mut world = begin(SIDE, &[Point::BeforeRollout]);
    world.outcomes.insert(Point::BeforeRollout, failed());
    assert_eq!(world.story(), ["web1 before_rollout 1"]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Reverted));
    let mut world = Obedient::at(SIDE);
    let mut deploy = deploy(&world, "r-5", &[Point::BeforeRollout]);
    deploy.service.strategy.on_failure = OnFailure::Pause;
    world.outcomes.insert(Point::BeforeRollout, failed());
    world.ask(Command::Deploy(Box::new(deploy)));
    world.story();
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused));
}

#[test]
fn without_a_way_back_nothing_goes_back_unless_it_is_forced() {
    let mut world = Obedient::at(SIDE);
    let mut deploy = deploy(&world, "r-5", &[Point::Migrate]);
    if let Some(hook) = Arc::make_mut(&mut deploy.release).hooks.0.get_mut(&Point::Migrate) {
        hook.no_way_back = true;
    }
    world.ask(Command::Deploy(Box::new(deploy)));
    world.broken.push(("web1", "v2"));
    world.story();
    assert_eq!(world.state("r-5"), Some(RolloutState::Paused), "on_failure is to revert, and there is no way");
    let rollback = |id: &str, force| Command::Rollback { id: rollout(id), service: shop(), by: by(), force };
    assert_eq!(world.refused(rollback("r-6", false)), 805);
    assert_eq!(world.refused(Command::Abort { service: shop(), by: by() }), 805);
    world.broken.clear();
    world.ask(retry("r-9"));
    world.story();
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
    let told = world.fleet.hosts.values().flat_map(|host| host.issued.instances.values()).collect::<Vec<_>>();
    assert!(told.len() == 2 && told.iter().all(|it| it.fallback.is_none()), "no host goes back by itself: {told:?}");
    assert_eq!(world.refused(rollback("r-6", false)), 805);
    let mut old = self::deploy(&world, "r-7", &[]);
    old.release = release("v1").into();
    assert_eq!(world.refused(Command::Deploy(Box::new(old))), 805, "deployed again it would be a way back, too");
    world.ask(rollback("r-6", true));
    world.story();
    assert_eq!(world.state("r-6"), Some(RolloutState::Succeeded));
}

#[test]
fn a_host_that_is_gone_for_good_leaves_a_hook_that_nobody_knows_of_and_another_host_takes_the_next_attempt() {
    let mut world = begin(SIDE, &[Point::Migrate]);
    world.outcomes.insert(Point::Migrate, HookOutcome::Running { since: Duration::from_secs(1) });
    world.pass();
    world.pass();
    world.fleet.hosts.get_mut(&host("web1")).expect("a host").connected = false;
    world.ask(Command::RemoveHost { host: host("web1"), force: true, by: by() });
    assert_eq!(world.story(), Vec::<String>::new());
    assert!(matches!(world.run(Point::Migrate), HookState::Unknown { .. }));
    world.outcomes.clear();
    world.ask(retry("r-9"));
    assert_eq!(world.story()[..1], ["web2 migrate 2"]);
}

#[test]
fn the_interlock_refuses_a_hook_that_was_told_before() {
    let mut world = begin(SIDE, &[Point::Migrate]);
    world.outcomes.insert(Point::Migrate, failed());
    world.story();
    let key = HookKey {
        service: shop(),
        point: Point::Migrate,
        of: Of::Release(deploy(&world, "r-5", &[Point::Migrate]).release.id()),
        host: None,
    };
    for (attempt, why) in [(1, "it was told before"), (2, "it is not written down that it is told")] {
        let mut again = plan(&world.fleet, world.now);
        let told = &world.fleet.hosts[&host("web1")];
        let Of::Release(release) = &key.of else { unreachable!() };
        let mut spec = told.issued.clone();
        spec.generation = spec.generation.next();
        spec.hooks.insert(key.clone(), HookSpec { attempt, release: *release, address: told.address, instance: None });
        again.specs.insert(host("web1"), spec);
        let violations = interlock::check(&world.fleet, &again).expect_err("it is refused");
        assert!(violations.iter().all(|it| it.invariant == 11) && violations[0].what.contains(why), "{violations:?}");
    }
    // A planner that asks for another attempt by itself.
    let mut again = plan(&world.fleet, world.now);
    let mut service = world.fleet.services[&shop()].clone();
    if let Some(run) = service.hooks.get_mut(&key) {
        (run.attempt, run.issued, run.state) = (2, 2, HookState::Asked);
    }
    again.services.insert(shop(), service);
    let violations = interlock::check(&world.fleet, &again).expect_err("it is refused");
    assert_eq!(violations.iter().map(|it| it.invariant).collect::<Vec<_>>(), [11]);
}

#[test]
fn a_host_that_comes_back_from_work_on_it_waits_for_the_migration_like_every_other() {
    let mut world = begin(SIDE, &[Point::Migrate]);
    world.outcomes.insert(Point::Migrate, HookOutcome::Running { since: Duration::from_secs(1) });
    let (by, why) = (by(), "work".to_owned());
    world.ask(Command::Drain { host: host("web2"), stop: false, reboot: false, by: by.clone(), why });
    for _ in 0..3 {
        world.pass();
    }
    world.ask(Command::Undrain { host: host("web2"), by });
    for _ in 0..3 {
        world.pass();
    }
    let mut told = world.fleet.hosts.values().flat_map(|host| host.issued.instances.values());
    assert!(told.all(|it| it.release == release("v1").id()), "nobody starts v2 before its migration has been run");
}

#[test]
fn an_attempt_that_was_taken_back_leaves_cut_off_what_the_one_before_did() {
    let mut world = Obedient::at(SIDE);
    world.outcomes.insert(Point::Migrate, failed());
    let mut deploy = deploy(&world, "r-5", &[Point::Migrate]);
    Arc::make_mut(&mut deploy.release).hooks.0.values_mut().for_each(|hook| hook.no_way_back = true);
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    let old = release("v1").id();
    assert!(world.fleet.services[&shop()].forbids(old).is_some(), "it began");
    world.ask(retry("r-6"));
    plan(&world.fleet, world.now).take(&mut world.fleet);
    // Taken back before the host has heard of it.
    world.ask(Command::Rollback { id: rollout("r-7"), service: shop(), by: by(), force: true });
    plan(&world.fleet, world.now).take(&mut world.fleet);
    world.settle();
    assert_eq!(world.run(Point::Migrate).problem().map(|problem| problem.code), Some(Code(804)));
    assert!(world.fleet.services[&shop()].forbids(old).is_some(), "the first attempt may have done its work");
}

#[test]
fn what_waits_for_a_migration_takes_nothing_from_a_host_that_is_drained_meanwhile() {
    let mut world = begin("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1", &[Point::Migrate]);
    world.pass();
    world.ask(drain("web2", true));
    let next = plan(&world.fleet, world.now);
    assert_eq!(next.services[&shop()].hooks.len(), 1, "the migration is asked for");
    next.take(&mut world.fleet);
    assert!(!plan(&world.fleet, world.now).changes_anything(), "planning twice changed something");
}
