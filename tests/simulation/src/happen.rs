//! What goes wrong when its moment has come.

use super::agenda::Event;
use super::host::Host;
use super::scenario::Happening;
use super::world::World;

impl World<'_> {
    pub(super) fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Wish(place, wish) => self.wish(place, wish),
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
