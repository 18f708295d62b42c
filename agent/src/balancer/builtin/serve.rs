//! The proxy's process: its listeners, its control socket, its state file.

use super::Args;
use super::check;
use super::client::Reception;
use super::control::{self, Answer, Ask};
use super::members::{Pool, lock};
use super::state::State;
use super::takeover;
use super::tls::{self, Tls, TlsFiles};
use anyhow::Context;
use baton_core::name::PoolName;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Mutex, MutexGuard, Semaphore, watch};
use tokio::task::AbortHandle;

/// Client connections at once; with one connection to a member each, below the usual limit of open files.
const CONNECTIONS_MAX: usize = 8_000;

/// When accepting fails, for want of open files for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs the proxy until it is killed.
///
/// # Errors
/// A port or the control socket that cannot be had, or a state file that cannot be read.
pub async fn serve(args: Args) -> anyhow::Result<()> {
    let mut before = match args.take_over {
        true => Some(takeover::take(&args.control).await?),
        false => None,
    };
    let state = State::read(&args.state).with_context(|| format!("cannot read {}", args.state.display()))?;
    let mut files = files(args.certificate, args.key)?;
    let (leave, leaving) = watch::channel(false);
    let mut pools = BTreeMap::new();
    let mut listeners = BTreeMap::new();
    for (name, address) in args.listen {
        let listener = match before.as_mut().map(|before| before.port(&name, address)).transpose()?.flatten() {
            Some(taken) => taken,
            None => TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {name}"))?,
        };
        let pool = Arc::new(Pool::new(args.balance, NonZeroU32::new(args.fall)));
        pool.set(state.pools.get(&name).unwrap_or(&BTreeMap::new()));
        pool.divide(state.splits.get(&name));
        let tls = files.remove(&name).map(|files| Arc::new(Tls::new(files)));
        listeners.insert(name.clone(), Arc::new(listener));
        pools.insert(name, Reception { pool, tls, leaving: leaving.clone() });
    }
    if let Some(name) = files.keys().next() {
        anyhow::bail!("there is a certificate for {name}, and no --listen");
    }
    if let Some(before) = before {
        before.dismiss().await?;
    }
    // Ports first: a second proxy fails there, and does not take the control socket from the first.
    let control = bind(&args.control).with_context(|| format!("cannot listen on {}", args.control.display()))?;
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let ports = listeners.into_iter().filter_map(|(name, listener)| {
        let accepting = accept(Arc::clone(&listener), pools.get(&name)?.clone(), Arc::clone(&connections));
        Some(Port { name, listener, accepting: tokio::spawn(accepting).abort_handle() })
    });
    let ports = std::sync::Mutex::new(ports.collect());
    tokio::spawn(check::run(pools.values().map(|reception| Arc::clone(&reception.pool)).collect()));
    tokio::spawn(tls::run(pools.values().filter_map(|reception| reception.tls.clone()).collect()));
    let Args { control: path, state, edition, .. } = args;
    let proxy =
        Arc::new(Proxy { identity: identity(), edition, control: path, state, pools, ports, leave, turn: Mutex::default() });
    tokio::select! {
        () = listen(&proxy, control) => Ok(()),
        () = finished(&proxy, &connections) => Ok(crate::durable::remove(&takeover::left(&proxy.control))?),
    }
}

async fn listen(proxy: &Arc<Proxy>, control: UnixListener) {
    loop {
        match control.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(Arc::clone(proxy), stream))),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Comes back when it has left, and no client has anything more from it.
async fn finished(proxy: &Proxy, connections: &Semaphore) {
    let left = proxy.leave.subscribe().wait_for(|left| *left).await.is_ok();
    let all = connections.acquire_many(u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX)).await;
    // Nobody else has either end: whoever closes them has a mistake, and the process lives.
    if !left || all.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One process.
#[derive(Debug)]
pub(super) struct Proxy {
    identity: String,
    edition: String,
    control: PathBuf,
    state: PathBuf,
    pools: BTreeMap<PoolName, Reception>,
    /// One question at a time: two must not write the state file in one order and act in the other.
    turn: Mutex<()>,
    ports: std::sync::Mutex<Vec<Port>>,
    /// True once another process has the ports.
    leave: watch::Sender<bool>,
}

/// Where a pool listens.
#[derive(Debug)]
struct Port {
    name: PoolName,
    listener: Arc<TcpListener>,
    accepting: AbortHandle,
}

