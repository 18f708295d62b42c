//! One host under test.

use super::app;
use crate::artifact::{Bounds, Chunk, Chunks, FetchError, Folder, Source, Unpacker};
use crate::metrics::Counters;
use crate::reconciler::{Event, Means, Memory, Reconciler, View, Wires};
use crate::runtime::process::ProcessRuntime;
use crate::runtime::{Answer, Runtime};
use baton_core::fleet::InstanceKey;
use baton_core::fleet::ability::{BalancerAbility, SplitAbility};
use baton_core::fleet::report::{HostReport, InstanceReport, InstanceState, MemberReport, PoolReport};
use baton_core::fleet::spec::{Exchange, HostSpec, InstanceSpec, MemberSpec, MemberState, PoolSpec, Restart};
use baton_core::fleet::split::Side;
use baton_core::hook::Hooks;
use baton_core::name::{Digest, Epoch, Generation};
use baton_core::problem::Problem;
use baton_core::release::{Artifact, Health, Probe, Release, Run, Signal, Stop};
use futures_util::stream;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};

/// Longer than anything here takes, even on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(60);

/// Artifacts in memory.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<BTreeMap<Digest, Vec<u8>>>);

impl Shelf {
    pub(super) fn offer(&self, digest: Digest, bytes: Vec<u8>) {
        self.0.lock().unwrap().insert(digest, bytes);
    }
}

impl Source for Shelf {
    fn open(&self, digest: Digest, offset: u64) -> Answer<'_, Result<Chunks, FetchError>> {
        let bytes = self.0.lock().unwrap().get(&digest).cloned().unwrap_or_default();
        let bytes = bytes[usize::try_from(offset).unwrap()..].to_vec();
        Box::pin(async move { Ok(Box::pin(stream::iter([Ok(Chunk { offset, bytes })])) as Chunks) })
    }
}

pub(super) struct Host {
    state: TempDir,
    pub(super) source: Arc<Shelf>,
    pub(super) address: SocketAddr,
    /// Over every agent of this host: a test counts on.
    pub(super) counters: Arc<Counters>,
    agent: Option<Agent>,
}

struct Agent {
    events: mpsc::UnboundedSender<Event>,
    view: watch::Receiver<Arc<View>>,
    kill: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Agent {
    /// As sudden as `kill -9`: no task gets another word in.
    fn kill(self) {
        let _ = self.kill.send(());
        self.thread.join().unwrap();
    }
}

impl Host {
    pub(super) fn new() -> Self {
        let address = crate::places::place();
        let state = tempfile::tempdir().unwrap();
        let mut host = Self { state, source: Arc::default(), address, counters: Arc::default(), agent: None };
        host.agent = Some(host.open());
        host
    }

    /// An agent on a thread and a runtime of its own, like the program.
    fn open(&self) -> Agent {
        let (sender, view, memory, means, wires) = self.parts();
        let (kill, killed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            executor.block_on(async {
                let living = async { Reconciler::open(memory, means, "boot".to_owned(), wires).await.unwrap().run().await };
                tokio::select! {
                    () = living => {}
                    _ = killed => {}
                }
            });
            executor.shutdown_background();
        });
        Agent { events: sender, view, kill, thread }
    }

    /// What a session that is quicker than everything else would say of an agent that was just started.
    pub(super) async fn first_view(&self) -> Arc<View> {
        let (_sender, view, memory, means, wires) = self.parts();
        let _opened = Reconciler::open(memory, means, "boot".to_owned(), wires).await.unwrap();
        Arc::clone(&view.borrow())
    }

    fn parts(&self) -> (mpsc::UnboundedSender<Event>, watch::Receiver<Arc<View>>, Memory, Means, Wires) {
        let (sender, events) = mpsc::unbounded_channel();
        let (view, viewed) = watch::channel(Arc::default());
        let wires = Wires {
            sender: sender.clone(),
            events,
            view,
            wanted_pools: watch::channel(BTreeMap::new()).0,
            counters: Arc::clone(&self.counters),
        };
        let memory = Memory::open(self.state.path()).unwrap();
        let means = Means {
            runtime: Arc::new(self.processes()),
            placing: Arc::new(Folder::open(&self.path("releases"), Bounds::default(), Unpacker::Thread).unwrap()),
            source: self.source.clone(),
            allow: Arc::default(),
        };
        (sender, viewed, memory, means, wires)
    }

    fn processes(&self) -> ProcessRuntime {
        ProcessRuntime::open(&self.path("run"), crate::runtime::tests::parts()).unwrap()
    }

    pub(super) fn kill_agent(&mut self) {
        self.agent.take().unwrap().kill();
    }

