//! What is worth knowing of a run, so that no check of it is empty.

use super::host::Host;
use super::scenario::{FAULTS_BEGIN, FAULTS_END};
use super::truth;
use super::world::World;
use baton_core::fleet::hooks::HookState;
use baton_core::hook::Point;
use baton_core::name::HostName;
use baton_core::rollout::waiting::Reason;

impl World<'_> {
    /// Whether a balancer's agent dies now, in the middle of a change of everything together: by chance alone that is rare.
    pub(super) fn dies_in_a_switch(&mut self, name: &HostName) -> bool {
        let faulty = (FAULTS_BEGIN..FAULTS_END).contains(&self.now);
        faulty && self.hosts.get(name).is_some_and(Host::is_in_switch) && self.random.chance(5)
    }

    /// The same in the middle of a hook.
    pub(super) fn dies_in_a_hook(&mut self, name: &HostName) -> bool {
        let faulty = (FAULTS_BEGIN..FAULTS_END).contains(&self.now);
        faulty && self.hosts.get(name).is_some_and(Host::is_in_a_hook) && self.random.chance(2)
    }

    pub(super) fn note_crash(&mut self, name: &HostName) {
        let host = self.hosts.get(name).filter(|host| host.agent);
        let (switch, migration) = host.map_or((false, false), |host| (host.is_in_switch(), host.is_migrating()));
        if switch {
            self.sometimes("a balancer's agent crashed in a switch");
        }
        if migration {
            self.sometimes("an agent crashed in a migration");
        }
    }

    /// What is worth knowing of hooks.
    pub(super) fn note_hooks(&mut self) {
        let Some(service) = self.store.fleet.services.get(&self.scenario.name) else { return };
        let unknown = service.hooks.values().any(|run| matches!(run.state, HookState::Unknown { .. }));
        let migrated = service.hooks.iter().any(|(key, run)| key.point == Point::Migrate && run.state.is_good());
        let begun = self.store.fleet.active_rollout(&self.scenario.name).is_some_and(|it| it.started == it.progressed);
        let again = begun && migrated && service.committed != Some(self.scenario.new.id());
        if unknown {
            self.sometimes("a hook with unknown outcome");
        }
        if again && self.store.fleet.active_rollout(&self.scenario.name).is_some_and(|it| it.to == self.scenario.new.id()) {
            self.sometimes("a release was deployed again after its migration");
        }
    }

    pub(super) fn asks_for_approval(&self) -> bool {
        let waiting = self.coordinator.iter().flat_map(|coordinator| coordinator.waiting.values().flatten());
        waiting.into_iter().any(|waiting| matches!(waiting.reason, Reason::Approval { .. }))
    }

    /// What is worth knowing of a pass, so that no check of it is empty.
    pub(super) fn note_strategy(&mut self) {
        self.note_hooks();
        if self.asks_for_approval() {
            self.sometimes("an approval was waited for");
        }
        let rolling = self.store.fleet.rollouts.values().find(|rollout| rollout.state.is_active() && rollout.from.is_some());
        let Some(exclusive) = rolling.map(|rollout| rollout.strategy.exclusive) else { return };
        let pools = self.hosts.values().flat_map(|host| host.ledger.pools.values());
        if pools.flat_map(|pool| pool.members.values()).any(|member| member.weight != 100) {
            self.sometimes("traffic was shared by weight");
        }
        let balancers = self.scenario.service.balancer.iter().flat_map(|pool| &pool.on);
        let serve = |it: &HostName| truth::serving_hosts(&self.scenario, &self.hosts, it, self.now) > 0;
        if exclusive && !balancers.into_iter().any(serve) {
            self.sometimes("nobody served between two that exclude each other");
        }
    }
}
