//! The balancers under test, each with the three things a test does to one: start, kill -9, and read its own files.

use crate::place;
use baton_agent::balancer::{BalancerConfig, BuiltinConfig, HaproxyConfig};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) folder: TempDir,
    pub(crate) listen: SocketAddr,
    pub(crate) config: BalancerConfig,
    haproxy: Option<Child>,
}

impl Front {
    pub(crate) fn builtin() -> Self {
        let folder = TempDir::new().expect("a folder");
        let listen = place();
        let command = vec![env!("CARGO_BIN_EXE_baton-agent").to_owned(), "balancer".to_owned()];
        let config = BalancerConfig::Builtin(BuiltinConfig {
            listen: BTreeMap::from([("shop".parse().expect("a name"), listen)]),
            control: None,
            command: Some(command),
        });
        Self { folder, listen, config, haproxy: None }
    }

    /// HAProxy with the sample configuration; `None`, said aloud, where it is not installed and not required.
    pub(crate) fn haproxy(servers: &[SocketAddr]) -> Option<Self> {
        let lines = servers.iter().enumerate().map(|(index, address)| format!("    server s{index} {address} disabled\n"));
        Self::haproxy_with(&lines.collect::<String>(), |config| config)
    }

    /// The same, prepared for dividing requests.
    pub(crate) fn haproxy_split(servers: &[SocketAddr]) -> Option<Self> {
        let lines = servers.iter().enumerate().map(|(index, address)| format!("    server s{index} {address} disabled\n"));
        let lines = lines.collect::<String>();
        let sample = include_str!("../../examples/haproxy-split.cfg");
        let (frontend, backend) = sample.split_once("# beside").expect("two parts");
        let plain = |part: &str| part.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let backend = backend.split_once('\n').expect("a comment line").1.replace("@SERVERS@", &lines);
        Self::haproxy_with(&lines, |config| config.replace("@DIVIDE@", &plain(frontend)).replace("@TRIAL@", &backend))
    }

    pub(crate) fn haproxy_with(servers: &str, edit: impl Fn(String) -> String) -> Option<Self> {
        if !is_there() {
            return None;
        }
        let folder = TempDir::new().expect("a folder");
        let listen = place();
        let path = |name: &str| folder.path().join(name);
        let config = include_str!("../../examples/haproxy.cfg")
            .replace("@SOCKET@", &path("stats.sock").to_string_lossy())
            .replace("@STATE@", &path("servers.state").to_string_lossy())
            .replace("@LISTEN@", &listen.to_string())
            .replace("@SERVERS@", servers);
        fs::create_dir(path("maps")).expect("a folder");
        for map in ["share", "sticky-cookie:uid", "header:x-beta", "cookie:cohort"] {
            fs::write(path(&format!("maps/shop:{map}.map")), "").expect("a map");
        }
        let maps = path("maps").to_string_lossy().into_owned();
        let config = edit(config).replace("@MAPS@", &maps).replace("@DIVIDE@", "").replace("@TRIAL@", "");
        fs::write(path("haproxy.cfg"), config).expect("the configuration");
        let config = BalancerConfig::Haproxy(HaproxyConfig {
            socket: path("stats.sock"),
            master_socket: Some(path("master.sock")),
            state_file: path("servers.state"),
            maps: Some(path("maps")),
        });
        let mut front = Self { folder, listen, config, haproxy: None };
        front.start();
        Some(front)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn without_master(mut self) -> Self {
        if let BalancerConfig::Haproxy(config) = &mut self.config {
            config.master_socket = None;
        }
        self
    }

    /// Starts HAProxy; the built-in proxy is started by its driver.
    pub(crate) fn start(&mut self) {
        if !matches!(self.config, BalancerConfig::Haproxy(_)) {
            return;
        }
        let log = fs::File::create(self.path("haproxy.log")).expect("a log");
        let child = Command::new("/usr/sbin/haproxy")
            .args(["-W", "-S"])
            .arg(format!("{},mode,600", self.path("master.sock").display()))
            .arg("-f")
            .arg(self.path("haproxy.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("haproxy starts");
        self.haproxy = Some(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(self.listen).is_err() {
            let log = || fs::read_to_string(self.path("haproxy.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "haproxy does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn reload(&self) {
        let master = self.haproxy.as_ref().expect("haproxy runs").id();
        rustix::process::kill_process(pid(master), rustix::process::Signal::USR2).expect("a reload");
    }

    /// Kills the process that serves, by the identity its driver reported.
    pub(crate) fn kill(&mut self, identity: &str) {
        let serving: u32 = identity.split('@').next().and_then(|pid| pid.parse().ok()).expect("pid@start");
        rustix::process::kill_process(pid(serving), rustix::process::Signal::KILL).expect("a kill");
        if let Some(mut master) = self.haproxy.take() {
            master.kill().ok();
            master.wait().expect("the master ends");
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(self.listen).is_ok() {
            assert!(Instant::now() < deadline, "it still listens");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(mut master) = self.haproxy.take() {
            // A master that is asked to ends its workers with it.
            let _ = rustix::process::kill_process(pid(master.id()), rustix::process::Signal::TERM);
            let _ = master.wait();
        }
        // The built-in proxy is nobody's child by design.
        let control = self.path("agent/balancer/builtin.sock");
        if let Some(serving) = control_pid(&control) {
            let _ = rustix::process::kill_process(pid(serving), rustix::process::Signal::KILL);
        }
    }
}

fn pid(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid")
}

fn control_pid(control: &std::path::Path) -> Option<u32> {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(control).ok()?;
    stream.write_all(b"{\"look\":{}}\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let answer: serde_json::Value = serde_json::from_str(&line).ok()?;
    answer["identity"].as_str()?.split('@').next()?.parse().ok()
}

fn is_there() -> bool {
    if std::path::Path::new("/usr/sbin/haproxy").exists() {
        return true;
    }
    let required = std::env::var("BATON_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == "haproxy"), "BATON_REQUIRE names haproxy, which is not installed");
    eprintln!("skipped: /usr/sbin/haproxy is not installed");
    false
}
