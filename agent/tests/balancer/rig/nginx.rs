//! nginx with the sample configuration, as master and workers.

use super::front::{Abilities, Front, Program};
use super::{place, program, signal, wait_listening};
use baton_agent::balancer::{BalancerConfig, NginxConfig};
use baton_core::fleet::spec::MemberState;
use rustix::process::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

#[derive(Debug)]
struct Nginx {
    binary: PathBuf,
    folder: PathBuf,
    listen: SocketAddr,
}

pub(super) fn front(name: &str, variable: &str, edit: impl Fn(String) -> String) -> Option<Front> {
    let binary = program(name, variable, name)?;
    let folder = TempDir::new().expect("a folder");
    let (listen, till) = (place(), place());
    let path = |name: &str| folder.path().join(name);
    let config = include_str!("../../../examples/nginx.conf")
        .replace("@FOLDER@", &folder.path().to_string_lossy())
        .replace("@LISTEN@", &listen.to_string());
    let server = format!(
        "    server {{\n        listen {till};\n        location / {{ proxy_pass http://$baton_till; }}\n    }}\n}}\n"
    );
    let (http, _) = config.rsplit_once('}').expect("a block");
    let keeps_idle = variable.ends_with("NEW");
    fs::write(path("nginx.conf"), edit(format!("{http}{server}"))).expect("the configuration");
    fs::write(path("baton.conf"), include_str!("../../../examples/nginx-baton.conf").to_owned() + TILL)
        .expect("the first file");
    let config = BalancerConfig::Nginx(NginxConfig {
        drift: baton_agent::balancer::Drift::Correct,
        include: path("baton.conf"),
        status: place(),
        pid_file: path("nginx.pid"),
        binary: binary.clone(),
        config: Some(path("nginx.conf")),
        prefix: Some(folder.path().to_owned()),
        upstream: vec!["zone baton 256k".to_owned(), "keepalive 16".to_owned()],
    });
    let mut nginx = Box::new(Nginx { binary, folder: folder.path().to_owned(), listen });
    nginx.start();
    let abilities = Abilities { counts: true, keeps_idle, starts_itself: false };
    Some(Front { program: nginx, folder, listen, till, config, abilities })
}

const TILL: &str =
    "upstream till {\n    server 127.0.0.1:1 down; # nobody\n}\nmap \"\" $baton_till {\n    default till;\n}\n";

impl Nginx {
    fn master(&self) -> Option<u32> {
        fs::read_to_string(self.folder.join("nginx.pid")).ok()?.trim().parse().ok()
    }

    fn family(&self) -> Vec<u32> {
        let Some(master) = self.master() else { return Vec::new() };
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        let title = fs::read_to_string(format!("/proc/{master}/cmdline")).unwrap_or_default();
        let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(master).filter(|_| title.starts_with("nginx")).chain(children).collect()
    }
}

impl Program for Nginx {
    fn start(&mut self) {
        let log = fs::File::create(self.folder.join("nginx.log")).expect("a log");
        let status = Command::new(&self.binary)
            .arg("-p")
            .arg(&self.folder)
            .arg("-c")
            .arg(self.folder.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .status()
            .expect("nginx starts");
        let log = || fs::read_to_string(self.folder.join("nginx.log")).unwrap_or_default();
        assert!(status.success(), "nginx: {}", log());
        wait_listening(self.listen, true, &self.folder.join("nginx.log"));
    }

    fn kill(&mut self, _: &str) {
        for process in self.family() {
            signal(process, Signal::KILL);
        }
        wait_listening(self.listen, false, &self.folder.join("nginx.log"));
    }

    fn reload(&self) {
        signal(self.master().expect("nginx runs"), Signal::HUP);
    }

    fn by_hand(&self, address: SocketAddr, state: MemberState) {
        let path = self.folder.join("baton.conf");
        let text = fs::read_to_string(&path).expect("the file");
        let mut here = false;
        let lines = text.lines().map(|line| {
            here = if line.starts_with("upstream ") { line.contains(" shop ") } else { here };
            let is_it = here && line.trim_start().starts_with(&format!("server {address} "));
            match (is_it, state) {
                (true, MemberState::Ready) => format!("    server {address};\n"),
                (true, _) => format!("    server {address} down;\n"),
                _ => format!("{line}\n"),
            }
        });
        fs::write(&path, lines.collect::<String>()).expect("the file");
        self.reload();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        for process in self.family() {
            signal(process, Signal::KILL);
        }
    }
}
