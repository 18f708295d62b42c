//! The instances of this host: one task lives each, and what they say is kept here.

use super::notes::{Notes, Verdict};
use super::view::{FallView, InstanceView, Phase};
use super::{Event, Means};
use crate::allow::Allow;
use crate::artifact::Placing;
use crate::instance::{Change, Leave, Life, Origin, Wanted, ended_unseen};
use crate::metrics::Counters;
use crate::runtime::{Found, Running, Runtime};
use baton_core::fleet::report::InstanceReport;
use baton_core::fleet::spec::{HostSpec, InstanceSpec, Restart};
use baton_core::fleet::{InstanceKey, LiteMap};
use baton_core::host::plan::Failures;
use baton_core::name::{Digest, ReleaseId};
use baton_core::problem::{Code, Problem};
use baton_core::time::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[derive(Debug)]
pub(super) struct Instances {
    runtime: Arc<dyn Runtime>,
    placing: Arc<dyn Placing>,
    allow: Arc<Allow>,
    notes: Notes,
    events: UnboundedSender<Event>,
    slots: BTreeMap<InstanceKey, Slot>,
    failures: BTreeMap<InstanceKey, Failures>,
    falls: BTreeMap<InstanceKey, FallView>,
    serial: u64,
    counters: Arc<Counters>,
}

/// What is in a slot.
#[derive(Debug)]
struct Slot {
    serial: u64,
    view: InstanceView,
    running: Option<Running>,
    /// Dropping it ends the watching; sending stops the instance.
    stop: Option<UnboundedSender<Leave>>,
    /// Whether it is to fail its health check before it is stopped.
    withdrawing: bool,
    /// It did not leave when it was last asked to.
    stays: Option<(Instant, Problem)>,
    /// Whether its life knows what a spec says of it.
    informed: Informed,
    artifact: Option<Digest>,
    address: Option<SocketAddr>,
}

/// For so long an instance that does not leave is not asked again.
const STAYS_FOR: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Informed {
    Yes,
    No,
}

impl Slot {
    fn holds(&mut self, running: Running) {
        self.view.incarnation.clone_from(&running.incarnation);
        self.view.pid = Some(running.pid).filter(|pid| *pid != 0);
        self.running = Some(running);
    }
}

impl Instances {
    pub(super) fn new(means: &Means, notes: Notes, events: UnboundedSender<Event>, counters: Arc<Counters>) -> Self {
        Self {
            runtime: means.runtime.clone(),
            placing: means.placing.clone(),
            allow: means.allow.clone(),
            notes,
            events,
            slots: BTreeMap::new(),
            failures: BTreeMap::new(),
            falls: BTreeMap::new(),
            serial: 0,
            counters,
        }
    }

    /// Takes up what an earlier agent started, and what it knew to have failed.
    pub(super) async fn adopt(&mut self, found: Vec<Found>, spec: Option<&HostSpec>) {
        for Found { running, alive } in found {
            if alive {
                tracing::info!(instance = %running.key, pid = running.pid, "adopted");
                self.watch(running, spec);
            } else if !self.notes.verdicts().contains_key(&running.key) {
                let problem = ended_unseen(running.key.service.as_str(), self.runtime.as_ref(), &running).await;
                let verdict = Verdict {
                    release: running.release,
                    incarnation: running.incarnation.clone(),
                    start: running.start,
                    problem,
                };
                self.remember_failed(&running.key.clone(), verdict);
            }
        }
        for (key, verdict) in self.notes.verdicts().clone() {
            if !self.slots.contains_key(&key) {
                self.remember_failed(&key, verdict);
            }
        }
    }

    /// Tells lives that knew nothing what a new spec says of them.
    pub(super) fn learn(&mut self, spec: Option<&HostSpec>) {
        let uninformed: Vec<_> = self
            .slots
            .values()
            .filter(|slot| slot.informed == Informed::No)
            .filter_map(|slot| slot.running.clone())
            .collect();
        for running in uninformed {
            if wanted(&running.key, running.release, spec, self.placing.as_ref()).is_some() {
                self.watch(running, spec);
            }
        }
    }

