//! What operators ask of a fleet, checked against the fleet as it is. One file a family.

mod back;
mod begin;
mod brought;
mod deploy;
mod hooks;
mod hosts;
mod reboot;
mod recall;
mod renew;
mod service;
mod steer;

pub use begin::begin;
use brought::cut_off_members;
pub(crate) use brought::not_deployed_here;
pub use brought::{NOT_DEPLOYED_HERE, with_brought};
use deploy::not_accepted;
pub use deploy::{Busy, Deploy, basis, objections};
pub(crate) use hosts::{balanced, may_drain, may_miss, running};
pub use recall::recall;

use super::{Rollout, RolloutState};
use crate::fleet::orders::{Freeze, Order};
use crate::fleet::{Fleet, Labels, Service};
use crate::hook::Point;
use crate::name::{HostName, LabelKey, RolloutId, ServiceName, Version};
use crate::problem::{Code, Problem};
use crate::time::Moment;
use std::collections::BTreeSet;
use std::time::Duration;

/// One request. It changes what is desired and nothing else; the plan follows from that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Deploy(Box<Deploy>),
    /// The active rollout back, or a new one to the release before.
    Rollback {
        id: RolloutId,
        service: ServiceName,
        by: String,
        /// Although a hook that has run forbids it.
        force: bool,
    },
    /// A new rollout to a release the fleet knows, by its version.
    RollbackTo {
        id: RolloutId,
        service: ServiceName,
        version: Version,
        by: String,
        force: bool,
    },
    Pause {
        service: ServiceName,
        by: String,
        why: String,
    },
    Resume {
        service: ServiceName,
        by: String,
    },
    /// The rollout that waits for a person's word, or watches its wave, goes on.
    Promote {
        service: ServiceName,
        by: String,
    },
    /// The active rollout back, because a person says so.
    Abort {
        service: ServiceName,
        by: String,
    },
    /// The active rollout ends where it stands: every host keeps what it has.
    Keep {
        service: ServiceName,
        by: String,
    },
    /// A deploy that waits its turn is taken out of the queue; all of them where none is named.
    Cancel {
        service: ServiceName,
        queued: Option<RolloutId>,
        by: String,
    },
    /// What failed is tried again; a host that was skipped takes part again.
    Retry {
        id: RolloutId,
        service: ServiceName,
        host: Option<HostName>,
        by: String,
    },
    /// Rollouts of the service leave a host out, by name.
    Skip {
        service: ServiceName,
        host: HostName,
        by: String,
        why: String,
    },
    /// A hook whose outcome is not known to be good did happen: a person looked, and says so.
    Vouch {
        service: ServiceName,
        point: Point,
        host: Option<HostName>,
        by: String,
        why: String,
    },
    /// Every instance is started anew, as a rollout to the same release.
    Restart {
        id: RolloutId,
        service: ServiceName,
        by: String,
    },
    /// One host is drained, restarted and brought back, as a rollout to the same release.
    Rehearse {
        id: RolloutId,
        service: ServiceName,
        host: Option<HostName>,
        by: String,
    },
    /// No new releases; of every service where none is named.
    Freeze {
        service: Option<ServiceName>,
        lasts: Option<Duration>,
        by: String,
        why: String,
    },
    Unfreeze {
        service: Option<ServiceName>,
        by: String,
    },
    /// The service is drained, stopped and forgotten.
    RemoveService {
        service: ServiceName,
        by: String,
    },
    /// A host leaves every balancer for work on it; with `stop` its instances stop then, and with `reboot` that is the work.
    Drain {
        host: HostName,
        stop: bool,
        reboot: bool,
        by: String,
        why: String,
    },
    Undrain {
        host: HostName,
        by: String,
    },
    /// A host that is out of every balancer is told to leave its boot: from now on it is out until it says another one.
    Reboot {
        host: HostName,
        boot: String,
        by: String,
    },
    /// Nobody waits for its other boot any more.
    GiveUpReboot {
        host: HostName,
        by: String,
    },
    /// The load balancer on a host does not come back, or not soon: nobody waits for its word while it says nothing.
    DeclareDead {
        host: HostName,
        by: String,
        why: String,
    },
    /// It is waited for again, though it says nothing yet.
    Revive {
        host: HostName,
        by: String,
    },
    /// What people say of a host from now on: labels it gets, and labels it loses.
    Label {
        host: HostName,
        set: Labels,
        unset: BTreeSet<LabelKey>,
        by: String,
    },
    /// A host that joined with a token that named nobody belongs here.
    Accept {
        host: HostName,
        by: String,
    },
    /// A restored coordinator goes on without hosts it has not heard.
    Recover {
        without: BTreeSet<HostName>,
        by: String,
    },
    /// A host is forgotten; with `force` although services name it, as one that never comes back.
    RemoveHost {
        host: HostName,
        force: bool,
        by: String,
    },
}

