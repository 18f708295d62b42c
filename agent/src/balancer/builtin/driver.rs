//! The agent's side of the built-in proxy: starts its process when it is not there, and tells it what to serve.

use super::check;
use super::control::{self, Answer, Ask, Certified, Checks, Divided, Told, Wish, Wishes};
use super::generations::{self, Leaving};
use crate::balancer::conduct::Conductor;
use crate::balancer::decide;
use crate::balancer::drift::Settled;
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
use std::os::unix::fs::MetadataExt;
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

/// Between two tries to put another process in the place of one that serves: nobody waits for it.
const REPLACE_PAUSE: Duration = Duration::from_secs(30);

/// An answer to what was told is a look, too: the next one of the same pass needs no question of its own.
const SAME_PASS: Duration = Duration::from_millis(5);

/// Letters of an edition's name.
const EDITION: usize = 16;

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
    children: Vec<Child>,
    started: Option<Instant>,
    identity: Option<String>,
    /// The process that answers was started by an agent from before splits, and goes on until it is restarted.
    is_old: bool,
    /// How it was right after it was told something.
    answered: Option<(Instant, Answer)>,
    /// Of what was last seen, and who was named then, with what each is to be asked.
    mark: Option<String>,
    named: Checks,
    /// This program with these arguments.
    edition: String,
    /// When another edition was last to be replaced, and why it was not.
    replaced: Option<(Instant, Option<Problem>)>,
    leaving: Leaving,
    /// Requests cut at processes that finish, since their member went out: those do not live to tell.
    cut: BTreeMap<(PoolName, SocketAddr), u64>,
    /// What was last seen of the pools, without the members the spec no longer names.
    wishes: Wishes,
    notes: Vec<Problem>,
}

/// Opens the driver.
///
/// # Errors
/// [`Problem`] when the agent's state folder cannot be written.
pub(in crate::balancer) fn open(config: BuiltinConfig, state: &Path) -> Result<Box<dyn Balancer>, Problem> {
    if let Some(pool) = config.tls.keys().find(|pool| !config.listen.contains_key(*pool)) {
        return Err(problem::pool_unknown(
            pool,
            "add it to `listen` of the agent's [balancer] table, or take it out of `tls`".to_owned(),
        ));
    }
    fs::create_dir_all(state).map_err(|error| problem::state_folder(state, &error))?;
    let settled = Settled::open(config.drift, state.join("drift.json"));
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
    for (pool, files) in &config.tls {
        command.extend(["--certificate".to_owned(), format!("{pool}@{}", files.certificate.display())]);
        command.extend(["--key".to_owned(), format!("{pool}@{}", files.key.display())]);
    }
    if let Some(balance) = config.balance.to_possible_value() {
        command.extend(["--balance".to_owned(), balance.get_name().to_owned()]);
    }
    command.extend(["--fall".to_owned(), config.fall.to_string()]);
    let edition = edition(&command);
    command.extend(["--edition".to_owned(), edition.clone()]);
    let builtin = Builtin {
        command,
        pools: config.listen.keys().cloned().collect(),
        control,
        log: state.join("builtin.log"),
        children: Vec::new(),
        started: None,
        identity: None,
        is_old: false,
        answered: None,
        mark: None,
        named: Checks::new(),
        edition,
        replaced: None,
        leaving: Leaving::default(),
        cut: BTreeMap::new(),
        wishes: Wishes::new(),
        notes: Vec::new(),
    };
    Ok(Box::new(Conductor::new(builtin, settled)))
}

