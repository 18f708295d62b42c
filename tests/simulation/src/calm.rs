//! A world in which nothing goes wrong: messages arrive, and what takes its time takes the same time everywhere. It costs little
//! more than what the coordinator and its agents think, and that is what it is for.

use super::coordinator::{Coordinator, Store};
use super::host::Host;
use super::news::differs;
use super::random::Random;
use super::scenario::{LAST, Part, Quality, name};
use super::strategies;
use super::truth::{self, Hosts};
use baton_core::fleet::{InstanceKey, Labels, MemberKey};
use baton_core::name::{HostName, PoolName, RolloutId};
use baton_core::release::Release;
use baton_core::rollout::RolloutState;
use baton_core::rollout::command::{Command, Deploy};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Agents with nothing to say say so this often.
const HEARTBEAT: u64 = 4_000;

/// A balancer writes down what it will do, and does it.
const STEPS: usize = 2;

/// In which order hosts take their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One, then a quarter of them, then all, and never more than a quarter away.
    InWaves,
    /// One after the other.
    OneByOne,
}

/// A service on every host of a fleet, behind one balancer.
#[derive(Debug)]
pub struct Calm {
    part: Part,
    hosts: Hosts,
    store: Store,
    coordinator: Coordinator,
    now: u64,
    /// When each agent looks next.
    looks: BTreeMap<HostName, u64>,
    random: Random,
    deploys: u32,
}

/// What a rollout came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rolled {
    /// How long it would have taken.
    pub took: Duration,
    /// Passes of the planner and the interlock.
    pub passes: u64,
    /// Looks of agents around them.
    pub looks: u64,
}

impl Calm {
    /// So many hosts that wait for their first release.
    #[must_use]
    pub fn new(hosts: u16, order: Order) -> Self {
        let strategy = match order {
            Order::InWaves => strategies::in_waves(),
            Order::OneByOne => strategies::one_by_one(),
        };
        let web: Vec<HostName> = (1..=hosts).map(|it| name(&format!("web{it}"))).collect();
        let part = Part::of("shop", vec![8101], &web, &[name("lb1")], strategy, Quality::Good);
        let mut store = Store::default();
        let mut coordinator = Coordinator::start(&mut store, 0);
        let names: Vec<HostName> = web.into_iter().chain([name("lb1")]).collect();
        names.iter().for_each(|host| coordinator.join(&mut store, host, Labels::new(), true));
        let looks = names.iter().map(|host| (host.clone(), 0)).collect();
        let hosts = names.into_iter().map(|host| (host, Host::new())).collect();
        Self { part, hosts, store, coordinator, now: 0, looks, random: Random::steady(), deploys: 0 }
    }

    /// Brings the next of two releases to every host.
    ///
    /// # Errors
    /// What did not hold, or never came true.
    pub fn deploy(&mut self) -> Result<Rolled, String> {
        self.deploys += 1;
        let release = if self.deploys % 2 == 1 { self.part.old.clone() } else { self.part.new.clone() };
        let id = RolloutId::new(format!("r-{}", self.deploys)).map_err(|error| error.to_string())?;
        let asked =
            Deploy::new(id.clone(), self.part.name.clone(), self.part.service.clone(), release.clone(), "ana".into());
        if !self.coordinator.command(&mut self.store, Command::Deploy(Box::new(asked)), self.now) {
            return Err(format!("{id} was refused"));
        }
        let (began, mut passes, mut looks) = (self.now, 1, 0);
        self.think()?;
        while self.store.fleet.rollouts.get(&id).is_none_or(|rollout| rollout.state.is_active()) {
            if self.now > began + LAST {
                return Err(format!("{id} has not ended after {LAST} ms: {:?}", self.coordinator.waiting));
            }
            self.sleep();
            looks += self.look();
            if self.coordinator.is_due(self.now) {
                passes += 1;
                self.think()?;
            }
        }
        self.judge(&id, &release)?;
        Ok(Rolled { took: Duration::from_millis(self.now - began), passes, looks })
    }

    /// Until something happens.
    fn sleep(&mut self) {
        let next = self.looks.values().copied().chain(self.coordinator.wake_at).min();
        self.now = next.unwrap_or(self.now).max(self.now + 1);
    }

    /// Everybody looks whose time has come, and says what is new. Returns how many did.
    fn look(&mut self) -> u64 {
        let now = self.now;
        let due: Vec<HostName> = self.looks.iter().filter(|(_, at)| **at <= now).map(|(host, _)| host.clone()).collect();
        for name in &due {
            let Some(mut host) = self.hosts.remove(name) else { continue };
            let (hosts, service) = (&self.hosts, &self.part.name);
            let answers = |_: &PoolName, member: &MemberKey| {
                let key = InstanceKey { service: service.clone(), slot: member.slot };
                hosts.get(&member.host).is_some_and(|host| host.answers(&key, now))
            };
            host.pass(now, &|_| Quality::Good, &answers, &mut self.random);
            // What it does in steps is through before it says so.
            for _ in 0..STEPS {
                if host.is_in_steps() {
                    host.pass(now, &|_| Quality::Good, &answers, &mut self.random);
                }
            }
            let report = host.report(now, &[]);
            let is_news = host.last_report.as_ref().is_none_or(|last| differs(last, &report));
            if is_news || now >= host.last_sent + HEARTBEAT {
                host.last_report = Some(report.clone());
                host.last_sent = now;
                self.coordinator.hear(name, report, now);
            }
            let next = host.changes_at(now).unwrap_or(u64::MAX).min(host.last_sent + HEARTBEAT);
            self.looks.insert(name.clone(), next);
            self.hosts.insert(name.clone(), host);
        }
        due.len() as u64
    }

    /// The coordinator decides, and everybody hears what concerns him.
    fn think(&mut self) -> Result<(), String> {
        for (name, spec) in self.coordinator.pass(&mut self.store, self.now, false)? {
            if let Some(host) = self.hosts.get_mut(&name) {
                host.receive(&spec);
                self.looks.insert(name, self.now + 1);
            }
        }
        Ok(())
    }

    /// It has succeeded, and everything is as it should be.
    fn judge(&self, id: &RolloutId, release: &Release) -> Result<(), String> {
        let state = self.store.fleet.rollouts.get(id).map(|rollout| rollout.state);
        if state != Some(RolloutState::Succeeded) {
            return Err(format!("{id} ended {state:?}"));
        }
        let (ours, nobody) = (&self.part.service.hosts, BTreeSet::new());
        truth::check_rest(&self.part, ours, &self.hosts, (Some(release.id()), &nobody), self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_simulated_comes_to_every_host_and_does_so_again() {
        for order in [Order::InWaves, Order::OneByOne] {
            let mut calm = Calm::new(10, order);
            let rolled: Vec<Rolled> = (0..5).map(|_| calm.deploy().unwrap()).collect();
            // The third release is the first one again: nobody has to fetch anything.
            assert_eq!(rolled[2], rolled[3], "{order:?}");
            assert!(rolled[1].passes >= 10 && rolled[1].looks >= 100, "{order:?}: {rolled:?}");
        }
    }
}
