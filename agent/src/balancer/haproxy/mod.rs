//! HAProxy through its runtime socket.
//!
//! Adopts the backend named like the pool, and of it only the servers whose addresses the spec names. Order and gotchas are
//! the measured ones: state in its file before the change, and on disk before anybody hears of it; out is `maint`, never
//! `drain`; back in only from `maint`, and only after the member answered from here; nothing is believed before it is read
//! back; a zero counts only when every generation of the process says zero. A restart that forgot is seen by the process's
//! identity and by what it says, and the next pass sets it right.
//!
//! What it needs in haproxy.cfg stands in `agent/examples/haproxy.cfg`.

mod declared;
mod family;
mod fields;
mod generations;
mod hearing;
mod kin;
mod line;
mod look;
mod maps;
mod merge;
mod row;
mod since;
mod socket;
mod state_file;
mod text;
mod unanswered;
mod way;

use super::conduct::Conductor;
use super::drift::Settled;
use super::driver::{Change, Driver, Seen};
use super::journal::{self, Journal};
use super::requests::Requests;
use super::{Balancer, HaproxyConfig, problem};
use baton_core::fleet::ability::BalancerAbility;
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::{Side, TrafficSplit};
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use declared::Declared;
use family::Family;
use hearing::Hearing;
use look::{Look, Servers};
use maps::Maps;
use row::Row;
use since::Since;
use state_file::{Ready, StateFile};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use text::{Stat, Workers};
use unanswered::Unanswered;
use way::Ways;

/// A server: its backend's name and its address.
type Place = (String, SocketAddr);

/// A look, and what was asked elsewhere at that time: its master of its workers, and since when its requests are counted.
type Answer = (Look, Beside);
type Beside = (Option<Result<Workers, Problem>>, Option<String>);

/// How often the whole of HAProxy is listed and not only our backends: for other ways to a member.
const SURVEY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Haproxy {
    config: HaproxyConfig,
    journal: Journal,
    /// The process seen last.
    identity: Option<String>,
    /// What was last seen of our servers: which lines to write, which names to call.
    servers: BTreeMap<Place, Row>,
    /// The numbers of the pools' backends in that process.
    ids: BTreeMap<String, String>,
    /// The backends that were asked for last.
    backends: Vec<String>,
    /// What was read back when something was told to it, and the servers that were taken out by that.
    read_back: Option<Answer>,
    went_out: BTreeSet<String>,
    /// Backends whose algorithm sends requests by a map that may have room for the weights of haproxy.cfg and no more: a HAProxy that
    /// starts with a larger one from its state file writes past its end, and dies.
    mapped: BTreeSet<String>,
    since: Since,
    /// Since when they are out.
    outs: BTreeMap<Place, Instant>,
    /// How long the process that was looked at last has been there.
    lived: Duration,
    /// What was answered when they were last told something.
    complaints: BTreeMap<Place, String>,
    /// The state file as it will most likely be next.
    ready: Option<Ready>,
    /// Whether a power cut could bring the state file before back.
    unsettled: bool,
    /// Servers that came back in although the file says out.
    ignored: BTreeSet<Place>,
    /// Servers that are not in maintenance, of any backend, and when they were listed.
    survey: Option<(Instant, Servers)>,
    /// What haproxy.cfg was prepared for, and what its maps say.
    maps: Maps,
    /// The servers that haproxy.cfg has, as they were listed last.
    declared: Declared,
    ways: Ways,
    /// What it says of its requests, or why that is not heard. None: it is not asked to.
    requests: Option<Result<Requests<Family>, Problem>>,
    /// The process whose family is believed.
    believed: Option<String>,
    hearing: Hearing,
    unanswered: Unanswered,
}

/// # Errors
/// [`Problem`] when a socket is none of a file system, or requests are logged from elsewhere.
pub(super) fn check(config: &HaproxyConfig) -> Result<(), Problem> {
    let sockets = [Some(&config.socket), config.master_socket.as_ref()];
    match sockets.into_iter().flatten().find(|path| !path.is_absolute()) {
        Some(path) => Err(problem::no_unix_socket(path)),
        None => hearing::check(config.requests),
    }
}

