//! Real balancers on loopback, applications that can be killed, clients that forgive nothing, and the agent's loop between
//! them. Used by the contract's tests and by `bench balancers`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

pub(crate) mod app;
pub(crate) mod bench;
mod builtin;
mod envoy;
pub(crate) mod front;
mod haproxy;
pub(crate) mod load;
mod nginx;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// A free port on an address of its own, so that tests beside each other do not meet.
pub(crate) fn place() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id().to_le_bytes();
    let address = Ipv4Addr::new(127, 64 | process[0] >> 2, process[1], NEXT.fetch_add(1, Ordering::SeqCst));
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

/// A program by its variable or by its name in PATH; `None`, said aloud, where it is missing and not required.
fn program(name: &str, variable: &str, default: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = named.or_else(|| folders.map(|folder| folder.join(default)).find(|path| path.exists()));
    if let Some(found) = found.filter(|path| path.exists()) {
        return Some(found);
    }
    let required = std::env::var("BATON_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|it| it == name), "BATON_REQUIRE names {name}, which is not installed");
    eprintln!("skipped: {name} is not installed ({variable})");
    None
}

/// Waits until somebody listens, or nobody does any more.
fn wait_listening(address: SocketAddr, listening: bool, log: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(address).is_ok() != listening {
        let log = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(Instant::now() < deadline, "listening at {address}: {}; {}", !listening, log());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pid(pid: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid")
}

pub(crate) fn signal(process: u32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(pid(process), signal);
}
