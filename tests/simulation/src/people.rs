//! What people ask for while a rollout goes on: every command there is, at any step.

use super::random::Random;
use super::strategies;
use super::world::World;
use baton_core::fleet::Service;
use baton_core::hook::Point;
use baton_core::name::{HostName, LabelValue};
use baton_core::release::Release;
use baton_core::rollout::command::{Busy, Command, Deploy};
use std::time::Duration;

/// One of the releases of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Old,
    New,
    Third,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Deploy(Which),
    /// In place of the one that is under way, or after it.
    Supersede(Which),
    Queue(Which),
    /// The manifest names a host more, or one less.
    Grow(HostName),
    Shrink(HostName),
    Rollback,
    RollbackTo(Which),
    Pause,
    Resume,
    Promote,
    Abort,
    Keep,
    Cancel,
    Restart,
    Rehearse(Option<HostName>),
    Retry(Option<HostName>),
    Skip(HostName),
    Vouch(Point, Option<HostName>),
    Drain(HostName, bool),
    Undrain(HostName),
    /// Of one host, or of every one that balances nothing.
    Reboot(Option<HostName>),
    Accept(HostName),
    Label(HostName),
    RemoveHost(HostName),
    DeclareDead(HostName),
    Revive(HostName),
    /// Of the service, or of the whole fleet.
    Freeze(bool),
    Unfreeze(bool),
    RemoveService,
}

impl Wish {
    /// Anything but the deploy that everything is about.
    pub(super) fn draw(random: &mut Random, web: &[HostName], on: &[HostName], spare: Option<&HostName>) -> Self {
        let which = random.pick(&[Which::Old, Which::New, Which::Third]).copied().unwrap_or(Which::Third);
        let host = random.pick(web).cloned();
        let maybe = host.clone().filter(|_| random.chance(30));
        let point = random.pick(&Point::ALL).copied().unwrap_or(Point::Migrate);
        let whole = random.chance(30);
        let of = |wishes: Vec<Self>| wishes;
        let family = match random.between(0, 19) {
            0..=5 => of(vec![Self::Rollback, Self::Pause, Self::Resume, Self::Abort, Self::Promote, Self::Keep]),
            6..=9 => of(vec![Self::Deploy(which), Self::Supersede(which), Self::Queue(which), Self::RollbackTo(which)]),
            10..=12 => of(vec![Self::Restart, Self::Rehearse(maybe.clone()), Self::Retry(maybe)]),
            13 => of(vec![Self::Freeze(whole), Self::Unfreeze(whole), Self::Cancel, Self::Vouch(point, maybe)]),
            14 => of(vec![Self::RemoveService, Self::Retry(None), Self::Freeze(whole), Self::Cancel]),
            15 => {
                let balancer = random.pick(on).cloned();
                balancer.into_iter().flat_map(|it| [Self::DeclareDead(it.clone()), Self::Revive(it)]).collect()
            }
            16 => {
                let grow = spare.into_iter().flat_map(|it| [Self::Grow(it.clone()), Self::Accept(it.clone())]);
                let shrink = host.into_iter().flat_map(|it| [Self::Shrink(it.clone()), Self::Label(it)]);
                grow.chain(shrink).collect()
            }
            _ => host.into_iter().flat_map(|host| on_host(random, host)).collect(),
        };
        random.pick(&family).cloned().unwrap_or(Self::Pause)
    }
}

fn on_host(random: &mut Random, host: HostName) -> Vec<Wish> {
    let (stop, remove, all) = (random.chance(50), random.chance(30), random.chance(50));
    let last = if remove { Wish::RemoveHost(host.clone()) } else { Wish::Undrain(host.clone()) };
    let reboot = Wish::Reboot(Some(host.clone()).filter(|_| !all));
    vec![Wish::Skip(host.clone()), Wish::Drain(host.clone(), stop), Wish::Drain(host, stop), reboot.clone(), reboot, last]
}

