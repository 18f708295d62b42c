//! What is asked of the driver, and how the answer comes back.

use super::{Clock, Links, Picture};
use crate::store::Which;
use baton_core::fleet::fence::Told;
use baton_core::fleet::past::Forgotten;
use baton_core::fleet::spec::Stamp;
use baton_core::fleet::{Fleet, Host, Service};
use baton_core::name::{Digest, HostName, ReleaseId, RolloutId, ServiceName, Version};
use baton_core::problem::{Code, Problem};
use baton_core::release::Release;
use baton_core::rollout::command::{Accepted, Busy, Command, Deploy, apply, recall};
use baton_core::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// Everybody's end of the driver: leave a request, look at the picture, find the connected hosts.
#[derive(Debug, Clone)]
pub struct Access {
    pub(super) links: Arc<Links>,
    pictures: watch::Receiver<Arc<Picture>>,
    clock: Clock,
}

/// A request; ids are the driver's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Deploy {
        service: ServiceName,
        shape: Box<Service>,
        release: Box<Release>,
        by: String,
        when: When,
    },
    Rollback {
        service: ServiceName,
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
    Abort {
        service: ServiceName,
        by: String,
    },
    Promote {
        service: ServiceName,
        by: String,
    },
    RollbackTo {
        service: ServiceName,
        version: Version,
        by: String,
        force: bool,
    },
    Retry {
        service: ServiceName,
        host: Option<HostName>,
        by: String,
    },
    Restart {
        service: ServiceName,
        by: String,
    },
    Rehearse {
        service: ServiceName,
        host: Option<HostName>,
        by: String,
    },
    /// Whatever begins no rollout.
    Order(Box<Command>),
}

/// When a deploy may begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    pub busy: Busy,
    pub if_plan: Option<Digest>,
}

impl Ask {
    /// The service it is about; none where it is about more than one.
    #[must_use]
    pub const fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Deploy { service, .. }
            | Self::Rollback { service, .. }
            | Self::Pause { service, .. }
            | Self::Resume { service, .. }
            | Self::Abort { service, .. }
            | Self::Promote { service, .. }
            | Self::RollbackTo { service, .. }
            | Self::Retry { service, .. }
            | Self::Restart { service, .. }
            | Self::Rehearse { service, .. } => Some(service),
            Self::Order(command) => command.service(),
        }
    }

    /// What it is about, in a word or two: a service and the version it is brought to, a host, or everything.
    #[must_use]
    pub fn about(&self) -> String {
        match self {
            Self::Deploy { service, release, .. } => return format!("{service} {}", release.version),
            Self::RollbackTo { service, version, .. } => return format!("{service} {version}"),
            Self::Order(command) => {
                if let Command::Recover { without, .. } = command.as_ref()
                    && !without.is_empty()
                {
                    let names: Vec<&str> = without.iter().map(|host| host.as_str()).collect();
                    return format!("the fleet without {}", names.join(", "));
                }
            }
            _ => {}
        }
        let host = match self {
            Self::Order(command) => command.host().map(ToString::to_string),
            _ => None,
        };
        let service = self.service().map(ToString::to_string);
        service.or(host).unwrap_or_else(|| "the fleet".to_owned())
    }
}

/// What hosts that nobody has accepted yet say that they were told, the newest word of each. It is read, and stored, with the word that
/// they belong here.
pub(super) type Offered = BTreeMap<HostName, Box<Told>>;

/// A request that waits for the next pass.
#[derive(Debug)]
pub(super) enum Request {
    Ask(Ask, oneshot::Sender<Result<Accepted, Problem>>),
    Admit {
        host: HostName,
        address: IpAddr,
        /// Whether it belongs here: by the token it joined with, or, where it connects and is not known yet, by what it was told.
        accepted: bool,
        told: Option<Box<Told>>,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
}

/// What a request comes to, once the pass it was in is durable.
#[derive(Debug)]
pub(super) enum Reply {
    Asked(Result<Accepted, Problem>, oneshot::Sender<Result<Accepted, Problem>>),
    Admitted(Result<(), Problem>, oneshot::Sender<Result<(), Problem>>),
}

impl Access {
    pub(super) fn new(links: Arc<Links>, pictures: watch::Receiver<Arc<Picture>>, clock: Clock) -> Self {
        Self { links, pictures, clock }
    }

