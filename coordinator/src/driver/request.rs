//! What is asked of the driver, and how the answer comes back.

use super::{Clock, Links, Picture};
use baton_core::fleet::{Fleet, Host, Service};
use baton_core::name::{HostName, RolloutId, ServiceName};
use baton_core::problem::{Code, Problem};
use baton_core::release::Release;
use baton_core::rollout::command::{Accepted, Command, Deploy, apply};
use baton_core::time::Moment;
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
    Deploy { service: ServiceName, shape: Box<Service>, release: Box<Release>, by: String },
    Rollback { service: ServiceName, by: String },
    Pause { service: ServiceName, by: String, why: String },
    Resume { service: ServiceName, by: String },
    Abort { service: ServiceName, by: String },
    Promote { service: ServiceName, by: String },
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
            | Self::Promote { service, .. } => Some(service),
        }
    }
}

/// A request that waits for the next pass.
#[derive(Debug)]
pub(super) enum Request {
    Ask(Ask, oneshot::Sender<Result<Accepted, Problem>>),
    Admit { host: HostName, address: IpAddr, reply: oneshot::Sender<Result<(), Problem>> },
}

/// What a request comes to, once the pass it was in is durable.
#[derive(Debug)]
pub(super) enum Reply {
    Asked(Result<Accepted, Problem>, oneshot::Sender<Result<Accepted, Problem>>),
    Admitted(oneshot::Sender<Result<(), Problem>>),
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

    /// Makes sure that there is a record of a host, with this address.
    ///
    /// # Errors
    /// When it could not be made durable.
    pub async fn admit(&self, host: HostName, address: IpAddr) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        self.links.leave(Request::Admit { host, address, reply });
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
    /// Applies the request to the fleet as it should be.
    pub(super) fn apply(self, fleet: &mut Fleet, sequence: &mut u64, now: Moment) -> Reply {
        match self {
            Self::Ask(ask, reply) => {
                let id = format!("r-{:x}", *sequence + 1);
                let accepted = command(ask, &id).and_then(|command| apply(fleet, command, now));
                if matches!(&accepted, Ok(Accepted::Rollout(accepted)) if accepted.as_str() == id) {
                    *sequence += 1;
                }
                Reply::Asked(accepted, reply)
            }
            Self::Admit { host, address, reply } => {
                fleet.hosts.entry(host).or_insert_with(|| Host::new(address)).address = address;
                Reply::Admitted(reply)
            }
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
    /// Answers; whoever asked may have gone away, and that is all right.
    pub(super) fn send(self) {
        match self {
            Self::Asked(accepted, reply) => drop(reply.send(accepted)),
            Self::Admitted(reply) => drop(reply.send(Ok(()))),
        }
    }

    pub(super) fn refuse(self, problem: &Problem) {
        match self {
            // A refusal needs no store: it stays what it is.
            Self::Asked(Err(refusal), reply) => drop(reply.send(Err(refusal))),
            Self::Asked(Ok(_), reply) => drop(reply.send(Err(problem.clone()))),
            Self::Admitted(reply) => drop(reply.send(Err(problem.clone()))),
        }
    }
}

fn command(ask: Ask, id: &str) -> Result<Command, Problem> {
    let id = || RolloutId::new(id).map_err(|error| Problem::new(Code(1010), error.to_string()));
    Ok(match ask {
        Ask::Deploy { service, shape, release, by } => {
            Command::Deploy(Box::new(Deploy { id: id()?, name: service, service: *shape, release: *release, by }))
        }
        Ask::Rollback { service, by } => Command::Rollback { id: id()?, service, by },
        Ask::Pause { service, by, why } => Command::Pause { service, by, why },
        Ask::Resume { service, by } => Command::Resume { service, by },
        Ask::Abort { service, by } => Command::Abort { service, by },
        Ask::Promote { service, by } => Command::Promote { service, by },
    })
}

/// The refusal when the driver cannot take another request, or is gone.
fn busy() -> Problem {
    Problem::new(Code(1009), "the coordinator has too much to do, or is stopping").help("try again in a moment")
}