impl Driver for Builtin {
    async fn observe(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) -> Result<Seen, Problem> {
        let mut answer = match self.answered.take().filter(|(at, _)| at.elapsed() < SAME_PASS) {
            Some((_, answer)) => answer,
            None => match ask(&self.control, &Ask::Look {}).await {
                Err(Silence::Nobody(_)) => self.start().await?,
                answer => self.up_to_date(answer.map_err(|silence| silence.problem(&self.control))?).await,
            },
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
        self.mark = answer.mark().ok();
        self.named = named(pools);
        self.leaving = generations::gather(&self.control, &mut answer).await?;
        self.notes = answer.certificates.iter().filter_map(|(pool, certified)| note(pool, certified)).collect();
        self.notes.extend(self.replaced.iter().filter_map(|(_, problem)| problem.clone()));
        let splits = pools.keys().filter_map(|name| Some((name.clone(), split_seen(name, &answer)?))).collect();
        let pools = pools.iter().map(|(name, spec)| (name.clone(), self.pool(name, spec, &answer)));
        Ok(Seen { identity: answer.identity.clone(), pools: pools.collect(), splits })
    }

    /// In one exchange where nothing has changed since: what was decided holds then.
    async fn observe_before(&mut self, pools: &BTreeMap<PoolName, PoolSpec>, likely: &[Change]) -> Result<Seen, Problem> {
        // What is known of a pool is known of the members it had then; and what they are asked goes before who comes in.
        let same = !likely.is_empty() && self.leaving.controls.is_empty() && named(pools) == self.named;
        if let Some(seen) = self.mark.take().filter(|_| same) {
            self.answered = None;
            let wishes = self.wishes_with(likely);
            let set = Ask::Set { pools: wishes.clone(), seen: Some(seen) };
            // What fails here is decided anew.
            if let Ok(answer) = ask(&self.control, &set).await
                && answer.error.is_none()
            {
                if wishes.iter().all(|(pool, wishes)| answer.wishes(pool) == *wishes) {
                    log(likely);
                }
                self.answered = Some((Instant::now(), self.up_to_date(answer).await));
            }
        }
        self.observe(pools).await
    }

    fn acts_if_unchanged(&self) -> bool {
        true
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), Problem> {
        let pools = self.wishes_with(changes);
        log(changes);
        self.tell(&Ask::Set { pools, seen: None }).await
    }

    async fn divide(&mut self, pool: &PoolName, split: Option<&TrafficSplit>) -> Result<(), Problem> {
        tracing::info!(%pool, split = %split.map(ToString::to_string).unwrap_or_default(), "built-in balancer");
        self.tell(&Ask::Divide { pool: pool.clone(), split: split.cloned() }).await
    }

    fn ability(&self) -> BalancerAbility {
        let split = if self.is_old { SplitAbility::None } else { SplitAbility::Everything };
        BalancerAbility {
            driver: "builtin".to_owned(),
            split,
            pools: Some(self.pools.clone()),
            ..BalancerAbility::default()
        }
    }

    async fn cut(&mut self, pool: &PoolName, address: SocketAddr) -> Result<(), Problem> {
        *self.cut.entry((pool.clone(), address)).or_default() += self.leaving.in_flight(pool, address);
        self.tell(&Ask::Cut { pool: pool.clone(), address }).await
    }

    fn notes(&self) -> Vec<Problem> {
        self.notes.clone()
    }
}

impl Builtin {
    /// The pools that change, whole.
    fn wishes_with(&self, changes: &[Change]) -> Wishes {
        let mut wishes = Wishes::new();
        for change in changes {
            let seen = self.wishes.get(&change.pool).cloned().unwrap_or_default();
            let pool = wishes.entry(change.pool.clone()).or_insert(seen);
            if change.wanted {
                pool.insert(change.address, Wish { state: change.state, weight: change.weight, side: change.side });
            }
        }
        wishes
    }

    fn pool(&mut self, name: &PoolName, spec: &PoolSpec, answer: &Answer) -> Result<PoolSeen, Problem> {
        let told = answer.pools.get(name).ok_or_else(|| {
            let help = "add it to `listen` of the agent's [balancer] table, and restart the agent";
            problem::pool_unknown(name, format!("{help} ({})", answer.identity))
        })?;
        if let Some(problem) = answer.certificates.get(name).and_then(|certified| unserved(name, certified)) {
            return Err(problem);
        }
        let nowhere = BTreeMap::new();
        let on_disk = answer.on_disk.get(name).unwrap_or(&nowhere);
        let named: BTreeSet<SocketAddr> = spec.members.values().map(|member| member.address).collect();
        let mut pool: PoolSeen = told.iter().map(|(address, told)| (*address, seen(told, on_disk.get(address)))).collect();
        for (address, there) in &mut pool {
            let cut = self.cut.entry((name.clone(), *address)).or_default();
            match there.told {
                MemberState::Out => there.cut += *cut,
                MemberState::Ready | MemberState::Drain => *cut = 0,
            }
        }
        for member in spec.members.values() {
            // A member the proxy never heard of is out, and needs nothing to stay out.
            pool.entry(member.address).or_insert_with(|| absent(member.weight, decide::side(spec, member)));
        }
        let wishes = told.iter().filter(|(address, _)| named.contains(address));
        self.wishes.insert(name.clone(), wishes.map(|(address, told)| (*address, told.wish)).collect());
        Ok(pool)
    }

    /// Tells the process that serves, which writes it down, and then those that finish.
    async fn tell(&mut self, told: &Ask) -> Result<(), Problem> {
        self.answered = None;
        let answer = tell(&self.control, told).await?;
        for leaving in &self.leaving.controls {
            if let Err(problem) = tell(leaving, told).await
                && leaving.exists()
            {
                return Err(problem);
            }
        }
        self.answered = Some((Instant::now(), answer));
        Ok(())
    }

    /// Puts this edition in the place of another that serves, by way of its ports; when that fails, the other one goes on.
    async fn up_to_date(&mut self, serving: Answer) -> Answer {
        match &serving.edition {
            Some(edition) if *edition != self.edition => {}
            // One that cannot hand its ports over serves until somebody restarts it.
            _ => {
                self.replaced = None;
                return serving;
            }
        }
        if self.replaced.as_ref().is_some_and(|(at, _)| at.elapsed() < REPLACE_PAUSE) {
            return serving;
        }
        let (outcome, problem) = match self.launch(&["--take-over".to_owned()], |now| now.identity != serving.identity).await
        {
            Ok(answer) => {
                tracing::info!(from = %serving.identity, to = %answer.identity, "the built-in balancer took over its own ports");
                self.identity = Some(answer.identity.clone());
                (answer, None)
            }
            Err(problem) => (serving, Some(problem::not_replaced(&problem))),
        };
        self.replaced = Some((Instant::now(), problem));
        outcome
    }

