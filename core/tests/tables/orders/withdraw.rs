//! A balancer that cannot be told, and finds out by itself: the releases of a service that says so go on.

use super::Obedient;
use crate::text::{host, pool, shop};
use baton_core::fleet::InstanceKey;
use baton_core::fleet::report::{InstanceState, MemberReport};
use baton_core::fleet::spec::{InstanceSpec, MemberState};
use baton_core::fleet::withdraw::{Withdraw, Withdrawal};
use baton_core::name::Slot;
use baton_core::release::Signal;
use baton_core::rollout::command::Command;
use baton_core::rollout::plan::plan;
use baton_core::rollout::{RolloutState, interlock};
use std::time::Duration;

const REST: &str = "in-place max=1\n web1 a=v1:ready:in\n web2 a=v1:ready:in\n lb1\n lb2";
const WITHDRAW: Withdraw = Withdraw { signal: Signal::Usr1, unready_for: Duration::from_secs(5) };

/// `lb2` says nothing from here on.
fn deployed(withdraw: Option<Withdraw>) -> Obedient {
    let mut world = Obedient::at(REST);
    world.fleet.hosts.get_mut(&host("lb2")).expect("a host").connected = false;
    let mut deploy = world.deploy("r-5", "v2");
    deploy.service.balancer.as_mut().expect("a balancer").withdraw = withdraw;
    world.ask(Command::Deploy(Box::new(deploy)));
    world
}

impl Obedient {
    fn told(&self, name: &str) -> &InstanceSpec {
        &self.fleet.hosts[&host(name)].issued.instances[&InstanceKey { service: shop(), slot: Slot(0) }]
    }

    fn version_told(&self, name: &str) -> &str {
        self.fleet.releases[&self.told(name).release].version.as_str()
    }

    /// Until the first host is told to replace its instance.
    fn until_replaced(&mut self) {
        while self.version_told("web1") == "v1" {
            assert!(self.pass(), "it is never replaced: {:?}", plan(&self.fleet, self.now).waiting);
        }
    }
}

#[test]
fn without_a_word_about_it_nothing_is_taken_out_while_one_cannot_be_told() {
    let mut world = deployed(None);
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in")]);
    assert_eq!(world.words(), ["web1 balancer unreachable", "web2 balancer unreachable"]);
}

