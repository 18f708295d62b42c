//! What goes wrong, and when: without warning, and at a step of the rollout.

use crate::fleet::host::Host;
use crate::fleet::pool::Pool;
use crate::fleet::provision::main_process;
use crate::fleet::record::Fleet;
use crate::fleet::run::until;
use anyhow::Context as _;
use baton_proto::v1::{FleetView, ServiceView};
use std::time::{Duration, Instant};

/// What dies. What is supervised by systemd comes back by itself, as it would at a user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of the coordinator.
    Coordinator,
    /// `kill -9` of the agent on the host in transition.
    Agent,
    /// `kill -9` of that agent's half that faces the network.
    Link,
    /// `kill -9` of the agent on the balancer's host.
    BalancersAgent,
    /// `kill -9` of the load balancer, master and workers.
    Balancer,
    /// The package is installed again on every host of the service, the way an upgrade is.
    Upgrade,
    /// The host in transition is off from one moment to the next.
    Power,
    /// The first host that is done is booted again.
    Reboot,
}

/// At which point of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// As soon as it is under way.
    Started,
    /// When a host waits for something that has this word.
    Word(&'static str),
    /// When so many hosts are done.
    HostsDone(u32),
}

/// The unit of the agent's half that faces the network.
pub(super) const LINK: &str = "baton-agent-link";

/// systemd waits a second before it starts what died; a busy machine takes longer.
const RETURN_DEADLINE: Duration = Duration::from_secs(30);

impl When {
    /// Whether it is that point: the word where one is, so that a report can say what was hit.
    #[must_use]
    pub(super) fn is_now(self, service: &ServiceView) -> bool {
        let Some(rollout) = &service.rollout else { return false };
        match self {
            Self::Started => rollout.state == "running",
            Self::Word(word) => service.waiting.iter().any(|waiting| waiting.reason == word),
            Self::HostsDone(hosts) => rollout.hosts_done >= hosts,
        }
    }
}

impl Fault {
    /// Makes it happen; returns once what died is back, with the moment of that.
    ///
    /// # Errors
    /// When it does not come back.
    pub(super) fn strike(self, fleet: &Fleet, view: &FleetView, pool: &Pool) -> anyhow::Result<Instant> {
        let in_transition = || in_transition(fleet, view, pool.name);
        match self {
            Self::Coordinator => kill(fleet.coordinator()?, "baton-coordinator", "main")?,
            Self::Agent => kill(in_transition()?, "baton-agent", "main")?,
            Self::Link => kill(in_transition()?, LINK, "main")?,
            Self::BalancersAgent => fleet.before(pool).try_for_each(|host| kill(host, "baton-agent", "main"))?,
            Self::Balancer => fleet.before(pool).try_for_each(|host| kill(host, pool.front.unit(), "all"))?,
            Self::Upgrade => {
                for host in fleet.around(pool) {
                    host.run(&["sh", "-c", "dpkg --install /var/tmp/baton/baton-agent_*.deb"])?;
                    wait_active(host, "baton-agent")?;
                }
            }
            Self::Power => in_transition()?.lose_power()?,
            Self::Reboot => done(fleet, view, pool.name)?.reboot()?,
        }
        Ok(Instant::now())
    }
}

/// `kill -9` of a unit's processes, all of them or the main one: the rest of an agent's is not its own.
fn kill(host: &Host, unit: &str, whom: &str) -> anyhow::Result<()> {
    let before = main_process(host, unit)?;
    host.run(&["systemctl", "kill", "--signal=KILL", "--kill-whom", whom, unit])?;
    until(&format!("another {unit} on {}", host.name), RETURN_DEADLINE, || {
        let now = main_process(host, unit)?;
        Ok((now != before && now != "0").then_some(()))
    })?;
    wait_active(host, unit)
}

pub(super) fn wait_active(host: &Host, unit: &str) -> anyhow::Result<()> {
    until(&format!("{unit} active on {}", host.name), RETURN_DEADLINE, || {
        Ok(host.collect(&["systemctl", "is-active", "--quiet", unit])?.status.success().then_some(()))
    })
}

/// The host the rollout works on: what it waits for names it; else the first that is not done.
fn in_transition<'a>(fleet: &'a Fleet, view: &FleetView, service: &str) -> anyhow::Result<&'a Host> {
    let view = view.services.iter().find(|view| view.name == service).context("the service is gone")?;
    let waited_for = view.waiting.iter().find(|waiting| !waiting.host.is_empty() && waiting.reason != "waiting");
    let next = view.hosts.iter().find(|host| !host.done);
    let name = waited_for.map(|waiting| &waiting.host).or(next.map(|host| &host.host));
    fleet.host(name.context("no host is in transition")?)
}

fn done<'a>(fleet: &'a Fleet, view: &FleetView, service: &str) -> anyhow::Result<&'a Host> {
    let view = view.services.iter().find(|view| view.name == service).context("the service is gone")?;
    fleet.host(&view.hosts.iter().find(|host| host.done).context("no host is done")?.host)
}
