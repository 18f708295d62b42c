//! HAProxy with the sample configuration, as master and worker.

use super::front::{Abilities, Front, Program};
use super::{place, program, signal, wait_listening};
use baton_agent::balancer::{BalancerConfig, HaproxyConfig};
use baton_core::fleet::spec::MemberState;
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[derive(Debug)]
struct Haproxy {
    binary: PathBuf,
    folder: PathBuf,
    listen: SocketAddr,
    master: Option<Child>,
}

/// `servers`: the lines of both backends.
pub(super) fn front(servers: &str, edit: impl Fn(String) -> String) -> Option<Front> {
    let binary = program("haproxy", "BATON_HAPROXY", "haproxy")?;
    let folder = TempDir::new().expect("a folder");
    let (listen, till, requests) = (place(), place(), place());
    let path = |name: &str| folder.path().join(name);
    let mut config = include_str!("../../../examples/haproxy.cfg")
        .replace("@SOCKET@", &path("stats.sock").to_string_lossy())
        .replace("@STATE@", &path("servers.state").to_string_lossy())
        .replace("@LISTEN@", &listen.to_string())
        .replace("@REQUESTS@", &requests.to_string())
        .replace("@SERVERS@", servers);
    // A server that starts enabled would be another way to the same member.
    let at_till = if servers.lines().all(|line| line.ends_with(" disabled")) { servers } else { "" };
    config.push_str(&format!("\nfrontend till\n    bind {till}\n    default_backend till\nbackend till\n{at_till}"));
    fs::create_dir(path("maps")).expect("a folder");
    for map in ["share", "sticky-cookie:uid", "header:x-beta", "cookie:cohort"] {
        fs::write(path(&format!("maps/shop:{map}.map")), "").expect("a map");
    }
    let maps = path("maps").to_string_lossy().into_owned();
    let config = edit(config).replace("@MAPS@", &maps).replace("@DIVIDE@", "").replace("@TRIAL@", "");
    fs::write(path("haproxy.cfg"), config).expect("the configuration");
    let config = BalancerConfig::Haproxy(HaproxyConfig {
        drift: baton_agent::balancer::Drift::Correct,
        socket: path("stats.sock"),
        master_socket: Some(path("master.sock")),
        state_file: path("servers.state"),
        maps: Some(path("maps")),
        requests: Some(requests),
    });
    let mut haproxy = Box::new(Haproxy { binary, folder: folder.path().to_owned(), listen, master: None });
    haproxy.start();
    let abilities = Abilities { counts: true, keeps_idle: true, starts_itself: false };
    Some(Front { program: haproxy, folder, listen, till, config, abilities })
}

impl Program for Haproxy {
    fn start(&mut self) {
        let path = |name: &str| self.folder.join(name);
        let log = fs::File::create(path("haproxy.log")).expect("a log");
        let child = Command::new(&self.binary)
            .args(["-W", "-S"])
            .arg(format!("{},mode,600", path("master.sock").display()))
            .arg("-f")
            .arg(path("haproxy.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("haproxy starts");
        self.master = Some(child);
        wait_listening(self.listen, true, &path("haproxy.log"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(path("stats.sock")).is_err() {
            assert!(Instant::now() < deadline, "haproxy has no socket");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn kill(&mut self, identity: &str) {
        signal(identity.split('@').next().and_then(|pid| pid.parse().ok()).expect("pid@start"), Signal::KILL);
        if let Some(mut master) = self.master.take() {
            master.kill().ok();
            master.wait().expect("the master ends");
        }
        wait_listening(self.listen, false, &self.folder.join("haproxy.log"));
    }

    fn reload(&self) {
        signal(self.master.as_ref().expect("haproxy runs").id(), Signal::USR2);
    }

    fn by_hand(&self, address: SocketAddr, state: MemberState) {
        let rows = operator(&self.folder, "show servers state shop");
        let field = |row: &str, index: usize| row.split(' ').nth(index).unwrap_or_default().to_owned();
        let at = |row: &&str| format!("{}:{}", field(row, 4), field(row, 18)) == address.to_string();
        let server = field(rows.lines().find(at).expect("a server there"), 3);
        let word = match state {
            MemberState::Ready => "ready",
            MemberState::Drain => "drain",
            MemberState::Out => "maint",
        };
        operator(&self.folder, &format!("set server shop/{server} state {word}"));
    }
}

fn operator(folder: &std::path::Path, command: &str) -> String {
    let mut stream = UnixStream::connect(folder.join("stats.sock")).expect("the socket");
    stream.write_all(format!("{command}\n").as_bytes()).expect("a command");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        if let Some(mut master) = self.master.take() {
            // A master that is asked to ends its workers with it.
            signal(master.id(), Signal::TERM);
            let _ = master.wait();
        }
    }
}
