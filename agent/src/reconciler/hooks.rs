//! The hooks of this host: one task an attempt, and what is known of each.

use super::view::{HookPhase, HookView};
use super::{Event, Means};
use crate::allow::Allow;
use crate::artifact::Placing;
use crate::hook::{Errand, Origin, Record, Records, key_of_slot};
use crate::runtime::{Found, Runtime};
use baton_core::fleet::hooks::{HookOutcome, HookSpec};
use baton_core::fleet::report::ReleaseState;
use baton_core::fleet::spec::HostSpec;
use baton_core::fleet::{InstanceKey, LiteMap};
use baton_core::hook::{HookKey, Point};
use baton_core::name::{Digest, ReleaseId};
use baton_core::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Hooks that ended and are reported although no spec speaks of them: a result that comes late must still be heard.
const TOLD: usize = 16;
/// How long until a hook whose beginning could not be written down is tried again.
const UNWRITTEN_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Hooks {
    records: Records,
    known: BTreeMap<HookKey, Record>,
    /// Attempts whose task lives, and since when.
    under_way: BTreeMap<HookKey, Instant>,
    /// When to try again what could not be written down.
    again: Option<Instant>,
    runtime: Arc<dyn Runtime>,
    placing: Arc<dyn Placing>,
    allow: Arc<Allow>,
    events: UnboundedSender<Event>,
}

impl Hooks {
    /// Takes up what is written down. A file that cannot be read stands for a hook that was begun.
    pub(super) fn open(records: Records, means: &Means, events: UnboundedSender<Event>) -> Result<Self, Problem> {
        let known = records.read()?;
        let (runtime, placing, allow) = (means.runtime.clone(), means.placing.clone(), means.allow.clone());
        Ok(Self { records, known, under_way: BTreeMap::new(), again: None, runtime, placing, allow, events })
    }

    /// Looks for the hooks that an earlier agent began and did not see the end of. Returns what was found that is no hook.
    pub(super) fn adopt(&mut self, found: Vec<Found>, spec: Option<&HostSpec>) -> Vec<Found> {
        let (hooks, instances): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|found| Point::of_slot(found.running.key.slot).is_some());
        let open: Vec<Record> = self.known.values().filter(|record| record.ended.is_none()).cloned().collect();
        for record in open {
            let slot = key_of_slot(&record.key);
            let is_it = |found: &&Found| {
                let it = &found.running;
                (&it.key, it.release, it.start) == (&slot, record.release, record.attempt)
            };
            // Ended or not: a unit that ended still says how.
            let origin = match hooks.iter().find(is_it) {
                Some(found) => Origin::Found(found.running.clone()),
                None => Origin::Lost,
            };
            tracing::info!(hook = %record.key, ?origin, "an earlier agent began it");
            let release = spec.and_then(|spec| spec.releases.get(&record.release)).cloned();
            self.send(record, origin, release);
        }
        instances
    }

    /// Begins what the spec asks for and was never begun. Returns when to look again.
    pub(super) fn follow(&mut self, spec: &HostSpec, releases: &LiteMap<ReleaseId, ReleaseState>) -> Option<Instant> {
        if self.again.is_some_and(|again| again > Instant::now()) {
            return self.again;
        }
        self.again = None;
        for (key, told) in &spec.hooks {
            let held = releases.get(&told.release) == Some(&ReleaseState::Held);
            let Some(release) = spec.releases.get(&told.release).filter(|_| held && self.is_free(key)) else { continue };
            match self.known.get(key) {
                Some(record) if record.attempt >= told.attempt => {}
                // Its record cannot be read: some attempt was begun, and nobody knows more.
                None if self.records.holds(key) => {
                    let record = self.record(key, told, release.artifact.digest);
                    self.send(record, Origin::Lost, Some(release.clone()));
                }
                _ => {
                    let record = self.record(key, told, release.artifact.digest);
                    self.send(record, Origin::Begin(told.clone()), Some(release.clone()));
                }
            }
        }
        self.records.trim(&mut self.known, |key| spec.hooks.contains_key(key));
        None
    }

    /// Whether no other hook is in the slot it would run in.
    fn is_free(&self, key: &HookKey) -> bool {
        let slot: InstanceKey = key_of_slot(key);
        !self.under_way.keys().any(|other| key_of_slot(other) == slot)
    }

    fn record(&self, key: &HookKey, told: &HookSpec, artifact: Digest) -> Record {
        let number = self.known.values().map(|record| record.number + 1).max().unwrap_or_default();
        Record { key: key.clone(), attempt: told.attempt, release: told.release, artifact, number, ended: None }
    }

    fn send(&mut self, record: Record, origin: Origin, release: Option<Arc<baton_core::release::Release>>) {
        let folder: PathBuf = self.placing.path(&record.artifact);
        let (key, attempt) = (record.key.clone(), record.attempt);
        let errand = Errand {
            record: record.clone(),
            records: self.records.clone(),
            runtime: self.runtime.clone(),
            allow: self.allow.clone(),
            release,
            folder,
        };
        self.under_way.insert(key.clone(), Instant::now());
        self.known.insert(key.clone(), record);
        let events = self.events.clone();
        tokio::spawn(async move {
            let outcome = errand.run(origin).await;
            let _ = events.send(Event::Hook { key, attempt, outcome });
        });
    }

    /// What became of an attempt. Returns why it did not even begin.
    pub(super) fn take(&mut self, key: &HookKey, attempt: u32, outcome: Result<HookOutcome, Problem>) -> Option<Problem> {
        self.under_way.remove(key);
        let record = self.known.get_mut(key).filter(|record| record.attempt == attempt)?;
        match outcome {
            Ok(outcome) => {
                tracing::info!(hook = %key, attempt, ?outcome, "ended");
                record.ended = Some(outcome);
                None
            }
            Err(problem) => {
                self.known.remove(key);
                self.again = Some(Instant::now() + UNWRITTEN_RETRY);
                Some(problem)
            }
        }
    }

    pub(super) fn views(&self, spec: Option<&HostSpec>) -> BTreeMap<HookKey, HookView> {
        let mut newest: Vec<(u64, &HookKey)> = self.known.values().map(|record| (record.number, &record.key)).collect();
        newest.sort();
        let newest: BTreeSet<&HookKey> = newest.into_iter().rev().take(TOLD).map(|(_, key)| key).collect();
        let is_told = |key: &HookKey| {
            newest.contains(key) || self.under_way.contains_key(key) || spec.is_some_and(|spec| spec.hooks.contains_key(key))
        };
        let view = |record: &Record| {
            let phase = match (self.under_way.get(&record.key), &record.ended) {
                (None, Some(outcome)) => HookPhase::Ended(outcome.clone()),
                (since, _) => HookPhase::Running { at: since.copied().unwrap_or_else(Instant::now) },
            };
            (record.key.clone(), HookView { attempt: record.attempt, phase })
        };
        self.known.values().filter(|record| is_told(&record.key)).map(view).collect()
    }

    /// The artifacts that something still runs from.
    pub(super) fn artifacts(&self) -> impl Iterator<Item = Digest> {
        self.under_way.keys().filter_map(|key| self.known.get(key)).map(|record| record.artifact)
    }
}
