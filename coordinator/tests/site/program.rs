//! The real program, as a process of its own.

use super::{PATIENCE, config};
use baton_coordinator::config::Config;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;
use tokio::time::{Duration, sleep};

const PROGRAM: &str = env!("CARGO_BIN_EXE_baton-coordinator");

/// The program under way; killed when dropped.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn write_config(folder: &Path) -> (Config, PathBuf) {
    // Free a moment ago, and nobody but this test asks for it by number.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = Config { listen: SocketAddr::from(([127, 0, 0, 1], port)), ..config(folder) };
    let path = folder.join("coordinator.toml");
    let text = format!(
        "listen = \"{}\"\nsocket = \"{}\"\nstate = \"{}\"\n",
        config.listen,
        config.socket.display(),
        config.state.display()
    );
    std::fs::write(&path, text).unwrap();
    (config, path)
}

pub(crate) fn program(verb: &str, config: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg(verb).arg("--config").arg(config).stdin(Stdio::null());
    command
}

pub(crate) async fn run(path: &Path, config: &Config) -> Process {
    let process = Process(program("run", path).stderr(Stdio::inherit()).spawn().unwrap());
    let begun = Instant::now();
    while tokio::net::UnixStream::connect(&config.socket).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "it never listened");
        sleep(Duration::from_millis(10)).await;
    }
    process
}

pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Bytes of memory a process holds.
pub(crate) fn resident(pid: u32) -> u64 {
    measured(pid, "VmRSS:")
}

/// What a process has beside the pages of its program, in bytes: without optimisation those alone are twice what they are.
pub(crate) fn resident_of_its_own(pid: u32) -> u64 {
    measured(pid, "RssAnon:")
}

fn measured(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
