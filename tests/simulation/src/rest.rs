//! How a run ends: people look in and put in order what is not, and then everything must come to rest.

use super::people::Which;
use super::scenario::{Part, Quality};
use super::truth;
use super::world::World;
use baton_core::name::HostName;
use baton_core::rollout::RolloutState;
use baton_core::rollout::command::{Busy, Command};
use baton_core::rollout::hooks;

/// Whoever has let rollouts of a service go on so often goes back.
const RESUMED_MAX: u32 = 2;

/// Whoever has put hosts in order so often leaves it.
const TIDIED_MAX: u32 = 20;

/// How long people wait before they say once more that something does not come back.
const GIVES_UP_EVERY: u64 = 5_000;

impl World<'_> {
    /// Once the script is over a person looks in: what is paused is gone on with, and what cannot go on is taken back.
    pub(super) fn is_over(&mut self) -> bool {
        let scripted = self.scenario.script.iter().map(|(at, _)| *at).max().unwrap_or_default();
        if self.now <= scripted || self.coordinator.is_none() || self.any_cut() {
            return false;
        }
        if self.gives_up_what_is_broken() {
            return false;
        }
        if self.looks_after_reboots(scripted) {
            return false;
        }
        if let Some(command) = self.tidying_hosts() {
            self.command(command);
            return false;
        }
        for place in 0..self.scenario.parts.len() {
            if let Some(command) = self.looks_in(place) {
                self.command(command);
                return false;
            }
        }
        if self.scenario.broken.is_some() && !self.goes_on_without_broken() {
            return !self.is_rolling();
        }
        !self.is_rolling() && (self.some_is_committed_to_crashes() || !self.any_moving()) && self.judge_rest().is_ok()
    }

    /// Says that what is broken for ever does not come back: a balancer is declared dead, another host is removed.
    fn gives_up_what_is_broken(&mut self) -> bool {
        let Some(broken) = self.scenario.broken.clone().filter(|_| self.scenario.gives_up) else { return false };
        if self.goes_on_without_broken() || self.now < self.given_up + GIVES_UP_EVERY {
            return false;
        }
        self.given_up = self.now;
        let balances = |part: &Part| part.service.balancer.as_ref().is_some_and(|pool| pool.on.contains(&broken));
        match self.scenario.parts.iter().any(balances) {
            true => self.declare_dead(broken),
            false => self.remove_host(&broken),
        }
        self.goes_on_without_broken()
    }

    /// Whether people said that what is broken is gone, so that everything else comes to rest.
    fn goes_on_without_broken(&self) -> bool {
        let Some(broken) = &self.scenario.broken else { return true };
        self.store.fleet.hosts.get(broken).is_none_or(|host| host.dead_balancer.is_some())
    }

    fn some_is_committed_to_crashes(&self) -> bool {
        self.scenario.parts.iter().any(|part| self.is_committed_to_crashes(part))
    }

    /// A release that crashes later than anybody watched it is live, and crashes: there is no rest to judge.
    fn is_committed_to_crashes(&self, part: &Part) -> bool {
        let committed = self.store.fleet.services.get(&part.name).and_then(|service| service.committed);
        part.quality == Quality::CrashesLater && committed == Some(part.new.id())
    }

    pub(super) fn judge_rest(&self) -> Result<(), String> {
        if self.scenario.broken.is_some() && !self.goes_on_without_broken() {
            return Ok(());
        }
        for part in self.scenario.parts.iter().filter(|part| !self.is_committed_to_crashes(part)) {
            let service = self.store.fleet.services.get(&part.name);
            let ours = service.map_or(&part.service.hosts, |service| &service.hosts);
            let goal = service.and_then(|service| service.committed);
            let dead = self.store.fleet.hosts.iter().filter(|(_, host)| host.dead_balancer.is_some());
            let dead = dead.map(|(name, _)| name.clone()).collect();
            truth::check_rest(part, ours, &self.hosts, (goal, &dead), self.now)?;
        }
        Ok(())
    }

    pub(super) fn where_it_stands(&self) -> String {
        let rollouts: Vec<_> =
            self.store.fleet.rollouts.values().map(|it| (it.id.clone(), it.state, it.pause.clone())).collect();
        let waiting = self.coordinator.as_ref().map(|coordinator| &coordinator.waiting);
        format!("{rollouts:?} {:?}, waiting for {waiting:?}", self.judge_rest())
    }

    /// What a person who looks in does about one service.
    fn looks_in(&mut self, place: usize) -> Option<Command> {
        let service = self.scenario.parts.get(place)?.name.clone();
        let by = "ana".to_owned();
        if self.store.fleet.active_rollout(&service).is_some_and(|it| it.state == RolloutState::Paused) {
            return Some(self.way_on(place));
        }
        if self.asks_for_approval(&service) {
            let is_good = self.random.chance(70);
            return Some(if is_good { Command::Promote { service, by } } else { Command::Abort { service, by } });
        }
        self.tidying(place)
    }

    /// What a person does about a paused rollout. One that no hook holds is gone on with, or taken back by all means.
    fn way_on(&mut self, place: usize) -> Command {
        let name = self.scenario.parts.get(place).map(|part| part.name.clone());
        let (service, by) = (name.expect("a service"), "bea".to_owned());
        let active = self.store.fleet.active_rollout(&service);
        let stored = self.store.fleet.services.get(&service);
        let broken = active.zip(stored).and_then(|(active, stored)| hooks::broken(stored, active));
        let broken = broken.map(|(key, _, _)| key.point);
        let id = self.next_id();
        let drawn = self.random.between(0, 3);
        let resumed = self.resumed.entry(place).or_default();
        *resumed += 1;
        match (broken, if *resumed > RESUMED_MAX { 3 } else { drawn }) {
            (Some(_), 0 | 1) => {
                self.retries += 1;
                self.sometimes("a hook was run again by a person's word");
                Command::Retry { id, service, host: None, by }
            }
            (Some(point), 2) => Command::Vouch { service, point, host: None, by, why: "looked".into() },
            (None, 0 | 1) => Command::Resume { service, by },
            _ => Command::Rollback { id, service, by, force: true },
        }
    }

    /// What is put in order of a service once everything else is over: hosts take part again, and nobody keeps another release.
    fn tidying(&mut self, place: usize) -> Option<Command> {
        let (service, by) = (self.scenario.parts.get(place)?.name.clone(), "ana".to_owned());
        let stored = self.store.fleet.services.get(&service)?;
        let orders = stored.orders.clone();
        if orders.removal.is_some() {
            return None;
        }
        if orders.freeze.is_some() {
            return Some(Command::Unfreeze { service: Some(service), by });
        }
        if let Some(host) = orders.skipped.keys().next().cloned() {
            self.sometimes("a skipped host caught up");
            let id = self.next_id();
            return Some(Command::Retry { id, service, host: Some(host), by });
        }
        let none_is_live = stored.committed.is_none();
        if orders.kept.is_empty() || self.is_rolling_of(place) || self.tidied >= TIDIED_MAX {
            return None;
        }
        self.tidied += 1;
        self.sometimes("hosts that kept a release came back");
        Some(match none_is_live {
            true => self.bring(place, Busy::Refuse, Which::Old),
            false => Command::Rollback { id: self.next_id(), service, by, force: true },
        })
    }

    /// What is put in order of the whole fleet.
    fn tidying_hosts(&mut self) -> Option<Command> {
        let by = "ana".to_owned();
        let drained = self.store.fleet.hosts.iter().find(|(_, host)| host.maintenance.is_some());
        if let Some(host) = drained.map(|(host, _)| host.clone()) {
            self.sometimes("a drained host came back");
            return Some(Command::Undrain { host, by });
        }
        let stranger = self.store.fleet.hosts.iter().find(|(_, host)| !host.accepted);
        if let Some(host) = stranger.map(|(host, _)| host.clone()) {
            return Some(Command::Accept { host, by });
        }
        self.store.fleet.freeze.is_some().then_some(Command::Unfreeze { service: None, by })
    }

    fn is_rolling_of(&self, place: usize) -> bool {
        self.scenario.parts.get(place).is_some_and(|part| self.store.fleet.active_rollout(&part.name).is_some())
    }

    fn any_cut(&self) -> bool {
        let lasts = |name: &HostName| self.scenario.broken.as_ref() != Some(name);
        self.hosts.iter().any(|(name, host)| lasts(name) && (host.cut || !host.agent))
    }

    fn any_moving(&self) -> bool {
        let lasts = |name: &HostName| self.scenario.broken.as_ref() != Some(name);
        self.hosts.iter().any(|(name, host)| lasts(name) && host.is_moving(self.now))
    }
}