    pub(super) fn start(&mut self, key: &InstanceKey, spec: &HostSpec) {
        let Some(release_id) = spec.instances.get(key).map(|instance| instance.release) else { return };
        self.notes.clear(key);
        let wanted = wanted(key, release_id, Some(spec), self.placing.as_ref());
        let artifact = wanted.as_ref().map(|wanted| wanted.release.artifact.digest);
        // What failed and is started as it was: another release, or another count of starts, is no restart of the agent's.
        let start = wanted.as_ref().map(|wanted| wanted.start);
        if self.slots.get(key).is_some_and(|slot| slot.view.release == release_id && Some(slot.view.start) == start) {
            self.counters.of(&key.service).instance_restarted();
        } else {
            self.falls.remove(key);
        }
        let phase = Phase::Starting { at: Instant::now(), last: None };
        self.live(key, release_id, wanted, Origin::Start, phase, artifact);
    }

    pub(super) fn stop(&mut self, key: &InstanceKey, incarnation: &str, spec: &HostSpec) {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.view.incarnation == incarnation) else { return };
        if slot.stays.as_ref().is_some_and(|(since, _)| since.elapsed() < STAYS_FOR) {
            return;
        }
        slot.stays = None;
        let Some(stop) = &slot.stop else { return };
        let leave = match leave(key, slot.view.release, spec, self.placing.as_ref()) {
            Ok(leave) => leave,
            Err(problem) => {
                slot.stays = Some((Instant::now(), problem));
                return;
            }
        };
        slot.withdrawing = matches!(leave, Leave::Withdrawn(..));
        // The second witness of a drain: what the balancers say is open should be what the kernel says is open.
        let open = slot.address.and_then(|address| crate::connections::established(address).ok());
        tracing::info!(instance = %key, incarnation, open_connections = open, "stopping");
        slot.view.phase = Phase::Stopping { at: Instant::now() };
        // The life is over already when nobody listens; it has said so then.
        let _ = stop.send(leave);
    }

    /// Tells those that were to be withdrawn first, and are not any more: every balancer says by now that nothing leads to them.
    pub(super) fn hurry(&mut self, spec: &HostSpec) {
        // One that is wanted again has nothing to leave for.
        for (key, slot) in &mut self.slots {
            let is_wanted = |told: &InstanceSpec| (told.release, told.start) == (slot.view.release, slot.view.start);
            if spec.instances.get(key).is_some_and(is_wanted) {
                slot.stays = None;
            }
        }
        let plain = |key: &InstanceKey| spec.instances.get(key).is_none_or(|told| told.withdraw.is_none());
        for (_, slot) in self.slots.iter_mut().filter(|(key, _)| plain(key)) {
            slot.stays = None;
            if let Some(stop) = slot.stop.as_ref().filter(|_| slot.withdrawing) {
                let _ = stop.send(Leave::Now);
            }
            slot.withdrawing = false;
        }
    }

    /// One that does not leave, and when the next of them is asked again.
    pub(super) fn stays(&self) -> (Option<Problem>, Option<Instant>) {
        let staying = || self.slots.values().filter_map(|slot| slot.stays.as_ref());
        (staying().next().map(|(_, problem)| problem.clone()), staying().map(|(since, _)| *since + STAYS_FOR).min())
    }

    pub(super) fn forget(&mut self, key: &InstanceKey) {
        self.slots.remove(key);
        self.failures.remove(key);
        self.falls.remove(key);
        self.notes.clear(key);
        self.clear(key.clone());
    }

    pub(super) fn take(&mut self, key: &InstanceKey, serial: u64, change: Change, restart: Option<Restart>, now: Moment) {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.serial == serial) else { return };
        let stopping = matches!(slot.view.phase, Phase::Stopping { .. });
        match change {
            Change::Started(running) => {
                slot.holds(running);
            }
            Change::Waiting(problem) if !stopping => {
                if let Phase::Starting { last, .. } = &mut slot.view.phase {
                    *last = Some(problem);
                }
            }
            Change::Ready { at } if !stopping => {
                tracing::info!(instance = %key, "ready");
                slot.view.phase = Phase::Ready { at };
                slot.view.proven = false;
                self.notes.note_ready(key, &slot.view.incarnation);
            }
            Change::Proven if !stopping => {
                slot.view.proven = true;
                self.failures.remove(key);
            }
            Change::Unready(problem) if !stopping => {
                tracing::warn!(instance = %key, %problem, "not ready any more");
                let at = match slot.view.phase {
                    Phase::Unready { at, .. } => at,
                    _ => Instant::now(),
                };
                slot.view.phase = Phase::Unready { at, problem };
                slot.view.proven = false;
            }
            Change::Stays(problem) => {
                tracing::warn!(instance = %key, %problem, "stays");
                slot.view.phase = Phase::Unready { at: Instant::now(), problem: problem.clone() };
                (slot.withdrawing, slot.stays) = (false, Some((Instant::now(), problem)));
            }
            Change::Gone => self.gone(key),
            // It ended by itself just before it was asked: what was wanted is the case.
            Change::Failed(_) if stopping => self.gone(key),
            Change::Failed(problem) => self.failed(key, problem, restart, now),
            Change::Waiting(_) | Change::Ready { .. } | Change::Proven | Change::Unready(_) => {}
        }
    }

    pub(super) fn reports(&self, now: Instant) -> LiteMap<InstanceKey, InstanceReport> {
        self.slots.iter().map(|(key, slot)| (key.clone(), slot.view.report(now))).collect()
    }

    pub(super) fn views(&self) -> BTreeMap<InstanceKey, InstanceView> {
        self.slots.iter().map(|(key, slot)| (key.clone(), slot.view.clone())).collect()
    }

    pub(super) fn falls(&self) -> BTreeMap<InstanceKey, FallView> {
        self.falls.clone()
    }

    pub(super) fn failures(&self) -> BTreeMap<InstanceKey, Failures> {
        self.failures.clone()
    }

    /// The artifacts something may still run from.
    pub(super) fn artifacts(&self) -> BTreeSet<Digest> {
        let live = self.slots.values().filter(|slot| !matches!(slot.view.phase, Phase::Failed { .. }));
        live.filter_map(|slot| slot.artifact).collect()
    }

    fn failed(&mut self, key: &InstanceKey, problem: Problem, restart: Option<Restart>, now: Moment) {
        tracing::warn!(instance = %key, %problem, "failed");
        let Some(slot) = self.slots.get_mut(key) else { return };
        self.counters.of(&key.service).instance_failed();
        slot.stop = None;
        (slot.view.proven, slot.view.pid) = (false, None);
        slot.view.phase = Phase::Failed { problem: problem.clone() };
        let InstanceView { release, start, ref incarnation, .. } = slot.view;
        let times = self.falls.get(key).map_or(1, |fall| fall.times.saturating_add(1));
        self.falls.insert(key.clone(), FallView { times, at: Instant::now(), problem: problem.clone() });
        let verdict = Verdict { release, incarnation: incarnation.clone(), start, problem };
        let failures = self.failures.entry(key.clone()).or_insert(Failures { count: 0, last: now });
        *failures = Failures { count: failures.count.saturating_add(1), last: now };
        if restart != Some(Restart::Always) {
            self.notes.note_verdict(key, verdict);
        }
    }

    fn gone(&mut self, key: &InstanceKey) {
        tracing::info!(instance = %key, "gone");
        self.forget(key);
    }

    fn clear(&self, key: InstanceKey) {
        let runtime = self.runtime.clone();
        tokio::spawn(async move { runtime.forget(&key).await });
    }

    fn watch(&mut self, running: Running, spec: Option<&HostSpec>) {
        let (key, release) = (running.key.clone(), running.release);
        let was_ready = self.notes.was_ready(&key, &running.incarnation);
        let wanted = wanted(&key, release, spec, self.placing.as_ref());
        let artifact = running.folder.file_name().and_then(|name| name.to_str()?.parse().ok());
        let phase = Phase::Starting { at: Instant::now(), last: None };
        self.live(&key, release, wanted, Origin::Adopted { running: running.clone(), was_ready }, phase, artifact);
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.holds(running);
        }
    }

    fn live(
        &mut self,
        key: &InstanceKey,
        release: ReleaseId,
        wanted: Option<Wanted>,
        origin: Origin,
        phase: Phase,
        artifact: Option<Digest>,
    ) {
        self.serial += 1;
        let (serial, (stop, asked)) = (self.serial, unbounded_channel());
        let address = wanted.as_ref().map(|wanted| wanted.address);
        let informed = if wanted.is_some() { Informed::Yes } else { Informed::No };
        let start = match &origin {
            Origin::Adopted { running, .. } => running.start,
            Origin::Start => wanted.as_ref().map_or(0, |wanted| wanted.start),
        };
        let view = InstanceView { release, incarnation: String::new(), start, pid: None, phase, proven: false };
        let (runtime, allow, counters) = (self.runtime.clone(), self.allow.clone(), self.counters.of(&key.service));
        let life = Life { key: key.clone(), release_id: release, wanted, origin, runtime, allow, counters };
        let slot = Slot {
            serial,
            view,
            running: None,
            stop: Some(stop),
            withdrawing: false,
            stays: None,
            informed,
            artifact,
            address,
        };
        self.slots.insert(key.clone(), slot);
        let (tell, mut changes) = unbounded_channel();
        tokio::spawn(life.live(tell, asked));
        let (key, events) = (key.clone(), self.events.clone());
        tokio::spawn(async move {
            while let Some(change) = changes.recv().await {
                let _ = events.send(Event::Instance { key: key.clone(), serial, change });
            }
        });
    }

    fn remember_failed(&mut self, key: &InstanceKey, verdict: Verdict) {
        self.serial += 1;
        let Verdict { release, incarnation, start, problem } = verdict;
        let view = InstanceView { release, incarnation, start, pid: None, phase: Phase::Failed { problem }, proven: false };
        let slot = Slot {
            serial: self.serial,
            view,
            running: None,
            stop: None,
            withdrawing: false,
            stays: None,
            informed: Informed::Yes,
            artifact: None,
            address: None,
        };
        self.slots.insert(key.clone(), slot);
    }
}

/// How an instance that runs a release leaves.
fn leave(key: &InstanceKey, release: ReleaseId, spec: &HostSpec, placing: &dyn Placing) -> Result<Leave, Problem> {
    let told = spec.instances.get(key).and_then(|told| Some((told.withdraw?, told.address)));
    let Some((how, address)) = told else { return Ok(Leave::Now) };
    let Some(document) = spec.releases.get(&release) else {
        let problem = Problem::new(Code(217), format!("how {key} is asked for its health is not known here any more"));
        return Err(problem.help("make every balancer of the service answer: it is stopped without that then"));
    };
    let folder = placing.path(&document.artifact.digest);
    Ok(Leave::Withdrawn(how, Box::new(Wanted { address, folder, release: document.clone(), start: 0 })))
}

fn wanted(key: &InstanceKey, release: ReleaseId, spec: Option<&HostSpec>, placing: &dyn Placing) -> Option<Wanted> {
    let spec = spec?;
    let instance = spec.instances.get(key).filter(|instance| instance.release == release)?;
    let release = spec.releases.get(&release)?.clone();
    let folder = placing.path(&release.artifact.digest);
    Some(Wanted { address: instance.address, folder, release, start: instance.start })
}
