//! Releases that are forgotten: which, and that whoever asks for one again finds everything as if it never had been.

use super::*;
use baton_core::fleet::orders::{Kept, Queued};
use baton_core::fleet::past::Remembers;
use baton_core::fleet::{Service, Warm};
use baton_core::hook::{Hook, Hooks};
use baton_core::name::ReleaseId;
use baton_core::rollout::plan::Plan;

const ONE: &str = "in-place max=1\n web1 a=v1:ready:in\n lb1";

/// A fleet that remembers nothing but what it needs, or everything.
fn remembering(releases: usize) -> Obedient {
    let mut world = Obedient::at(ONE);
    world.fleet.remembers = Remembers(releases);
    world
}

fn id(version: &str) -> ReleaseId {
    migrating(version).id()
}

/// Versions with an `m` have a migration, those with an `x` one after which there is no way back.
fn migrating(version: &str) -> baton_core::release::Release {
    let mut release = release(version);
    if version.ends_with(['m', 'x']) {
        let (command, timeout) = (vec!["bin/migrate".into()], Duration::from_secs(60));
        let hook = Hook { command, timeout, no_way_back: version.ends_with('x') };
        release.hooks = Hooks([(Point::Migrate, hook)].into());
    }
    release
}

impl Obedient {
    /// What comes of one word: `deploy v2`, `back v1`, `force v1`, `rollback`; then everything comes to rest.
    fn comes_of(&mut self, word: &str, nth: usize) -> String {
        let id = rollout(&format!("r-{}", nth + 10));
        let command = match word.split_once(' ') {
            Some(("deploy", version)) => {
                let deploy = self.deploy(id.as_str(), version);
                Command::Deploy(Box::new(Deploy { release: migrating(version).into(), ..deploy }))
            }
            Some((how, version)) => {
                let version = baton_core::name::Version::new(version).expect("a version");
                Command::RollbackTo { id, service: shop(), version, by: by(), force: how == "force" }
            }
            None => Command::Rollback { id, service: shop(), by: by(), force: false },
        };
        self.recall(&command);
        let came = match apply(&mut self.fleet, command, self.now) {
            Ok(Accepted::Rollout(_)) => "begins".to_owned(),
            Ok(other) => format!("{other:?}"),
            Err(problem) => problem.code.to_string(),
        };
        let hooks = self.told_hooks();
        self.settle();
        format!("{word}: {came}, {} migrations, {:?}", self.told_hooks() - hooks, self.stands())
    }

    /// As the driver does: what a command names is brought back before it is looked at.
    fn recall(&mut self, command: &Command) {
        let named: Vec<ReleaseId> = match command {
            Command::Deploy(deploy) => vec![deploy.release.id()],
            Command::RollbackTo { version, .. } => {
                self.forgotten.iter().filter(|(_, it)| it.release.version == *version).map(|(id, _)| *id).collect()
            }
            _ => Vec::new(),
        };
        for past in named.iter().filter_map(|id| self.forgotten.remove(id)) {
            self.fleet.bring_back(past);
        }
    }

    /// What a plan leaves behind: releases it forgets, hooks it tells.
    pub(super) fn note(&mut self, plan: &Plan) {
        self.forgotten.extend(plan.forgotten.clone());
        let told = plan.specs.values().flat_map(|spec| &spec.hooks);
        self.hooks_told.extend(told.map(|(key, it)| (key.clone(), it.attempt)));
    }

    /// How many hooks hosts were ever told.
    fn told_hooks(&self) -> usize {
        self.hooks_told.len()
    }
}

#[test]
fn after_five_hundred_rollouts_a_fleet_is_as_small_as_after_fifty() {
    let mut world = remembering(5);
    let size = |world: &Obedient| {
        let service = &world.fleet.services[&shop()];
        let past = &service.past;
        let lists = (service.hooks.len(), past.order.len(), past.cut_off.len());
        (world.fleet.releases.len(), world.fleet.rollouts.len(), lists)
    };
    let (first, mut sizes) = (world.fleet.releases.len(), Vec::new());
    for nth in 0..500 {
        let kind = ["", "m", "x"][nth % 3];
        let came = world.comes_of(&format!("deploy v{nth}{kind}"), nth);
        assert!(came.contains("begins"), "{came}");
        sizes.push(size(&world));
    }
    // Five beside the live one and the one before it.
    let most = (7, 1, (5, 7, 7));
    let fits = |it: &(usize, usize, (usize, usize, usize))| {
        it.0 <= most.0 && it.1 <= most.1 && it.2.0 <= most.2.0 && it.2.1 <= most.2.1 && it.2.2 <= most.2.2
    };
    let large = sizes.iter().enumerate().find(|(_, size)| !fits(size));
    assert_eq!(large, None, "larger than {most:?}");
    assert_eq!(sizes[491..494], sizes[41..44], "another number of rollouts, and the same size");
    assert_eq!(world.forgotten.len() + world.fleet.releases.len(), first + 500, "nothing is lost");
}

