//! Every command in every state: carried out, or refused with nothing changed.

use super::{Obedient, REST, by, drain, rollout};
use crate::text::{host, shop};
use baton_core::fleet::Labels;
use baton_core::hook::Point;
use baton_core::name::{ServiceName, Version};
use baton_core::rollout::RolloutState;
use baton_core::rollout::command::{Accepted, Busy, Command, Deploy, apply, basis};
use std::collections::BTreeSet;

/// Every command there is, about `service` and `name`.
fn commands(world: &Obedient, service: &str, name: &str) -> Vec<Command> {
    let service = || ServiceName::new(service).expect("a name");
    let (id, why) = (|| rollout("r-9"), || "because".to_owned());
    let version = Version::new("v1").expect("a version");
    vec![
        Command::Rollback { id: id(), service: service(), by: by(), force: false },
        Command::RollbackTo { id: id(), service: service(), version, by: by(), force: false },
        Command::Pause { service: service(), by: by(), why: why() },
        Command::Resume { service: service(), by: by() },
        Command::Promote { service: service(), by: by() },
        Command::Abort { service: service(), by: by() },
        Command::Keep { service: service(), by: by() },
        Command::Cancel { service: service(), queued: None, by: by() },
        Command::Retry { id: id(), service: service(), host: Some(host(name)), by: by() },
        Command::Retry { id: id(), service: service(), host: None, by: by() },
        Command::Skip { service: service(), host: host(name), by: by(), why: why() },
        Command::Restart { id: id(), service: service(), by: by() },
        Command::Rehearse { id: id(), service: service(), host: Some(host(name)), by: by() },
        Command::Freeze { service: Some(service()), lasts: None, by: by(), why: why() },
        Command::Unfreeze { service: Some(service()), by: by() },
        Command::RemoveService { service: service(), by: by() },
        Command::Drain { host: host(name), stop: false, reboot: false, by: by(), why: why() },
        Command::Undrain { host: host(name), by: by() },
        Command::Reboot { host: host(name), boot: "boot1".into(), by: by() },
        Command::GiveUpReboot { host: host(name), by: by() },
        Command::RemoveHost { host: host(name), force: false, by: by() },
        Command::RemoveHost { host: host(name), force: true, by: by() },
        Command::Rollback { id: id(), service: service(), by: by(), force: true },
        Command::Cancel { service: service(), queued: Some(id()), by: by() },
        Command::Vouch { service: service(), point: Point::Migrate, host: None, by: by(), why: why() },
        Command::Freeze { service: None, lasts: None, by: by(), why: why() },
        Command::Unfreeze { service: None, by: by() },
        Command::DeclareDead { host: host(name), by: by(), why: why() },
        Command::Revive { host: host(name), by: by() },
        Command::Label { host: host(name), set: Labels::new(), unset: BTreeSet::new(), by: by() },
        Command::Accept { host: host(name), by: by() },
        Command::Recover { without: BTreeSet::new(), by: by() },
        Command::Deploy(Box::new(world.deploy("r-9", "v3"))),
        Command::Deploy(Box::new(Deploy { busy: Busy::Queue, ..world.deploy("r-9", "v3") })),
        Command::Deploy(Box::new(Deploy { busy: Busy::Supersede, ..world.deploy("r-9", "v3") })),
        Command::Deploy(Box::new(Deploy { busy: Busy::Supersede, ..world.deploy("r-9", "v1") })),
    ]
}

