//! The reconciler: asks core what comes next on this host, does it, and says what is.
//!
//! One task owns everything this host knows of itself. All else (processes, fetches, the balancer, the coordinator) happens
//! in other tasks and arrives as an [`Event`]. It has no opinions: [`baton_core::host::plan`] decides.

mod artifacts;
mod autonomy;
mod hooks;
mod instances;
mod notes;
mod view;

pub use autonomy::Autonomy;
pub use notes::Notes;
pub use view::{InstanceView, Phase, View};

use crate::allow::Allow;
use crate::artifact::{Placing, Source};
use crate::hook::Records;
use crate::instance::Change;
use crate::ledger::{Ledger, Refused};
use crate::metrics::Counters;
use crate::runtime::Runtime;
use artifacts::Artifacts;
use baton_core::fleet::InstanceKey;
use baton_core::fleet::ability::BalancerAbility;
use baton_core::fleet::hooks::HookOutcome;
use baton_core::fleet::report::PoolReport;
use baton_core::fleet::spec::{HostSpec, PoolSpec, Stamp};
use baton_core::hook::HookKey;
use baton_core::host::plan::{Action, Observed, plan};
use baton_core::name::{Digest, PoolName, ServiceName};
use baton_core::problem::{Code, Problem};
use baton_core::time::Moment;
use hooks::Hooks;
use instances::Instances;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

/// Everything that can happen to a host.
#[derive(Debug)]
pub enum Event {
    /// The coordinator sent a spec. The permit is given back once it was taken: few may be on their way.
    Spec(Box<HostSpec>, Option<OwnedSemaphorePermit>),
    /// An instance changed; `serial` tells which start of it.
    Instance { key: InstanceKey, serial: u64, change: Change },
    /// So many bytes of an artifact are here.
    Progress { digest: Digest, done: u64 },
    /// A fetch is over.
    Fetched { digest: Digest, outcome: Result<(), Problem> },
    /// What is not wanted any more has been removed.
    Collected,
    /// An attempt of a hook is over, or could not even be written down.
    Hook { key: HookKey, attempt: u32, outcome: Result<HookOutcome, Problem> },
    /// The balancer was made to match `wanted`, and this is what it says.
    Pools { wanted: BTreeMap<PoolName, PoolSpec>, seen: BTreeMap<PoolName, PoolReport>, ability: BalancerAbility },
    /// A person on this host takes a service back; the answer is the version that runs then.
    GoBack { service: ServiceName, by: String, reply: oneshot::Sender<Result<String, Problem>> },
    /// Something that keeps this host from its work came up or went away.
    Obstacle { what: Obstacle, problem: Option<Problem> },
}

/// Where a host's own problems come from: one at a time each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    Ledger,
    Spec,
    Runtime,
    Balancer,
    Disk,
    Sockets,
    GivenUp,
    Hooks,
    Metrics,
    Staying,
}

impl Obstacle {
    pub const ALL: [Self; 10] = [
        Self::Ledger,
        Self::Spec,
        Self::Runtime,
        Self::Balancer,
        Self::Disk,
        Self::Sockets,
        Self::GivenUp,
        Self::Hooks,
        Self::Metrics,
        Self::Staying,
    ];

    /// The word for a metric label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Spec => "spec",
            Self::Runtime => "runtime",
            Self::Balancer => "balancer",
            Self::Disk => "disk",
            Self::Sockets => "sockets",
            Self::GivenUp => "given up",
            Self::Hooks => "hooks",
            Self::Metrics => "metrics",
            Self::Staying => "staying",
        }
    }
}

/// What the reconciler acts through.
#[derive(Debug, Clone)]
pub struct Means {
    pub runtime: Arc<dyn Runtime>,
    pub placing: Arc<dyn Placing>,
    pub source: Arc<dyn Source>,
    pub allow: Arc<Allow>,
}

/// What an earlier agent left in writing.
#[derive(Debug)]
pub struct Memory {
    pub(crate) ledger: Ledger,
    pub(crate) notes: Notes,
    pub(crate) autonomy: Autonomy,
    pub(crate) records: Records,
}

