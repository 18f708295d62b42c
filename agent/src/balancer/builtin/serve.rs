//! The proxy's process: its listeners, its control socket, its state file.

use super::Args;
use super::check;
use super::control::{self, Answer, Ask};
use super::members::Pool;
use super::proxy;
use super::state::State;
use crate::balancer::durable;
use anyhow::Context;
use baton_core::name::PoolName;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore};

/// Client connections at once; with one connection to a member each, below the usual limit of open files.
const CONNECTIONS_MAX: usize = 8_000;

/// Of one request; what is longer is answered 431.
const HEAD_MAX: usize = 64 << 10;

/// For a request's head, idle time before it counted in: longer than clients keep idle connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// When accepting fails, for want of open files for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs the proxy until it is killed.
///
/// # Errors
/// A port or the control socket that cannot be had, or a state file that cannot be read.
pub async fn serve(args: Args) -> anyhow::Result<()> {
    let mut proxy = Proxy { identity: identity(), state: args.state, pools: BTreeMap::new(), turn: Mutex::new(()) };
    let state = State::read(&proxy.state).with_context(|| format!("cannot read {}", proxy.state.display()))?;
    let mut listeners = Vec::new();
    for (name, address) in args.listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {name}"))?;
        let pool = Arc::new(Pool::new(args.balance, NonZeroU32::new(args.fall)));
        pool.set(state.pools.get(&name).unwrap_or(&BTreeMap::new()));
        pool.divide(state.splits.get(&name));
        listeners.push((listener, Arc::clone(&pool)));
        proxy.pools.insert(name, pool);
    }
    // Ports first: a second proxy fails there, and does not take the control socket from the first.
    let control = bind(&args.control).with_context(|| format!("cannot listen on {}", args.control.display()))?;
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    for (listener, pool) in listeners {
        tokio::spawn(accept(listener, pool, Arc::clone(&connections)));
    }
    tokio::spawn(check::run(proxy.pools.clone()));
    let proxy = Arc::new(proxy);
    loop {
        match control.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(Arc::clone(&proxy), stream))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

#[derive(Debug)]
struct Proxy {
    identity: String,
    state: PathBuf,
    pools: BTreeMap<PoolName, Arc<Pool>>,
    /// One question at a time: two must not write the state file in one order and act in the other.
    turn: Mutex<()>,
}

async fn accept(listener: TcpListener, pool: Arc<Pool>, connections: Arc<Semaphore>) {
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let pool = Arc::clone(&pool);
        tokio::spawn(async move {
            converse_http(pool, stream, client).await;
            drop(permit);
        });
    }
}

async fn converse_http(pool: Arc<Pool>, stream: TcpStream, client: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let pool = Arc::clone(&pool);
        async move { Ok::<_, Infallible>(proxy::forward(pool, client, request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX);
    // A client that goes away is not an error anybody can act on.
    let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// Answers whoever opened the control socket, a line for a line.
async fn converse(proxy: Arc<Proxy>, stream: UnixStream) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        match (&mut stream).take(control::LINE_MAX).read_line(&mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let answer = match serde_json::from_str(&line) {
            Ok(ask) => proxy.answer(ask).await,
            Err(error) => Answer { error: Some(format!("not understood: {error}")), ..proxy.look() },
        };
        let Ok(line) = control::line(&answer) else { return };
        if stream.write_all(&line).await.is_err() {
            return;
        }
    }
}

impl Proxy {
    async fn answer(&self, ask: Ask) -> Answer {
        let _turn = self.turn.lock().await;
        let done = match ask {
            Ask::Look {} => Ok(()),
            Ask::Set { pools } => self.alter(|state| state.pools.extend(pools)).await,
            Ask::Divide { pool, split } => {
                self.alter(|state| match split {
                    Some(split) => drop(state.splits.insert(pool, split)),
                    None => drop(state.splits.remove(&pool)),
                })
                .await
            }
            Ask::Check { checks } => {
                for (name, checks) in checks {
                    self.pools.get(&name).into_iter().for_each(|pool| pool.check(checks.clone()));
                }
                Ok(())
            }
            Ask::Cut { pool, address } => {
                self.pools.get(&pool).into_iter().for_each(|pool| pool.cut(address));
                Ok(())
            }
        };
        Answer { error: done.err().map(|error| error.to_string()), ..self.look() }
    }

    /// On disk first: killed between the two, it comes back as it was told.
    async fn alter(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let before = State::read(&self.state)?;
        let mut state = before.clone();
        change(&mut state);
        if state != before {
            durable::replace(&self.state, serde_json::to_string_pretty(&state)?).await?;
        }
        for (name, pool) in &self.pools {
            pool.set(state.pools.get(name).unwrap_or(&BTreeMap::new()));
            pool.divide(state.splits.get(name));
        }
        Ok(())
    }

    fn look(&self) -> Answer {
        let (on_disk, error) = match State::read(&self.state) {
            Ok(state) => (state, None),
            Err(error) => (State::default(), Some(error.to_string())),
        };
        let splits = self.pools.iter().filter_map(|(name, pool)| Some((name.clone(), pool.divided()?)));
        Answer {
            identity: self.identity.clone(),
            pools: self.pools.iter().map(|(name, pool)| (name.clone(), pool.look())).collect(),
            on_disk: on_disk.pools,
            splits: Some(splits.collect()),
            splits_on_disk: on_disk.splits,
            checks: self.pools.iter().map(|(name, pool)| Some((name.clone(), pool.checks()?))).collect(),
            error,
        }
    }
}

/// Listens under another name first, so that nobody can connect before the mode is 0600.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
    fs::rename(&beside, path)?;
    Ok(listener)
}

/// Pid and start time; a reused pid has another start time.
fn identity() -> String {
    let started = procfs::process::Process::myself().and_then(|process| process.stat()).map(|stat| stat.starttime);
    format!("{}@{}", std::process::id(), started.unwrap_or_default())
}