async fn accept(listener: Arc<TcpListener>, reception: Reception, connections: Arc<Semaphore>) {
    while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let reception = reception.clone();
        tokio::spawn(reception.receive(stream, client, permit));
    }
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
            Ok(Ask::HandOver {}) => {
                // Of no use to a client that vanished; what went on goes on.
                let _ = takeover::give(&proxy, &mut stream).await;
                return;
            }
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
    /// As long as it is held, nothing is changed.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Where each pool listens.
    pub(super) fn ports(&self) -> Vec<(PoolName, Arc<TcpListener>)> {
        lock(&self.ports).iter().map(|port| (port.name.clone(), Arc::clone(&port.listener))).collect()
    }

    /// Takes no more connections, and is asked under another name from now on.
    pub(super) fn leave(&self) -> io::Result<()> {
        fs::rename(&self.control, takeover::left(&self.control))?;
        lock(&self.ports).drain(..).for_each(|port| port.accepting.abort());
        self.leave.send_replace(true);
        Ok(())
    }

    async fn answer(&self, ask: Ask) -> Answer {
        let _turn = self.turn.lock().await;
        let done = match ask {
            // Handing over is a conversation of its own.
            Ask::Look {} | Ask::HandOver {} => Ok(()),
            Ask::Set { pools, seen } => {
                let now = self.look();
                let is_stale = seen.is_some_and(|seen| now.mark().ok() != Some(seen));
                if is_stale || now.error.is_some() {
                    return now;
                }
                let before = State { pools: now.on_disk, splits: now.splits_on_disk };
                self.alter(Ok(before), |state| state.pools.extend(pools)).await
            }
            Ask::Divide { pool, split } => {
                self.alter(State::read(&self.state), |state| match split {
                    Some(split) => drop(state.splits.insert(pool, split)),
                    None => drop(state.splits.remove(&pool)),
                })
                .await
            }
            Ask::Check { checks } => {
                for (name, checks) in checks {
                    self.pools.get(&name).into_iter().for_each(|it| it.pool.check(checks.clone()));
                }
                Ok(())
            }
            Ask::Cut { pool, address } => {
                self.pools.get(&pool).into_iter().for_each(|it| it.pool.cut(address));
                Ok(())
            }
        };
        Answer { error: done.err().map(|error| error.to_string()), ..self.look() }
    }

    /// On disk first: killed between the two, it comes back as it was told.
    async fn alter(&self, before: io::Result<State>, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let before = before?;
        let mut state = before.clone();
        change(&mut state);
        // The file is its successor's.
        if state != before && !*self.leave.borrow() {
            state.write(&self.state).await?;
        }
        for (name, Reception { pool, .. }) in &self.pools {
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
        let pools = || self.pools.iter().map(|(name, reception)| (name.clone(), &reception.pool));
        let certificates = self.pools.iter().filter_map(|(name, it)| Some((name.clone(), it.tls.as_ref()?.look())));
        Answer {
            identity: self.identity.clone(),
            edition: Some(self.edition.clone()),
            is_leaving: *self.leave.borrow(),
            pools: pools().map(|(name, pool)| (name, pool.look())).collect(),
            on_disk: on_disk.pools,
            splits: Some(pools().filter_map(|(name, pool)| Some((name, pool.divided()?))).collect()),
            splits_on_disk: on_disk.splits,
            checks: pools().map(|(name, pool)| Some((name, pool.checks()?))).collect(),
            certificates: certificates.collect(),
            error,
        }
    }
}

/// The files of each pool that has both.
fn files(
    certificates: Vec<(PoolName, PathBuf)>,
    keys: Vec<(PoolName, PathBuf)>,
) -> anyhow::Result<BTreeMap<PoolName, TlsFiles>> {
    let mut keys: BTreeMap<_, _> = keys.into_iter().collect();
    let pairs = certificates.into_iter().map(|(pool, certificate)| {
        let key = keys.remove(&pool).with_context(|| format!("there is a certificate for {pool}, and no --key"))?;
        Ok((pool, TlsFiles { certificate, key }))
    });
    pairs.collect()
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

#[cfg(test)]
mod tests {
    use super::super::control::{Wish, Wishes};
    use super::*;
    use baton_core::fleet::spec::MemberState::{self, Out, Ready};
    use baton_core::fleet::split::Side;

    /// A proxy with one pool and no port.
    fn proxy(folder: &Path) -> Proxy {
        let (leave, leaving) = watch::channel(false);
        let reception = Reception { pool: Arc::default(), tls: None, leaving };
        Proxy {
            identity: "1@1".to_owned(),
            edition: String::new(),
            control: folder.join("builtin.sock"),
            state: folder.join("builtin.json"),
            pools: BTreeMap::from([("shop".parse().unwrap(), reception)]),
            turn: Mutex::default(),
            ports: std::sync::Mutex::default(),
            leave,
        }
    }

    fn wishes(states: [MemberState; 2]) -> Wishes {
        let wish = |state| Wish { state, weight: 1, side: Side::Stable };
        let members = (1..).zip(states).map(|(port, state)| (([127, 0, 0, 1], port).into(), wish(state)));
        BTreeMap::from([("shop".parse().unwrap(), members.collect())])
    }

    #[tokio::test]
    async fn what_was_decided_by_a_look_that_is_no_longer_so_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let proxy = proxy(folder.path());
        let set = |states, seen| proxy.answer(Ask::Set { pools: wishes(states), seen });
        let told = |answer: &Answer| (answer.wishes(&"shop".parse().unwrap()), answer.error.clone());
        let first = set([Ready, Ready], None).await;
        let seen = first.mark().unwrap();
        // Only counted: the same look.
        let pool = &proxy.pools.values().next().unwrap().pool;
        let lease = pool.lease(&[], None).unwrap();
        assert_eq!(proxy.answer(Ask::Look {}).await.mark().unwrap(), seen);
        drop(lease);
        // Somebody else was there in between.
        let second = set([Out, Ready], None).await;
        let refused = set([Ready, Out], Some(seen)).await;
        assert_eq!((told(&refused), &refused.on_disk), (told(&second), &wishes([Out, Ready])));
        let done = set([Ready, Out], Some(second.mark().unwrap())).await;
        assert_eq!(
            (&done.on_disk, done.wishes(&"shop".parse().unwrap())),
            (&wishes([Ready, Out]), wishes([Ready, Out]).into_values().next().unwrap())
        );
    }

    #[tokio::test]
    async fn nothing_is_written_over_a_state_file_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let proxy = proxy(folder.path());
        fs::write(&proxy.state, "garbage").unwrap();
        fs::write(proxy.state.with_file_name("builtin.json.2"), "garbage").unwrap();
        let answer = proxy.answer(Ask::Set { pools: wishes([Ready, Ready]), seen: None }).await;
        assert!(answer.error.is_some() && answer.pools.values().all(BTreeMap::is_empty), "{answer:?}");
        assert_eq!(fs::read(&proxy.state).unwrap(), b"garbage");
    }
}