    /// Asks, and answers once what was decided is durable.
    ///
    /// # Errors
    /// The refusal; nothing happened then.
    pub async fn ask(&self, ask: Ask) -> Result<Accepted, Problem> {
        let (reply, answer) = oneshot::channel();
        self.links.leave(Request::Ask(ask, reply));
        answer.await.unwrap_or_else(|_| Err(busy()))
    }

    /// Makes sure that there is a record of a host, with this address. One that is new is told nothing before it is accepted.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn admit(&self, host: HostName, address: IpAddr, accepted: bool) -> Result<(), Problem> {
        self.admitted(host, address, accepted, None).await
    }

    /// The same for a host that connects: what it was told before is taken in, where that is not known here.
    ///
    /// # Errors
    /// When it could not be made durable, or the host must not be told anything yet.
    pub async fn connects(&self, host: HostName, address: IpAddr, told: Told) -> Result<(), Problem> {
        // Where the store knows less than the host: only one that was accepted was ever told something.
        let accepted = told.stamp != Stamp::default();
        self.admitted(host, address, accepted, Some(Box::new(told))).await
    }

    async fn admitted(
        &self,
        host: HostName,
        address: IpAddr,
        accepted: bool,
        told: Option<Box<Told>>,
    ) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        self.links.leave(Request::Admit { host, address, accepted, told, reply });
        answer.await.unwrap_or_else(|_| Err(busy()))
    }

    /// The fleet as last published.
    #[must_use]
    pub fn picture(&self) -> Arc<Picture> {
        self.pictures.borrow().clone()
    }

    /// Pictures as they come.
    #[must_use]
    pub fn pictures(&self) -> watch::Receiver<Arc<Picture>> {
        self.pictures.clone()
    }

    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }
}

impl Request {
    /// The releases it names that the fleet may have known once, and does not know now.
    pub(super) fn names(&self, fleet: &Fleet, offered: &Offered) -> Option<Which> {
        let held = |told: &Told| told.spec.iter().flat_map(|spec| spec.releases.keys().copied()).collect();
        let ids: BTreeSet<ReleaseId> = match self {
            Self::Ask(Ask::Deploy { release, .. }, _) => [release.id()].into(),
            Self::Ask(Ask::RollbackTo { service, version, .. }, _) => {
                return Some(Which::Called(service.clone(), version.clone()));
            }
            Self::Ask(Ask::Order(command), _) => {
                command.accepts().and_then(|host| offered.get(host)).map(|told| held(told)).unwrap_or_default()
            }
            Self::Admit { told: Some(told), .. } => held(told),
            _ => BTreeSet::new(),
        };
        let unknown: BTreeSet<ReleaseId> = ids.into_iter().filter(|id| !fleet.releases.contains_key(id)).collect();
        (!unknown.is_empty()).then_some(Which::Ids(unknown))
    }

    /// Applies the request to the fleet as it should be, once what it names of the past is remembered again. What is refused
    /// brings nothing back.
    pub(super) fn apply(
        self,
        fleet: &mut Fleet,
        past: Result<Vec<Forgotten>, Problem>,
        offered: &mut Offered,
        sequence: &mut u64,
        now: Moment,
    ) -> Reply {
        let past = match past {
            Ok(past) => past,
            Err(problem) => return self.refused(problem),
        };
        let before = (!past.is_empty()).then(|| fleet.clone());
        past.into_iter().for_each(|forgotten| fleet.bring_back(forgotten));
        let reply = self.decided(fleet, offered, sequence, now);
        if let (Some(before), true) = (before, reply.is_refusal()) {
            *fleet = before;
        }
        reply
    }