    pub(super) fn start_agent(&mut self) {
        self.agent = Some(self.open());
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    /// A release of the test application, offered by the coordinator.
    pub(super) fn release(&self, version: &str, behaviour: &str) -> Release {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(version.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "version", version.as_bytes()).unwrap();
        let bytes = zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
        let artifact = Artifact { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        self.source.offer(artifact.digest, bytes);
        Release {
            service: "shop".parse().unwrap(),
            version: version.parse().unwrap(),
            artifact,
            run: Run {
                command: app::command(&[]),
                user: None,
                env: app::env(behaviour),
                secrets: std::collections::BTreeMap::new(),
                stop: Stop { signal: Signal::Term, timeout: Duration::from_secs(5) },
                listen: Vec::new(),
            },
            health: Health {
                probe: Probe::Http { path: "/healthz".into() },
                interval: Duration::from_millis(50),
                timeout: Duration::from_secs(2),
                healthy_for: Duration::from_millis(100),
                start_timeout: Duration::from_secs(10),
            },
            hooks: Hooks::default(),
        }
    }

    pub(super) fn spec(&self, generation: u64, instances: &[(&Release, Restart)]) -> HostSpec {
        let mut spec = self.spec_holding(generation, &instances.iter().map(|(release, _)| *release).collect::<Vec<_>>());
        for (release, restart) in instances {
            let instance = InstanceSpec {
                release: release.id(),
                address: self.address,
                restart: *restart,
                start: 0,
                fallback: None,
                scrape: None,
                withdraw: None,
            };
            spec.instances.insert(key(), instance);
        }
        spec
    }

    pub(super) fn spec_holding(&self, generation: u64, releases: &[&Release]) -> HostSpec {
        let releases = releases.iter().map(|release| (release.id(), (*release).clone().into())).collect();
        HostSpec { epoch: Epoch(1), generation: Generation(generation), releases, ..HostSpec::default() }
    }

    /// The same spec with a pool of one member.
    pub(super) fn with_pool(&self, mut spec: HostSpec, state: MemberState) -> HostSpec {
        let member = MemberSpec { address: self.address, state, weight: 100, side: Side::Stable, probe: Probe::Tcp };
        let members = [("web1/0".parse().unwrap(), member)].into();
        let pool = PoolSpec {
            service: "shop".parse().unwrap(),
            members,
            drain_deadline: Duration::from_secs(1),
            slow_start: Duration::ZERO,
            exchange: Exchange::Each,
            split: None,
        };
        spec.pools.insert("shop".parse().unwrap(), pool);
        spec
    }

    /// The balancer was made to match the spec, and says so.
    pub(super) fn reads(&self, spec: &HostSpec) {
        let report = |member: &MemberSpec| MemberReport::quiet(member.state);
        let pools = spec.pools.iter().map(|(name, pool)| {
            let members = pool.members.iter().map(|(key, member)| (key.clone(), report(member))).collect();
            (name.clone(), PoolReport { balancer: "1".to_owned(), members, ..PoolReport::default() })
        });
        let ability = BalancerAbility {
            driver: "builtin".to_owned(),
            split: SplitAbility::Everything,
            pools: None,
            ..BalancerAbility::default()
        };
        let event = Event::Pools { wanted: spec.pools.clone(), seen: pools.collect(), ability };
        self.agent.as_ref().unwrap().events.send(event).unwrap();
    }

    pub(super) fn send(&self, spec: &HostSpec) {
        self.agent.as_ref().unwrap().events.send(Event::Spec(Box::new(spec.clone()), None)).unwrap();
    }

    /// As somebody on the host would ask.
    pub(super) async fn go_back(&self, service: &str) -> Result<String, Problem> {
        let (reply, answer) = oneshot::channel();
        let event = Event::GoBack { service: service.parse().unwrap(), by: "a test".to_owned(), reply };
        self.agent.as_ref().unwrap().events.send(event).unwrap();
        answer.await.unwrap()
    }

    /// The first report for which something holds.
    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&HostReport) -> bool) -> HostReport {
        let view = &mut self.agent.as_mut().unwrap().view;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let report = view.borrow_and_update().report(Instant::now());
            if holds(&report) {
                return report;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never {what}: {report:#?}");
            let _ = tokio::time::timeout(left, view.changed()).await;
        }
    }

    pub(super) async fn eventually(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[allow(clippy::unused_self)]
    pub(super) fn instance<'a>(&self, report: &'a HostReport) -> &'a InstanceReport {
        &report.instances[&key()]
    }

    pub(super) fn folders(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("releases")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    pub(super) fn is_alive(&self, incarnation: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid(incarnation))).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    /// Ends an instance as a crash would.
    pub(super) fn end(&self, incarnation: &str) {
        let pid = rustix::process::Pid::from_raw(pid(incarnation)).unwrap();
        let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // Its first thread may be a zombie while others still end: only the descriptor says that all of it is over.
        let mut waiting = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut waiting, None).unwrap();
    }
}

impl Host {
    /// Ends the hooks that run, while no agent watches.
    pub(super) async fn end_hooks(&self) {
        let runtime = self.processes();
        for found in runtime.list().await.unwrap() {
            runtime.stop(&found.running, &Stop { signal: Signal::Term, timeout: Duration::ZERO }).await;
        }
    }
}

/// Whatever a test left running ends with it.
impl Drop for Host {
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill();
        }
        let runtime = self.processes();
        let ending = std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            executor.block_on(async {
                for found in runtime.list().await.unwrap() {
                    runtime.stop(&found.running, &Stop { signal: Signal::Term, timeout: Duration::ZERO }).await;
                }
            });
        });
        let _ = ending.join();
    }
}

fn key() -> InstanceKey {
    "shop/0".parse().unwrap()
}

fn pid(incarnation: &str) -> i32 {
    incarnation.split(':').nth(1).unwrap().parse().unwrap()
}

pub(super) fn state(report: &HostReport) -> Option<&InstanceState> {
    report.instances.get(&key()).map(|instance| &instance.state)
}

pub(super) fn ready(report: &HostReport) -> bool {
    ready_for(report).is_some()
}

pub(super) fn ready_for(report: &HostReport) -> Option<Duration> {
    state(report)?.ready_for()
}

pub(super) fn failed(report: &HostReport) -> bool {
    matches!(state(report), Some(InstanceState::Failed { .. }))
}

pub(super) fn problem(report: &HostReport) -> &Problem {
    match state(report) {
        Some(InstanceState::Failed { problem } | InstanceState::Unready { problem, .. }) => problem,
        other => panic!("no problem in {other:?}"),
    }
}