impl Memory {
    /// Reads a state folder.
    ///
    /// # Errors
    /// The folder cannot be read. What is damaged in it is no error.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let (ledger, notes, autonomy) = (Ledger::open(folder)?, Notes::open(folder), Autonomy::open(folder));
        Ok(Self { ledger, notes, autonomy, records: Records::open(folder)? })
    }
}

/// One host's mind and memory.
#[derive(Debug)]
pub struct Reconciler {
    ledger: Ledger,
    autonomy: Autonomy,
    /// A spec that could not be written down; tried again.
    unwritten: Option<HostSpec>,
    artifacts: Artifacts,
    instances: Instances,
    hooks: Hooks,
    runtime: Arc<dyn Runtime>,
    pools: BTreeMap<PoolName, PoolReport>,
    ability: Option<BalancerAbility>,
    /// What this host answers with: the newest stamp for which `pools` were read, and whether that is the ledger's.
    echo: Stamp,
    echo_is_current: bool,
    obstacles: BTreeMap<Obstacle, Problem>,
    boot: String,
    began: Instant,
    events: mpsc::UnboundedReceiver<Event>,
    view: watch::Sender<Arc<View>>,
    wanted_pools: watch::Sender<BTreeMap<PoolName, PoolSpec>>,
}

/// The reconciler's ends of its wires.
#[derive(Debug)]
pub struct Wires {
    pub sender: mpsc::UnboundedSender<Event>,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub view: watch::Sender<Arc<View>>,
    pub wanted_pools: watch::Sender<BTreeMap<PoolName, PoolSpec>>,
    pub counters: Arc<Counters>,
}

/// How long until a spec that could not be written down is tried again.
const UNWRITTEN_RETRY: Duration = Duration::from_secs(1);

impl Reconciler {
    /// Takes up what an earlier agent left: its ledger, its instances, its artifacts.
    ///
    /// # Errors
    /// The runtime cannot say what runs; to go on would be to start things twice.
    pub async fn open(memory: Memory, means: Means, boot: String, wires: Wires) -> Result<Self, Problem> {
        let Memory { ledger, notes, mut autonomy, records } = memory;
        autonomy.follow(ledger.spec());
        let found = means.runtime.list().await?;
        let mut hooks = Hooks::open(records, &means, wires.sender.clone())?;
        let found = hooks.adopt(found, ledger.spec());
        let artifacts = Artifacts::new(&means, ledger.spec(), wires.sender.clone());
        let mut instances = Instances::new(&means, notes, wires.sender, wires.counters);
        instances.adopt(found, autonomy.spec()).await;
        let mut reconciler = Self {
            unwritten: None,
            artifacts,
            instances,
            hooks,
            runtime: means.runtime,
            pools: BTreeMap::new(),
            ability: None,
            echo: ledger.stamp(),
            echo_is_current: true,
            obstacles: BTreeMap::new(),
            boot,
            began: Instant::now(),
            events: wires.events,
            view: wires.view,
            wanted_pools: wires.wanted_pools,
            autonomy,
            ledger,
        };
        reconciler.obstacle(Obstacle::Ledger, reconciler.ledger.damage().cloned());
        reconciler.hand_pools_on();
        reconciler.keep_listening().await;
        reconciler.artifacts.collect(&reconciler.instances, &reconciler.hooks);
        // Before anybody asks: a host that has not looked yet must not say that it was told nothing and runs nothing.
        reconciler.publish();
        Ok(reconciler)
    }

