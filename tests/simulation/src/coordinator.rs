//! A coordinator as the real driver is: reports in, plan, interlock, store, and only then specs out.

use baton_core::fleet::past::{Forgotten, Remembers};
use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::HostSpec;
use baton_core::fleet::{Fleet, Heard, Host, Labels};
use baton_core::name::{HostName, ReleaseId, ServiceName};
use baton_core::reboot::Reboot;
use baton_core::rollout::command::{Accepted, Command, apply};
use baton_core::rollout::waiting::Waiting;
use baton_core::rollout::{balancers, interlock, plan::plan};
use baton_core::time::Moment;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// A host that was not heard for this long counts as silent.
const SILENCE: u64 = 10_000;
/// It plans at least this often, whatever it hears.
const PLAN_EVERY: u64 = 5_000;

/// What survives a crash: the fleet without what was heard, and the driver's clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    pub(super) fleet: Fleet,
    /// What the fleet does not remember any more.
    pub(super) forgotten: BTreeMap<ReleaseId, Forgotten>,
    pub(super) clock: u64,
    /// The newest reboots by command.
    pub(super) reboot: Option<Reboot>,
}

#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) fleet: Fleet,
    /// Virtual time at which the persisted clock was taken up.
    began: (u64, u64),
    pub(super) wake_at: Option<u64>,
    /// Whether anything was heard since the last plan that another one could depend on.
    news: bool,
    /// Why nothing more happens, as of the last pass.
    pub(super) waiting: BTreeMap<ServiceName, Vec<Waiting>>,
}

impl Coordinator {
    /// Takes over from whatever the store holds: a new epoch, stored before anything else.
    pub(super) fn start(store: &mut Store, now: u64) -> Self {
        store.fleet.take_over();
        // Whatever may be forgotten is: the more of it has to come back.
        store.fleet.remembers = Remembers(0);
        let mut fleet = store.fleet.clone();
        for host in fleet.hosts.values_mut() {
            host.connected = false;
            host.heard = None;
        }
        Self { fleet, began: (now, store.clock), wake_at: Some(now), news: true, waiting: BTreeMap::new() }
    }

    pub(super) fn moment(&self, now: u64) -> Moment {
        Moment(self.began.1 + now - self.began.0)
    }

    pub(super) fn join(&mut self, store: &mut Store, name: &HostName, labels: Labels, accepted: bool) {
        let host = Host { labels, accepted, ..Host::new(IpAddr::V4(Ipv4Addr::LOCALHOST)) };
        store.fleet.hosts.insert(name.clone(), host.clone());
        self.fleet.hosts.insert(name.clone(), host);
    }

    /// Hears a report. Returns the spec to send again where the host does not follow the newest.
    pub(super) fn hear(&mut self, name: &HostName, report: HostReport, now: u64) -> Option<HostSpec> {
        let at = self.moment(now);
        let proven_after = self.fleet.proven_after();
        let host = self.fleet.hosts.get_mut(name)?;
        let before = host.heard.as_ref().filter(|_| host.connected);
        self.news |= before.is_none_or(|heard| report.is_news_after(&heard.report, proven_after));
        let behind = !report.follows(&host.issued);
        host.heard = Some(Heard { at, report });
        host.connected = true;
        behind.then(|| host.issued.clone())
    }

    pub(super) fn command(&mut self, store: &mut Store, command: Command, now: u64) -> bool {
        let at = self.moment(now);
        let mut fleet = self.fleet.clone();
        let asked = match &command {
            Command::Deploy(deploy) => Some(deploy.release.id()).filter(|id| !fleet.releases.contains_key(id)),
            _ => None,
        };
        let past = asked.and_then(|id| store.forgotten.get(&id));
        past.into_iter().for_each(|past| fleet.bring_back(past.clone()));
        let accepted = apply(&mut fleet, command, at);
        if accepted.is_ok() {
            self.fleet = fleet;
            store.forgotten.retain(|id, _| !self.fleet.releases.contains_key(id));
        }
        store.fleet = self.fleet.clone();
        accepted.is_ok_and(|accepted| accepted != Accepted::Unchanged)
    }

    /// Whether another pass could find anything that the last one did not.
    pub(super) fn is_due(&self, now: u64) -> bool {
        let at = self.moment(now);
        let is_silent =
            |host: &Host| host.heard.as_ref().is_some_and(|heard| at.since(heard.at).as_millis() as u64 >= SILENCE);
        self.news
            || self.wake_at.is_none_or(|wake| wake <= now)
            || self.fleet.hosts.values().any(|it| it.connected && is_silent(it))
    }

    /// One pass of the driver. Returns what to send, or what the interlock refused.
    pub(super) fn pass(&mut self, store: &mut Store, now: u64, twice: bool) -> Result<Vec<(HostName, HostSpec)>, String> {
        let at = self.moment(now);
        self.news = false;
        for host in self.fleet.hosts.values_mut() {
            let heard = host.heard.as_ref().map(|heard| at.since(heard.at).as_millis() as u64);
            host.connected = host.connected && heard.is_some_and(|ago| ago < SILENCE);
        }
        for host in balancers::returned(&self.fleet) {
            self.command(store, Command::Revive { host, by: "baton".to_owned() }, now);
        }
        let next = plan(&self.fleet, at);
        interlock::check(&self.fleet, &next).map_err(|violations| format!("the interlock refused: {}", violations[0]))?;
        next.take(&mut store.fleet);
        store.forgotten.extend(next.forgotten.clone());
        store.forgotten.retain(|_, past| !next.gone.contains(&past.release.service));
        store.clock = at.0;
        next.take(&mut self.fleet);
        let wake_at = next.wake_at.map_or(PLAN_EVERY, |wake| PLAN_EVERY.min(wake.since(at).as_millis() as u64));
        self.wake_at = Some(now + wake_at);
        self.waiting = next.waiting.clone();
        if twice {
            let again = plan(&self.fleet, at);
            if again.changes_anything() {
                let first: BTreeMap<_, _> = next.specs.iter().filter(|(name, _)| again.specs.contains_key(*name)).collect();
                return Err(format!("planning twice changed something: {again:?}, and the first time was {first:?}"));
            }
        }
        Ok(next.specs.into_iter().collect())
    }
}
