//! The interlock refuses what a planner must never propose: each invariant with a proposal that breaks it, and no other.

use super::text::{NOW, World, host, pool, release, shop};
use baton_core::fleet::orders::{Maintenance, Order};
use baton_core::fleet::spec::{MemberState, Restart};
use baton_core::fleet::{InstanceKey, MemberKey};
use baton_core::name::{Epoch, RolloutId, ServiceName, Slot};
use baton_core::rollout::interlock::check;
use baton_core::rollout::plan::{Plan, refused};
use baton_core::rollout::{Direction, RolloutState};

const SERVING: &str = "in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1";

struct Proposal {
    world: World,
    plan: Plan,
}

impl Proposal {
    fn on(text: &str) -> Self {
        Self { world: World::parse(text), plan: Plan::default() }
    }

    fn spec(&mut self, name: &str) -> &mut baton_core::fleet::spec::HostSpec {
        let issued = self.world.fleet.hosts[&host(name)].issued.clone();
        self.plan.specs.entry(host(name)).or_insert_with(|| {
            let generation = issued.generation.next();
            baton_core::fleet::spec::HostSpec { generation, ..issued }
        })
    }

    fn run(mut self, name: &str, slot: u8, version: &str) -> Self {
        let id = release(version).id();
        let port = 8101 + u16::from(slot);
        let spec = self.spec(name);
        let key = InstanceKey { service: shop(), slot: Slot(slot) };
        let address = ([127, 0, 0, 9], port).into();
        let address = spec.instances.get(&key).map_or(address, |it| it.address);
        let restart = Restart::Never;
        spec.instances.insert(
            key,
            baton_core::fleet::spec::InstanceSpec {
                release: id,
                address,
                restart,
                start: 0,
                fallback: None,
                scrape: None,
                withdraw: None,
            },
        );
        self
    }

    fn member(mut self, balancer: &str, name: &str, slot: u8, state: MemberState) -> Self {
        let member = MemberKey { host: host(name), slot: Slot(slot) };
        if let Some(spec) = self.spec(balancer).pools.get_mut(&pool()).and_then(|it| it.members.get_mut(&member)) {
            spec.state = state;
        }
        self
    }

    #[track_caller]
    fn breaks(self, invariant: u8) {
        let violations = check(&self.world.fleet, &self.plan).expect_err("the interlock refuses");
        let numbers: Vec<u8> = violations.iter().map(|it| it.invariant).collect();
        assert_eq!(numbers, [invariant], "{violations:?}");
    }
}

#[test]
fn it_refuses_to_take_a_whole_rack_out() {
    let racks = "in-place max=3 spread v1->v2
        web1 rack=a a=v1:ready:out
        web2 rack=a a=v1:ready:in
        web3 rack=b a=v1:ready:in
        web4 rack=b a=v1:ready:in
        lb1";
    Proposal::on(racks).member("lb1", "web2", 0, MemberState::Out).breaks(5);
}

#[test]
fn it_lets_people_take_one_host_where_releases_may_take_none_and_no_other_with_it() {
    let none = "side-by-side max=0\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:ready:in\n lb1";
    let drained = || {
        let mut proposal = Proposal::on(none).member("lb1", "web1", 0, MemberState::Out);
        let order = Order { by: "ana".into(), why: "disk".into(), since: NOW };
        let work = Maintenance { order, stop: false, reboot: None };
        proposal.world.fleet.hosts.get_mut(&host("web1")).expect("a host").maintenance = Some(work);
        proposal
    };
    Proposal::on(none).member("lb1", "web1", 0, MemberState::Out).breaks(1);
    let one = drained();
    assert_eq!(check(&one.world.fleet, &one.plan), Ok(()));
    drained().member("lb1", "web2", 0, MemberState::Out).breaks(1);
}

#[test]
fn it_refuses_to_go_below_the_floor() {
    Proposal::on("in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n web3 a=v1:unready:in\n lb1")
        .member("lb1", "web1", 0, MemberState::Out)
        .breaks(1);
}

#[test]
fn it_refuses_to_stop_what_is_still_routed_to() {
    Proposal::on("in-place max=1 v1->v2\n web1 a=v1:ready:busy1\n web2 a=v1:ready:in\n lb1").run("web1", 0, "v2").breaks(2);
    Proposal::on("in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n lb1 behind")
        .run("web1", 0, "v2")
        .breaks(2);
    Proposal::on("in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n lb1 silent")
        .run("web1", 0, "v2")
        .breaks(2);
}

