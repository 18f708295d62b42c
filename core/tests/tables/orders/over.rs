//! Hosts that come over from another coordinator with what they serve.

use super::super::text::{World, host, pool, release, shop};
use super::{Deploy, Obedient, REST, by, drain, rollout};
use baton_core::fleet::fence::{Fence, Told};
use baton_core::fleet::{Fleet, Host, Service};
use baton_core::name::{Epoch, HostName};
use baton_core::reboot::look::{chosen, look};
use baton_core::rollout::RolloutState;
use baton_core::rollout::command::{Command, recall, with_brought};
use baton_core::rollout::interlock;
use baton_core::rollout::plan::plan;

/// A coordinator that was set up anew, and the fleet another one drove until now, under an epoch of its own.
fn both(theirs: u64) -> (Obedient, Fleet) {
    let mut before = World::parse(REST).fleet;
    for known in before.hosts.values_mut() {
        known.issued.epoch = Epoch(theirs);
    }
    let anew = Fleet { epoch: Epoch(4), ..Fleet::default() };
    let fence = Some(Fence::at_start(&anew));
    (Obedient { fleet: Fleet { fence, ..anew }, now: super::NOW, ..Obedient::default() }, before)
}

/// One of them joins, and connects.
fn comes(world: &mut Obedient, name: &HostName, before: &Host) {
    world.fleet.hosts.insert(name.clone(), Host { connected: true, ..Host::new(before.address) });
    recall(&mut world.fleet, name, None, true, world.now).expect("it joins");
    let told = Told { stamp: before.issued.stamp(), spec: Some(before.issued.clone()) };
    recall(&mut world.fleet, name, Some(&told), false, world.now).expect("it connects");
    world.hear(name);
}

#[test]
fn what_they_serve_goes_on_whichever_host_comes_first_and_whoever_had_the_later_epoch() {
    for theirs in [2, 4, 9] {
        for first in ["lb1", "web1"] {
            let (mut world, before) = both(theirs);
            let mut names: Vec<_> = before.hosts.keys().cloned().collect();
            names.sort_by_key(|name| name.as_str() != first);
            for name in names {
                comes(&mut world, &name, &before.hosts[&name]);
                assert!(world.fleet.fenced().is_none(), "that is no sign of a copy");
                world.settle();
            }
            world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")]);
            for (name, known) in &world.fleet.hosts {
                let stamp = known.issued.stamp();
                assert!(
                    stamp > before.hosts[name].issued.stamp() && stamp.epoch == world.fleet.epoch,
                    "{name} obeys: {stamp:?}"
                );
                assert!(known.issued.instances.values().eq(before.hosts[name].issued.instances.values()), "{name}");
            }
        }
    }
}

/// A fleet that came over whole, and the first deploy here of the service it brought.
fn come_over() -> (Obedient, Deploy) {
    let (mut world, before) = both(9);
    for (name, known) in &before.hosts {
        comes(&mut world, name, known);
    }
    world.settle();
    let service = before.services[&shop()].clone();
    let shape = Service { committed: None, previous: None, ..service };
    (world, Deploy::new(rollout("r-5"), shop(), shape, release("v2"), "ana".into()))
}

/// Passes until nothing changes any more; one host at a time is out, at most.
#[track_caller]
fn settle_one_by_one(world: &mut Obedient) {
    for _ in 0..200 {
        let stands = world.stands();
        assert!(stands.values().filter(|what| what.contains(":in")).count() >= 2, "{stands:?}");
        if !world.pass() && !world.pass() {
            return;
        }
    }
    panic!("it never comes to rest");
}

#[test]
fn a_service_they_brought_is_taken_over_by_its_first_deploy_one_host_after_the_other() {
    let (mut world, deploy) = come_over();
    world.ask(Command::Deploy(Box::new(deploy)));
    assert_eq!(world.fleet.rollouts[&rollout("r-5")].from, Some(release("v1").id()), "what they serve is what is live");
    settle_one_by_one(&mut world);
    world.stand(&[("web1", "v2:in"), ("web2", "v2:in"), ("web3", "v2:in")]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Succeeded));
    assert_eq!(world.fleet.services[&shop()].previous, Some(release("v1").id()));
}