impl World<'_> {
    pub(super) fn wish(&mut self, place: usize, wish: Wish) {
        let Some(part) = self.scenario.parts.get(place) else { return };
        let (service, by) = (part.name.clone(), "ana".to_owned());
        let id = self.next_id();
        let why = "work".to_owned();
        let command = match wish {
            Wish::Deploy(which) => self.bring(place, Busy::Refuse, which),
            Wish::Supersede(which) => self.bring(place, Busy::Supersede, which),
            Wish::Queue(which) => self.bring(place, Busy::Queue, which),
            Wish::Grow(host) => {
                self.taken_out.insert(host.clone());
                self.change_hosts(place, |hosts| hosts.push(host));
                self.bring(place, Busy::Supersede, Which::New)
            }
            Wish::Shrink(host) => {
                self.taken_out.insert(host.clone());
                self.change_hosts(place, |hosts| hosts.retain(|other| *other != host));
                self.bring(place, Busy::Supersede, Which::New)
            }
            Wish::Rollback => {
                if self.store.fleet.services.get(&service).is_some_and(|service| service.warm.is_some()) {
                    self.sometimes("rolled back to what was warm");
                }
                Command::Rollback { id, service, by, force: false }
            }
            Wish::RollbackTo(which) => {
                let Some(release) = self.release(place, which) else { return };
                Command::RollbackTo { id, service, version: release.version, by, force: self.random.chance(50) }
            }
            Wish::Pause => Command::Pause { service, by, why },
            // Who asked for a rollout that needs two people lets it begin by nothing.
            Wish::Resume => Command::Resume { service, by: "bea".to_owned() },
            Wish::Promote => Command::Promote { service, by },
            Wish::Abort => Command::Abort { service, by },
            Wish::Keep => Command::Keep { service, by },
            Wish::Cancel => Command::Cancel { service, queued: None, by },
            Wish::Restart => Command::Restart { id, service, by },
            Wish::Rehearse(host) => Command::Rehearse { id, service, host, by },
            Wish::Retry(host) => {
                self.retries += 1;
                Command::Retry { id, service, host, by }
            }
            Wish::Skip(host) => {
                self.taken_out.insert(host.clone());
                Command::Skip { service, host, by, why }
            }
            Wish::Vouch(point, host) => Command::Vouch { service, point, host, by, why },
            Wish::Drain(host, stop) => {
                self.taken_out.insert(host.clone());
                Command::Drain { host, stop, reboot: false, by, why }
            }
            Wish::Undrain(host) => Command::Undrain { host, by },
            Wish::Reboot(host) => return self.reboot_by_command(host.as_slice()),
            Wish::Accept(host) => Command::Accept { host, by },
            Wish::Label(host) => {
                let other = LabelValue::new("c").expect("a value");
                Command::Label { host, set: [(strategies::rack(), other)].into(), unset: Default::default(), by }
            }
            Wish::RemoveHost(host) => return self.remove_host(&host),
            Wish::DeclareDead(host) => return self.declare_dead(host),
            Wish::Revive(host) => Command::Revive { host, by },
            Wish::Freeze(whole) => {
                Command::Freeze { service: Some(service).filter(|_| !whole), lasts: Some(Duration::from_secs(20)), by, why }
            }
            Wish::Unfreeze(whole) => Command::Unfreeze { service: Some(service).filter(|_| !whole), by },
            Wish::RemoveService => Command::RemoveService { service, by },
        };
        let word = word(&command);
        if self.command(command) {
            self.sometimes(word);
        }
    }

    /// The first release, before anything goes wrong. The service may have had one port until now.
    pub(super) fn bring_first(&mut self, place: usize) {
        let Some(part) = self.scenario.parts.get(place) else { return };
        let mut service = part.service.clone();
        service.strategy.second_person = false;
        // No balancer was heard yet, so nobody knows what it can do.
        service.strategy = service.strategy.without_preview();
        if service.ports.len() > 1 && self.random.chance(25) {
            service.ports.truncate(1);
            service.strategy = strategies::one_by_one();
            self.sometimes("a port more");
        }
        let command = self.bring_as(place, service, Busy::Refuse, Which::Old);
        self.command(command);
    }

    pub(super) fn bring(&mut self, place: usize, busy: Busy, which: Which) -> Command {
        let service = self.scenario.parts.get(place).map(|part| part.service.clone()).expect("a service");
        self.bring_as(place, service, busy, which)
    }

    fn bring_as(&mut self, place: usize, service: Service, busy: Busy, which: Which) -> Command {
        let release = self.release(place, which).expect("a release");
        let (id, name) = (self.next_id(), release.service.clone());
        Command::Deploy(Box::new(Deploy { busy, ..Deploy::new(id, name, service, release, "ana".into()) }))
    }

    fn release(&self, place: usize, which: Which) -> Option<Release> {
        let part = self.scenario.parts.get(place)?;
        Some(match which {
            Which::Old => part.old.clone(),
            Which::New => part.new.clone(),
            Which::Third => part.third.clone(),
        })
    }

    fn change_hosts(&mut self, place: usize, how: impl FnOnce(&mut Vec<HostName>)) {
        let Some(part) = self.scenario.parts.get_mut(place) else { return };
        let mut hosts = part.service.hosts.clone();
        how(&mut hosts);
        hosts.dedup();
        if !hosts.is_empty() {
            part.service.hosts = hosts;
        }
    }

    /// A host that people say is gone for good: it is switched off by then.
    pub(super) fn remove_host(&mut self, host: &HostName) {
        let command = Command::RemoveHost { host: host.clone(), force: true, by: "ana".to_owned() };
        if !self.command(command) {
            return;
        }
        self.sometimes("a host was removed for good");
        self.taken_out.insert(host.clone());
        self.hosts.remove(host);
        for place in 0..self.scenario.parts.len() {
            self.change_hosts(place, |hosts| hosts.retain(|other| other != host));
        }
    }

    pub(super) fn declare_dead(&mut self, host: HostName) {
        let command = Command::DeclareDead { host: host.clone(), by: "ana".to_owned(), why: "it is".to_owned() };
        if self.command(command) {
            self.sometimes("a balancer was declared dead");
            self.declared.insert(host);
        }
    }
}

