//! The agent's side of the built-in proxy: starts its process when it is not there, and tells it what to serve.

use super::check;
use super::control::{self, Answer, Ask, Checks, Divided, Told, Wish, Wishes};
use crate::balancer::conduct::Conductor;
use crate::balancer::decide;
use crate::balancer::driver::{Change, Driver, MemberSeen, PoolSeen, Remark, Seen, SplitSeen};
use crate::balancer::{Balancer, BuiltinConfig, problem};
use baton_core::fleet::ability::{BalancerAbility, SplitAbility};
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::{Side, TrafficSplit};
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use clap::ValueEnum as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// For one question and its answer.
const TIMEOUT: Duration = Duration::from_millis(400);

/// For a fresh process to open its control socket. When it takes longer, the next pass finds it.
const START_TIMEOUT: Duration = Duration::from_millis(500);

/// Between two starts: one that fails at once is not tried a hundred times a second.
const START_PAUSE: Duration = Duration::from_millis(500);

/// The end of the process's log, as evidence.
const LOG_TAIL: u64 = 400;

/// A log longer than this is begun anew at the next start.
const LOG_MAX: u64 = 1 << 20;

#[derive(Debug)]
struct Builtin {
    command: Vec<String>,
    pools: BTreeSet<PoolName>,
    control: PathBuf,
    log: PathBuf,
    /// Started by this agent; another agent before it may have started the one that answers.
    child: Option<Child>,
    started: Option<Instant>,
    identity: Option<String>,
    /// The process that answers was started by an agent from before splits, and goes on until it is restarted.
    is_old: bool,
    /// What was last seen of the pools, without the members the spec no longer names.
    wishes: Wishes,
}

/// Opens the driver.
///
/// # Errors
/// [`Problem`] when the agent's state folder cannot be written.
pub(in crate::balancer) fn open(config: BuiltinConfig, state: &Path) -> Result<Box<dyn Balancer>, Problem> {
    fs::create_dir_all(state).map_err(|error| problem::state_folder(state, &error))?;
    let control = config.control.unwrap_or_else(|| state.join("builtin.sock"));
    let mut command = match config.command {
        Some(command) => command,
        None => {
            let this = std::env::current_exe().map_err(|error| problem::state_folder(state, &error))?;
            vec![this.to_string_lossy().into_owned(), "balancer".to_owned()]
        }
    };
    let state_file = state.join("builtin.json");
    command.extend(["--control".to_owned(), control.to_string_lossy().into_owned()]);
    command.extend(["--state".to_owned(), state_file.to_string_lossy().into_owned()]);
    command.extend(config.listen.iter().flat_map(|(pool, address)| ["--listen".to_owned(), format!("{pool}@{address}")]));
    if let Some(balance) = config.balance.to_possible_value() {
        command.extend(["--balance".to_owned(), balance.get_name().to_owned()]);
    }
    command.extend(["--fall".to_owned(), config.fall.to_string()]);
    let builtin = Builtin {
        command,
        pools: config.listen.keys().cloned().collect(),
        control,
        log: state.join("builtin.log"),
        child: None,
        started: None,
        identity: None,
        is_old: false,
        wishes: Wishes::new(),
    };
    Ok(Box::new(Conductor::new(builtin)))
}

impl Driver for Builtin {
    async fn observe(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) -> Result<Seen, Problem> {
        let answer = match self.ask(&Ask::Look {}).await {
            Err(Silence::Nobody(_)) => self.start().await?,
            answer => answer.map_err(|silence| silence.problem(&self.control))?,
        };
        if self.identity.as_ref().is_some_and(|identity| *identity != answer.identity) {
            tracing::warn!(identity = %answer.identity, "the built-in balancer restarted");
        }
        self.identity = Some(answer.identity.clone());
        // What it is to ask its members changes nothing it serves, and is gone when it restarts.
        let news = news(pools, &answer);
        if !news.is_empty() {
            self.tell(&Ask::Check { checks: news }).await?;
        }
        self.is_old = answer.splits.is_none();
        let splits = pools.keys().filter_map(|name| Some((name.clone(), split_seen(name, &answer)?))).collect();
        let pools = pools.iter().map(|(name, spec)| (name.clone(), self.pool(name, spec, &answer)));
        Ok(Seen { identity: answer.identity.clone(), pools: pools.collect(), splits })
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), Problem> {
        let mut wishes = Wishes::new();
        for change in changes {
            let seen = self.wishes.get(&change.pool).cloned().unwrap_or_default();
            let pool = wishes.entry(change.pool.clone()).or_insert(seen);
            if change.wanted {
                pool.insert(change.address, Wish { state: change.state, weight: change.weight, side: change.side });
            }
            tracing::info!(pool = %change.pool, address = %change.address, state = ?change.state, "built-in balancer");
        }
        self.tell(&Ask::Set { pools: wishes }).await
    }