#[test]
fn it_refuses_to_let_in_what_is_not_ready() {
    for state in ["starting", "young", "failed", "unready"] {
        Proposal::on(&format!("in-place max=1 v1->v2\n web1 a=v2:{state}:out\n web2 a=v1:ready:in\n lb1"))
            .member("lb1", "web1", 0, MemberState::Ready)
            .breaks(3);
    }
}

#[test]
fn it_refuses_to_empty_a_pool() {
    Proposal::on("in-place max=1 v1->v2\n web1 a=v1:unready:in\n web2 a=v1:unready:out\n lb1")
        .member("lb1", "web1", 0, MemberState::Out)
        .breaks_at_least(4);
}

#[test]
fn the_only_member_may_be_taken_out_once_its_host_says_that_no_process_is_left() {
    let emptied = |text: &str| Proposal::on(text).member("lb1", "web1", 0, MemberState::Out);
    emptied("in-place max=1 none->v1\n web1 a=v1:failed:in\n web2\n lb1").passes();
    emptied("in-place max=1 none->v1\n web1 a=v1:failed:in behind\n web2\n lb1").breaks_at_least(4);
    emptied("in-place max=1 none->v1\n web1 a=v1:failed:in silent\n web2\n lb1").breaks_at_least(4);
}

impl Proposal {
    #[track_caller]
    fn passes(self) {
        let violations = check(&self.world.fleet, &self.plan).err().unwrap_or_default();
        assert!(violations.is_empty(), "{violations:?}");
    }

    /// On each of two balancers.
    #[track_caller]
    fn breaks_twice(self, invariant: u8) {
        let violations = check(&self.world.fleet, &self.plan).expect_err("the interlock refuses");
        let numbers: Vec<u8> = violations.iter().map(|it| it.invariant).collect();
        assert_eq!(numbers, [invariant; 2], "{violations:?}");
    }

    #[track_caller]
    fn breaks_at_least(self, invariant: u8) {
        let violations = check(&self.world.fleet, &self.plan).expect_err("the interlock refuses");
        assert!(violations.iter().any(|it| it.invariant == invariant), "{violations:?}");
    }
}

#[test]
fn it_refuses_to_disturb_more_hosts_than_may_be() {
    Proposal::on(
        "side-by-side max=1 v1->v2\n web1 a=v1:ready:in b=v2:starting:out\n web2 a=v1:ready:in b=v2:none:out\n lb1",
    )
    .run("web2", 1, "v2")
    .breaks(5);
}

#[test]
fn it_refuses_to_disturb_more_hosts_than_may_be_in_a_rollout_that_begins_with_the_same_plan() {
    let text = "side-by-side max=1 v1->v2\n web1 a=v1:ready:in b=v2:none:out\n web2 a=v1:ready:in b=v2:none:out\n lb1";
    let begins = |hosts: &[&str]| {
        let mut proposal = Proposal::on(text);
        proposal.plan.rollouts = std::mem::take(&mut proposal.world.fleet.rollouts);
        hosts.iter().fold(proposal, |proposal, name| proposal.run(name, 1, "v2"))
    };
    begins(&["web1"]).passes();
    begins(&["web1", "web2"]).breaks(5);
}

#[test]
fn it_refuses_to_stop_anything_while_one_of_two_balancers_may_route() {
    Proposal::on("in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n lb1\n lb2 silent")
        .run("web1", 0, "v2")
        .breaks(7);
}

#[test]
fn it_refuses_to_take_anything_out_while_one_of_two_balancers_cannot_be_told() {
    let text = "in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1\n lb2";
    let out = |text: &str| Proposal::on(text).member("lb1", "web1", 0, MemberState::Out);
    assert_eq!(check(&out(text).world.fleet, &out(text).plan), Ok(()));
    out(&format!("{text} silent")).breaks(7);
    let back = out(&format!("{text} silent").replace("v1->v2", "v1->v2 back"));
    assert_eq!(check(&back.world.fleet, &back.plan), Ok(()), "the way back waits for nobody");
}

#[test]
fn it_refuses_to_start_anything_where_a_balancer_leads() {
    let start = |b: &str, lb2: &str| {
        let text = format!("side-by-side max=1 v1->v2\n web1 a=v1:ready:in {b}\n web2 a=v1:ready:in\n lb1\n lb2{lb2}");
        Proposal::on(&text).run("web1", 1, "v2")
    };
    for lb2 in ["", " silent"] {
        let proposal = start("b=v2:none:out", lb2);
        assert_eq!(check(&proposal.world.fleet, &proposal.plan), Ok(()), "{lb2}");
        start("b=v2:none:in", lb2).breaks_twice(3);
    }
    start("", "").breaks_twice(3);
    start("b=v2:none:out", " behind").breaks(3);
}

