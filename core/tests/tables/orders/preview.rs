//! Blue-green with a preview: who reaches the new release before the switch, and that the switch is one.

use super::{Obedient, by, drain, rollout};
use crate::text::{able, host, pool, shop};
use baton_core::fleet::report::InstanceState;
use baton_core::fleet::spec::{HostSpec, MemberState, PoolSpec};
use baton_core::fleet::split::Side;
use baton_core::hook::{Hook, Point};
use baton_core::rollout::command::{Busy, Command};
use baton_core::rollout::plan::plan;
use baton_core::rollout::{RolloutState, interlock};
use baton_core::strategy::{Amount, Wave};
use std::sync::Arc;
use std::time::Duration;

const REST: &str = "side-by-side max=0\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1\n lb2";
const BOTH: [(&str, &str); 3] = [("web1", "v1:in+v2:in"), ("web2", "v1:in+v2:in"), ("web3", "v1:in+v2:in")];
const SWITCHED: [(&str, &str); 3] = [("web1", "v1:out+v2:in"), ("web2", "v1:out+v2:in"), ("web3", "v1:out+v2:in")];
const BEFORE: [(&str, &str); 3] = [("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")];

fn deployed(text: &str) -> Obedient {
    deployed_with(text, &[])
}

/// The hooks are the new release's.
fn deployed_with(text: &str, hooks: &[(Point, Hook)]) -> Obedient {
    let mut world = Obedient::at(text);
    if !text.contains("v1") {
        world.fleet.services.get_mut(&shop()).expect("a service").committed = None;
    }
    for known in world.fleet.hosts.values_mut() {
        known.heard.as_mut().expect("a report").report.balancer = Some(able());
    }
    let mut deploy = world.deploy("r-5", "v2");
    Arc::make_mut(&mut deploy.release).hooks.0.extend(hooks.iter().cloned());
    let strategy = &mut deploy.service.strategy;
    strategy.lockstep = true;
    strategy.parallel = Some(Amount::Percent(100));
    strategy.keep_old = Duration::from_secs(600);
    strategy.waves = vec![Wave::preview(), Wave { approve: true, ..Wave::of(Amount::Percent(100)) }];
    strategy.users.rules = vec!["header X-Preview = 1".parse().expect("a rule")];
    world.ask(Command::Deploy(Box::new(deploy)));
    world
}

/// A pool as it was told: who is let in, and who is on trial.
fn told(spec: &HostSpec) -> String {
    let pool: &PoolSpec = &spec.pools[&pool()];
    let is_in = |side: Side| {
        pool.members.values().filter(|member| member.state == MemberState::Ready && member.side == side).count()
    };
    let split = pool.split.as_ref().map_or("one side".to_owned(), ToString::to_string);
    format!("{split} | stable {} trial {}", is_in(Side::Stable), is_in(Side::Trial))
}

impl Obedient {
    fn pools(&self) -> Vec<String> {
        ["lb1", "lb2"].iter().filter_map(|name| self.fleet.hosts.get(&host(name))).map(|it| told(&it.issued)).collect()
    }

    /// Another preview takes the place of this one.
    fn give_way_to_v3(&mut self) {
        let mut deploy = self.deploy("r-6", "v3");
        deploy.service.strategy = self.fleet.rollouts[&rollout("r-5")].strategy.clone();
        deploy.busy = Busy::Supersede;
        self.ask(Command::Deploy(Box::new(deploy)));
    }

    fn promote(&mut self) {
        self.ask(Command::Promote { service: shop(), by: by() });
    }
}

