//! Hosts that are rebooted by command, one after the other: what the coordinator's room does around the functions of `core`, and
//! what a host does that is told to leave its boot.

use super::agenda::Event;
use super::coordinator::{Coordinator, Store};
use super::host::Host;
use super::world::World;
use baton_core::fleet::MemberKey;
use baton_core::fleet::spec::MemberState;
use baton_core::name::{HostName, RebootId};
use baton_core::problem::Problem;
use baton_core::reboot::Reboot;
use baton_core::reboot::look::{chosen, look, told};
use baton_core::reboot::plan::{Next, plan};
use baton_core::rollout::command::{Accepted, Command, apply};
use baton_core::upgrade::{Paused, State};
use std::collections::BTreeMap;
use std::time::Duration;

/// How soon a host must be back, and everything must serve there.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// Whoever has let reboots go on so often cancels them.
const RESUMED_MAX: u32 = 2;

/// How long people wait for a host that does not come back.
const PATIENCE: u64 = 60_000;

impl World<'_> {
    /// People ask for reboots of these hosts, or of all that balance nothing.
    pub(super) fn reboot_by_command(&mut self, hosts: &[HostName]) {
        let Some(coordinator) = &self.coordinator else { return };
        let begun = coordinator.moment(self.now);
        let is_open = self.store.reboot.as_ref().is_some_and(Reboot::is_open);
        let Ok(order) = chosen(&coordinator.fleet, hosts, begun) else { return };
        if is_open {
            return;
        }
        // What people take out is no host that a release took away.
        self.taken_out.extend(order.iter().cloned());
        let number = self.next_id();
        self.store.reboot = Some(Reboot {
            id: RebootId::new(format!("b-{}", number.as_str().trim_start_matches("r-"))).expect("an id"),
            order,
            at_once: 1,
            back_within: BACK_WITHIN,
            by: "ana".to_owned(),
            why: "kernel".to_owned(),
            begun,
            ended: None,
            state: State::Active,
            courses: BTreeMap::new(),
        });
        self.sometimes("asked: reboot");
        self.agenda.wake_at(self.now);
    }

    /// Decides, keeps it, and has done what follows.
    pub(super) fn reboots_pass(&mut self) {
        let (Some(coordinator), Some(reboot)) = (&self.coordinator, &self.store.reboot) else { return };
        let hosts = &coordinator.fleet.hosts;
        let others = hosts.iter().filter(|(name, host)| told(host).is_some() && !reboot.order.contains(name));
        let all: Vec<HostName> = reboot.order.iter().chain(others.map(|(name, _)| name)).cloned().collect();
        let at = coordinator.moment(self.now);
        let seen = look(&coordinator.fleet, &all, |_| Ok(()), at);
        let Next { reboot: mut after, drains, returns, tells, gives_up, orders, wake_at, .. } = plan(reboot, &seen, at);
        let by = after.by.clone();
        if reboot.is_open() && !after.is_open() && after.state == State::Succeeded {
            self.sometimes("every host was rebooted by command");
        }
        self.store.reboot = Some(after.clone());
        for host in drains {
            let why = "to be rebooted".to_owned();
            let drain = Command::Drain { host: host.clone(), stop: false, reboot: true, by: by.clone(), why };
            if let Err(problem) = self.order(drain) {
                after = after.refused(&host, problem);
            }
        }
        // Those that are refused are asked again: somebody brings the host back just now, or requests are led there.
        let tells = tells.into_iter().map(|(host, boot)| Command::Reboot { host, boot, by: by.clone() });
        let gives_up = gives_up.into_iter().map(|host| Command::GiveUpReboot { host, by: by.clone() });
        let returns = returns.into_iter().map(|host| Command::Undrain { host, by: by.clone() });
        for command in tells.chain(gives_up).chain(returns).collect::<Vec<_>>() {
            let _ = self.order(command);
        }
        self.store.reboot = Some(after);
        for (host, boot) in orders {
            if let Some(at) = self.arrival(&host) {
                self.agenda.at(at, Event::LeaveBoot(host, boot));
            }
        }
        if let Some(wake_at) = wake_at {
            let wait = wake_at.since(at).as_millis() as u64;
            self.agenda.wake_at(self.now + wait.max(1));
        }
    }

    fn order(&mut self, command: Command) -> Result<(), Problem> {
        let Some(coordinator) = &mut self.coordinator else { return Ok(()) };
        let word = format!("{command:?}");
        let ordered = coordinator.order(&mut self.store, command, self.now);
        self.log(|| format!("for a reboot: {word} {}", ordered.is_ok()));
        if matches!(ordered, Ok(true)) {
            self.agenda.wake_at(self.now);
        }
        ordered.map(drop)
    }

    /// A host is told to leave a boot: it does if that is its own, and is gone for a while.
    pub(super) fn leaves_boot(&mut self, name: &HostName, boot: &str) -> Result<(), String> {
        let away = self.random.between(500, 12_000);
        let hears = |host: &Host| host.agent && !host.cut && host.boots.to_string() == boot;
        if !self.hosts.get(name).is_some_and(hears) {
            return Ok(());
        }
        self.is_led_nowhere(name)?;
        self.log(|| format!("{name} leaves boot {boot}"));
        self.sometimes("a host was rebooted by command");
        if self.is_rolling() {
            self.sometimes("a host was rebooted by command in a rollout");
        }
        if let Some(host) = self.hosts.get_mut(name) {
            host.reboot();
            (host.agent, host.powered) = (false, false);
            self.agenda.at(self.now + away, Event::AgentReturns(name.clone()));
        }
        Ok(())
    }

    /// Nothing leads to a host that leaves.
    fn is_led_nowhere(&self, name: &HostName) -> Result<(), String> {
        for (balancer, real) in self.hosts.iter().filter(|(name, _)| !self.declared.contains(*name)) {
            for (pool, pool_of) in &real.pools {
                let leads =
                    |(member, state): (&MemberKey, &MemberState)| member.host == *name && *state == MemberState::Ready;
                if pool_of.running.iter().any(leads) {
                    return Err(format!(
                        "10: {name} is rebooted by command while {balancer} leads requests of {pool} to it"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What people do about reboots once everything else is over. Returns whether these are still open.
    pub(super) fn looks_after_reboots(&mut self, since: u64) -> bool {
        let Some(reboot) = self.store.reboot.clone().filter(Reboot::is_open) else { return false };
        let Some(coordinator) = &self.coordinator else { return true };
        let now = coordinator.moment(self.now);
        let is_late = self.now > since + PATIENCE;
        let steered = match &reboot.state {
            State::Aborted { .. } | State::Succeeded => return true,
            State::Active if !is_late => return true,
            State::Paused(Paused::Failure { .. } | Paused::By(_)) if !is_late && self.resumed_reboots < RESUMED_MAX => {
                self.resumed_reboots += 1;
                self.sometimes("reboots went on by a person's word");
                reboot.resumed(now)
            }
            State::Active | State::Paused(_) => {
                self.sometimes("reboots were cancelled");
                Reboot { state: State::Aborted { by: "ana".to_owned() }, ..reboot }
            }
        };
        self.store.reboot = Some(steered);
        self.agenda.wake_at(self.now);
        true
    }
}

impl Coordinator {
    /// What the coordinator asks of itself; whether it changed anything.
    fn order(&mut self, store: &mut Store, command: Command, now: u64) -> Result<bool, Problem> {
        let at = self.moment(now);
        let accepted = apply(&mut self.fleet, command, at)?;
        store.fleet = self.fleet.clone();
        Ok(accepted != Accepted::Unchanged)
    }
}
