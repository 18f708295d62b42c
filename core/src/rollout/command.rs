//! What operators ask of a fleet, checked against the fleet as it is.

use super::Rollout;
use crate::fleet::{Fleet, Service};
use crate::name::{RolloutId, ServiceName};
use crate::problem::Problem;
use crate::release::Release;
use crate::strategy::Strategy;
use crate::time::Moment;

/// One request. It changes what is desired and nothing else; the plan follows from that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Deploy(Box<Deploy>),
    /// The active rollout back, or a new one to the release before.
    Rollback {
        id: RolloutId,
        service: ServiceName,
        by: String,
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
    /// The active rollout back, because a person says so.
    Abort {
        service: ServiceName,
        by: String,
    },
}

/// Bring a service to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// The id for the rollout, if one is needed.
    pub id: RolloutId,
    pub name: ServiceName,
    /// Hosts, ports, balancer and strategy as the manifest says; `committed` and `previous` are kept from the fleet.
    pub service: Service,
    pub release: Release,
    /// For this rollout; the service's own where None.
    pub strategy: Option<Strategy>,
    pub by: String,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// A rollout of this id is active now, or was already and goes the same way.
    Rollout(RolloutId),
    /// Nothing to do: the release is live on every host.
    AlreadyLive,
}

/// Applies a command to the fleet's desired state.
///
/// # Errors
/// A [`Problem`] with code B07xx says why it is refused; the fleet is unchanged then.
pub fn apply(fleet: &mut Fleet, command: Command, now: Moment) -> Result<Accepted, Problem> {
    let _ = (fleet, command, now, None::<Rollout>);
    Err(Problem::new(crate::problem::Code(700), "not built yet"))
}