#[test]
fn every_command_in_every_state_is_carried_out_or_refused_with_nothing_changed() {
    let states = [
        REST,
        "in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1",
        "in-place max=1 paused v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1",
        "in-place on-failure-pause evidence paused v1->v2\n web1 a=v2:failed:out\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1",
        "in-place max=1 back v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1",
        "in-place max=1 none->v2\n web1 a=v2:starting:out\n web2\n web3\n lb1",
        "side-by-side max=0 v1->v2\n web1 a=v1:ready:in b=v2:ready:out\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1 behind",
    ];
    for state in states {
        for (nth, command) in commands(&Obedient::at(state), "shop", "web2").into_iter().enumerate() {
            let mut world = Obedient::at(state);
            let before = world.fleet.clone();
            match apply(&mut world.fleet, command.clone(), world.now) {
                Err(problem) => {
                    assert!((700..900).contains(&problem.code.0) && problem.help.is_some(), "{problem:?}");
                    assert_eq!(world.fleet, before, "{command:?} was refused and changed something in {state}");
                }
                Ok(_) => world.settle(),
            }
            let ended = world.fleet.rollouts.values().all(|it| !matches!(it.state, RolloutState::Pending));
            assert!(ended, "command {nth} left something that nobody moves in {state}");
        }
    }
}

/// What people have asked for already, each by itself.
fn earlier(world: &Obedient) -> Vec<Command> {
    let (service, why) = (crate::text::shop, || "because".to_owned());
    vec![
        Command::Freeze { service: Some(service()), lasts: None, by: by(), why: why() },
        Command::Freeze { service: None, lasts: None, by: by(), why: why() },
        Command::RemoveService { service: service(), by: by() },
        Command::Drain { host: host("web2"), stop: true, reboot: false, by: by(), why: why() },
        Command::Skip { service: service(), host: host("web2"), by: by(), why: why() },
        Command::Deploy(Box::new(Deploy { busy: Busy::Queue, ..world.deploy("r-8", "v2") })),
        Command::Keep { service: service(), by: by() },
    ]
}

#[test]
fn every_command_after_every_order_is_carried_out_or_refused_with_nothing_changed() {
    let under_way = "in-place max=1 v1->v2\n web1 a=v2:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1";
    for state in [REST, under_way] {
        for first in earlier(&Obedient::at(state)) {
            let mut before = Obedient::at(state);
            if apply(&mut before.fleet, first.clone(), before.now).is_err() {
                continue;
            }
            before.pass();
            for command in commands(&before, "shop", "web2") {
                let mut world = Obedient { fleet: before.fleet.clone(), now: before.now, ..Obedient::default() };
                match apply(&mut world.fleet, command.clone(), world.now) {
                    Err(problem) => {
                        assert!((700..900).contains(&problem.code.0) && problem.help.is_some(), "{problem:?}");
                        assert_eq!(
                            world.fleet, before.fleet,
                            "{command:?} was refused and changed something after {first:?}"
                        );
                    }
                    Ok(_) => world.settle(),
                }
            }
        }
    }
}

#[test]
fn what_nobody_knows_is_refused_by_every_command() {
    let service = commands(&Obedient::at(REST), "cart", "web2");
    for command in service.into_iter().filter(|command| command.service().is_some_and(|name| name.as_str() == "cart")) {
        assert_eq!(Obedient::at(REST).refused(command), 709);
    }
    for command in commands(&Obedient::at(REST), "shop", "web9") {
        let mut world = Obedient::at(REST);
        match command {
            Command::Drain { .. }
            | Command::Undrain { .. }
            | Command::Reboot { .. }
            | Command::GiveUpReboot { .. }
            | Command::DeclareDead { .. }
            | Command::Revive { .. }
            | Command::Label { .. }
            | Command::Accept { .. }
            | Command::RemoveHost { .. } => {
                assert_eq!(world.refused(command), 703);
            }
            Command::Skip { .. } | Command::Rehearse { .. } | Command::Retry { host: Some(_), .. } => {
                assert_eq!(world.refused(command), 716);
            }
            _ => {}
        }
    }
}

#[test]
fn a_plan_that_is_stale_is_refused() {
    let mut world = Obedient::at(REST);
    let basis = basis(&world.fleet, &shop());
    world.settle();
    let good = Deploy { if_plan: Some(basis), ..world.deploy("r-5", "v2") };
    world.ask(drain("web3", false));
    assert_eq!(world.refused(Command::Deploy(Box::new(good.clone()))), 719);
    world.ask(Command::Undrain { host: host("web3"), by: by() });
    assert_eq!(world.ask(Command::Deploy(Box::new(good))), Accepted::Rollout(rollout("r-5")));
}