#[test]
fn what_was_forgotten_comes_back_as_if_it_had_been_remembered() {
    for words in [
        // What is run once stays run once.
        &["deploy v2m", "deploy v3", "deploy v4", "deploy v2m", "deploy v5", "deploy v6", "back v2m"][..],
        // Forgotten before a migration without a way back.
        &["deploy v2", "deploy v3", "deploy v4", "deploy v5x", "back v1", "back v2", "back v4", "deploy v2", "force v2"],
        // And so is the migration's release, too.
        &["deploy v2", "deploy v3x", "deploy v4", "deploy v5", "back v1", "deploy v2", "back v3x", "back v4", "back v1"],
        // Forgotten, brought back against its word, forgotten again.
        &["deploy v2x", "force v1", "deploy v3", "deploy v4", "back v1", "force v1", "rollback", "back v1", "deploy v2x"],
        // What came after a migration is not cut off, however often it was forgotten.
        &["deploy v2x", "deploy v3", "deploy v4", "deploy v5", "back v3", "deploy v6", "deploy v7", "back v4", "back v2x"],
        // Two of them: the later one cuts off what the first did not.
        &["deploy v2x", "deploy v3", "deploy v4x", "deploy v5", "deploy v6", "back v3", "back v2x", "back v4x", "back v1"],
        &[
            "deploy v2m",
            "deploy v3m",
            "deploy v4x",
            "back v2m",
            "force v2m",
            "deploy v5",
            "deploy v6",
            "back v3m",
            "deploy v4x",
        ],
        &["back v9", "deploy v2", "deploy v3", "back v2", "back v1", "deploy v1", "deploy v2"],
    ] {
        let (mut forgets, mut remembers) = (remembering(0), remembering(usize::MAX));
        for (nth, word) in words.iter().enumerate() {
            let (one, other) = (forgets.comes_of(word, nth), remembers.comes_of(word, nth));
            assert_eq!(one, other, "the first forgets, the second does not; in {words:?}");
        }
        assert!(!forgets.forgotten.is_empty() && remembers.forgotten.is_empty());
        assert!(forgets.fleet.releases.len() < remembers.fleet.releases.len());
    }
}

#[test]
fn the_newest_are_remembered_and_what_is_older_than_the_list_goes_first() {
    let mut world = remembering(2);
    let known = |world: &Obedient| {
        let mut known: Vec<String> = world.fleet.releases.values().map(|it| it.version.to_string()).collect();
        known.sort();
        known.join(" ")
    };
    for (nth, version) in ["v2", "v3", "v4", "v5", "v6"].iter().enumerate() {
        world.comes_of(&format!("deploy {version}"), nth);
    }
    assert_eq!(known(&world), "v3 v4 v5 v6", "live, the one before, and two more");
    world.comes_of("back v3", 9);
    assert_eq!(known(&world), "v3 v4 v5 v6", "what is gone back to is as new as any");
    world.comes_of("deploy v7", 10);
    world.comes_of("deploy v8", 11);
    assert_eq!(known(&world), "v3 v6 v7 v8", "asked for last, and not brought first");
    // From a store that was written before there was an order.
    let mut old = remembering(usize::MAX);
    for (nth, version) in ["v2", "v3", "v4", "v5"].iter().enumerate() {
        old.comes_of(&format!("deploy {version}"), nth);
    }
    old.fleet.services.get_mut(&shop()).expect("a service").past.order.clear();
    old.fleet.remembers = Remembers(1);
    old.settle();
    assert_eq!(old.fleet.releases.len(), 3, "live, the one before, and any other one");
}

#[test]
fn nothing_is_forgotten_while_a_hook_is_under_way() {
    let mut world = remembering(0);
    for (nth, version) in ["v2", "v3"].iter().enumerate() {
        world.comes_of(&format!("deploy {version}"), nth);
    }
    world.outcomes.insert(Point::Migrate, HookOutcome::Running { since: Duration::ZERO });
    world.comes_of("deploy v4x", 5);
    let before = world.fleet.releases.len();
    assert!(world.fleet.services[&shop()].hooks.values().any(|run| run.state.word() == "asked"));
    world.pass();
    assert_eq!(world.fleet.releases.len(), before);
    world.outcomes.clear();
    world.settle();
    assert_eq!(world.fleet.releases.len(), 2, "live, and the one before");
}

type Needs<'a> = &'a dyn Fn(&mut Obedient, ReleaseId);
type Forgets<'a> = &'a dyn Fn(&mut Service, &mut Plan);

