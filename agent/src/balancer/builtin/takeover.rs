//! One process takes another's ports, and no client is refused.
//!
//! The new one is given the very sockets on which the old one listens, so there is no instant at which nobody does. It is told to
//! serve only when everything else of it is ready; until then the old one goes on, and if the new one dies, nothing has happened.
//! Afterwards the old one finishes: it takes no more connections, ends each that it has with its next answer, and can still be
//! asked, told and cut, by its driver, under another name.

use super::control::{self, Ask};
use super::serve::Proxy;
use crate::runtime::sockets::{receive, send};
use anyhow::Context as _;
use baton_core::name::PoolName;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpListener, UnixStream};

/// For the other side's next word: it reads a file and some certificates at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// "I have everything: leave."
const LEAVE: &str = "leave\n";
/// "I take no more connections: begin."
const BEGIN: &str = "begin\n";

/// Between a control socket's name and the process that has left it.
const LEAVING: &str = ".leaving-";

/// What was taken from a process that still serves.
#[derive(Debug)]
pub(super) struct Predecessor {
    stream: BufReader<UnixStream>,
    ports: BTreeMap<PoolName, OwnedFd>,
}

/// Asks the process behind a control socket for its ports. From here to [`Predecessor::dismiss`] it changes nothing.
pub(super) async fn take(control: &Path) -> anyhow::Result<Predecessor> {
    let mut stream = UnixStream::connect(control).await.context("nobody is there to take the ports from")?;
    stream.write_all(&control::line(&Ask::HandOver {})?).await?;
    let receiving = stream.async_io(Interest::READABLE, || receive(&stream));
    let (said, sockets) = tokio::time::timeout(PATIENCE, receiving).await??;
    let names: Vec<PoolName> = serde_json::from_slice(&said).with_context(|| {
        format!("the process that serves cannot hand over its ports: {}", String::from_utf8_lossy(&said))
    })?;
    anyhow::ensure!(names.len() == sockets.len(), "{} pools came with {} ports", names.len(), sockets.len());
    Ok(Predecessor { stream: BufReader::new(stream), ports: names.into_iter().zip(sockets).collect() })
}

impl Predecessor {
    /// A pool's port, where it listens at this address.
    pub(super) fn port(&mut self, pool: &PoolName, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let Some(socket) = self.ports.remove(pool) else { return Ok(None) };
        let listener = std::net::TcpListener::from(socket);
        if listener.local_addr()? != address {
            return Ok(None);
        }
        TcpListener::from_std(listener).map(Some)
    }

    /// Lets it leave, and comes back when it takes no more connections.
    pub(super) async fn dismiss(mut self) -> anyhow::Result<()> {
        self.stream.write_all(LEAVE.as_bytes()).await?;
        hear(&mut self.stream, BEGIN).await.context("the process that serves does not leave")
    }
}

/// Hands a proxy's ports to whoever asked on this connection, and leaves when told to.
pub(super) async fn give(proxy: &Proxy, stream: &mut BufReader<UnixStream>) -> io::Result<()> {
    // What is served must not change between what the other one reads and what it serves.
    let _turn = proxy.turn().await;
    let ports = proxy.ports();
    let names = serde_json::to_vec(&ports.iter().map(|(name, _)| name).collect::<Vec<_>>())?;
    let sockets: Vec<_> = ports.iter().map(|(_, listener)| listener.as_fd()).collect();
    let socket = stream.get_ref();
    socket.async_io(Interest::WRITABLE, || send(socket, &names, &sockets)).await?;
    hear(stream, LEAVE).await?;
    proxy.leave()?;
    stream.write_all(BEGIN.as_bytes()).await
}

async fn hear(stream: &mut BufReader<UnixStream>, word: &str) -> io::Result<()> {
    let mut line = String::new();
    tokio::time::timeout(PATIENCE, stream.take(control::LINE_MAX).read_line(&mut line)).await??;
    if line == word { Ok(()) } else { Err(io::Error::other(format!("{word:?} was expected, and {line:?} came"))) }
}

/// The name of a control socket once its process leaves.
pub(super) fn left(control: &Path) -> PathBuf {
    let mut name = beginning(control);
    name.push(std::process::id().to_string());
    control.with_file_name(name)
}

/// The control sockets of processes that have left this one, or of some that ended since.
pub(super) fn all_left(control: &Path) -> io::Result<Vec<PathBuf>> {
    let beginning = beginning(control);
    let beginning = beginning.as_encoded_bytes();
    let mut all = Vec::new();
    for entry in fs::read_dir(control.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(beginning) {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}

fn beginning(control: &Path) -> OsString {
    let mut name = control.file_name().unwrap_or_default().to_owned();
    name.push(LEAVING);
    name
}
