//! The releases of this host: what is held, on its way, refused, or no longer wanted.

use super::hooks::Hooks;
use super::instances::Instances;
use super::{Event, Means};
use crate::allow::Allow;
use crate::artifact::{Placing, Source, fetch};
use baton_core::fleet::LiteMap;
use baton_core::fleet::report::ReleaseState;
use baton_core::fleet::spec::HostSpec;
use baton_core::name::{Digest, ReleaseId};
use baton_core::problem::{Code, Problem};
use baton_core::release::Artifact;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

/// Releases by id over artifacts by digest: releases that differ only in configuration share one.
#[derive(Debug)]
pub(super) struct Artifacts {
    placing: Arc<dyn Placing>,
    source: Arc<dyn Source>,
    allow: Arc<Allow>,
    events: UnboundedSender<Event>,
    /// The releases that this host's own settings do not allow. None is fetched or started; what runs is left alone.
    refused: BTreeMap<ReleaseId, Problem>,
    /// The releases there is something to say about.
    known: BTreeMap<ReleaseId, Artifact>,
    states: BTreeMap<Digest, State>,
    collecting: Collecting,
}

#[derive(Debug)]
enum State {
    Fetching {
        done: u64,
        task: JoinHandle<()>,
    },
    /// Fetched once more, because what is there is not any more what was unpacked.
    Mending {
        done: u64,
        task: JoinHandle<()>,
    },
    Held,
    /// Damaged, and not to be had whole just now: it serves as it is rather than not at all.
    AsItIs,
    Rejected(Problem),
}

#[derive(Debug, PartialEq)]
enum Collecting {
    Idle,
    /// Something is no longer wanted.
    Due,
    Running,
    RunningAndDue,
}

/// How long a damaged release is waited for before it is started as it is: the coordinator may be away for long.
const MENDING_MAX: Duration = Duration::from_secs(30);

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

impl Artifacts {
    pub(super) fn new(means: &Means, spec: Option<&HostSpec>, events: UnboundedSender<Event>) -> Self {
        let (placing, source, allow) = (means.placing.clone(), means.source.clone(), means.allow.clone());
        let refused = spec.map(|spec| allow.refusals(spec)).unwrap_or_default();
        let held = placing.held();
        let releases = spec.into_iter().flat_map(|spec| &spec.releases);
        let known: BTreeMap<_, _> = releases
            .filter(|(_, release)| held.contains(&release.artifact.digest))
            .map(|(id, release)| (*id, release.artifact))
            .collect();
        let states = held.into_iter().map(|digest| (digest, State::Held)).collect();
        // Without a spec nothing is known to be unwanted.
        let collecting = if spec.is_some() { Collecting::Due } else { Collecting::Idle };
        Self { placing, source, allow, events, refused, known, states, collecting }
    }

    pub(super) fn releases(&self) -> LiteMap<ReleaseId, ReleaseState> {
        let known = self.known.iter().filter(|(id, _)| !self.refused.contains_key(id));
        let known = known.filter_map(|(id, artifact)| Some((*id, self.states.get(&artifact.digest)?.report(artifact))));
        let refused = |(id, problem): (&ReleaseId, &Problem)| (*id, ReleaseState::Rejected { problem: problem.clone() });
        known.chain(self.refused.iter().map(refused)).collect()
    }

    pub(super) fn fetch(&mut self, id: ReleaseId, spec: &HostSpec) {
        // What is just being removed would be removed under the fetch.
        if matches!(self.collecting, Collecting::Running | Collecting::RunningAndDue) {
            return;
        }
        let Some(release) = spec.releases.get(&id) else { return };
        if let Err(problem) = self.allow.judge(release) {
            tracing::warn!(%problem, service = %release.service, version = %release.version, "a release is refused");
            self.refused.insert(id, problem);
            return;
        }
        let artifact = release.artifact;
        self.known.insert(id, artifact);
        if matches!(self.states.get(&artifact.digest), None | Some(State::Rejected(_))) {
            let task = tokio::spawn(fetching(self.source.clone(), self.placing.clone(), artifact, self.events.clone()));
            self.states.insert(artifact.digest, State::Fetching { done: 0, task });
        }
    }

