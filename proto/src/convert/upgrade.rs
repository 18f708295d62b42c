//! Orders for agents' own packages, and what becomes of them.

use super::{InvalidMessage, bytes, digest, duration, millis, parse};
use crate::v1;
use crate::v1::upgrade_report::State;
use baton_core::name::UpgradeId;
use baton_core::problem::Problem;
use baton_core::release::Artifact;
use baton_core::upgrade::Package;
use baton_core::upgrade::plan::Progress;
use std::time::Duration;

/// What a host is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeOrder {
    pub id: UpgradeId,
    pub attempt: u32,
    pub package: Package,
    pub back_within: Duration,
}

/// What a host says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeReport {
    pub id: UpgradeId,
    pub attempt: u32,
    pub progress: Progress,
}

impl From<&UpgradeOrder> for v1::UpgradeOrder {
    fn from(order: &UpgradeOrder) -> Self {
        Self {
            id: order.id.to_string(),
            attempt: order.attempt,
            digest: bytes(order.package.artifact.digest),
            size: order.package.artifact.size,
            version: order.package.version.to_string(),
            architecture: order.package.architecture.to_string(),
            back_within_ms: millis(order.back_within),
        }
    }
}

impl TryFrom<v1::UpgradeOrder> for UpgradeOrder {
    type Error = InvalidMessage;
    fn try_from(message: v1::UpgradeOrder) -> Result<Self, InvalidMessage> {
        let artifact = Artifact { digest: digest("digest", &message.digest)?, size: message.size };
        Ok(Self {
            id: parse("id", &message.id)?,
            attempt: message.attempt,
            package: Package {
                artifact,
                version: parse("version", &message.version)?,
                architecture: parse("architecture", &message.architecture)?,
            },
            back_within: duration("back_within_ms", message.back_within_ms)?,
        })
    }
}

impl From<&UpgradeReport> for v1::UpgradeReport {
    fn from(report: &UpgradeReport) -> Self {
        let state = match &report.progress {
            Progress::Fetching { done, total } => State::Fetching(v1::Fetching { done: *done, total: *total }),
            Progress::Installing => State::Installing(v1::UpgradeInstalling {}),
            Progress::Done => State::Done(v1::UpgradeDone {}),
            Progress::Failed(problem) => State::Failed(problem.into()),
        };
        Self { id: report.id.to_string(), attempt: report.attempt, state: Some(state) }
    }
}

impl TryFrom<v1::UpgradeReport> for UpgradeReport {
    type Error = InvalidMessage;
    fn try_from(message: v1::UpgradeReport) -> Result<Self, InvalidMessage> {
        let progress = match super::present("state", message.state)? {
            State::Fetching(fetching) => Progress::Fetching { done: fetching.done, total: fetching.total },
            State::Installing(_) => Progress::Installing,
            State::Done(_) => Progress::Done,
            State::Failed(problem) => Progress::Failed(Problem::try_from(problem).map_err(|error| error.inside("failed"))?),
        };
        Ok(Self { id: parse("id", &message.id)?, attempt: message.attempt, progress })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::name::Digest;
    use baton_core::problem::Code;

    #[test]
    fn an_order_and_what_becomes_of_it_come_through_as_they_are() {
        let artifact = Artifact { digest: Digest::of(b"deb"), size: 3 };
        let package =
            Package { artifact, version: "1:2.0.0-1~rc1".parse().unwrap(), architecture: "amd64".parse().unwrap() };
        let order = UpgradeOrder { id: "u-1".parse().unwrap(), attempt: 2, package, back_within: Duration::from_secs(60) };
        assert_eq!(UpgradeOrder::try_from(v1::UpgradeOrder::from(&order)), Ok(order));
        for progress in [
            Progress::Fetching { done: 1, total: 3 },
            Progress::Installing,
            Progress::Done,
            Progress::Failed(Problem::new(Code(553), "it fell back").saw("journal", "a line")),
        ] {
            let report = UpgradeReport { id: "u-1".parse().unwrap(), attempt: 2, progress };
            assert_eq!(UpgradeReport::try_from(v1::UpgradeReport::from(&report)), Ok(report));
        }
        assert!(UpgradeOrder::try_from(v1::UpgradeOrder::default()).is_err());
        assert!(UpgradeReport::try_from(v1::UpgradeReport::default()).is_err());
    }
}