#[test]
fn a_first_deploy_that_fails_goes_back_to_what_they_brought() {
    let (mut world, deploy) = come_over();
    world.broken = vec![("web2", "v2")];
    world.ask(Command::Deploy(Box::new(deploy)));
    settle_one_by_one(&mut world);
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")]);
    assert_eq!(world.state("r-5"), Some(RolloutState::Reverted));
}

#[test]
fn of_hosts_that_brought_different_releases_the_one_of_most_is_what_there_is_to_go_back_to() {
    let (mut world, before) = both(9);
    for (name, known) in &before.hosts {
        let mut known = known.clone();
        if name.as_str() == "web3" {
            let other = release("v0");
            known.issued.instances.iter_mut().for_each(|(_, it)| it.release = other.id());
            known.issued.releases = std::iter::once((other.id(), other.into())).collect();
        }
        comes(&mut world, name, &known);
    }
    world.settle();
    let (_, deploy) = come_over();
    world.broken = vec![("web2", "v2")];
    world.ask(Command::Deploy(Box::new(deploy)));
    assert_eq!(world.fleet.rollouts[&rollout("r-5")].from, Some(release("v1").id()));
    settle_one_by_one(&mut world);
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")]);
}

#[test]
fn one_host_has_no_say_in_what_the_others_would_go_back_to() {
    let (mut world, before) = both(9);
    for (name, known) in &before.hosts {
        let mut known = known.clone();
        if ["web1", "web2"].contains(&name.as_str()) {
            known.issued.instances.clear();
        }
        comes(&mut world, name, &known);
    }
    world.settle();
    let (_, deploy) = come_over();
    world.ask(Command::Deploy(Box::new(deploy)));
    assert_eq!(world.fleet.rollouts[&rollout("r-5")].from, None);
}

#[test]
fn a_manifest_that_puts_what_they_brought_elsewhere_is_refused() {
    let (mut world, deploy) = come_over();
    let mut ports = deploy.clone();
    ports.service.ports = vec![9999];
    assert_eq!(world.refused(Command::Deploy(Box::new(ports))), 705);
    let mut other = deploy;
    if let Some(balancer) = &mut other.service.balancer {
        balancer.pool = baton_core::name::PoolName::new("till").expect("a name");
    }
    assert_eq!(world.refused(Command::Deploy(Box::new(other))), 705);
}

#[test]
fn a_host_that_was_here_before_and_served_somebody_else_meanwhile_is_believed() {
    let mut world = Obedient::at(REST);
    world.fleet.fence = Some(Fence::at_start(&world.fleet));
    let name = host("web1");
    let mut elsewhere = world.fleet.hosts[&name].issued.clone();
    elsewhere.epoch = Epoch(7);
    recall(&mut world.fleet, &name, None, false, world.now).expect("it joins once more");
    let told = Told { stamp: elsewhere.stamp(), spec: Some(elsewhere) };
    recall(&mut world.fleet, &name, Some(&told), false, world.now).expect("it connects");
    assert!(world.fleet.fenced().is_none() && world.fleet.epoch == Epoch(8), "{:?}", world.fleet.epoch);
    world.settle();
    world.stand(&[("web1", "v1:in"), ("web2", "v1:in"), ("web3", "v1:in")]);

    // Who joins anew on an empty disk has nothing to say, and the same host later is like any other.
    recall(&mut world.fleet, &name, None, false, world.now).expect("it joins once more");
    recall(&mut world.fleet, &name, Some(&Told::default()), false, world.now).expect("it connects");
    assert!(world.fleet.fence.as_ref().is_some_and(|fence| fence.dormant && fence.joined.is_empty()));
    assert!(!plan(&world.fleet, world.now).changes_anything());
}

#[test]
fn what_nobody_needs_of_a_service_they_brought_goes() {
    let (mut world, mut before) = both(9);
    let lb1 = before.hosts.get_mut(&host("lb1")).expect("it is there");
    let members = &mut lb1.issued.pools.get_mut(&pool()).expect("it is there").members;
    members.values_mut().for_each(|member| member.state = baton_core::fleet::spec::MemberState::Drain);
    let lb1 = before.hosts[&host("lb1")].clone();
    comes(&mut world, &host("lb1"), &lb1);
    world.settle();
    assert!(world.fleet.hosts[&host("lb1")].issued.pools.is_empty(), "no member was in, and nothing of it runs");
}

