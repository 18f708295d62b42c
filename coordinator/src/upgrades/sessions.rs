//! What agents say of their own packages, as long as they are connected.

use crate::driver::{LinkId, Picture};
use baton_core::name::{Architecture, HostName, PackageVersion, UpgradeId};
use baton_core::problem::{Code, Problem};
use baton_core::time::Moment;
use baton_core::upgrade::plan::{Seen, Session};
use baton_proto::convert::UpgradeReport;
use baton_proto::v1;
use std::collections::BTreeMap;

/// What an agent said of its package when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    pub runs: Option<PackageVersion>,
    pub takes: Result<Architecture, Problem>,
}

/// An open session.
#[derive(Debug)]
struct Open {
    link: LinkId,
    since: Moment,
    stated: Stated,
    report: Option<UpgradeReport>,
}

/// Every session there is, and when the others ended.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Nobody was heard before.
    began: Moment,
    open: BTreeMap<HostName, Open>,
    ended: BTreeMap<HostName, Moment>,
}

impl Stated {
    /// Reads what stands in a hello. An agent that says nothing is older than this, and cannot be told; neither can one of which
    /// it cannot be understood: that must not cost its session.
    #[must_use]
    pub fn read(message: Option<v1::AgentPackage>, agent_version: &str) -> Self {
        let untellable = |what: String| {
            Err(Problem::new(Code(560), what).help("upgrade it once on its host: apt install ./baton-agent_*.deb"))
        };
        let Some(message) = message else {
            let what = format!("this agent, {agent_version}, is too old to be upgraded from here");
            return Self { runs: agent_version.parse().ok(), takes: untellable(what) };
        };
        let takes = match message.refuses.map(Problem::try_from).transpose() {
            Ok(Some(problem)) => Err(problem),
            Ok(None) => match message.architecture.parse::<Architecture>() {
                Ok(architecture) => Ok(architecture),
                Err(error) => untellable(format!("what this agent says of its packages cannot be understood: {error}")),
            },
            Err(error) => untellable(format!("what this agent says of its packages cannot be understood: {error}")),
        };
        Self { runs: message.version.parse().ok(), takes }
    }
}

impl Sessions {
    pub(super) fn new(began: Moment) -> Self {
        Self { began, open: BTreeMap::new(), ended: BTreeMap::new() }
    }

    pub(super) fn opened(&mut self, host: &HostName, link: LinkId, stated: Stated, since: Moment) {
        self.open.insert(host.clone(), Open { link, since, stated, report: None });
    }

    pub(super) fn reported(&mut self, host: &HostName, link: LinkId, report: UpgradeReport) {
        if let Some(open) = self.open.get_mut(host).filter(|open| open.link == link) {
            open.report = Some(report);
        }
    }

    pub(super) fn closed(&mut self, host: &HostName, link: LinkId, now: Moment) {
        if self.open.get(host).is_some_and(|open| open.link == link) {
            self.open.remove(host);
            self.ended.insert(host.clone(), now);
        }
    }

    pub(super) fn stated(&self, host: &HostName) -> Option<&Stated> {
        self.open.get(host).map(|open| &open.stated)
    }

    /// Every host of the fleet as an upgrade sees it.
    pub(super) fn seen(&self, picture: &Picture, upgrade: &UpgradeId) -> BTreeMap<HostName, Seen> {
        let seen = picture.fleet.hosts.iter().map(|(name, host)| {
            let heard = host.heard.as_ref().map(|heard| heard.at);
            let seen = match self.open.get(name).filter(|_| host.connected) {
                Some(open) => {
                    let report = open.report.as_ref().filter(|report| report.id == *upgrade);
                    let report = report.map(|report| (report.attempt, report.progress.clone()));
                    let Stated { runs, takes } = open.stated.clone();
                    Seen::Here(Session { since: open.since, runs, takes, report })
                }
                None => Seen::Gone { since: self.ended.get(name).copied().or(heard).unwrap_or(self.began).max(self.began) },
            };
            (name.clone(), seen)
        });
        seen.collect()
    }
}
