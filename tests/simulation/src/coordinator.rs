//! A coordinator as the real driver is: reports in, plan, interlock, store, and only then specs out.

use baton_core::fleet::news::is_news;
use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::HostSpec;
use baton_core::fleet::{Fleet, Heard, Host};
use baton_core::name::{HostName, ServiceName};
use baton_core::rollout::command::{Accepted, Command, apply};
use baton_core::rollout::waiting::Waiting;
use baton_core::rollout::{interlock, plan::plan};
use baton_core::time::{Moment, earlier};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// A host that was not heard for this long counts as silent.
const SILENCE: Duration = Duration::from_secs(10);

/// What survives a crash: the fleet without what was heard, and the driver's clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    pub(super) fleet: Fleet,
    pub(super) clock: u64,
}

/// What to send, and to whom.
pub(super) type Specs = Vec<(HostName, HostSpec)>;

/// What of a pass is looked at a second time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    /// That planning twice changes nothing.
    pub(super) plan: bool,
    /// That there was nothing to plan where nothing was heard that is new.
    pub(super) news: bool,
}

#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) fleet: Fleet,
    /// Virtual time at which the persisted clock was taken up.
    began: (u64, u64),
    /// Something happened since the last plan that the next one could depend on.
    news: bool,
    /// When the last plan asked for the next one, though nothing happens.
    plan_at: Option<Moment>,
    /// When the first of the connected hosts would count as silent: of those that were heard since, later.
    silence_at: Option<Moment>,
    /// Why nothing more happens, as of the last pass.
    pub(super) waiting: BTreeMap<ServiceName, Vec<Waiting>>,
}

impl Coordinator {
    /// Takes over from whatever the store holds: a new epoch, stored before anything else.
    pub(super) fn start(store: &mut Store, now: u64) -> Self {
        store.fleet.take_over();
        let mut fleet = store.fleet.clone();
        for host in fleet.hosts.values_mut() {
            host.connected = false;
            host.heard = None;
        }
        Self { fleet, began: (now, store.clock), news: true, plan_at: None, silence_at: None, waiting: BTreeMap::new() }
    }

    fn moment(&self, now: u64) -> Moment {
        Moment(self.began.1 + now - self.began.0)
    }

    pub(super) fn join(&mut self, store: &mut Store, name: &HostName) {
        let host = Host::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
        store.fleet.hosts.insert(name.clone(), host.clone());
        self.fleet.hosts.insert(name.clone(), host);
        self.news = true;
    }

    /// Hears a report. Returns the spec to send again where the host does not follow the newest.
    pub(super) fn hear(&mut self, name: &HostName, report: HostReport, now: u64) -> Option<HostSpec> {
        let at = self.moment(now);
        self.news |= is_news(&self.fleet, name, &report);
        self.silence_at = earlier(self.silence_at, Some(at + SILENCE));
        let host = self.fleet.hosts.get_mut(name)?;
        let behind = !report.follows(&host.issued);
        host.heard = Some(Heard { at, report });
        host.connected = true;
        behind.then(|| host.issued.clone())
    }

    pub(super) fn command(&mut self, store: &mut Store, command: Command, now: u64) -> bool {
        let at = self.moment(now);
        let accepted = apply(&mut self.fleet, command, at);
        self.news = true;
        store.fleet.services = self.fleet.services.clone();
        store.fleet.rollouts = self.fleet.rollouts.clone();
        store.fleet.releases = self.fleet.releases.clone();
        store.fleet.freeze = self.fleet.freeze.clone();
        for (name, host) in &self.fleet.hosts {
            if let Some(stored) = store.fleet.hosts.get_mut(name) {
                stored.maintenance = host.maintenance.clone();
            }
        }
        accepted.is_ok_and(|accepted| accepted != Accepted::Unchanged)
    }

    fn notice_silence(&mut self, at: Moment) {
        if self.silence_at.is_none_or(|silence_at| silence_at > at) {
            return;
        }
        self.silence_at = None;
        for host in self.fleet.hosts.values_mut().filter(|host| host.connected) {
            let silence_at = host.heard.as_ref().map(|heard| heard.at + SILENCE).filter(|silence_at| *silence_at > at);
            host.connected = silence_at.is_some();
            self.news |= !host.connected;
            self.silence_at = earlier(self.silence_at, silence_at);
        }
    }

    /// When to look again, though nothing happens.
    pub(super) fn wake_at(&self, now: u64) -> Option<u64> {
        let wake = earlier(self.plan_at, self.silence_at)?;
        Some(now + wake.since(self.moment(now)).as_millis() as u64)
    }

    /// One pass of the driver. Returns what to send, or what the interlock refused; None: there was nothing to plan, as nothing
    /// changed that a plan depends on, and no plan asked to be made again now.
    pub(super) fn pass(&mut self, store: &mut Store, now: u64, doubt: Doubt) -> Result<Option<Specs>, String> {
        let at = self.moment(now);
        store.clock = at.0;
        self.notice_silence(at);
        if !self.news && self.plan_at.is_none_or(|plan_at| plan_at > at) {
            return if doubt.news { self.nothing_is_missed(at).map(|()| None) } else { Ok(None) };
        }
        let next = plan(&self.fleet, at);
        if next.changes_anything() {
            interlock::check(&self.fleet, &next)
                .map_err(|violations| format!("the interlock refused: {}", violations[0]))?;
        }
        next.take(&mut store.fleet);
        next.take(&mut self.fleet);
        (self.news, self.plan_at) = (false, next.wake_at);
        self.waiting = next.waiting.clone();
        if doubt.plan {
            let again = plan(&self.fleet, at);
            if again.changes_anything() {
                return Err(format!("planning twice changed something: {again:?}"));
            }
        }
        Ok(Some(next.specs.into_iter().collect()))
    }

    /// That a plan from all that was heard would change nothing, indeed.
    fn nothing_is_missed(&self, at: Moment) -> Result<(), String> {
        let missed = plan(&self.fleet, at);
        if missed.changes_anything() { Err(format!("news was taken for none: {missed:?}")) } else { Ok(()) }
    }
}
