//! The hosts that are connected, and what arrived from them since the last pass.
//!
//! Everything here is bounded by the number of hosts, [`REQUESTS`] and [`ANSWERS`]: of reports the newest of each host counts, of specs
//! too. A document replaces the one before.

use super::request::{Access, Request};
use crate::audit::chain::Head;
use baton_core::analysis::probes::Answer;
use baton_core::analysis::series;
use baton_core::fleet::Host;
use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::{HostSpec, Stamp};
use baton_core::name::{HostName, ReleaseId, RolloutId, ServiceName};
use baton_core::problem::Problem;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Requests that may wait for a pass. More than people and pipelines send in the milliseconds a pass takes.
const REQUESTS: usize = 256;

/// Answers that may wait for a pass: minutes of them.
const ANSWERS: usize = 4096;

/// Everybody's way to the driver, and the driver's to the agents.
#[derive(Debug, Default)]
pub struct Links {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<HostName, Link>,
    last_link: u64,
    reports: BTreeMap<HostName, (Instant, HostReport)>,
    requests: Vec<Request>,
    answers: Vec<(RolloutId, Instant, Answer)>,
    series: BTreeMap<ServiceName, Vec<(ReleaseId, series::Answer)>>,
    /// The driver is gone: nothing that is left here would ever be taken.
    closed: bool,
}

/// One host's open stream.
#[derive(Debug)]
struct Link {
    id: LinkId,
    heard: Instant,
    hello: Hello,
    /// Dropped with the link: then the stream it feeds ends.
    specs: watch::Sender<Option<Arc<HostSpec>>>,
}

/// Which of a host's streams: a newer one replaces the older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkId(u64);

/// What an agent said of itself when it connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    pub agent_version: String,
    /// The stamp in its ledger then.
    pub ledger: Stamp,
    pub facts: BTreeMap<String, String>,
    /// What it remembers of the audit log.
    pub audit_heads: Vec<Head>,
    pub reboots: Reboots,
}

/// What a host says of being rebooted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reboots {
    /// Its agent is too old to say.
    #[default]
    Unsaid,
    Allowed,
    Refused(Problem),
}

/// The newest spec for a host; the sender is gone once a newer stream replaced this one.
pub type Specs = watch::Receiver<Option<Arc<HostSpec>>>;

/// What arrived since the last pass.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) reports: BTreeMap<HostName, (Instant, HostReport)>,
    pub(super) requests: Vec<Request>,
    /// What came back to the prober.
    pub(super) answers: Vec<(RolloutId, Instant, Answer)>,
    /// What a Prometheus said last of a service's releases.
    pub(super) series: BTreeMap<ServiceName, Vec<(ReleaseId, series::Answer)>>,
    /// When each connected host was last heard.
    pub(super) heard: BTreeMap<HostName, Instant>,
}

impl Links {
    /// Registers a host's stream, in place of an older one.
    #[must_use]
    pub fn connect(&self, host: &HostName, hello: Hello) -> (LinkId, Specs) {
        let (specs, receiver) = watch::channel(None);
        let mut state = self.state();
        state.last_link += 1;
        let id = LinkId(state.last_link);
        if !state.closed {
            state.links.insert(host.clone(), Link { id, heard: Instant::now(), hello, specs });
        }
        drop(state);
        self.wake.notify_one();
        (id, receiver)
    }

    /// Takes a report in; false when this stream was replaced and must end.
    #[must_use]
    pub fn report(&self, host: &HostName, id: LinkId, report: HostReport) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let Some(link) = state.links.get_mut(host).filter(|link| link.id == id) else { return false };
        link.heard = now;
        state.reports.insert(host.clone(), (now, report));
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Forgets a stream that ended, unless a newer one took its place.
    pub fn disconnect(&self, host: &HostName, id: LinkId) {
        let mut state = self.state();
        if state.links.get(host).is_some_and(|link| link.id == id) {
            state.links.remove(host);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Ends a host's stream, whichever it is: its certificate is not accepted any more.
    pub fn cut(&self, host: &HostName) {
        self.state().links.remove(host);
        self.wake.notify_one();
    }

    /// What connected agents said of themselves.
    #[must_use]
    pub fn hellos(&self) -> BTreeMap<HostName, Hello> {
        self.state().links.iter().map(|(host, link)| (host.clone(), link.hello.clone())).collect()
    }

    /// Takes in what came back to the prober of a rollout. Of more than a pass could ever leave waiting the rest is no answer.
    pub fn answered(&self, rollout: &RolloutId, answer: Answer) {
        let mut state = self.state();
        if state.answers.len() < ANSWERS && !state.closed {
            state.answers.push((rollout.clone(), Instant::now(), answer));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Takes in what a Prometheus says of a service's releases: of counters the newest are enough.
    pub fn counted(&self, service: &ServiceName, answers: Vec<(ReleaseId, series::Answer)>) {
        let mut state = self.state();
        if !state.closed {
            state.series.insert(service.clone(), answers);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Leaves a request for the next pass. Dropped when too many wait, or the driver is gone: then whoever asked is told.
    pub(super) fn leave(&self, request: Request) {
        let mut state = self.state();
        if state.requests.len() < REQUESTS && !state.closed {
            state.requests.push(request);
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn take(&self) -> Mail {
        let mut state = self.state();
        Mail {
            reports: std::mem::take(&mut state.reports),
            requests: std::mem::take(&mut state.requests),
            answers: std::mem::take(&mut state.answers),
            series: std::mem::take(&mut state.series),
            heard: state.links.iter().map(|(host, link)| (host.clone(), link.heard)).collect(),
        }
    }

    /// Hands every connected host its newest spec, where it is not the one handed out last.
    pub(super) fn send(&self, hosts: &BTreeMap<HostName, Host>) {
        let state = self.state();
        for (name, link) in &state.links {
            let Some(host) = hosts.get(name) else { continue };
            // One that nobody accepted yet goes on with what it was told elsewhere, if it was: that has not been read.
            if !host.accepted && link.hello.ledger != Stamp::default() {
                continue;
            }
            let sent = link.specs.borrow().as_ref().map(|spec| spec.stamp());
            if sent != Some(host.issued.stamp()) {
                link.specs.send_replace(Some(Arc::new(host.issued.clone())));
            }
        }
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Nobody waits for a driver that is gone: requests are refused by being dropped, streams end.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.requests.clear();
        state.answers.clear();
        state.links.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Access {
    /// The connected hosts.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }
}