    fn decided(self, fleet: &mut Fleet, offered: &mut Offered, sequence: &mut u64, now: Moment) -> Reply {
        match self {
            Self::Ask(ask, reply) => {
                let id = format!("r-{:x}", *sequence + 1);
                let accepted = command(ask, &id).and_then(|command| match command.accepts().cloned() {
                    Some(host) => take_in(fleet, command, &host, offered, now),
                    None => apply(fleet, command, now),
                });
                let begun = |id: &str, accepted: &RolloutId| accepted.as_str() == id;
                if matches!(&accepted, Ok(Accepted::Rollout(it) | Accepted::Queued(it)) if begun(&id, it)) {
                    *sequence += 1;
                }
                Reply::Asked(accepted, reply)
            }
            Self::Admit { host, address, accepted, told, reply } => {
                let is_new = !fleet.hosts.contains_key(&host);
                let new = || Host { accepted, ..Host::new(address) };
                let known = fleet.hosts.entry(host.clone()).or_insert_with(new);
                known.address = address;
                // Whoever joins with a word that its name belongs here need not wait for another one; what connects has no such word.
                known.accepted |= accepted && told.is_none();
                let recalled = recall(fleet, &host, told.as_deref(), is_new, now);
                let waits = fleet.hosts.get(&host).is_some_and(|known| !known.accepted);
                let is_accepted = |name: &HostName| fleet.hosts.get(name).is_none_or(|known| known.accepted);
                offered.retain(|name, _| *name != host && !is_accepted(name));
                offered.extend(told.filter(|_| waits).map(|told| (host, told)));
                Reply::Admitted(recalled, reply)
            }
        }
    }

    fn refused(self, problem: Problem) -> Reply {
        match self {
            Self::Ask(_, reply) => Reply::Asked(Err(problem), reply),
            Self::Admit { reply, .. } => Reply::Admitted(Err(problem), reply),
        }
    }

    pub(super) fn refuse(self, problem: &Problem) {
        match self {
            Self::Ask(_, reply) => drop(reply.send(Err(problem.clone()))),
            Self::Admit { reply, .. } => drop(reply.send(Err(problem.clone()))),
        }
    }
}

impl Reply {
    const fn is_refusal(&self) -> bool {
        matches!(self, Self::Asked(Err(_), _) | Self::Admitted(Err(_), _))
    }

    /// Answers; whoever asked may have gone away, and that is all right.
    pub(super) fn send(self) {
        match self {
            Self::Asked(accepted, reply) => drop(reply.send(accepted)),
            Self::Admitted(admitted, reply) => drop(reply.send(admitted)),
        }
    }

    pub(super) fn refuse(self, problem: &Problem) {
        match self {
            // A refusal needs no store: it stays what it is.
            Self::Asked(Err(refusal), reply) => drop(reply.send(Err(refusal))),
            Self::Asked(Ok(_), reply) => drop(reply.send(Err(problem.clone()))),
            Self::Admitted(_, reply) => drop(reply.send(Err(problem.clone()))),
        }
    }
}

/// Accepts a host, and with it what it says that it was told elsewhere.
fn take_in(
    fleet: &mut Fleet,
    command: Command,
    host: &HostName,
    offered: &Offered,
    now: Moment,
) -> Result<Accepted, Problem> {
    let before = fleet.clone();
    let accepted = apply(fleet, command, now)?;
    if let Some(told) = offered.get(host)
        && let Err(problem) = recall(fleet, host, Some(told), false, now)
    {
        *fleet = before;
        return Err(problem);
    }
    Ok(accepted)
}

fn command(ask: Ask, id: &str) -> Result<Command, Problem> {
    let id = || RolloutId::new(id).map_err(|error| Problem::new(Code(1010), error.to_string()));
    Ok(match ask {
        Ask::Deploy { service, shape, release, by, when: When { busy, if_plan } } => {
            let deploy = Deploy::new(id()?, service, *shape, *release, by);
            Command::Deploy(Box::new(Deploy { busy, if_plan, ..deploy }))
        }
        Ask::Rollback { service, by, force } => Command::Rollback { id: id()?, service, by, force },
        Ask::Pause { service, by, why } => Command::Pause { service, by, why },
        Ask::Resume { service, by } => Command::Resume { service, by },
        Ask::Abort { service, by } => Command::Abort { service, by },
        Ask::Promote { service, by } => Command::Promote { service, by },
        Ask::RollbackTo { service, version, by, force } => Command::RollbackTo { id: id()?, service, version, by, force },
        Ask::Retry { service, host, by } => Command::Retry { id: id()?, service, host, by },
        Ask::Restart { service, by } => Command::Restart { id: id()?, service, by },
        Ask::Rehearse { service, host, by } => Command::Rehearse { id: id()?, service, host, by },
        Ask::Order(command) => *command,
    })
}

/// The refusal when the driver cannot take another request, or is gone.
fn busy() -> Problem {
    Problem::new(Code(1009), "the coordinator has too much to do, or is stopping").help("try again in a moment")
}