/// A plan that forgets v0 of a fleet that `needs` it, and nothing else.
fn refusals(needs: impl Fn(&mut Obedient, ReleaseId), forgets: impl Fn(&mut Service, &mut Plan)) -> Vec<u8> {
    let mut world = Obedient::at(ONE);
    let old = migrating("v0x");
    world.fleet.releases.insert(old.id(), old.clone().into());
    needs(&mut world, old.id());
    let mut plan = Plan::default();
    let mut service = world.fleet.services[&shop()].clone();
    plan.forgotten.insert(old.id(), service.forget(old.into(), NOW));
    forgets(&mut service, &mut plan);
    plan.services.insert(shop(), service);
    let refused = interlock::check(&world.fleet, &plan).err().unwrap_or_default();
    refused.iter().map(|violation| violation.invariant).collect()
}

#[test]
fn the_interlock_refuses_to_forget_what_is_needed() {
    fn service(world: &mut Obedient) -> &mut Service {
        world.fleet.services.get_mut(&shop()).expect("a service")
    }
    let untouched = |_: &mut Service, _: &mut Plan| {};
    assert_eq!(refusals(|_, _| {}, untouched), [0; 0], "what nothing needs may go");
    let committed = |world: &mut Obedient, id| service(world).committed = Some(id);
    let previous = |world: &mut Obedient, id| service(world).previous = Some(id);
    let warm = |world: &mut Obedient, release| service(world).warm = Some(Warm { release, until: NOW });
    let kept = |world: &mut Obedient, release| {
        service(world).orders.kept.insert(host("web1"), Kept { release, by: by() });
    };
    let queued = |world: &mut Obedient, release| {
        let shape = Box::new(service(world).clone());
        service(world).orders.queue = vec![Queued { id: rollout("r-9"), shape, release, by: by(), since: NOW }];
    };
    let brought = |world: &mut Obedient, id| {
        let deploy = world.deploy("r-9", "v2");
        world.ask(Command::Deploy(Box::new(deploy)));
        world.fleet.rollouts.get_mut(&rollout("r-9")).expect("a rollout").to = id;
    };
    let told = |world: &mut Obedient, id| {
        let issued = &mut world.fleet.hosts.get_mut(&host("web1")).expect("a host").issued;
        issued.instances.iter_mut().for_each(|(_, it)| it.fallback = Some(id));
        issued.releases.insert(id, migrating("v0x").into());
    };
    let runs = |world: &mut Obedient, id| {
        let heard = world.fleet.hosts.get_mut(&host("web1")).expect("a host").heard.as_mut().expect("a report");
        heard.report.instances.iter_mut().for_each(|(_, it)| it.release = id);
    };
    let held = |world: &mut Obedient, id| {
        let heard = world.fleet.hosts.get_mut(&host("web1")).expect("a host").heard.as_mut().expect("a report");
        heard.report.releases.insert(id, ReleaseState::Held);
    };
    let all: [(&str, Needs<'_>); 9] = [
        ("committed", &committed),
        ("previous", &previous),
        ("warm", &warm),
        ("kept", &kept),
        ("queued", &queued),
        ("brought", &brought),
        ("told", &told),
        ("runs", &runs),
        ("held", &held),
    ];
    for (what, needs) in all {
        assert!(refusals(needs, untouched).contains(&12), "{what}");
    }
}

#[test]
fn the_interlock_refuses_to_forget_what_is_known_of_hooks() {
    let migrated = |world: &mut Obedient, id: ReleaseId| {
        let mut ran = remembering(usize::MAX);
        ran.comes_of("deploy v0x", 0);
        let mut hooks = ran.fleet.services[&shop()].hooks.clone();
        assert_eq!(hooks.len(), 1);
        let run = hooks.values_mut().next().expect("a migration");
        run.cuts_off.releases = [release("v1").id()].into();
        assert_eq!(id, run.release);
        world.fleet.services.get_mut(&shop()).expect("a service").hooks = hooks;
    };
    assert_eq!(refusals(migrated, |_, _| {}), [0; 0], "whole, it may go");
    let without_runs = |_: &mut Service, plan: &mut Plan| plan.forgotten.values_mut().for_each(|it| it.hooks.clear());
    let lets_the_others = |service: &mut Service, _: &mut Plan| service.past.cut_off.clear();
    let lets_the_forgotten = |service: &mut Service, _: &mut Plan| service.past.newest = None;
    let says_too_much = |service: &mut Service, plan: &mut Plan| {
        let key = service.past.newest.as_ref().map(|newest| newest.key.clone());
        plan.forgotten.values_mut().for_each(|it| it.cut_off.clone_from(&key));
    };
    let all: [Forgets<'_>; 4] = [&without_runs, &lets_the_others, &lets_the_forgotten, &says_too_much];
    for (nth, forgets) in all.into_iter().enumerate() {
        assert!(refusals(migrated, forgets).contains(&11), "{nth}");
    }
    assert_eq!(id("v0x"), migrating("v0x").id());
}