/// Opens the driver, after its [`check`].
///
/// # Errors
/// [`Problem`] when the agent's state folder cannot be written.
pub(super) fn open(config: HaproxyConfig, state: &Path) -> Result<Box<dyn Balancer>, Problem> {
    std::fs::create_dir_all(state).map_err(|error| problem::state_folder(state, &error))?;
    // Whoever died between putting the file and settling it has nobody else to wait for the disk. That it is not there is said later.
    let _ = crate::durable::sync_folder(&config.state_file);
    let settled = Settled::open(config.drift, state.join("drift.json"));
    let maps = Maps::new(config.maps.clone());
    let mut haproxy = Haproxy {
        config,
        journal: Journal::open(state.join("haproxy.json")),
        identity: None,
        servers: BTreeMap::new(),
        ids: BTreeMap::new(),
        backends: Vec::new(),
        read_back: None,
        went_out: BTreeSet::new(),
        mapped: BTreeSet::new(),
        since: Since::open(state.join("haproxy-splits.json")),
        outs: BTreeMap::new(),
        lived: Duration::ZERO,
        complaints: BTreeMap::new(),
        ready: None,
        unsettled: false,
        ignored: BTreeSet::new(),
        survey: None,
        maps,
        declared: Declared::new(),
        ways: Ways::default(),
        requests: None,
        believed: None,
        hearing: Hearing::default(),
        unanswered: Unanswered::open(state.join("haproxy-unanswered.json")),
    };
    // From the first request on that a HAProxy answers which starts now.
    haproxy.listen();
    Ok(Box::new(Conductor::new(haproxy, settled)))
}

impl Driver for Haproxy {
    async fn observe(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) -> Result<Seen, Problem> {
        if self.unsettled {
            state_file::settle(&self.config.state_file).await?;
            self.unsettled = false;
        }
        let survey_due = self.survey.as_ref().is_none_or(|(at, _)| at.elapsed() >= SURVEY);
        self.backends = self.backends_of(pools);
        let answer = match self.read_back.take().filter(|(look, _)| !look.calls_idle(&self.went_out)) {
            Some((look, beside)) => (Ok(look), beside),
            // All at once. A new worker that answers is none of those its master had before; whoever is replaced right after it
            // answered is seen the next time, as if it had answered a moment earlier.
            None => {
                let look = Look::take(&self.config.socket, self.backends.clone(), &self.ids, survey_due);
                let mut wanted = pools.values().flat_map(|spec| spec.members.values());
                let any_out = wanted.any(|member| member.state != MemberState::Ready);
                tokio::join!(look, self.beside(any_out))
            }
        };
        let (look, beside) = answer;
        match look {
            // What another process listed is not what this one has, nor are its backends' numbers or its maps.
            Ok(look) if self.identity.as_ref() != Some(&look.process.identity()) => {
                self.maps.learn(&self.config.socket).await?;
                // Pools that are prepared have a second backend.
                self.backends = self.backends_of(pools);
                let look = Look::take(&self.config.socket, self.backends.clone(), &BTreeMap::new(), true).await?;
                self.take_in(pools, look, (None, beside.1)).await
            }
            Ok(look) => self.take_in(pools, look, beside).await,
            Err(problem) => {
                self.hold_out_on_disk(pools).await;
                Err(problem)
            }
        }
    }

    async fn observe_before(&mut self, pools: &BTreeMap<PoolName, PoolSpec>, likely: &[Change]) -> Result<Seen, Problem> {
        self.ways.begin_pass();
        self.read_back = None;
        let path = self.config.state_file.clone();
        let likely = self.all_rows(likely);
        let file = StateFile::read(&path).ok().and_then(|file| file.changed(self.lines(&likely)));
        let ready = self.ready.take().filter(|ready| file.as_ref().is_some_and(|file| ready.is(file)));
        let prepare = async {
            match ready {
                Some(ready) => Some(ready),
                None => file?.prepare(&path).await,
            }
        };
        let (ready, seen) = tokio::join!(prepare, self.observe(pools));
        self.ready = ready;
        seen
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), Problem> {
        let rows = self.ways.free(self.all_rows(changes), &self.servers);
        let out = changes.iter().filter(|change| change.state == MemberState::Out).map(|change| change.address);
        let out: BTreeSet<SocketAddr> = out.collect();
        self.journal
            .update(|pools| {
                for (change, row) in &rows {
                    let entry = pools.entry(change.pool.clone()).or_default().entry(change.address).or_default();
                    if out.contains(&change.address) && row.told() != MemberState::Out {
                        entry.cut = 0;
                    }
                }
            })
            .await?;
        let path = self.config.state_file.clone();
        let file = StateFile::read(&path)?.changed(self.lines(&rows));
        if let Some(file) = &file {
            file.put(&path, self.ready.take()).await?;
        }
        let goes = |(change, row): &&(Change, Row)| change.state == MemberState::Out && row.told() != MemberState::Out;
        self.went_out = rows.iter().filter(goes).map(|(_, row)| row.name()).collect();
        let commands: Vec<(Place, String)> = rows
            .iter()
            .flat_map(|(change, row)| {
                commands(change, row).into_iter().map(|text| ((row.backend().to_owned(), change.address), text))
            })
            .collect();
        self.unsettled |= file.is_some();
        // Only a power cut can bring the file before back, and that takes the running HAProxy as well: nobody has been told of the
        // change by then, so what it was before is what everybody goes by.
        let unsettled = self.unsettled;
        let settled = async { if unsettled { state_file::settle(&path).await } else { Ok(()) } };
        let (told, settled) = tokio::join!(self.tell(&commands), settled);
        self.unsettled = settled.is_err();
        told.and(settled)
    }