#[test]
fn a_first_deploy_waits_for_the_hosts_that_requests_are_led_to() {
    let (mut world, before) = both(9);
    let late = host("web3");
    for (name, known) in before.hosts.iter().filter(|(name, _)| **name != late) {
        comes(&mut world, name, known);
    }
    world.settle();
    let (_, mut two) = come_over();
    two.service.hosts.retain(|host| *host != late);
    assert_eq!(world.refused(Command::Deploy(Box::new(two.clone()))), 750);
    // What the load balancer finds down is no loss.
    let lb1 = world.fleet.hosts.get_mut(&host("lb1")).expect("it is there");
    let report = &mut lb1.heard.as_mut().expect("it was heard").report;
    let members = &mut report.pools.get_mut(&pool()).expect("it is there").members;
    let problem = baton_core::problem::Problem::new(baton_core::problem::Code(404), "it is down");
    members.iter_mut().filter(|(member, _)| member.host == late).for_each(|(_, it)| it.problem = Some(problem.clone()));
    world.ask(Command::Deploy(Box::new(two)));
}

#[test]
fn a_host_that_comes_over_after_the_deploy_goes_on_until_the_next_one_leaves_it_out() {
    let (mut world, before) = both(9);
    let late = host("web3");
    let mut known: Vec<_> = before.hosts.iter().map(|(name, known)| (name.clone(), known.clone())).collect();
    for (_, known) in &mut known {
        if let Some(it) = known.issued.pools.get_mut(&pool()) {
            it.members.retain(|member, _| member.host != late);
        }
    }
    for (name, known) in known.iter().filter(|(name, _)| *name != late) {
        comes(&mut world, name, known);
    }
    let (_, mut deploy) = come_over();
    deploy.service.hosts.retain(|host| *host != late);
    world.ask(Command::Deploy(Box::new(deploy.clone())));
    world.settle();
    comes(&mut world, &late, &before.hosts[&late]);
    world.settle();
    world.stand(&[("web1", "v2:in"), ("web2", "v2:in"), ("web3", "v1:out")]);
    deploy.id = rollout("r-7");
    let found = with_brought(&world.fleet, &shop(), &deploy.service).into_owned();
    assert!(found.services[&shop()].hosts.contains(&late), "a plan says that it leaves");
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    world.stand(&[("web1", "v2:in"), ("web2", "v2:in"), ("web3", "")]);
}

#[test]
fn nothing_is_taken_out_of_what_nobody_deployed_here() {
    let (mut world, deploy) = come_over();
    let remove = |name, force| Command::RemoveHost { host: host(name), force, by: by() };
    for name in ["web1", "lb1"] {
        for order in [drain(name, false), drain(name, true), remove(name, false), remove(name, true)] {
            assert_eq!(world.refused(order), 751, "{name}");
        }
        let named = [host(name)];
        assert_eq!(chosen(&world.fleet, &named, world.now).map_err(|problem| problem.code.0), Err(751), "{name}");
        let seen = look(&world.fleet, &named, |_| Ok(()), world.now).remove(&host(name)).expect("it is there");
        assert!(seen.may_go.is_err() && seen.drained.is_err(), "{seen:?}");
    }
    assert_eq!(chosen(&world.fleet, &[], world.now).map_err(|problem| problem.code.0), Err(751));
    // The interlock reads what the balancers were told, whoever says that the host is drained.
    let violation = interlock::reboot(&world.fleet, &host("web1")).expect_err("requests are led there");
    assert_eq!(violation.invariant, 2);
    // One that never comes back may go.
    world.fleet.hosts.get_mut(&host("web3")).expect("a host").connected = false;
    assert_eq!(world.refused(remove("web3", false)), 751);
    world.ask(remove("web3", true));

    let (mut world, _) = come_over();
    world.ask(Command::Deploy(Box::new(deploy)));
    world.settle();
    world.ask(drain("web1", false));
    world.settle();
    world.stand(&[("web1", "v2:out"), ("web2", "v2:in"), ("web3", "v2:in")]);
    assert_eq!(world.refused(drain("lb1", false)), 712);
}

#[test]
fn a_host_that_nobody_accepted_is_not_drained() {
    let (mut world, _) = come_over();
    world.fleet.hosts.insert(host("web9"), Host { accepted: false, ..Host::new([10, 0, 0, 9].into()) });
    assert_eq!(world.refused(drain("web9", false)), 737);
}
