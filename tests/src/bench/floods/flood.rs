//! Peers that send what is allowed, and too much of it.

use super::cores::Cores;
use super::resident_kib;
use anyhow::Context as _;
use baton_proto::tls::{Credentials, client_config};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Where floods come from: nobody else's address.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 66, 6);
/// Connections without a word that each flooder holds; the oldest makes place for a new one.
const SILENT: usize = 1_000;
/// Pieces in one write.
const BURST: u32 = 64;
const LOOK: Duration = Duration::from_millis(10);

/// What is repeated on one connection for as long as the other side takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in super::super) enum Flood {
    /// Calls that are taken back at once
    Reset,
    /// Header fields that never end
    Continuation,
    Ping,
    Settings,
    /// The body of a call, in pieces of nothing
    EmptyData,
    /// A connection, and not a word on it
    SlowHandshake,
}

impl Flood {
    pub(super) const ALL: [Self; 6] =
        [Self::Reset, Self::Continuation, Self::Ping, Self::Settings, Self::EmptyData, Self::SlowHandshake];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Continuation => "continuation",
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::EmptyData => "empty-data",
            Self::SlowHandshake => "slow-handshake",
        }
    }

    /// What comes first, once.
    fn begin(self) -> Vec<u8> {
        let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
        match self {
            Self::Continuation => bytes.extend(frame(1, 0, 1, &call())),
            Self::EmptyData => bytes.extend(frame(1, 4, 1, &call())),
            _ => {}
        }
        bytes
    }

    /// The nth piece of what comes then.
    fn go_on(self, nth: u32) -> Vec<u8> {
        let stream = 2 * nth + 1;
        match self {
            Self::Reset => [frame(1, 4, stream, &call()), frame(3, 0, stream, &[0, 0, 0, 8])].concat(),
            Self::Continuation => frame(9, 0, 1, &call()),
            Self::Ping => frame(6, 0, 0, b"12345678"),
            Self::Settings => frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]),
            Self::EmptyData => frame(0, 0, 1, &[]),
            Self::SlowHandshake => Vec::new(),
        }
    }
}

/// One frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
    [&[high, middle, low, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// The header fields of a call, neither indexed nor compressed.
fn call() -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/baton.v1.Control/Status"),
        (":authority", "coordinator"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A flood under way, on a thread and on cores of its own.
#[derive(Debug)]
pub(super) struct Flooding {
    stop: Arc<Notify>,
    sent: Arc<AtomicU64>,
    began: Instant,
    thread: JoinHandle<anyhow::Result<u64>>,
}

impl Flooding {
    /// Floods, with a new connection whenever one is closed, until it is stopped. Meanwhile the coordinator's memory is looked at.
    pub(super) fn start(
        kind: Flood,
        connections: u16,
        coordinator: SocketAddr,
        credentials: &Credentials,
        pid: u32,
        cores: &Cores,
    ) -> anyhow::Result<Self> {
        let (stop, sent) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
        let connector = TlsConnector::from(client_config(credentials)?);
        let (stopped, counted, cores) = (Arc::clone(&stop), Arc::clone(&sent), *cores);
        let thread = std::thread::Builder::new().name("flood".into()).spawn(move || {
            cores.flood()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut flooders = JoinSet::new();
                for _ in 0..connections {
                    let (connector, counted) = (connector.clone(), Arc::clone(&counted));
                    flooders.spawn(async move {
                        match kind {
                            Flood::SlowHandshake => silent(coordinator, &counted).await,
                            _ => flood(kind, coordinator, &connector, &counted).await,
                        }
                    });
                }
                let mut most = 0;
                let looking = async {
                    loop {
                        most = most.max(resident_kib(pid)?);
                        tokio::time::sleep(LOOK).await;
                    }
                };
                tokio::select! {
                    () = stopped.notified() => {}
                    looked = looking => return looked,
                }
                Ok(most)
            })
        })?;
        Ok(Self { stop, sent, began: Instant::now(), thread })
    }

    /// What was sent, in how long, and the most memory that was seen, in KiB.
    pub(super) fn stop(self) -> anyhow::Result<(u64, Duration, u64)> {
        self.stop.notify_one();
        let most = self.thread.join().ok().context("the flood broke")??;
        Ok((self.sent.load(Ordering::Relaxed), self.began.elapsed(), most))
    }
}

/// Begins a connection, and waits for nobody's answer.
fn knock(coordinator: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SocketAddr::from((SOURCE, 0)).into())?;
    match socket.connect(&coordinator.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

async fn dial(coordinator: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((SOURCE, 0).into())?;
    socket.connect(coordinator).await
}

async fn silent(coordinator: SocketAddr, sent: &AtomicU64) {
    let mut held = VecDeque::new();
    loop {
        match knock(coordinator) {
            Ok(socket) => {
                sent.fetch_add(1, Ordering::Relaxed);
                held.push_back(socket);
                if held.len() > SILENT {
                    held.pop_front();
                }
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
        tokio::task::yield_now().await;
    }
}

async fn flood(kind: Flood, coordinator: SocketAddr, connector: &TlsConnector, sent: &AtomicU64) {
    loop {
        let Ok(tcp) = dial(coordinator).await else { continue };
        let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let Ok(tls) = connector.connect(name, tcp).await else { continue };
        let (mut answers, mut words) = split(tls);
        // The answers are read, so that only what is sent is too much.
        let reading = async {
            let mut dropped = vec![0; 64 * 1024];
            while answers.read(&mut dropped).await.is_ok_and(|read| read > 0) {}
        };
        let writing = async {
            let mut bytes = kind.begin();
            for burst in 0_u32.. {
                bytes.extend((0..BURST).flat_map(|nth| kind.go_on(burst * BURST + nth)));
                if words.write_all(&bytes).await.is_err() {
                    break;
                }
                sent.fetch_add(u64::from(BURST), Ordering::Relaxed);
                bytes.clear();
            }
        };
        tokio::select! { () = reading => {}, () = writing => {} }
    }
}
