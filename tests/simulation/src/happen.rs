//! What goes wrong, and what people ask for, when its moment has come.

use super::agenda::Event;
use super::host::Host;
use super::scenario::Happening;
use super::world::World;
use baton_core::rollout::command::Command;

impl World<'_> {
    pub(super) fn happen(&mut self, happening: Happening) -> Result<(), String> {
        let name = self.scenario.name.clone();
        let by = || "ana".to_owned();
        match happening {
            Happening::Deploy => self.deploy(self.scenario.new.clone()),
            Happening::Rollback => {
                let id = self.next_id();
                if self.store.fleet.services.get(&name).is_some_and(|service| service.warm.is_some()) {
                    self.sometimes("rolled back to what was warm");
                }
                self.command(Command::Rollback { id, service: name, by: by(), force: false });
            }
            Happening::Pause => self.command(Command::Pause { service: name, by: by(), why: "lunch".into() }),
            Happening::Resume => self.command(Command::Resume { service: name, by: by() }),
            Happening::Promote => self.command(Command::Promote { service: name, by: by() }),
            Happening::Abort => self.command(Command::Abort { service: name, by: by() }),
            Happening::Restart => {
                let id = self.next_id();
                self.command(Command::Restart { id, service: name, by: by() });
            }
            Happening::Rehearse => {
                let id = self.next_id();
                self.command(Command::Rehearse { id, service: name, host: None, by: by() });
            }
            Happening::Retry => {
                self.retries += 1;
                let id = self.next_id();
                self.command(Command::Retry { id, service: name, host: None, by: by() });
            }
            Happening::AgentCrash(host, lasts) => {
                if self.any_draining() {
                    self.sometimes("agent crashed in a drain");
                }
                self.note_crash(&host);
                let Self { hosts, random, .. } = self;
                if let Some(real) = hosts.get_mut(&host).filter(|host| host.agent) {
                    real.agent = false;
                    real.lose_watch(random);
                    self.agenda.at(self.now + lasts, Event::AgentReturns(host));
                }
            }
            Happening::Reboot(host, lasts) => {
                if self.is_rolling() {
                    self.sometimes("host rebooted in a rollout");
                }
                if let Some(real) = self.hosts.get_mut(&host).filter(|host| host.agent) {
                    real.reboot();
                    real.agent = false;
                    real.powered = false;
                    self.agenda.at(self.now + lasts, Event::AgentReturns(host));
                }
            }
            Happening::Cut(host, lasts) => {
                if self.scenario.broken.as_ref() == Some(&host) && self.is_rolling() {
                    self.sometimes("a part broke for ever in a rollout");
                }
                if let Some(real) = self.hosts.get_mut(&host) {
                    real.cut = true;
                    self.agenda.at(self.now + lasts, Event::Heals(host));
                }
            }
            Happening::InstanceCrash(host) => {
                let Self { hosts, random, now, .. } = self;
                if let Some(real) = hosts.get_mut(&host) {
                    real.crash_one(*now, random);
                }
            }
            Happening::BalancerRestart(host) => {
                if self.any_draining() {
                    self.sometimes("balancer restarted with a member out");
                }
                if self.hosts.get(&host).is_some_and(Host::is_between_writes) {
                    self.sometimes("a balancer restarted between two writes");
                }
                if let Some(real) = self.hosts.get_mut(&host) {
                    real.restart_balancer();
                }
            }
            Happening::CoordinatorCrash(lasts) => {
                if self.is_rolling() {
                    self.sometimes("coordinator crashed in a rollout");
                }
                if self.coordinator.take().is_some() {
                    self.agenda.at(self.now + lasts, Event::CoordinatorReturns);
                }
            }
        }
        self.coordinator_passes()
    }
}