    async fn divide(&mut self, pool: &PoolName, split: Option<&TrafficSplit>) -> Result<(), Problem> {
        tracing::info!(%pool, split = %split.map(ToString::to_string).unwrap_or_default(), "built-in balancer");
        self.tell(&Ask::Divide { pool: pool.clone(), split: split.cloned() }).await
    }

    fn ability(&self) -> BalancerAbility {
        let split = if self.is_old { SplitAbility::None } else { SplitAbility::Everything };
        BalancerAbility { driver: "builtin".to_owned(), split, pools: Some(self.pools.clone()) }
    }

    async fn cut(&mut self, pool: &PoolName, address: SocketAddr) -> Result<(), Problem> {
        self.tell(&Ask::Cut { pool: pool.clone(), address }).await
    }
}

impl Builtin {
    fn pool(&mut self, name: &PoolName, spec: &PoolSpec, answer: &Answer) -> Result<PoolSeen, Problem> {
        let told = answer.pools.get(name).ok_or_else(|| {
            let help = "add it to `listen` of the agent's [balancer] table, and restart the balancer's process";
            problem::pool_unknown(name, format!("{help} ({})", answer.identity))
        })?;
        let nowhere = BTreeMap::new();
        let on_disk = answer.on_disk.get(name).unwrap_or(&nowhere);
        let named: BTreeSet<SocketAddr> = spec.members.values().map(|member| member.address).collect();
        let mut pool: PoolSeen = told.iter().map(|(address, told)| (*address, seen(told, on_disk.get(address)))).collect();
        for member in spec.members.values() {
            // A member the proxy never heard of is out, and needs nothing to stay out.
            pool.entry(member.address).or_insert_with(|| absent(member.weight, decide::side(spec, member)));
        }
        let wishes = told.iter().filter(|(address, _)| named.contains(address));
        self.wishes.insert(name.clone(), wishes.map(|(address, told)| (*address, told.wish)).collect());
        Ok(pool)
    }

    async fn tell(&self, ask: &Ask) -> Result<(), Problem> {
        let answer = self.ask(ask).await.map_err(|silence| silence.problem(&self.control))?;
        match answer.error {
            Some(error) => Err(problem::state_file(&self.control, &io::Error::other(error))),
            None => Ok(()),
        }
    }