impl Command {
    /// The service it is about; none where it is about a host or about more than one.
    #[must_use]
    pub const fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Deploy(deploy) => Some(&deploy.name),
            Self::Rollback { service, .. }
            | Self::RollbackTo { service, .. }
            | Self::Pause { service, .. }
            | Self::Resume { service, .. }
            | Self::Abort { service, .. }
            | Self::Promote { service, .. }
            | Self::Keep { service, .. }
            | Self::Cancel { service, .. }
            | Self::Retry { service, .. }
            | Self::Skip { service, .. }
            | Self::Vouch { service, .. }
            | Self::Restart { service, .. }
            | Self::Rehearse { service, .. }
            | Self::RemoveService { service, .. } => Some(service),
            Self::Freeze { service, .. } | Self::Unfreeze { service, .. } => service.as_ref(),
            Self::Drain { .. }
            | Self::Undrain { .. }
            | Self::Reboot { .. }
            | Self::GiveUpReboot { .. }
            | Self::DeclareDead { .. }
            | Self::Revive { .. }
            | Self::Label { .. }
            | Self::Accept { .. }
            | Self::RemoveHost { .. }
            | Self::Recover { .. } => None,
        }
    }

    /// The host that belongs here from then on.
    #[must_use]
    pub const fn accepts(&self) -> Option<&HostName> {
        match self {
            Self::Accept { host, .. } => Some(host),
            _ => None,
        }
    }

    /// The host it is about, where that is all.
    #[must_use]
    pub const fn host(&self) -> Option<&HostName> {
        match self {
            Self::Drain { host, .. }
            | Self::Undrain { host, .. }
            | Self::Reboot { host, .. }
            | Self::GiveUpReboot { host, .. }
            | Self::DeclareDead { host, .. }
            | Self::Revive { host, .. }
            | Self::Label { host, .. }
            | Self::Accept { host, .. }
            | Self::RemoveHost { host, .. } => Some(host),
            _ => None,
        }
    }
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// A rollout of this id is active now, or was already and goes the same way.
    Rollout(RolloutId),
    /// Nothing to do: the release is live on every host.
    AlreadyLive,
    /// The deploy waits its turn; its rollout will have this id.
    Queued(RolloutId),
    /// What was asked for stands from now on.
    Noted,
    /// It was so before.
    Unchanged,
}

/// Applies a command to the fleet's desired state.
///
/// # Errors
/// A [`Problem`] with code B07xx says why it is refused; the fleet is unchanged then.
pub fn apply(fleet: &mut Fleet, command: Command, now: Moment) -> Result<Accepted, Problem> {
    if let Some(fence) = fleet.fenced().filter(|_| !matches!(command, Command::Recover { .. })) {
        return Err(fence.problem());
    }
    match command {
        Command::Deploy(asked) => deploy::deploy(fleet, *asked, now),
        Command::Rollback { id, service, by, force } => back::rollback(fleet, id, &service, by, force, now),
        Command::RollbackTo { id, service, version, by, force } => {
            back::rollback_to(fleet, id, &service, &version, by, force, now)
        }
        Command::Abort { service, by } => back::abort(fleet, &service, by, now),
        Command::Keep { service, by } => back::keep(fleet, &service, &by, now),
        Command::Pause { service, by, why } => steer::pause(fleet, &service, by, why, now),
        Command::Resume { service, by } => steer::resume(fleet, &service, &by, now),
        Command::Promote { service, by } => steer::promote(fleet, &service, &by, now),
        Command::Retry { id, service, host, by } => steer::retry(fleet, id, &service, host.as_ref(), &by, now),
        Command::Skip { service, host, by, why } => steer::skip(fleet, &service, &host, Order { by, why, since: now }),
        Command::Vouch { service, point, host, by, why } => {
            hooks::vouch(fleet, &service, (point, host), &Order { by, why, since: now })
        }
        Command::Restart { id, service, by } => renew::restart(fleet, id, &service, by, now),
        Command::Rehearse { id, service, host, by } => renew::rehearse(fleet, id, &service, host, by, now),
        Command::Cancel { service, queued, .. } => service::cancel(fleet, &service, queued.as_ref()),
        Command::Freeze { service, lasts, by, why } => {
            service::freeze(fleet, service.as_ref(), lasts, Order { by, why, since: now })
        }
        Command::Unfreeze { service, .. } => service::unfreeze(fleet, service.as_ref()),
        Command::RemoveService { service, by } => service::remove(fleet, &service, by, now),
        Command::Drain { host, stop, reboot, by, why } => {
            hosts::drain(fleet, &host, stop, reboot, Order { by, why, since: now })
        }
        Command::Undrain { host, .. } => hosts::undrain(fleet, &host, now),
        Command::Reboot { host, boot, .. } => reboot::tell(fleet, &host, boot, now),
        Command::GiveUpReboot { host, .. } => reboot::give_up(fleet, &host),
        Command::DeclareDead { host, by, why } => hosts::declare_dead(fleet, &host, Order { by, why, since: now }),
        Command::Revive { host, .. } => hosts::revive(fleet, &host),
        Command::Label { host, set, unset, .. } => hosts::label(fleet, &host, set, &unset),
        Command::Accept { host, .. } => hosts::accept(fleet, &host),
        Command::Recover { without, .. } => recall::recover(fleet, &without, now),
        Command::RemoveHost { host, force, .. } => hosts::remove(fleet, &host, force),
    }
}