#[test]
fn it_refuses_a_second_active_rollout() {
    let mut proposal = Proposal::on(SERVING);
    let mut second = proposal.world.fleet.rollouts.values().next().cloned().expect("a rollout");
    second.id = RolloutId::new("r-2").expect("an id");
    proposal.plan.rollouts.insert(second.id.clone(), second);
    proposal.breaks(8);
}

#[test]
fn it_refuses_a_spec_of_another_epoch_or_of_the_past() {
    let mut proposal = Proposal::on(SERVING);
    proposal.spec("web1").epoch = Epoch(0);
    proposal.breaks(9);
    let mut proposal = Proposal::on(SERVING);
    let generation = proposal.world.fleet.hosts[&host("web1")].issued.generation;
    proposal.spec("web1").generation = generation;
    proposal.breaks(9);
}

#[test]
fn it_refuses_a_spec_without_the_documents_it_speaks_of() {
    let mut proposal =
        Proposal::on("in-place max=1 v1->v2\n web1 a=v1:ready:out\n web2 a=v1:ready:in\n lb1").run("web1", 0, "v2");
    proposal.spec("web1").releases.clear();
    proposal.breaks_at_least(10);
}

#[test]
fn it_refuses_to_spread_a_release_that_speaks_against_itself() {
    Proposal::on("in-place max=50% evidence v1->v2\n web1 a=v2:failed:out\n web2 a=v1:ready:out\n web3 a=v1:ready:in\n web4 a=v1:ready:in\n lb1")
        .run("web2", 0, "v2")
        .breaks(14);
}

#[test]
fn a_refusal_pauses_the_rollout_and_says_which_invariant() {
    let proposal = Proposal::on(SERVING).run("web1", 0, "v2");
    let violations = check(&proposal.world.fleet, &proposal.plan).expect_err("the interlock refuses");
    let plan = refused(&proposal.world.fleet, &violations, super::NOW);
    let rollout = plan.rollouts.values().next().expect("a rollout");
    assert_eq!(rollout.state, RolloutState::Paused);
    assert!(rollout.pause.as_ref().is_some_and(|pause| pause.why.starts_with("invariant 2: ")), "{rollout:?}");
    assert!(plan.specs.is_empty(), "nothing else happens");
}

#[test]
fn a_refusal_holds_its_own_service_and_no_other() {
    let mut proposal = Proposal::on(SERVING).run("web1", 0, "v2");
    let violations = check(&proposal.world.fleet, &proposal.plan).expect_err("the interlock refuses");
    let cart = ServiceName::new("cart").expect("a name");
    let mut service = proposal.world.fleet.services[&shop()].clone();
    service.hosts = vec![host("web2")];
    service.ports = vec![9000];
    service.balancer = None;
    service.committed = Some(release("v2").id());
    proposal.world.fleet.services.insert(cart.clone(), service);
    let plan = refused(&proposal.world.fleet, &violations, super::NOW);
    let key = InstanceKey { service: cart, slot: Slot(0) };
    assert!(plan.specs[&host("web2")].instances.contains_key(&key), "cart goes on");
    assert!(!plan.specs.contains_key(&host("lb1")), "shop does not");
}

#[test]
fn it_refuses_to_let_go_of_the_way_back() {
    let mut proposal = Proposal::on(SERVING);
    proposal.spec("web1").releases.remove(&release("v2").id());
    proposal.breaks(18);
    let mut proposal = Proposal::on("in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1");
    proposal.world.fleet.services.get_mut(&shop()).expect("a service").previous = Some(release("v2").id());
    let held = release("v2");
    proposal
        .world
        .fleet
        .hosts
        .get_mut(&host("web1"))
        .expect("a host")
        .issued
        .releases
        .insert(held.id(), held.clone().into());
    proposal.spec("web1").releases.remove(&held.id());
    proposal.breaks(12);
}

#[test]
fn it_refuses_a_success_that_a_host_does_not_attest() {
    for web2 in ["a=v1:ready:in", "a=v2:ready:out", "a=v2:unready:in", "a=v2:ready:in behind"] {
        let mut proposal = Proposal::on(&format!("in-place max=1 v1->v2\n web1 a=v2:ready:in\n web2 {web2}\n lb1"));
        let mut rollout = proposal.world.fleet.rollouts.values().next().cloned().expect("a rollout");
        rollout.state = RolloutState::Succeeded;
        proposal.plan.rollouts.insert(rollout.id.clone(), rollout);
        proposal.breaks(13);
    }
}