    async fn divide(&mut self, pool: &PoolName, split: Option<&TrafficSplit>) -> Result<(), Problem> {
        // What was read back is older than what follows from the new maps.
        self.read_back = None;
        tracing::info!(%pool, split = %split.map(ToString::to_string).unwrap_or_default(), "haproxy");
        self.since.begin(pool).await?;
        self.maps.divide(&self.config.socket, pool, split).await
    }

    fn ability(&self) -> BalancerAbility {
        let (split, pools) = (self.maps.ability(), self.maps.pools());
        BalancerAbility { driver: "haproxy".to_owned(), split, pools, servers: self.declared.clone() }
    }

    fn notes(&self) -> Vec<Problem> {
        self.unheard()
    }

    async fn survey(&mut self) {
        self.hearing = Hearing::default();
        // Nobody answers: there is nothing to say, and nothing is asked of it either.
        let _ = self.maps.learn(&self.config.socket).await;
        if let Ok(listing) = socket::ask(&self.config.socket, &[declared::LIST]).await {
            self.declared = declared::read(&listing.concat());
        }
    }

    async fn cut(&mut self, pool: &PoolName, address: SocketAddr) -> Result<(), Problem> {
        let of_pool = [pool.to_string(), trial(pool)].map(|backend| self.servers.get(&(backend, address)).cloned());
        let mut cut: u64 = 0;
        for row in of_pool.into_iter().flatten() {
            let commands = ["show stat -1 4 -1".to_owned(), format!("shutdown sessions server {}", row.name())];
            let blocks = socket::ask(&self.config.socket, &commands).await?;
            let stats = blocks.first().and_then(|block| Stat::parse_all(block)).unwrap_or_default();
            let here =
                stats.iter().filter(|stat| (stat.text("pxname"), stat.text("svname")) == (row.backend(), row.server()));
            let here = here.map(|stat| stat.number("scur")).sum::<u64>();
            self.unanswered.cut(row.backend(), here).await?;
            cut += here;
        }
        if let (Some(master), Some(pid)) = (&self.config.master_socket, self.pid()) {
            let old = generations::old(master, generations::workers(master).await?, pid).await?;
            cut += generations::cut(master, &old, address).await?;
        }
        let counted = |pools: &mut journal::Pools| {
            pools.entry(pool.clone()).or_default().entry(address).or_default().cut += cut;
        };
        self.journal.update(counted).await
    }
}

impl Haproxy {
    /// The backends of the pools; a pool whose requests may be divided has a second one for the members on trial.
    fn backends_of(&self, pools: &BTreeMap<PoolName, PoolSpec>) -> Vec<String> {
        let names = |pool: &PoolName| {
            let second = self.maps.is_prepared(pool).then(|| trial(pool));
            std::iter::once(pool.to_string()).chain(second)
        };
        pools.keys().flat_map(names).collect()
    }

    /// What its master says of its workers, where one from before a reload matters (as far as is known before the look, or somebody is to
    /// go out), and since when requests are counted.
    async fn beside(&self, any_out: bool) -> Beside {
        let any_out = any_out || self.servers.values().any(|row| row.told() != MemberState::Ready);
        let workers = async {
            match &self.config.master_socket {
                Some(master) if any_out => Some(generations::workers(master).await),
                _ => None,
            }
        };
        let begun = async { self.requests.as_ref()?.as_ref().ok()?.begun_meanwhile().await };
        tokio::join!(workers, begun)
    }

    /// The servers a change is made of: on its side as it says, and out on the other one, in this order.
    fn rows(&self, change: &Change) -> Vec<(Change, Row)> {
        let sides = [change.pool.to_string(), trial(&change.pool)];
        let [own, other] = if change.side == Side::Trial { [1, 0] } else { [0, 1] };
        let row = |side: usize| self.servers.get(&(sides.get(side)?.clone(), change.address)).cloned();
        let own = row(own).map(|row| (change.clone(), row));
        let other = row(other).filter(|_| change.side == Side::Trial || self.maps.is_prepared(&change.pool));
        let out = |row: Row| (Change { state: MemberState::Out, weight: row.weight(), ..change.clone() }, row);
        own.into_iter().chain(other.map(out)).collect()
    }