/// Changes the active rollout of a service.
fn change(
    fleet: &mut Fleet,
    name: &ServiceName,
    now: Moment,
    how: impl FnOnce(&mut Rollout) -> Result<(), Problem>,
) -> Result<Accepted, Problem> {
    let active = fleet.active_rollout(name).map(|rollout| rollout.id.clone());
    let Some(rollout) = active.and_then(|id| fleet.rollouts.get_mut(&id)) else {
        known(fleet, name)?;
        return Err(no_rollout(name));
    };
    let mut after = rollout.clone();
    how(&mut after)?;
    if *rollout != after {
        after.progressed = now;
        *rollout = after;
    }
    Ok(Accepted::Rollout(rollout.id.clone()))
}

/// The service a command is about, while it may be commanded.
fn known<'a>(fleet: &'a Fleet, name: &ServiceName) -> Result<&'a Service, Problem> {
    let service = fleet.services.get(name).ok_or_else(|| unknown(fleet, name))?;
    match &service.orders.removal {
        Some(order) => Err(removed(name, order)),
        None => Ok(service),
    }
}

fn known_mut<'a>(fleet: &'a mut Fleet, name: &ServiceName) -> Result<&'a mut Service, Problem> {
    known(fleet, name)?;
    fleet.services.get_mut(name).ok_or_else(|| Problem::new(Code(709), format!("there is no service {name}")))
}

fn removed(name: &ServiceName, order: &Order) -> Problem {
    Problem::new(Code(718), format!("{name} is being removed"))
        .saw("asked for by", order.by.clone())
        .help(format!("baton why {name} says what it still waits for"))
}

fn no_rollout(name: &ServiceName) -> Problem {
    Problem::new(Code(708), format!("no rollout of {name} is under way")).help(format!("baton status {name}"))
}

/// A rollout is under way: who began it, and for how long it has been.
fn busy(active: &Rollout, now: Moment) -> Problem {
    let name = &active.service;
    let help = match active.state {
        RolloutState::Paused => format!("it is paused: baton resume {name}, or baton rollback {name}"),
        _ => format!("baton watch {name}, or baton rollback {name}"),
    };
    Problem::new(Code(701), format!("rollout {} of {name} is under way", active.id))
        .saw("started by", active.by.clone())
        .saw("for", format!("{} s", now.since(active.started).as_secs()))
        .help(help)
}

/// No new release, because people said so.
pub(crate) fn frozen(fleet: &Fleet, name: &ServiceName, freeze: &Freeze, now: Moment) -> Problem {
    let order = &freeze.order;
    let (what, ends) = match fleet.freeze.as_ref().is_some_and(|whole| std::ptr::eq(whole, freeze)) {
        true => ("the whole fleet".to_owned(), "baton unfreeze --all".to_owned()),
        false => (name.to_string(), format!("baton unfreeze {name}")),
    };
    let problem = Problem::new(Code(711), format!("{what} is frozen: {}", order.why))
        .saw("frozen by", order.by.clone())
        .saw("for", format!("{} s", now.since(order.since).as_secs()));
    let problem = match freeze.until {
        Some(until) => problem.saw("ends in", format!("{} s", until.since(now).as_secs())),
        None => problem,
    };
    problem.help(format!("{ends}; to roll a release back stays possible meanwhile"))
}

fn unknown(fleet: &Fleet, name: &ServiceName) -> Problem {
    let known: Vec<&str> = fleet.services.keys().map(ServiceName::as_str).collect();
    Problem::new(Code(709), format!("there is no service {name}"))
        .saw("services", if known.is_empty() { "none yet".into() } else { known.join(", ") })
        .help("baton deploy brings the first release")
}

/// A command names a host that nobody knows.
pub const NEVER_JOINED: Code = Code(703);

pub(crate) fn never_joined(fleet: &Fleet, hosts: &[&HostName]) -> Problem {
    let names: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
    let known: Vec<&str> = fleet.hosts.keys().map(HostName::as_str).collect();
    Problem::new(NEVER_JOINED, format!("{} never joined", names.join(", ")))
        .saw("joined", if known.is_empty() { "nobody".into() } else { known.join(", ") })
        .help("on each of them: baton-agent join HOST:PORT --token-file FILE")
}

fn not_of_service(name: &ServiceName, service: &Service, host: &HostName) -> Problem {
    let hosts: Vec<&str> = service.hosts.iter().map(HostName::as_str).collect();
    Problem::new(Code(716), format!("{name} does not run on {host}"))
        .saw("its hosts", hosts.join(", "))
        .help(format!("baton status {name}"))
}
