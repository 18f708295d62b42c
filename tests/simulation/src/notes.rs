//! What is worth knowing of a run, so that no check of it is empty.

use super::host::Host;
use super::scenario::{FAULTS_BEGIN, FAULTS_END};
use super::truth;
use super::world::World;
use baton_core::fleet::hooks::HookState;
use baton_core::hook::Point;
use baton_core::name::{HostName, ServiceName};
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
    fn note_hooks(&mut self, place: usize) {
        let Some(part) = self.scenario.parts.get(place) else { return };
        let Some(service) = self.store.fleet.services.get(&part.name) else { return };
        let unknown = service.hooks.values().any(|run| matches!(run.state, HookState::Unknown { .. }));
        let migrated = service.hooks.iter().any(|(key, run)| key.point == Point::Migrate && run.state.is_good());
        let active = self.store.fleet.active_rollout(&part.name);
        let begun = active.is_some_and(|it| it.started == it.progressed && it.to == part.new.id());
        let again = begun && migrated && service.committed != Some(part.new.id());
        if unknown {
            self.sometimes("a hook with unknown outcome");
        }
        if again {
            self.sometimes("a release was deployed again after its migration");
        }
    }

    pub(super) fn asks_for_approval(&self, name: &ServiceName) -> bool {
        self.waits(name, |reason| matches!(reason, Reason::Approval { .. }))
    }

    fn waits(&self, name: &ServiceName, is_it: impl Fn(&Reason) -> bool) -> bool {
        let waiting = self.coordinator.as_ref().and_then(|coordinator| coordinator.waiting.get(name));
        waiting.into_iter().flatten().any(|waiting| is_it(&waiting.reason))
    }

    /// What is worth knowing of a pass, so that no check of it is empty.
    pub(super) fn note_strategy(&mut self) {
        (0..self.scenario.parts.len()).for_each(|place| self.note_part(place));
        let active = self.store.fleet.rollouts.values().filter(|rollout| rollout.state.is_active()).count();
        if active > 1 {
            self.sometimes("two services on the same hosts were rolled out at once");
        }
    }

    fn note_part(&mut self, place: usize) {
        self.note_hooks(place);
        let Some(part) = self.scenario.parts.get(place) else { return };
        let asks = self.asks_for_approval(&part.name);
        let grows = self.waits(&part.name, |reason| matches!(reason, Reason::Enrolling { full_in: Some(_), .. }));
        let withdraws = self.waits(&part.name, |reason| matches!(reason, Reason::Withdrawing { .. }));
        let rolling = self.store.fleet.active_rollout(&part.name).filter(|rollout| rollout.from.is_some());
        let exclusive = rolling.map(|rollout| rollout.strategy.exclusive);
        let pools = self.hosts.values().flat_map(|host| host.ledger.pools.values());
        let mut members = pools.filter(|pool| pool.service == part.name).flat_map(|pool| pool.members.values());
        let shared = exclusive.is_some() && members.any(|member| member.weight != 100);
        let mut balancers = part.service.balancer.iter().flat_map(|pool| &pool.on);
        let serve = |it: &HostName| truth::serving_hosts(part, &self.hosts, it, self.now) > 0;
        let nobody = exclusive == Some(true) && !balancers.any(serve);
        if asks {
            self.sometimes("an approval was waited for");
        }
        if grows {
            self.sometimes("a share was waited for");
        }
        if withdraws {
            self.sometimes("an instance failed its health check because a balancer could not be told");
        }
        if shared {
            self.sometimes("traffic was shared by weight");
        }
        if nobody {
            self.sometimes("nobody served between two that exclude each other");
        }
    }
}
