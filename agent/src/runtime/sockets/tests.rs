//! Sockets that outlive agents, holders and instances, with real processes.

use super::PublicSockets;
use crate::runtime::process::ProcessRuntime;
use crate::runtime::tests::parts;
use crate::runtime::{Launch, Running, Runtime};
use baton_core::name::{Digest, ReleaseId};
use baton_core::problem::Code;
use baton_core::release::{Signal, Stop};
use rustix::net::Shutdown;
use rustix::process::{Pid, Signal as Kill, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Host {
    folder: TempDir,
    address: SocketAddr,
}

impl Host {
    fn new() -> Self {
        let address = crate::places::place();
        Self { folder: tempfile::tempdir().unwrap(), address }
    }

    /// An agent's runtime; another one is what comes after a `kill -9` of the first.
    fn agent(&self) -> ProcessRuntime {
        ProcessRuntime::open(&self.folder.path().join("run"), parts()).unwrap()
    }

    fn launch(&self, slot: u8, script: &str) -> Launch {
        let release = ReleaseId(Digest::of(b"shop 1"));
        Launch {
            key: format!("shop/{slot}").parse().unwrap(),
            release,
            start: 0,
            folder: self.folder.path().to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            user: None,
            env: BTreeMap::from([("BATON_RELEASE".to_owned(), release.to_string())]),
            secrets: BTreeMap::new(),
            stop: Stop { signal: Signal::Term, timeout: Duration::from_secs(5) },
            listen: vec![self.address],
        }
    }

    async fn start(&self, agent: &ProcessRuntime, slot: u8) -> Running {
        agent.start(self.launch(slot, "exec sleep 60")).await.unwrap()
    }

    fn refuses(&self) -> bool {
        TcpStream::connect(self.address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    /// The holder's process, by the unix socket that is its standard input.
    fn holder(&self) -> Option<Pid> {
        let path = self.folder.path().join("run/sockets").canonicalize().ok()?.display().to_string();
        let table = fs::read_to_string("/proc/net/unix").unwrap();
        let inode = table.lines().find(|line| line.ends_with(&path))?.split_whitespace().nth(6)?.to_owned();
        let link = PathBuf::from(format!("socket:[{inode}]"));
        let mut pids = crate::connections::pids();
        let holder = pids.find(|pid| fs::read_link(format!("/proc/{pid}/fd/0")).is_ok_and(|target| target == link))?;
        Pid::from_raw(i32::try_from(holder).unwrap())
    }

    async fn kill_holder(&self) {
        kill_process(self.holder().unwrap(), Kill::KILL).unwrap();
        eventually("the holder is gone", || self.holder().is_none()).await;
    }
}

/// Whatever a test left: instances first, and with the last socket the holder goes by itself.
impl Drop for Host {
    fn drop(&mut self) {
        let agent = self.agent();
        let ending = std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            executor.block_on(async {
                for found in agent.list().await.unwrap() {
                    agent.stop(&found.running, &Stop { signal: Signal::Term, timeout: Duration::ZERO }).await;
                }
                agent.keep_listening(&BTreeSet::new()).await.unwrap();
            });
        });
        let _ = ending.join();
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The socket an instance was handed.
fn handed(running: &Running) -> PathBuf {
    fs::read_link(format!("/proc/{}/fd/3", running.pid)).unwrap()
}

#[tokio::test]
async fn a_program_finds_its_sockets_as_systemd_would_hand_them_over() {
    let host = Host::new();
    let agent = host.agent();
    let script =
        "echo $LISTEN_FDS $LISTEN_FDNAMES; test $LISTEN_PID = $$ && echo own; readlink /proc/$$/fd/0; exec sleep 60";
    let running = agent.start(host.launch(0, script)).await.unwrap();
    let mut lines = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !lines.ends_with(&["1 shop", "own", "/dev/null"].map(str::to_owned)) {
        assert!(Instant::now() < deadline, "{lines:?}");
        lines = agent.log(&running).await;
    }
    assert!(handed(&running).to_string_lossy().starts_with("socket:["));
    assert!(!fs::exists(format!("/proc/{}/fd/4", running.pid)).unwrap(), "something of the agent was left open");
}

#[tokio::test]
async fn the_next_instance_and_the_next_agent_get_the_very_same_socket() {
    let host = Host::new();
    let old = host.start(&host.agent(), 0).await;
    // Nobody accepts, and nobody is refused.
    let waiting = TcpStream::connect(host.address).unwrap();
    let successor = host.agent();
    assert!(successor.list().await.unwrap()[0].alive);
    let new = host.start(&successor, 1).await;
    assert_eq!(handed(&old), handed(&new));
    successor.stop(&old, &old.stop).await;
    successor.stop(&new, &new.stop).await;
    assert!(TcpStream::connect(host.address).is_ok(), "it listens also while no instance runs");
    drop(waiting);
}

#[tokio::test]
async fn a_holder_that_was_killed_is_started_again_and_given_what_it_had() {
    let host = Host::new();
    let agent = host.agent();
    let running = host.start(&agent, 0).await;
    let socket = handed(&running);
    agent.stop(&running, &running.stop).await;
    host.kill_holder().await;
    agent.tend();
    eventually("another holder", || host.holder().is_some()).await;
    drop(agent);
    let after = host.start(&host.agent(), 0).await;
    assert_eq!(handed(&after), socket);
}

#[tokio::test]
async fn with_agent_and_holder_killed_the_socket_is_taken_over_from_an_instance() {
    let host = Host::new();
    let old = host.start(&host.agent(), 0).await;
    host.kill_holder().await;
    // Ptrace rules of this machine may forbid it to whoever is not root.
    let new = host.agent().start(host.launch(1, "exec sleep 60")).await;
    match new {
        Ok(new) => assert_eq!(handed(&old), handed(&new)),
        Err(problem) => {
            assert!(!rustix::process::geteuid().is_root(), "{problem}");
            assert_eq!(problem.code, Code(205));
        }
    }
    assert!(host.agent().list().await.unwrap()[0].alive, "the old one was not touched");
}

#[tokio::test]
async fn a_socket_that_an_application_shut_down_listens_again() {
    let host = Host::new();
    let agent = host.agent();
    let sockets = PublicSockets::new(host.folder.path().join("run"), Box::new(Nobody));
    let socket = Arc::new(super::open::open(host.address, &"shop".parse().unwrap(), host.folder.path()).unwrap());
    sockets.state.lock().await.held = Some([(host.address, socket.clone())].into());
    rustix::net::shutdown(&socket, Shutdown::Both).unwrap();
    assert!(host.refuses());
    sockets.get(&"shop".parse().unwrap(), &[host.address]).await.unwrap();
    assert!(TcpStream::connect(host.address).is_ok());
    drop(agent);
}

#[derive(Debug)]
struct Nobody;

impl super::Starter for Nobody {
    fn start(&self, _asked: std::os::fd::OwnedFd) -> crate::runtime::Answer<'_, Result<(), baton_core::problem::Problem>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn an_address_that_is_somebody_elses_is_named_with_its_owner_and_nothing_is_started() {
    let host = Host::new();
    let stranger = TcpListener::bind(host.address).unwrap();
    let problem = host.agent().start(host.launch(0, "exec sleep 60")).await.unwrap_err();
    assert_eq!(problem.code, Code(205));
    assert!(problem.what.contains(&host.address.to_string()), "{problem}");
    assert!(problem.what.contains(&format!("pid {}", std::process::id())), "{problem}");
    assert_eq!(host.agent().list().await.unwrap(), []);
    drop(stranger);
}

#[tokio::test]
async fn what_no_spec_asks_for_any_more_is_closed_and_the_holder_goes() {
    let host = Host::new();
    let agent = host.agent();
    let running = host.start(&agent, 0).await;
    agent.keep_listening(&[host.address].into()).await.unwrap();
    assert!(host.holder().is_some());
    agent.stop(&running, &running.stop).await;
    agent.keep_listening(&BTreeSet::new()).await.unwrap();
    // What another test starts at this moment has everything of this process until it becomes its program.
    eventually("nobody listens", || host.refuses()).await;
    eventually("the holder is gone", || host.holder().is_none()).await;
    let late = agent.start(host.launch(0, "exec sleep 60")).await.unwrap_err();
    assert_eq!(late.code, Code(213), "a start of a spec that was replaced opens nothing");
    agent.keep_listening(&[host.address].into()).await.unwrap();
    host.start(&agent, 0).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_told_as_without_sockets() {
    let host = Host::new();
    let path = host.folder.path().join("app");
    fs::write(&path, "#!/opt/none/python9\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut launch = host.launch(0, "");
    launch.command = vec!["./app".to_owned()];
    let problem = host.agent().start(launch).await.unwrap_err();
    assert_eq!(problem.code, Code(201));
    assert!(problem.what.starts_with("`/opt/none/python9`"), "{problem}");
    assert_eq!(host.agent().list().await.unwrap(), [], "nothing is left of a start that was none");
}