    fn all_rows(&self, changes: &[Change]) -> Vec<(Change, Row)> {
        changes.iter().flat_map(|change| self.rows(change)).collect()
    }

    /// Their lines in the state file. A weight that HAProxy may not take at run time stands there only once it runs with it, and until
    /// the next pass that is said of the member (B0410); where it is in does not hang on that.
    fn lines(&self, rows: &[(Change, Row)]) -> Vec<Row> {
        let weight =
            |change: &Change, row: &Row| if self.mapped.contains(row.backend()) { row.weight() } else { change.weight };
        rows.iter().map(|(change, row)| row.with(change.state, weight(change, row))).collect()
    }

    fn pid(&self) -> Option<u32> {
        self.identity.as_deref()?.split('@').next()?.parse().ok()
    }

    /// Tells it, and reads back what it makes of that: one process answers both.
    async fn tell(&mut self, commands: &[(Place, String)]) -> Result<(), Problem> {
        if commands.is_empty() {
            return Ok(());
        }
        let path = &self.config.socket;
        let mut lines: Vec<String> = commands.iter().map(|(_, line)| line.clone()).collect();
        lines.extend(Look::commands(&self.backends, &self.ids, false));
        let (answers, beside) = tokio::join!(socket::ask(path, &lines), self.beside(true));
        let mut answers = answers?;
        let seen = answers.split_off(commands.len().min(answers.len()));
        for ((place, line), answer) in commands.iter().zip(&answers) {
            self.complaints.remove(place);
            if answer.starts_with("Permission denied") {
                return Err(problem::not_admin(path, "operator"));
            }
            tracing::info!(pool = %place.0, address = %place.1, command = %line, answer = %answer.trim(), "haproxy");
        }
        for ((place, _), answer) in commands.iter().zip(&answers).filter(|(_, answer)| !answer.trim().is_empty()) {
            self.complaints.insert(place.clone(), answer.trim().to_owned());
        }
        // What cannot be read is asked for again, and said then.
        self.read_back = Look::read(path, self.backends.clone(), false, seen).ok().map(|look| (look, beside));
        Ok(())
    }

    /// Writes what should be out into the state file although nobody answers: a HAProxy that starts now must not route there.
    ///
    /// Only ever takes out, and never the last one that would be in. What fails here is reported by the pass itself.
    async fn hold_out_on_disk(&self, pools: &BTreeMap<PoolName, PoolSpec>) {
        let Ok(before) = StateFile::read(&self.config.state_file) else { return };
        let mut file = before.clone();
        for (name, spec) in pools {
            let wanted = |row: &Row| {
                let address = row.address()?;
                spec.members.values().find(|member| member.address == address).map(|member| member.state)
            };
            let wants_somebody = spec.members.values().any(|member| member.state == MemberState::Ready);
            let sides = [name.to_string(), trial(name)];
            let rows = || sides.iter().flat_map(|backend| before.rows(backend));
            let somebody_in = rows().any(|row| row.told() == MemberState::Ready && wanted(row) == Some(MemberState::Ready));
            if wants_somebody && !somebody_in {
                continue;
            }
            for row in rows().filter(|row| wanted(row) == Some(MemberState::Out)) {
                if row.told() != MemberState::Out {
                    file.set(row.with(MemberState::Out, row.weight()));
                }
            }
        }
        if file != before {
            let path = &self.config.state_file;
            if file.put(path, None).await.is_ok() {
                let _ = state_file::settle(path).await;
            }
        }
    }
}

/// What the name of a pool's second backend ends with: the one for its members on trial. No pool can have such a name.
const TRIAL: &str = ":trial";

fn trial(pool: &PoolName) -> String {
    format!("{pool}{TRIAL}")
}

/// What to say to bring one server into its next state.
fn commands(change: &Change, row: &Row) -> Vec<String> {
    let name = row.name();
    let mut commands = Vec::new();
    if change.wanted && row.weight() != change.weight {
        commands.push(format!("set server {name} weight {}", change.weight));
    }
    match (row.told(), change.state) {
        (told, state) if told == state => {}
        (_, MemberState::Out) => commands.push(format!("set server {name} state maint")),
        (_, MemberState::Drain) => commands.push(format!("set server {name} state drain")),
        // From drain straight to ready, a server gets nothing as long as the backend has a queue.
        (MemberState::Drain, MemberState::Ready) => {
            commands.extend([format!("set server {name} state maint"), format!("set server {name} state ready")]);
        }
        (_, MemberState::Ready) => commands.push(format!("set server {name} state ready")),
    }
    commands
}
