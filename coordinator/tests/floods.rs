//! Peers that send what is allowed, and too much of it: the others are served, and memory stays what it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod site;

use baton_proto::tls::{Credentials, client_config};
use baton_proto::v1::StatusRequest;
use baton_proto::v1::control_client::ControlClient;
use rustls::pki_types::ServerName;
use site::http2::{call, frame, preface};
use site::program::{output, program, resident, run, write_config};
use site::{PATIENCE, admin, dial, join, token};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// More than it had before, at any time of a flood.
const MEMORY_MAX: u64 = 16 * 1024 * 1024;
/// Calls of somebody who does nothing wrong, meanwhile.
const CALLS: usize = 200;
const FLOODERS: usize = 4;
/// What comes first is what everybody may send at once. After so long a flood goes on as it always will.
const BEGINNING: Duration = Duration::from_millis(250);

/// What is repeated on one connection for as long as the other side takes it.
#[derive(Debug, Clone, Copy)]
enum Flood {
    /// Calls that are taken back at once.
    Reset,
    /// Header fields that never end.
    Continuation,
    Ping,
    Settings,
    /// The body of a call, in pieces of nothing.
    EmptyData,
    /// A connection, and not a word on it.
    SlowHandshake,
}

impl Flood {
    /// What comes first, once.
    fn begin(self) -> Vec<u8> {
        match self {
            Self::Continuation => frame(1, 0, 1, &call(PATH)),
            Self::EmptyData => frame(1, 4, 1, &call(PATH)),
            _ => Vec::new(),
        }
    }

    /// The nth piece of what comes then.
    fn go_on(self, nth: u32) -> Vec<u8> {
        let stream = 2 * nth + 1;
        match self {
            Self::Reset => [frame(1, 4, stream, &call(PATH)), frame(3, 0, stream, &[0, 0, 0, 8])].concat(),
            Self::Continuation => frame(9, 0, 1, &call(PATH)),
            Self::Ping => frame(6, 0, 0, b"12345678"),
            Self::Settings => frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]),
            Self::EmptyData => frame(0, 0, 1, &[]),
            Self::SlowHandshake => Vec::new(),
        }
    }
}

const PATH: &str = "/baton.v1.Control/Status";

/// Floods, with a new connection whenever the one before is closed, until it is dropped.
async fn flood(flood: Flood, listen: SocketAddr, credentials: Credentials, sent: Arc<AtomicU64>) {
    let connector = tokio_rustls::TlsConnector::from(client_config(&credentials).unwrap());
    let mut idle = Vec::new();
    loop {
        let Ok(tcp) = TcpStream::connect(listen).await else { continue };
        sent.fetch_add(1, Ordering::Relaxed);
        if matches!(flood, Flood::SlowHandshake) {
            idle.push(tcp);
            if idle.len() > 200 {
                idle.remove(0);
            }
            continue;
        }
        let Ok(tls) = connector.connect(ServerName::try_from("coordinator").unwrap(), tcp).await else { continue };
        let (mut answers, mut words) = split(tls);
        // The answers are read, so that only what is sent is too much.
        let reading = async {
            let mut dropped = vec![0; 64 * 1024];
            while answers.read(&mut dropped).await.is_ok_and(|read| read > 0) {}
        };
        let writing = async {
            let _ = words.write_all(&[preface(), flood.begin()].concat()).await;
            for burst in 0_u32.. {
                let bytes: Vec<u8> = (0..64).flat_map(|nth| flood.go_on(burst * 64 + nth)).collect();
                if words.write_all(&bytes).await.is_err() {
                    break;
                }
                sent.fetch_add(64, Ordering::Relaxed);
            }
        };
        tokio::select! { () = reading => {}, () = writing => {} }
    }
}

/// The 99th percentile of how long somebody waits who does nothing wrong.
async fn calls(control: &mut ControlClient<tonic::transport::Channel>) -> Duration {
    let mut waited = Vec::new();
    for _ in 0..CALLS {
        let begun = Instant::now();
        timeout(PATIENCE, control.status(StatusRequest::default())).await.expect("nobody answered").unwrap();
        waited.push(begun.elapsed());
    }
    waited.sort();
    waited[CALLS * 99 / 100]
}

#[tokio::test]
async fn a_flood_takes_no_memory_and_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (config, path) = write_config(folder.path());
    assert!(output(&mut program("init", &path)).status.success());
    let process = run(&path, &config).await;
    let pid = process.0.id();
    let operator = admin(&config);
    let secret = token(&operator, "viewer", 2, &[]).await;
    let honest = join(config.listen, &secret, "vera").await.unwrap();
    let flooder = join(config.listen, &secret, "fred").await.unwrap();
    let mut control = ControlClient::new(dial(config.listen, &honest));
    calls(&mut control).await;
    let (quiet, before) = (calls(&mut control).await, resident(pid));
    for kind in [Flood::Reset, Flood::Continuation, Flood::Ping, Flood::Settings, Flood::EmptyData, Flood::SlowHandshake] {
        let sent = Arc::new(AtomicU64::new(0));
        // On threads of their own: whoever is measured must not wait for its own side.
        let theirs = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut flooders = JoinSet::new();
        for _ in 0..FLOODERS {
            flooders.spawn_on(flood(kind, config.listen, flooder.clone(), Arc::clone(&sent)), theirs.handle());
        }
        let most = Arc::new(AtomicU64::new(0));
        let watched = Arc::clone(&most);
        let looking = async move {
            loop {
                watched.fetch_max(resident(pid), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        flooders.spawn_on(looking, theirs.handle());
        tokio::time::sleep(BEGINNING).await;
        let flooded = calls(&mut control).await;
        flooders.shutdown().await;
        theirs.shutdown_background();
        let (sent, most) = (sent.load(Ordering::Relaxed), most.load(Ordering::Relaxed).saturating_sub(before));
        eprintln!("{kind:?}: {sent} sent, {} KiB more, p99 {flooded:.1?} after {quiet:.1?}", most / 1024);
        assert!(sent > 0, "{kind:?}: nothing was sent");
        assert!(most < MEMORY_MAX, "{kind:?}: {most} bytes more than before");
    }
}