#[test]
fn it_refuses_to_call_a_rollout_taken_back_that_a_host_does_not_attest() {
    for web2 in ["a=v2:ready:in", "a=v1:ready:out", "a=v1:unready:in", "a=v1:ready:in behind", "a=v2:ready:in silent"] {
        let mut proposal = Proposal::on(&format!("in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 {web2}\n lb1"));
        let mut rollout = proposal.world.fleet.rollouts.values().next().cloned().expect("a rollout");
        (rollout.state, rollout.direction) = (RolloutState::Reverted, Direction::Back);
        proposal.plan.rollouts.insert(rollout.id.clone(), rollout);
        proposal.breaks(13);
    }
    let mut proposal = Proposal::on("in-place max=1 v1->v2\n web1 a=v1:ready:in\n web2 a=v1:ready:in silent\n lb1");
    let mut rollout = proposal.world.fleet.rollouts.values().next().cloned().expect("a rollout");
    (rollout.state, rollout.direction) = (RolloutState::Reverted, Direction::Back);
    proposal.plan.rollouts.insert(rollout.id.clone(), rollout);
    assert_eq!(check(&proposal.world.fleet, &proposal.plan), Ok(()), "nothing was taken to the host that is away");
}

#[test]
fn a_first_release_is_taken_back_though_a_host_that_is_away_keeps_an_earlier_one() {
    for (web2, refused) in [("a=v1:ready:in silent", false), ("a=v2:ready:in silent", true), ("a=v1:ready:in", true)] {
        let mut proposal = Proposal::on(&format!("in-place max=1 v1->v2\n web1\n web2 {web2}\n lb1"));
        let mut rollout = proposal.world.fleet.rollouts.values().next().cloned().expect("a rollout");
        (rollout.state, rollout.direction, rollout.from) = (RolloutState::Reverted, Direction::Back, None);
        proposal.plan.rollouts.insert(rollout.id.clone(), rollout);
        match check(&proposal.world.fleet, &proposal.plan) {
            Ok(()) => assert!(!refused, "{web2}"),
            Err(violations) => assert!(refused && violations.iter().all(|it| it.invariant == 13), "{web2}: {violations:?}"),
        }
    }
}

#[test]
fn it_refuses_to_start_a_release_beside_one_that_it_excludes() {
    for web2 in ["a=v1:ready:out", "a=v1:leftover", "behind"] {
        let mut proposal = Proposal::on(&format!("in-place max=100% v1->v2\n web1 a=v2:none:out\n web2 {web2}\n lb1"));
        let rollout = proposal.world.fleet.rollouts.values_mut().next().expect("a rollout");
        rollout.strategy.exclusive = true;
        proposal.run("web1", 0, "v2").breaks(22);
    }
}

#[test]
fn it_refuses_to_start_a_release_beside_what_a_host_that_left_may_still_run() {
    for (web2, holds, starts) in [("behind", true, false), ("behind", false, true), ("", true, true)] {
        let mut proposal = Proposal::on(&format!("in-place max=100% v1->v2\n web1 a=v2:none:out\n web2 {web2}\n lb1"));
        let fleet = &mut proposal.world.fleet;
        fleet.rollouts.values_mut().for_each(|rollout| rollout.strategy.exclusive = true);
        fleet.services.values_mut().for_each(|service| service.hosts = vec![host("web1")]);
        if !holds {
            fleet.hosts.get_mut(&host("web2")).expect("a host").issued.releases.clear();
        }
        match starts {
            true => proposal.run("web1", 0, "v2").passes(),
            false => proposal.run("web1", 0, "v2").breaks(22),
        }
    }
}

#[test]
fn it_refuses_to_let_go_of_the_last_release_of_a_service_that_a_host_may_still_run() {
    for (web2, goes) in [("behind", false), ("a=v1:leftover", false), ("a=v1:ready:out", false), ("", true)] {
        let mut proposal = Proposal::on(&format!("in-place max=1\n web1 a=v1:ready:in\n web2 {web2}\n lb1"));
        proposal.world.fleet.services.values_mut().for_each(|service| service.hosts = vec![host("web1")]);
        let spec = proposal.spec("web2");
        spec.releases.clear();
        spec.instances.clear();
        match goes {
            true => proposal.passes(),
            false => proposal.breaks(22),
        }
    }
}
