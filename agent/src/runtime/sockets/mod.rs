//! The public sockets of this host's services: opened once, handed to every instance, closed when no spec asks for them.
//!
//! They outlive instances, releases and the agent. A small [`holder`] process has them, and the agent too, so that either may be
//! killed; what only instances have left is taken over from them.

mod holder;
mod message;
mod open;

pub use holder::hold;
pub(crate) use message::{receive, send};

use crate::runtime::Answer;
use crate::text;
use baton_core::name::ServiceName;
use baton_core::problem::{Code, Problem};
use holder::{Ask, Held};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// For one question and its answer: a holder that was just started may have to be read from disk first.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Questions that may wait; there is one asker.
const WAITING: i32 = 16;

type Sockets = BTreeMap<SocketAddr, Arc<OwnedFd>>;

/// Starts a holder that outlives this agent; its standard input is the socket on which it is asked.
pub(super) trait Starter: Send + Sync + Debug {
    fn start(&self, asked: OwnedFd) -> Answer<'_, Result<(), Problem>>;
}

/// The sockets of one agent.
#[derive(Debug)]
pub(super) struct PublicSockets {
    folder: PathBuf,
    starter: Box<dyn Starter>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None: the holder was not asked yet what an earlier agent left with it.
    held: Option<Sockets>,
    /// None: no spec spoke yet, and then every address may be asked for.
    wanted: Option<BTreeSet<SocketAddr>>,
}

impl PublicSockets {
    pub(super) fn new(folder: PathBuf, starter: Box<dyn Starter>) -> Self {
        Self { folder, starter, state: Mutex::default() }
    }

    /// The sockets at these addresses, in this order; those that are not there yet are opened, and safe before this returns.
    ///
    /// # Errors
    /// B0205: an address is somebody else's. B0213: it cannot be listened on. B0214: nobody would hold it.
    pub(super) async fn get(&self, service: &ServiceName, addresses: &[SocketAddr]) -> Result<Vec<Arc<OwnedFd>>, Problem> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.state.lock().await;
        if let Some(late) = addresses.iter().find(|address| state.wanted.as_ref().is_some_and(|all| !all.contains(address)))
        {
            return Err(Problem::new(Code(213), format!("{late} is not wanted any more: a newer spec came")));
        }
        let before = self.known(&mut state).await?;
        let mut held = before.clone();
        for address in addresses {
            match held.get(address) {
                Some(socket) => open::keep_listening(socket, *address),
                None => {
                    held.insert(*address, Arc::new(open::open(*address, service, &self.folder)?));
                }
            }
        }
        if held.len() > before.len() {
            self.entrust(&held).await?;
            state.held = Some(held.clone());
        }
        Ok(addresses.iter().filter_map(|address| held.get(address).cloned()).collect())
    }

    /// Closes every socket but those at these addresses. An instance that still has one may go on with it.
    pub(super) async fn keep(&self, wanted: &BTreeSet<SocketAddr>) -> Result<(), Problem> {
        let mut state = self.state.lock().await;
        if state.wanted.as_ref() == Some(wanted) {
            return Ok(());
        }
        state.wanted = Some(wanted.clone());
        let before = self.known(&mut state).await?;
        let mut held = before.clone();
        held.retain(|address, _| wanted.contains(address));
        if held.len() < before.len() {
            before.keys().filter(|address| !held.contains_key(address)).for_each(|address| {
                tracing::info!(%address, "no release listens there any more: closed");
            });
            state.held = Some(held.clone());
            self.entrust(&held).await?;
        }
        Ok(())
    }

    /// Makes sure that there is a holder, and that the sockets listen: a holder may be killed, a socket shut down.
    pub(super) async fn tend(&self) {
        let state = self.state.lock().await;
        let Some(held) = state.held.as_ref().filter(|held| !held.is_empty()) else { return };
        held.iter().for_each(|(address, socket)| open::keep_listening(socket, *address));
        let there = ask(&self.path(), &Ask::Look {}, Vec::new()).await;
        if there.is_ok_and(|there| there.keys().eq(held.keys())) {
            return;
        }
        match self.entrust(held).await {
            Ok(()) => tracing::warn!("the holder of the public sockets was gone, and was started again"),
            Err(problem) => tracing::warn!(%problem, "the public sockets are held by this agent alone"),
        }
    }

    /// What is held; asked of the holder once, because afterwards only this agent changes it.
    async fn known(&self, state: &mut State) -> Result<Sockets, Problem> {
        if let Some(held) = &state.held {
            return Ok(held.clone());
        }
        let held = match ask(&self.path(), &Ask::Look {}, Vec::new()).await {
            Ok(held) => held,
            Err(error) if is_nobody(&error) => Sockets::new(),
            Err(error) => return Err(no_holder(&error)),
        };
        state.held = Some(held.clone());
        Ok(held)
    }

    /// Gives the holder all there is; starts one where there is none.
    async fn entrust(&self, held: &Sockets) -> Result<(), Problem> {
        match self.tell(held).await {
            Err(error) if is_nobody(&error) && held.is_empty() => Ok(()),
            Err(error) if is_nobody(&error) => {
                let asked = self.invite().map_err(|error| no_holder(&error))?;
                self.starter.start(asked).await?;
                self.tell(held).await.map_err(|error| no_holder(&error))
            }
            told => told.map_err(|error| no_holder(&error)),
        }
    }

    async fn tell(&self, held: &Sockets) -> io::Result<()> {
        let (addresses, sockets) = held.iter().map(|(address, socket)| (*address, socket.clone())).unzip();
        ask(&self.path(), &Ask::Keep { addresses }, sockets).await.map(drop)
    }

    /// The socket on which a new holder is asked: it can be spoken to before the holder is up.
    fn invite(&self) -> io::Result<OwnedFd> {
        match std::fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let asked = unix_socket()?;
        bind(&asked, &SocketAddrUnix::new(self.path())?)?;
        listen(&asked, WAITING)?;
        Ok(asked)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("sockets")
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Asks the holder one question. Its descriptors come back with the answer to [`Ask::Look`].
async fn ask(path: &Path, ask: &Ask, with: Vec<Arc<OwnedFd>>) -> io::Result<Sockets> {
    let (path, question) = (path.to_owned(), serde_json::to_vec(ask)?);
    let exchange = move || {
        let holder = unix_socket()?;
        set_socket_timeout(&holder, Timeout::Recv, Some(TIMEOUT))?;
        set_socket_timeout(&holder, Timeout::Send, Some(TIMEOUT))?;
        connect(&holder, &SocketAddrUnix::new(&path)?)?;
        send(&holder, &question, &with.iter().map(|socket| socket.as_fd()).collect::<Vec<_>>())?;
        let (answer, descriptors) = receive(&holder)?;
        let Held { addresses } = serde_json::from_slice(&answer)?;
        Ok(addresses.into_iter().zip(descriptors.into_iter().map(Arc::new)).collect())
    };
    tokio::task::spawn_blocking(exchange).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// No holder runs, or one is just ending because it has nothing to hold.
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | UnexpectedEof | BrokenPipe)
}

fn no_holder(error: &io::Error) -> Problem {
    Problem::new(
        Code(214),
        format!("the process that holds this host's public sockets does not answer: {}", text::io_error(error)),
    )
    .help("the agent's log says more; without it a restart of the agent would close them, so nothing is started")
}

#[cfg(test)]
mod tests;