    /// Starts the process, detached, and waits a moment for it to answer.
    async fn start(&mut self) -> Result<Answer, Problem> {
        if self.started.is_some_and(|at| at.elapsed() < START_PAUSE) {
            return Err(self.not_starting("it ended, and is started again in a moment"));
        }
        self.started = Some(Instant::now());
        self.launch(&[], |_| true).await
    }

    /// Starts a process, and waits a moment until it is the one that answers.
    async fn launch(&mut self, more: &[String], is_it: impl Fn(&Answer) -> bool) -> Result<Answer, Problem> {
        let began = Instant::now();
        // Collects those before that were ours and have ended.
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let child = self.spawn(more).map_err(|error| self.not_starting(&error.to_string()))?;
        self.children.push(child);
        while began.elapsed() < START_TIMEOUT {
            match ask(&self.control, &Ask::Look {}).await {
                Ok(answer) if is_it(&answer) => return Ok(answer),
                // The one before answers, or is just handing over.
                Ok(_) | Err(Silence::Nobody(_) | Silence::Slow) => {}
                Err(silence) => return Err(silence.problem(&self.control)),
            }
            if let Some(Ok(Some(status))) = self.children.last_mut().map(Child::try_wait) {
                return Err(self.not_starting(&status.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(self.not_starting("it does not open its control socket"))
    }

    fn spawn(&self, more: &[String]) -> io::Result<Child> {
        let (program, arguments) = self.command.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
        let anew = fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_MAX);
        let log = File::options().create(true).append(!anew).write(true).truncate(anew).open(&self.log)?;
        // Its own process group: a Ctrl-C for the agent is not one for the traffic.
        Command::new(program)
            .args(arguments)
            .args(more)
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

fn named(pools: &BTreeMap<PoolName, PoolSpec>) -> Checks {
    let members =
        |spec: &PoolSpec| spec.members.values().map(|member| (member.address, check::from_outside(&member.probe))).collect();
    pools.iter().map(|(name, spec)| (name.clone(), members(spec))).collect()
}

fn log(changes: &[Change]) {
    for Change { pool, address, state, .. } in changes {
        tracing::info!(%pool, %address, ?state, "built-in balancer");
    }
}

/// Asks one process.
pub(super) async fn ask(control: &Path, question: &Ask) -> Result<Answer, Silence> {
    match tokio::time::timeout(TIMEOUT, control::ask(control, question)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Silence::Nobody(error),
            io::ErrorKind::PermissionDenied => Silence::Denied(error),
            _ => Silence::Garbage(error),
        }),
        Err(_) => Err(Silence::Slow),
    }
}

/// Tells one process something.
pub(super) async fn tell(control: &Path, told: &Ask) -> Result<Answer, Problem> {
    let answer = ask(control, told).await.map_err(|silence| silence.problem(control))?;
    match &answer.error {
        Some(error) => Err(problem::state_file(control, &io::Error::other(error.clone()))),
        None => Ok(answer),
    }
}

/// What a process is of: the very file of its program, and its arguments.
fn edition(command: &[String]) -> String {
    let file = command.first().and_then(|program| fs::metadata(program).ok());
    let file = file.map(|file| (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
    blake3::hash(format!("{file:?} {command:?}").as_bytes()).to_hex().chars().take(EDITION).collect()
}

/// Why the proxy did not answer.
pub(super) enum Silence {
    Nobody(io::Error),
    Denied(io::Error),
    Garbage(io::Error),
    Slow,
}

impl Silence {
    pub(super) fn problem(self, control: &Path) -> Problem {
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
        oldest: told.oldest_ms.map(Duration::from_millis),
        out_for: Duration::from_millis(told.out_for_ms),
        cut: told.cut,
        requests: told.requests,
        errors: told.errors,
        latency: told.latency.clone(),
        remark: told.down.clone().map_or(Remark::None, Remark::Down),
    }
}

/// Of a pool whose certificate was never one that could be served: no client gets in.
fn unserved(pool: &PoolName, certified: &Certified) -> Option<Problem> {
    let wrong = certified.wrong.as_deref().unwrap_or_default();
    (!certified.is_served).then(|| problem::no_certificate(pool, wrong))
}

/// Of a pool that is served with the certificate from before.
fn note(pool: &PoolName, certified: &Certified) -> Option<Problem> {
    let wrong = certified.wrong.as_deref().filter(|_| certified.is_served)?;
    Some(problem::old_certificate(pool, wrong))
}

/// The checks that the proxy does not know yet, of the pools it has.
fn news(pools: &BTreeMap<PoolName, PoolSpec>, answer: &Answer) -> Checks {
    let Some(known) = &answer.checks else { return Checks::new() };
    let is_new = |(name, checks): &(PoolName, _)| known.get(name).is_some_and(|known| known != checks);
    named(pools).into_iter().filter(is_new).collect()
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
        oldest_ms: None,
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