#[test]
fn whom_the_rule_names_alone_reaches_the_new_release_and_then_all_balancers_switch_in_one_pass() {
    let mut world = deployed(REST);
    world.settle();
    world.stand(&BOTH);
    assert_eq!(world.words(), ["- approval"]);
    assert_eq!(world.pools(), ["0%, header X-Preview = 1 | stable 3 trial 3"; 2]);
    world.promote();
    // Nobody in between: every pass before is as it was, and the one after is the whole of it.
    let mut seen = vec![world.pools()];
    while world.state("r-5") == Some(RolloutState::Running) {
        world.pass();
        seen.push(world.pools());
        seen.dedup();
    }
    let (before, after) = ("0%, header X-Preview = 1 | stable 3 trial 3", "100%, header X-Preview = 1 | stable 0 trial 3");
    assert_eq!(seen[..2], [vec![before.to_owned(); 2], vec![after.to_owned(); 2]], "{seen:?}");
    world.settle();
    world.stand(&SWITCHED);
    assert_eq!(world.pools(), ["one side | stable 3 trial 0"; 2]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
}

#[test]
fn nobody_looks_at_a_first_release_before_it_serves() {
    let mut world = deployed(&REST.replace("a=v1:ready:in", ""));
    let first = world.fleet.rollouts.get_mut(&rollout("r-5")).expect("a rollout");
    assert_eq!(first.strategy.preview().map(ToString::to_string), None, "{first:?}");
    world.settle();
    world.stand(&[("web1", "v2:in"), ("web2", "v2:in"), ("web3", "v2:in")]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
}

#[test]
fn going_back_from_a_preview_takes_the_new_release_away_and_nobody_notices() {
    let mut world = deployed(REST);
    world.settle();
    world.ask(Command::Rollback { id: rollout("r-6"), service: shop(), force: false, by: by() });
    while world.state("r-5") == Some(RolloutState::Reverting) {
        world.pass();
        assert!(world.pools().iter().all(|pool| pool.contains("| stable 3")), "{:?}", world.pools());
    }
    world.settle();
    world.stand(&BEFORE);
    assert_eq!(world.pools(), ["one side | stable 3 trial 0"; 2]);
}

#[test]
fn what_is_given_up_in_its_preview_is_kept_by_nobody_and_nothing_old_goes_out() {
    let mut world = deployed(REST);
    world.settle();
    world.give_way_to_v3();
    while world.words() != ["- approval"] {
        world.pass();
        assert!(
            world.pools().iter().all(|pool| pool.starts_with("0%, ") && pool.contains("stable 3")),
            "{:?}",
            world.pools()
        );
    }
    world.stand(&[("web1", "v1:in+v3:in"), ("web2", "v1:in+v3:in"), ("web3", "v1:in+v3:in")]);
    world.ask(Command::Keep { service: shop(), by: by() });
    world.settle();
    world.stand(&BEFORE);
}

#[test]
fn the_switch_waits_for_every_balancer_and_for_every_hosts_hook() {
    let mut world = deployed(REST);
    world.settle();
    world.fleet.hosts.get_mut(&host("lb2")).expect("a host").connected = false;
    world.promote();
    world.settle();
    world.stand(&BOTH);
    assert_eq!(world.pools(), ["0%, header X-Preview = 1 | stable 3 trial 3"; 2]);
    world.fleet.hosts.get_mut(&host("lb2")).expect("a host").connected = true;
    world.settle();
    world.stand(&SWITCHED);
}

#[test]
fn a_host_that_is_skipped_in_a_preview_does_not_hold_the_others() {
    for skipped in [false, true] {
        let mut world = deployed(REST);
        world.settle();
        world.ask(match skipped {
            true => Command::Skip { service: shop(), host: host("web3"), by: by(), why: "disk".into() },
            false => drain("web3", false),
        });
        world.settle();
        world.promote();
        world.settle();
        let stands = world.stands();
        assert_eq!((stands["web1"].as_str(), stands["web2"].as_str()), ("v1:out+v2:in", "v1:out+v2:in"), "{stands:?}");
        assert_eq!(world.state("r-5"), Some(RolloutState::Partial));
    }
}

#[test]
fn a_host_that_is_taken_out_for_a_while_in_a_preview_comes_back_with_both() {
    let mut world = deployed(REST);
    world.settle();
    for name in ["web1", "web2", "web3"] {
        world.ask(drain(name, false));
        world.settle();
        assert_eq!(world.stands()[name], "v1:out+v2:out");
        world.ask(Command::Undrain { host: host(name), by: by() });
        world.settle();
    }
    world.stand(&BOTH);
    assert_eq!(world.pools(), ["0%, header X-Preview = 1 | stable 3 trial 3"; 2]);
    // Also while it is held.
    world.ask(Command::Pause { service: shop(), by: by(), why: "look".into() });
    world.ask(drain("web1", false));
    world.settle();
    world.ask(Command::Undrain { host: host("web1"), by: by() });
    world.settle();
    assert!(world.stands()["web1"].starts_with("v1:in"), "{:?}", world.stands());
    world.ask(Command::Resume { service: shop(), by: by() });
    world.settle();
    world.stand(&BOTH);
    world.promote();
    world.settle();
    world.stand(&SWITCHED);
}

#[test]
fn the_interlock_lets_nobody_else_in_and_nothing_out_before_the_switch() {
    let world = deployed(REST);
    let mut entering = world;
    while !plan(&entering.fleet, entering.now + Duration::from_secs(5)).specs.contains_key(&host("lb1"))
        || entering.pools()[0].contains("trial 0") && !entering.stands()["web1"].contains("v2")
    {
        entering.pass();
    }
    let now = entering.now + Duration::from_secs(5);
    let good = plan(&entering.fleet, now);
    let refused = |spoil: &dyn Fn(&mut PoolSpec)| {
        let mut bad = good.clone();
        spoil(bad.specs.get_mut(&host("lb1")).expect("a spec").pools.get_mut(&pool()).expect("a pool"));
        let violations = interlock::check(&entering.fleet, &bad).expect_err("it is refused");
        violations.iter().map(|violation| violation.invariant).collect::<Vec<_>>()
    };
    assert_eq!(interlock::check(&entering.fleet, &good), Ok(()));
    assert_eq!(told(&good.specs[&host("lb1")]), "0%, header X-Preview = 1 | stable 3 trial 3");
    assert!(refused(&|pool| pool.split = None).contains(&3), "for everybody");
    assert!(refused(&|pool| pool.split.as_mut().expect("a split").share = "5%".parse().expect("a share")).contains(&3));
    assert!(refused(&|pool| pool.split.as_mut().expect("a split").rules.clear()).contains(&3), "by no rule");
    let stable = |pool: &mut PoolSpec| pool.members.values_mut().for_each(|member| member.side = Side::Stable);
    assert!(refused(&stable).contains(&3), "on the wrong side");
    let out = |pool: &mut PoolSpec| {
        let old = pool.members.values_mut().find(|member| member.side == Side::Stable).expect("an old one");
        old.state = MemberState::Out;
    };
    assert!(refused(&out).contains(&1), "before the switch");
    let all = |pool: &mut PoolSpec| {
        let old = pool.members.values_mut().filter(|member| member.side == Side::Stable);
        old.for_each(|member| member.state = MemberState::Out);
    };
    assert!(refused(&all).contains(&4), "nobody for everybody");
}

#[test]
fn hooks_before_a_drain_are_run_before_the_switch_and_not_before_the_preview() {
    let hook = Hook { command: vec!["bin/quiet".into()], timeout: Duration::from_secs(5), no_way_back: false };
    let mut world = deployed_with(REST, &[(Point::BeforeDrain, hook)]);
    world.settle();
    assert!(world.hooks_told.is_empty(), "{:?}", world.hooks_told);
    world.promote();
    world.settle();
    assert_eq!(world.hooks_told.len(), 3, "{:?}", world.hooks_told);
    world.stand(&SWITCHED);
}

#[test]
fn what_serves_stays_in_though_it_only_comes_back_as_another_release_takes_the_place_of_the_one_beside_it() {
    let mut world = deployed(REST);
    world.settle();
    world.give_way_to_v3();
    world.pass();
    // The host was rebooted, and what it runs starts.
    let web1 = world.fleet.hosts.get_mut(&host("web1")).and_then(|host| host.heard.as_mut()).expect("a report");
    for (_, instance) in web1.report.instances.iter_mut() {
        instance.state = InstanceState::Starting { since: Duration::from_secs(1), last: None };
    }
    world.pass();
    assert!(world.pools().iter().all(|pool| pool.contains("stable 3")), "{:?}", world.pools());
    world.settle();
    world.stand(&[("web1", "v1:in+v3:in"), ("web2", "v1:in+v3:in"), ("web3", "v1:in+v3:in")]);
}

#[test]
fn what_a_restart_left_beside_what_serves_makes_room_for_the_preview() {
    let mut world = deployed(&REST.replace("web3 a=v1:ready:in", "web3 a=v1:ready:in b=v1:ready:in"));
    world.settle();
    let stands = world.stands();
    assert_eq!((stands["web1"].as_str(), stands["web3"].matches(":in").count()), ("v1:in+v2:in", 2), "{stands:?}");
    let mut world = deployed(&REST.replace("web3 a=v1:ready:in", "web3 a=v1:ready:in b=v1:ready:out"));
    world.settle();
    world.stand(&BOTH);
}
