//! What people ask for: while a rollout goes on, and when they look in at the end.

use super::random::Random;
use super::strategies;
use super::world::World;
use baton_core::fleet::Service;
use baton_core::name::HostName;
use baton_core::rollout::command::{Busy, Command, Deploy};
use baton_core::rollout::hooks;
use std::time::Duration;

/// Whoever has let rollouts go on so often goes back.
const RESUMED_MAX: u32 = 2;

/// Whoever has put hosts in order so often leaves it.
const TIDIED_MAX: u32 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Deploy,
    /// A third release in place of the one that is under way, or after it.
    Supersede,
    Queue,
    Rollback,
    Pause,
    Resume,
    Promote,
    Abort,
    Keep,
    Restart,
    Rehearse,
    Retry,
    Skip(HostName),
    Drain(HostName, bool),
    Undrain(HostName),
    Freeze,
}

impl Wish {
    /// Anything but the deploy that everything is about.
    pub(super) fn draw(random: &mut Random, web: &[HostName]) -> Self {
        let host = random.pick(web).cloned();
        let stop = random.chance(50);
        let steering = [Self::Rollback, Self::Pause, Self::Resume, Self::Abort, Self::Promote];
        let renewing = [Self::Restart, Self::Rehearse, Self::Retry];
        let ending = [Self::Supersede, Self::Queue, Self::Keep, Self::Freeze];
        let on_hosts = host.into_iter().flat_map(|host| {
            [Self::Skip(host.clone()), Self::Drain(host.clone(), stop), Self::Drain(host.clone(), stop), Self::Undrain(host)]
        });
        let all: Vec<Self> = steering.into_iter().chain(renewing).chain(ending).chain(on_hosts).collect();
        random.pick(&all).cloned().unwrap_or(Self::Pause)
    }
}

impl World<'_> {
    pub(super) fn wish(&mut self, wish: Wish) {
        let (service, by) = (self.scenario.name.clone(), "ana".to_owned());
        let id = self.next_id();
        let why = || "work".to_owned();
        if let Wish::Skip(host) | Wish::Drain(host, _) = &wish {
            self.taken_out.insert(host.clone());
        }
        let command = match wish {
            Wish::Deploy => self.bring(Busy::Refuse, self.scenario.new.clone()),
            Wish::Supersede => self.bring(Busy::Supersede, self.scenario.third.clone()),
            Wish::Queue => self.bring(Busy::Queue, self.scenario.third.clone()),
            Wish::Rollback => {
                if self.store.fleet.services.get(&service).is_some_and(|service| service.warm.is_some()) {
                    self.sometimes("rolled back to what was warm");
                }
                Command::Rollback { id, service, by, force: false }
            }
            Wish::Pause => Command::Pause { service, by, why: why() },
            Wish::Resume => Command::Resume { service, by },
            Wish::Promote => Command::Promote { service, by },
            Wish::Abort => Command::Abort { service, by },
            Wish::Keep => Command::Keep { service, by },
            Wish::Restart => Command::Restart { id, service, by },
            Wish::Rehearse => Command::Rehearse { id, service, host: None, by },
            Wish::Retry => {
                self.retries += 1;
                Command::Retry { id, service, host: None, by }
            }
            Wish::Skip(host) => Command::Skip { service, host, by, why: why() },
            Wish::Drain(host, stop) => Command::Drain { host, stop, by, why: why() },
            Wish::Undrain(host) => Command::Undrain { host, by },
            Wish::Freeze => Command::Freeze { service: Some(service), lasts: Some(Duration::from_secs(20)), by, why: why() },
        };
        self.command(command);
    }

    /// The first release, before anything goes wrong. The service may have had one port until now.
    pub(super) fn bring_first(&mut self) {
        let mut service = self.scenario.service.clone();
        if service.ports.len() > 1 && self.random.chance(25) {
            service.ports.truncate(1);
            service.strategy = strategies::one_by_one();
            self.sometimes("a port more");
        }
        let command = self.bring_as(service, Busy::Refuse, self.scenario.old.clone());
        self.command(command);
    }

    fn bring(&mut self, busy: Busy, release: baton_core::release::Release) -> Command {
        self.bring_as(self.scenario.service.clone(), busy, release)
    }

    fn bring_as(&mut self, service: Service, busy: Busy, release: baton_core::release::Release) -> Command {
        let (id, name) = (self.next_id(), self.scenario.name.clone());
        Command::Deploy(Box::new(Deploy { busy, ..Deploy::new(id, name, service, release, "ana".into()) }))
    }

    /// What a person does about a paused rollout. One that no hook holds is gone on with, or taken back by all means.
    pub(super) fn way_on(&mut self) -> Command {
        let (service, by) = (self.scenario.name.clone(), "ana".to_owned());
        let active = self.store.fleet.active_rollout(&service);
        let stored = self.store.fleet.services.get(&service);
        let broken = active.zip(stored).and_then(|(active, stored)| hooks::broken(stored, active));
        let broken = broken.map(|(key, _, _)| key.point);
        let id = self.next_id();
        let drawn = self.random.between(0, 3);
        self.resumed += 1;
        match (broken, if self.resumed > RESUMED_MAX { 3 } else { drawn }) {
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

    /// What is put in order once everything else is over: hosts come back, and nobody keeps another release.
    pub(super) fn tidying(&mut self) -> Option<Command> {
        let (service, by) = (self.scenario.name.clone(), "ana".to_owned());
        let drained = self.store.fleet.hosts.iter().find(|(_, host)| host.maintenance.is_some());
        if let Some((host, _)) = drained {
            let host = host.clone();
            self.sometimes("a drained host came back");
            return Some(Command::Undrain { host, by });
        }
        let orders = &self.store.fleet.services.get(&service)?.orders;
        if orders.freeze.is_some() {
            return Some(Command::Unfreeze { service: Some(service), by });
        }
        if let Some(host) = orders.skipped.keys().next().cloned() {
            self.sometimes("a skipped host caught up");
            let id = self.next_id();
            return Some(Command::Retry { id, service, host: Some(host), by });
        }
        let (apart, none_is_live) = (!orders.kept.is_empty(), self.store.fleet.services.get(&service)?.committed.is_none());
        if !apart || self.is_rolling() || self.tidied >= TIDIED_MAX {
            return None;
        }
        self.tidied += 1;
        self.sometimes("hosts that kept a release came back");
        Some(match none_is_live {
            true => self.bring(Busy::Refuse, self.scenario.old.clone()),
            false => Command::Rollback { id: self.next_id(), service, by, force: true },
        })
    }
}