/// What was accepted, so that no wish is one that never comes true.
const fn word(command: &Command) -> &'static str {
    match command {
        Command::Deploy(_) => "asked: deploy",
        Command::Rollback { .. } => "asked: rollback",
        Command::RollbackTo { .. } => "asked: rollback to a version",
        Command::Pause { .. } => "asked: pause",
        Command::Resume { .. } => "asked: resume",
        Command::Promote { .. } => "asked: promote",
        Command::Abort { .. } => "asked: abort",
        Command::Keep { .. } => "asked: end where it stands",
        Command::Cancel { .. } => "asked: cancel",
        Command::Retry { .. } => "asked: retry",
        Command::Skip { .. } => "asked: skip",
        Command::Vouch { .. } => "asked: vouch",
        Command::Restart { .. } => "asked: restart",
        Command::Rehearse { .. } => "asked: rehearse",
        Command::Freeze { .. } => "asked: freeze",
        Command::Unfreeze { .. } => "asked: unfreeze",
        Command::RemoveService { .. } => "asked: remove a service",
        Command::Drain { .. } => "asked: drain",
        Command::Undrain { .. } => "asked: undrain",
        Command::Label { .. } => "asked: label",
        Command::Accept { .. } => "asked: accept",
        Command::Revive { .. } => "asked: revive",
        Command::DeclareDead { .. }
        | Command::Recover { .. }
        | Command::RemoveHost { .. }
        | Command::Reboot { .. }
        | Command::GiveUpReboot { .. } => "asked: something else",
    }
}
