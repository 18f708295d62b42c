//! The built-in proxy: started by its driver, and nobody's child by design.

use super::front::{Abilities, Front, Program};
use super::{place, signal, wait_listening};
use baton_agent::balancer::builtin::Balance;
use baton_agent::balancer::{BalancerConfig, BuiltinConfig};
use baton_core::fleet::spec::MemberState;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use tempfile::TempDir;

#[derive(Debug)]
struct Builtin {
    control: PathBuf,
    listen: SocketAddr,
}

pub(super) fn front(command: Vec<String>) -> Front {
    let folder = TempDir::new().expect("a folder");
    let (listen, till) = (place(), place());
    let pool = |name: &str| name.parse().expect("a name");
    let config = BalancerConfig::Builtin(BuiltinConfig {
        listen: BTreeMap::from([(pool("shop"), listen), (pool("till"), till)]),
        drift: baton_agent::balancer::Drift::Correct,
        tls: BTreeMap::new(),
        balance: Balance::RoundRobin,
        fall: 3,
        control: None,
        command: Some(command),
    });
    let program = Box::new(Builtin { control: folder.path().join("agent/balancer/builtin.sock"), listen });
    let abilities = Abilities { counts: true, keeps_idle: true, starts_itself: true };
    Front { program, folder, listen, till, config, abilities }
}

impl Builtin {
    fn ask(&self, question: &str) -> Option<serde_json::Value> {
        let mut stream = UnixStream::connect(&self.control).ok()?;
        stream.write_all(question.as_bytes()).ok()?;
        stream.write_all(b"\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

impl Program for Builtin {
    fn kill(&mut self, identity: &str) {
        let serving = identity.split('@').next().and_then(|pid| pid.parse().ok()).expect("pid@start");
        signal(serving, Signal::KILL);
        wait_listening(self.listen, false, &self.control);
    }

    fn by_hand(&self, address: SocketAddr, state: MemberState) {
        let answer = self.ask("{\"look\":{}}").expect("an answer");
        let mut members = answer["on_disk"]["shop"].clone();
        members[address.to_string()]["state"] = serde_json::to_value(state).expect("a word");
        self.ask(&serde_json::json!({ "set": { "pools": { "shop": members } } }).to_string()).expect("an answer");
    }
}

impl Drop for Builtin {
    fn drop(&mut self) {
        let folder = self.control.parent().and_then(|folder| std::fs::read_dir(folder).ok());
        for entry in folder.into_iter().flatten().flatten() {
            // Those that finish end with their last client; a test does not wait for it.
            let name = entry.file_name().to_string_lossy().into_owned();
            if UnixStream::connect(entry.path()).is_err() {
                continue;
            }
            if let Some(pid) = name.rsplit_once(".leaving-").and_then(|(_, pid)| pid.parse().ok()) {
                signal(pid, Signal::KILL);
            }
        }
        let pid = self.ask("{\"look\":{}}").and_then(|answer| answer["identity"].as_str()?.split('@').next()?.parse().ok());
        if let Some(pid) = pid {
            signal(pid, Signal::KILL);
        }
    }
}