    async fn ask(&self, ask: &Ask) -> Result<Answer, Silence> {
        match tokio::time::timeout(TIMEOUT, control::ask(&self.control, ask)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Silence::Nobody(error),
                io::ErrorKind::PermissionDenied => Silence::Denied(error),
                _ => Silence::Garbage(error),
            }),
            Err(_) => Err(Silence::Slow),
        }
    }

    /// Starts the process, detached, and waits a moment for it to answer.
    async fn start(&mut self) -> Result<Answer, Problem> {
        if self.started.is_some_and(|at| at.elapsed() < START_PAUSE) {
            return Err(self.not_starting("it ended, and is started again in a moment"));
        }
        self.started = Some(Instant::now());
        // Collects the one before, if it was ours and has ended.
        self.child.take().into_iter().for_each(|mut child| drop(child.try_wait()));
        self.child = Some(self.spawn().map_err(|error| self.not_starting(&error.to_string()))?);
        while self.started.is_some_and(|at| at.elapsed() < START_TIMEOUT) {
            match self.ask(&Ask::Look {}).await {
                Err(Silence::Nobody(_)) => {}
                answer => return answer.map_err(|silence| silence.problem(&self.control)),
            }
            if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
                return Err(self.not_starting(&status.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(self.not_starting("it does not open its control socket"))
    }

    fn spawn(&self) -> io::Result<Child> {
        let (program, arguments) = self.command.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
        let anew = fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_MAX);
        let log = File::options().create(true).append(!anew).write(true).truncate(anew).open(&self.log)?;
        // Its own process group: a Ctrl-C for the agent is not one for the traffic.
        Command::new(program)
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    }

    fn not_starting(&self, seen: &str) -> Problem {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = log.len().saturating_sub(usize::try_from(LOG_TAIL).unwrap_or_default());
        let tail = String::from_utf8_lossy(log.get(tail..).unwrap_or_default()).into_owned();
        problem::not_starting(&self.command.join(" "), &tail).saw("process", seen)
    }
}

/// Why the proxy did not answer.
enum Silence {
    Nobody(io::Error),
    Denied(io::Error),
    Garbage(io::Error),
    Slow,
}

impl Silence {
    fn problem(self, control: &Path) -> Problem {
        match self {
            Self::Nobody(error) => problem::socket_missing(control, &error),
            Self::Denied(error) => problem::socket_denied(control, &error),
            Self::Garbage(error) => problem::socket_garbage(control, &error.to_string()),
            Self::Slow => problem::socket_slow(control, TIMEOUT.as_millis()),
        }
    }
}

fn seen(told: &Told, on_disk: Option<&Wish>) -> MemberSeen {
    MemberSeen {
        told: told.wish.state,
        running: if told.is_kept_out { MemberState::Out } else { told.wish.state },
        on_disk: on_disk.map_or(MemberState::Out, |wish| wish.state),
        weight: (told.wish.weight, on_disk.map_or(told.wish.weight, |wish| wish.weight)),
        side: (told.wish.side, on_disk.map_or(told.wish.side, |wish| wish.side)),
        in_flight: told.in_flight,
        out_for: Duration::from_millis(told.out_for_ms),
        cut: told.cut,
        requests: told.requests,
        errors: told.errors,
        latency: told.latency.clone(),
        remark: told.down.clone().map_or(Remark::None, Remark::Down),
    }
}

/// The checks that the proxy does not know yet, of the pools it has.
fn news(pools: &BTreeMap<PoolName, PoolSpec>, answer: &Answer) -> Checks {
    let Some(known) = &answer.checks else { return Checks::new() };
    let wanted = pools.iter().map(|(name, spec)| {
        let members = spec.members.values().map(|member| (member.address, check::from_outside(&member.probe)));
        (name, members.collect::<BTreeMap<_, _>>())
    });
    let news = wanted.filter(|(name, checks)| known.get(*name).is_some_and(|known| known != checks));
    news.map(|(name, checks)| (name.clone(), checks)).collect()
}

fn split_seen(pool: &PoolName, answer: &Answer) -> Option<SplitSeen> {
    let running = answer.splits.as_ref().and_then(|splits| splits.get(pool));
    let on_disk = answer.splits_on_disk.get(pool).cloned();
    if running.is_none() && on_disk.is_none() {
        return None;
    }
    let count = |count: fn(&Divided) -> u64| running.map_or(0, count);
    Some(SplitSeen {
        running: running.map(|divided| divided.split.clone()),
        on_disk,
        stable: count(|divided| divided.stable),
        trial: count(|divided| divided.trial),
        ruled: count(|divided| divided.ruled),
    })
}

fn absent(weight: u16, side: Side) -> MemberSeen {
    let wish = Wish { state: MemberState::Out, weight, side };
    let told = Told {
        wish,
        in_flight: 0,
        out_for_ms: 0,
        cut: 0,
        requests: 0,
        errors: 0,
        latency: None,
        down: None,
        is_kept_out: false,
    };
    seen(&told, Some(&wish))
}