    /// Works for ever; ends with the last sender of events.
    pub async fn run(mut self) {
        loop {
            let wake_at = self.act();
            self.publish();
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = sleep_until(wake_at) => {
                    self.write_again().await;
                    continue;
                }
            };
            let Some(event) = event else { return };
            self.take(event).await;
            while let Ok(event) = self.events.try_recv() {
                self.take(event).await;
            }
        }
    }

    /// Plans and does. Returns when to look again if nothing happens.
    fn act(&mut self) -> Option<Instant> {
        let retry = self.unwritten.as_ref().map(|_| Instant::now() + UNWRITTEN_RETRY);
        let observed = self.observed();
        if let Some(told) = self.ledger.spec() {
            self.autonomy.judge(told, &observed);
            let problem = self.autonomy.problem(told);
            self.obstacle(Obstacle::GivenUp, problem);
        }
        let Some(spec) = self.autonomy.spec() else { return retry };
        self.instances.hurry(spec);
        let plan = plan(spec, &observed, moment(self.began));
        for action in plan.actions {
            tracing::debug!(?action, "next");
            match action {
                Action::Fetch(release) => self.artifacts.fetch(release, spec),
                Action::Start(key) => {
                    let release = spec.instances.get(&key).map(|instance| instance.release);
                    if release.is_none_or(|release| self.artifacts.is_sound(release)) {
                        self.instances.start(&key, spec);
                    }
                }
                Action::Stop { key, incarnation } => self.instances.stop(&key, &incarnation, spec),
                Action::Forget(key) => self.instances.forget(&key),
                Action::Drop(release) => self.artifacts.drop_release(release),
            }
        }
        self.artifacts.collect(&self.instances, &self.hooks);
        let again = self.hooks.follow(spec, &observed.releases);
        let wake_at = plan.wake_at.map(|at| self.began + Duration::from_millis(at.0));
        let (staying, asked_again) = self.instances.stays();
        self.obstacle(Obstacle::Staying, staying);
        [wake_at, retry, again, asked_again].into_iter().flatten().min()
    }

    fn observed(&self) -> Observed {
        Observed {
            instances: self.instances.reports(Instant::now()),
            releases: self.artifacts.releases(),
            failures: self.instances.failures(),
        }
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Spec(spec, _permit) => self.accept(*spec).await,
            Event::Instance { key, serial, change } => {
                let restart = self.autonomy.spec().and_then(|spec| spec.instances.get(&key)).map(|wanted| wanted.restart);
                self.instances.take(&key, serial, change, restart, moment(self.began));
            }
            Event::Progress { digest, done } => self.artifacts.progress(digest, done),
            Event::Fetched { digest, outcome } => self.artifacts.fetched(digest, outcome),
            Event::Collected => self.artifacts.collected(),
            Event::Hook { key, attempt, outcome } => {
                let problem = self.hooks.take(&key, attempt, outcome);
                self.obstacle(Obstacle::Hooks, problem);
            }
            Event::Pools { wanted, seen, ability } => {
                self.ability = Some(ability);
                self.read(&wanted, seen);
            }
            Event::Obstacle { what, problem } => self.obstacle(what, problem),
            Event::GoBack { service, by, reply } => {
                let told = self.ledger.spec().cloned().unwrap_or_default();
                let observed = self.observed();
                tracing::warn!(%service, by, "asked on this host to go back");
                // Whoever asked may be gone; what was decided stands.
                let _ = reply.send(self.autonomy.go_back(&told, &observed, &service, &by));
            }
        }
    }

    /// Takes a spec into the ledger; only then is it echoed and acted on.
    async fn accept(&mut self, spec: HostSpec) {
        self.unwritten = None;
        let writing = match self.ledger.judge(&spec) {
            Ok(None) => return,
            Ok(Some(writing)) => writing,
            Err(refused) => return self.refuse(spec, refused),
        };
        let committed = tokio::task::spawn_blocking(move || writing.commit()).await;
        if let Err(error) = committed.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            return self.refuse(spec, error.into());
        }
        tracing::info!(epoch = spec.epoch.0, generation = spec.generation.0, "a new spec");
        self.ledger.took(spec);
        self.autonomy.follow(self.ledger.spec());
        self.obstacle(Obstacle::Ledger, None);
        self.obstacle(Obstacle::Spec, None);
        self.instances.learn(self.autonomy.spec());
        self.keep_listening().await;
        self.hand_pools_on();
    }

    /// Lets go of public sockets that no instance of the spec is handed any more. Before anything of a spec is started, so that
    /// a spec never closes what a newer one has opened.
    async fn keep_listening(&mut self) {
        let Some(spec) = self.autonomy.spec() else { return };
        let releases = spec.instances.values().filter_map(|instance| spec.releases.get(&instance.release));
        let addresses = releases.flat_map(|release| release.run.listen.iter().copied()).collect();
        let known = spec.releases.values().map(|release| &release.service);
        self.runtime.keep_logs(spec.instances.keys().map(|key| &key.service).chain(known).cloned().collect());
        let kept = self.runtime.keep_listening(&addresses).await;
        self.obstacle(Obstacle::Sockets, kept.err());
    }

    fn refuse(&mut self, spec: HostSpec, refused: Refused) {
        match refused {
            Refused::Unwritten(error) => {
                self.obstacle(Obstacle::Ledger, Some(unwritten(&error)));
                self.unwritten = Some(spec);
            }
            // A late message: the one that counts is in the ledger.
            Refused::Past { .. } => tracing::warn!(%refused, "a spec from the past was refused"),
            Refused::Twice { .. } => {
                let problem = Problem::new(Code(523), refused.to_string()).help("two coordinators may run from one backup");
                self.obstacle(Obstacle::Spec, Some(problem));
            }
        }
    }

    async fn write_again(&mut self) {
        if let Some(spec) = self.unwritten.take() {
            self.accept(spec).await;
        }
    }

    fn obstacle(&mut self, what: Obstacle, problem: Option<Problem>) {
        match problem {
            Some(problem) => {
                if self.obstacles.get(&what) != Some(&problem) {
                    tracing::warn!(%problem, "this host has a problem");
                }
                self.obstacles.insert(what, problem);
            }
            None => {
                self.obstacles.remove(&what);
            }
        }
    }

    /// Hands the pools of the newest spec to the balancer. The spec is echoed at once only if they are what the balancer was
    /// last asked for: an echo beside an older reading would call a member out that is on its way in.
    fn hand_pools_on(&mut self) {
        let pools = self.ledger.spec().map(|spec| spec.pools.clone()).unwrap_or_default();
        let was_current = self.echo_is_current;
        let changed = self.wanted_pools.send_if_modified(|wanted| {
            let changed = *wanted != pools;
            *wanted = pools;
            changed
        });
        self.echo_is_current = was_current && !changed;
        if self.echo_is_current {
            self.echo = self.ledger.stamp();
        }
    }

    /// Takes a reading of the balancer, unless it answers a question that is not asked any more.
    fn read(&mut self, wanted: &BTreeMap<PoolName, PoolSpec>, seen: BTreeMap<PoolName, PoolReport>) {
        if *wanted == *self.wanted_pools.borrow() {
            self.pools = seen;
            self.echo_is_current = true;
            self.echo = self.ledger.stamp();
        }
    }

    fn publish(&self) {
        let view = View {
            observed: self.echo,
            told: self.ledger.told(),
            boot: self.boot.clone(),
            instances: self.instances.views(),
            falls: self.instances.falls(),
            pools: self.pools.clone(),
            releases: self.artifacts.releases(),
            problems: self.obstacles.clone(),
            balancer: self.ability.clone(),
            hooks: self.hooks.views(self.ledger.spec()),
        };
        let drain_deadlines =
            self.wanted_pools.borrow().iter().map(|(name, pool)| (name.clone(), pool.drain_deadline)).collect();
        self.view.send_if_modified(|current| {
            let worth_telling = view.differs(current, &drain_deadlines);
            *current = Arc::new(view);
            worth_telling
        });
    }
}

fn moment(began: Instant) -> Moment {
    Moment(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn unwritten(error: &std::io::Error) -> Problem {
    Problem::new(Code(536), "a new spec could not be written down, so this host does not act on it")
        .saw("ledger", crate::text::io_error(error))
        .help("free space or repair the disk of the agent's state folder; it is tried again every second")
}

#[cfg(test)]
mod tests;