#[test]
fn each_host_fails_its_health_check_before_it_stops_and_all_of_them_get_the_release() {
    let mut world = deployed(Some(WITHDRAW));
    world.until_replaced();
    let how =
        Withdrawal { signal: Signal::Usr1, unready_for: Duration::from_secs(5), drain_deadline: Duration::from_secs(30) };
    assert_eq!(world.told("web1").withdraw, Some(how));
    assert_eq!(world.told("web2").withdraw, None, "one after the other");
    // The balancer that can be told was told before that, and has nothing in flight.
    let lb1 = &world.fleet.hosts[&host("lb1")].issued.pools[&pool()].members;
    assert_eq!(lb1[&"web1/0".parse().expect("a member")].state, MemberState::Out);
    world.settle();
    world.stand(&[("web1", "v2:in"), ("web2", "v2:in")]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
    // At rest again, and the next release is as any other once everybody can be told.
    world.fleet.hosts.get_mut(&host("lb2")).expect("a host").connected = true;
    world.settle();
    let deploy = world.deploy("r-6", "v3");
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    world.stand(&[("web1", "v3:in"), ("web2", "v3:in")]);
    assert_eq!((world.told("web1").withdraw, world.state("r-6")), (None, Some(RolloutState::Succeeded)));
}

#[test]
fn the_second_opinion_asks_for_the_same() {
    let mut world = deployed(Some(WITHDRAW));
    while plan(&world.fleet, world.now)
        .specs
        .get(&host("web1"))
        .is_none_or(|spec| spec.instances == world.fleet.hosts[&host("web1")].issued.instances)
    {
        assert!(world.pass());
    }
    let next = plan(&world.fleet, world.now);
    assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
    let key = InstanceKey { service: shop(), slot: Slot(0) };
    let refused = |edit: fn(&mut InstanceSpec)| {
        let mut other = next.clone();
        edit(other.specs.get_mut(&host("web1")).expect("a spec").instances.get_mut(&key).expect("an instance"));
        let violations = interlock::check(&world.fleet, &other).expect_err("it would cut somebody off");
        violations.iter().map(|violation| violation.invariant).collect::<Vec<_>>()
    };
    assert_eq!(refused(|it| it.withdraw = None), [7]);
    assert_eq!(
        refused(|it| it.withdraw = Some(Withdraw { unready_for: Duration::from_secs(4), ..WITHDRAW }.within(Duration::ZERO))),
        [7]
    );
    assert!(refused(|it| it.address.set_port(9)).contains(&7), "nobody follows where no balancer looks");
    let mut other = next.clone();
    other.specs.get_mut(&host("web1")).expect("a spec").instances.clear();
    assert!(interlock::check(&world.fleet, &other).is_err(), "nobody follows at all");
    // The one that can be told has to be quiet, too.
    let lb1 = world.fleet.hosts.get_mut(&host("lb1")).expect("a host");
    let seen = &mut lb1.heard.as_mut().expect("a report").report.pools.get_mut(&pool()).expect("a pool").members;
    seen.insert("web1/0".parse().expect("a member"), MemberReport { in_flight: 1, ..MemberReport::quiet(MemberState::Out) });
    assert!(interlock::check(&world.fleet, &next).is_err(), "in flight on lb1");
}

#[test]
fn where_every_balancer_can_be_told_again_the_old_one_need_not_wait() {
    let mut world = deployed(Some(WITHDRAW));
    world.until_replaced();
    // It does not do what it was asked, and goes on.
    let key = InstanceKey { service: shop(), slot: Slot(0) };
    let old = world.fleet.services[&shop()].committed.expect("a release");
    let stays = |world: &mut Obedient| {
        let web1 = world.fleet.hosts.get_mut(&host("web1")).expect("a host");
        let seen = web1.heard.as_mut().expect("a report").report.instances.get_mut(&key).expect("an instance");
        (seen.release, seen.start, seen.state) = (old, 0, InstanceState::Stopping { since: Duration::from_secs(3) });
    };
    stays(&mut world);
    let waits = plan(&world.fleet, world.now);
    assert!(!waits.changes_anything());
    let waiting = waits.waiting.values().flatten().find(|it| it.host == Some(host("web1"))).expect("a reason");
    assert_eq!(waiting.reason.word(), "withdrawing");
    world.fleet.hosts.get_mut(&host("lb2")).expect("a host").connected = true;
    world.hear(&host("lb2"));
    stays(&mut world);
    let next = plan(&world.fleet, world.now);
    assert_eq!(interlock::check(&world.fleet, &next), Ok(()));
    next.take(&mut world.fleet);
    assert_eq!((world.version_told("web1"), world.told("web1").withdraw), ("v2", None));
}

#[test]
fn what_the_silent_one_had_taken_out_is_not_taken_for_in() {
    let mut world = deployed(Some(WITHDRAW));
    let lb2 = world.fleet.hosts.get_mut(&host("lb2")).expect("a host");
    let seen = &mut lb2.heard.as_mut().expect("a report").report.pools.get_mut(&pool()).expect("a pool").members;
    seen.insert("web1/0".parse().expect("a member"), MemberReport::quiet(MemberState::Out));
    world.settle();
    world.stand(&[("web1", "v2:in"), ("web2", "v1:in")]);
    assert_eq!(world.words(), ["web1 balancer unreachable", "web2 floor"]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Running));
}

#[test]
fn without_a_word_of_any_balancer_nothing_goes_on() {
    let mut world = deployed(Some(WITHDRAW));
    world.fleet.hosts.get_mut(&host("lb1")).expect("a host").connected = false;
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in")]);
    assert_eq!(world.words(), ["web1 balancer unreachable", "web2 balancer unreachable"]);
}
