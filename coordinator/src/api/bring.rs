//! Whether a release that was deployed before can still be brought to hosts: somebody must have its archive.

use super::Api;
use crate::store::Which;
use baton_core::fleet::report::ReleaseState;
use baton_core::fleet::{Fleet, Host};
use baton_core::name::{HostName, ReleaseId, ServiceName, Version};
use baton_core::problem::{Code, Problem};
use baton_core::release::Release;
use baton_proto::problem::to_status;
use std::sync::Arc;
use tonic::Status;

impl Api {
    /// Of a version that people name; what no release is called is refused elsewhere.
    pub(super) async fn may_bring(&self, service: &str, version: &str) -> Result<(), Status> {
        let (Ok(name), Ok(called)) = (service.parse(), Version::new(version)) else { return Ok(()) };
        let picture = self.recall(Which::Called(name, called)).await?;
        let named = |release: &&Arc<Release>| release.service.as_str() == service && release.version.as_str() == version;
        let mut called = picture.fleet.releases.values().filter(named).peekable();
        if called.peek().is_none() || called.any(|release| self.is_here(release)) {
            return Ok(());
        }
        Err(to_status(
            Problem::new(Code(601), format!("the artifact of {service} {version} is not kept any more"))
                .saw("kept", "those in use, and of each service the newest others: keep_artifacts in coordinator.toml")
                .help(format!("baton deploy {service} {version} uploads it again")),
        ))
    }

    /// Of the release before, to the hosts that do not hold it: it may have come over with them, or be from before a restore. What is
    /// under way always turns round.
    pub(super) fn may_bring_back(&self, service: &str) -> Result<(), Status> {
        let picture = self.access.picture();
        let lacks = service.parse().ok().and_then(|name| lack_the_way_back(&picture.fleet, &name));
        match lacks.filter(|(release, _)| !self.is_here(release)) {
            None => Ok(()),
            Some((release, hosts)) => Err(to_status(not_here(release, &hosts))),
        }
    }

    fn is_here(&self, release: &Release) -> bool {
        self.artifacts.stat(release.artifact.digest).is_ok_and(|stat| stat.complete)
    }
}

/// The release that a rollback would bring, and the hosts that do not hold it.
fn lack_the_way_back<'a>(fleet: &'a Fleet, name: &ServiceName) -> Option<(&'a Release, Vec<&'a HostName>)> {
    let service = fleet.services.get(name).filter(|_| fleet.active_rollout(name).is_none())?;
    let id = service.way_back()?;
    let holds = |host: &Host, id: ReleaseId| {
        host.report().is_some_and(|report| matches!(report.releases.get(&id), Some(ReleaseState::Held)))
    };
    let lacks = |host: &&HostName| fleet.hosts.get(*host).is_some_and(|host| host.connected && !holds(host, id));
    let hosts: Vec<&HostName> = service.hosts.iter().filter(lacks).collect();
    (!hosts.is_empty()).then_some((fleet.releases.get(&id)?, hosts))
}

fn not_here(release: &Release, hosts: &[&HostName]) -> Problem {
    let Release { service, version, .. } = release;
    let names: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
    Problem::new(Code(601), format!("the artifact of {service} {version} is not on the coordinator"))
        .saw("not held by", names.join(", "))
        .help(format!("baton deploy {service} {version} uploads it, and brings it as any other release"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use baton_core::fleet::Heard;
    use baton_core::fleet::report::HostReport;
    use baton_core::time::Moment;

    #[test]
    fn only_hosts_that_are_there_and_do_not_hold_the_release_before_lack_it() {
        let name: ServiceName = "shop".parse().unwrap();
        let (before, live) = (samples::release("shop", "1"), samples::release("shop", "2"));
        let mut service = samples::service(&["web1", "web2"]);
        (service.committed, service.previous) = (Some(live.id()), Some(before.id()));
        let mut fleet = Fleet::default();
        for host in &service.hosts {
            let report =
                HostReport { releases: [(before.id(), ReleaseState::Held)].into_iter().collect(), ..HostReport::default() };
            let heard = Some(Heard { at: Moment(1), report });
            fleet.hosts.insert(host.clone(), Host { heard, connected: true, ..Host::new([127, 0, 0, 1].into()) });
        }
        fleet.releases.extend([(before.id(), before.clone().into()), (live.id(), live.into())]);
        fleet.services.insert(name.clone(), service);
        assert!(lack_the_way_back(&fleet, &name).is_none(), "every host holds it");
        let web2 = samples::host("web2");
        fleet.hosts.get_mut(&web2).unwrap().heard.as_mut().unwrap().report.releases.clear();
        let (release, hosts) = lack_the_way_back(&fleet, &name).unwrap();
        assert_eq!((release.id(), &hosts), (before.id(), &vec![&web2]));
        assert!(not_here(release, &hosts).help.as_ref().is_some_and(|help| help.starts_with("baton deploy shop 1 ")));
        fleet.hosts.get_mut(&web2).unwrap().connected = false;
        assert!(lack_the_way_back(&fleet, &name).is_none(), "who is away is not asked");
    }
}