    /// Looks at a release that is about to be started. One that was damaged on this host is fetched once more first.
    pub(super) fn is_sound(&mut self, id: ReleaseId) -> bool {
        let Some(artifact) = self.known.get(&id).copied() else { return true };
        let digest = artifact.digest;
        match self.states.get(&digest) {
            Some(State::Held) => {}
            Some(State::AsItIs) => {
                self.states.insert(digest, State::Held);
                return true;
            }
            Some(State::Mending { .. }) => return false,
            _ => return true,
        }
        let Some(damage) = self.placing.damage(&digest) else { return true };
        // What is being removed would be removed under the fetch; it is asked again once that is over.
        if matches!(self.collecting, Collecting::Running | Collecting::RunningAndDue) {
            return false;
        }
        tracing::warn!(artifact = %digest.short(), damage, "a release was changed on this host; it is fetched once more");
        let (source, placing, events) = (self.source.clone(), self.placing.clone(), self.events.clone());
        let task = tokio::spawn(async move {
            let mending = fetching(source, placing, artifact, events.clone());
            if tokio::time::timeout(MENDING_MAX, mending).await.is_err() {
                let away = Problem::new(Code(602), "the artifact could not be fetched once more in time");
                let _ = events.send(Event::Fetched { digest, outcome: Err(away) });
            }
        });
        self.states.insert(digest, State::Mending { done: 0, task });
        false
    }

    pub(super) fn progress(&mut self, digest: Digest, now_done: u64) {
        if let Some(State::Fetching { done, .. } | State::Mending { done, .. }) = self.states.get_mut(&digest) {
            *done = now_done;
        }
    }

    pub(super) fn fetched(&mut self, digest: Digest, outcome: Result<(), Problem>) {
        let failed = match self.states.get(&digest) {
            Some(State::Fetching { .. }) => State::Rejected,
            Some(State::Mending { .. }) => |_| State::AsItIs,
            // A fetch that was given up may still have been about to say so.
            _ => return,
        };
        if let Err(problem) = &outcome {
            tracing::warn!(artifact = %digest.short(), %problem, "an artifact cannot be had");
        }
        self.states.insert(digest, outcome.map_or_else(failed, |()| State::Held));
    }

    pub(super) fn drop_release(&mut self, id: ReleaseId) {
        self.refused.remove(&id);
        let Some(artifact) = self.known.remove(&id) else { return };
        if self.known.values().any(|other| other.digest == artifact.digest) {
            return;
        }
        if let Some(State::Fetching { task, .. } | State::Mending { task, .. }) = self.states.remove(&artifact.digest) {
            task.abort();
        }
        self.collecting = match self.collecting {
            Collecting::Idle | Collecting::Due => Collecting::Due,
            Collecting::Running | Collecting::RunningAndDue => Collecting::RunningAndDue,
        };
    }

    /// Removes what is not wanted, if there may be anything. What runs, and what is on its way, stays.
    pub(super) fn collect(&mut self, instances: &Instances, hooks: &Hooks) {
        // A fetch that places its artifact just now must not have it swept away.
        let fetching = self.states.values().any(State::is_on_its_way);
        if self.collecting != Collecting::Due || fetching {
            return;
        }
        self.collecting = Collecting::Running;
        let mut keep: BTreeSet<_> = self.known.values().map(|artifact| artifact.digest).collect();
        keep.extend(instances.artifacts());
        keep.extend(hooks.artifacts());
        self.states.retain(|digest, state| keep.contains(digest) || state.is_on_its_way());
        let (placing, events) = (self.placing.clone(), self.events.clone());
        tokio::spawn(async move {
            if let Err(error) = placing.collect(keep).await {
                tracing::warn!(%error, "what is not wanted any more could not be removed");
            }
            let _ = events.send(Event::Collected);
        });
    }

    pub(super) fn collected(&mut self) {
        self.collecting = match self.collecting {
            Collecting::RunningAndDue => Collecting::Due,
            _ => Collecting::Idle,
        };
    }
}

async fn fetching(source: Arc<dyn Source>, placing: Arc<dyn Placing>, artifact: Artifact, events: UnboundedSender<Event>) {
    let digest = artifact.digest;
    let mut told: Option<Instant> = None;
    let progress = |done| {
        if told.is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL) {
            told = Some(Instant::now());
            let _ = events.send(Event::Progress { digest, done });
        }
    };
    let outcome = fetch(source.as_ref(), placing.as_ref(), artifact, progress).await;
    let _ = events.send(Event::Fetched { digest, outcome });
}

impl State {
    fn is_on_its_way(&self) -> bool {
        matches!(self, Self::Fetching { .. } | Self::Mending { .. })
    }

    fn report(&self, artifact: &Artifact) -> ReleaseState {
        match self {
            Self::Fetching { done, .. } | Self::Mending { done, .. } => {
                ReleaseState::Fetching { done: *done, total: artifact.size }
            }
            Self::Held | Self::AsItIs => ReleaseState::Held,
            Self::Rejected(problem) => ReleaseState::Rejected { problem: problem.clone() },
        }
    }
}
