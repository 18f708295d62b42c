//! One look at HAProxy: asked in one connection, so that one process answers all of it, and put together with what the
//! disk and older generations say.

use super::declared::{self, Declared, LIST};
use super::generations;
use super::row::Row;
use super::state_file::{self, StateFile};
use super::text::{Process, Stat};
use super::unanswered::Table;
use super::{Beside, Haproxy, Place, kin, merge, socket, way};
use crate::balancer::driver::{MemberSeen, PoolSeen, Remark, Seen};
use crate::balancer::problem;
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::{Side, TrafficSplit};
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Backend and server of everything that routes to an address.
pub(super) type Servers = BTreeMap<SocketAddr, Vec<(String, String)>>;

/// The addresses that are ours, by backend.
type Ours = BTreeMap<String, BTreeSet<SocketAddr>>;

/// The rows and the statistics of a backend's servers, and its own.
#[derive(Debug)]
struct Backend {
    rows: Vec<Row>,
    stats: Vec<Stat>,
    whole: Option<Stat>,
    /// Requests that had this backend before its servers' numbers were taken, where it is one of two.
    before: Option<u64>,
}

/// A file written in the second a process started may have been read before or after.
const START_MARGIN_S: u64 = 2;

/// Algorithms that need `hash-type consistent` to take weights at run time, or never do. None of the others is a map.
const MAPPED: [&str; 7] = ["static-rr", "source", "uri", "url_param", "hdr", "rdp-cookie", "hash"];

/// What one HAProxy process says of itself.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) process: Process,
    /// `None`: there is no backend of that name.
    backends: BTreeMap<String, Option<Backend>>,
    survey: Option<(Servers, Declared)>,
}

impl Look {
    pub(super) async fn take(
        path: &Path,
        backends: Vec<String>,
        ids: &BTreeMap<String, String>,
        survey: bool,
    ) -> Result<Self, Problem> {
        let blocks = socket::ask(path, &Self::commands(&backends, ids, survey)).await?;
        Self::read(path, backends, survey, blocks)
    }

    /// What to ask for a look. The backends' numbers are those of the process that was seen last.
    pub(super) fn commands(backends: &[String], ids: &BTreeMap<String, String>, survey: bool) -> Vec<String> {
        let mut commands = vec!["show info".to_owned(), "show cli level".to_owned()];
        for name in backends {
            commands.push(format!("show servers state {name}"));
            if is_one_of_two(name, backends) {
                commands.push(statistics(ids.get(name), WHOLE));
            }
            commands.push(statistics(ids.get(name), WHOLE | SERVERS));
        }
        if survey {
            commands.push(LIST.to_owned());
        }
        commands
    }

    /// Reads what was answered to these commands.
    pub(super) fn read(path: &Path, names: Vec<String>, survey: bool, blocks: Vec<String>) -> Result<Self, Problem> {
        let mut blocks = blocks.into_iter();
        let mut next = || blocks.next().unwrap_or_default();
        let process = next();
        let process = Process::parse(&process).ok_or_else(|| problem::socket_garbage(path, &process))?;
        if process.stopping {
            return Err(problem::changing_hands(format!("{} answers, and is stopping", process.pid)));
        }
        let level = next();
        if level.trim() != "admin" {
            return Err(problem::not_admin(path, level.trim()));
        }
        let mut backends = BTreeMap::new();
        let divided: BTreeSet<String> = names.iter().filter(|name| is_one_of_two(name, &names)).cloned().collect();
        for name in names {
            let rows = next();
            let before = divided.contains(&name).then(&mut next).and_then(|stats| Stat::parse_all(&stats));
            let mut before = before.into_iter().flatten().filter(|stat| stat.text("pxname") == name && stat.is_backend());
            let before = before.next().map(|stat| stat.number("scur"));
            let backend = match (rows.starts_with("1\n"), Stat::parse_all(&next())) {
                (true, Some(mut stats)) => {
                    stats.retain(|stat| stat.text("pxname") == name);
                    let whole = stats.iter().position(Stat::is_backend).map(|at| stats.remove(at));
                    stats.retain(Stat::is_server);
                    Some(Backend { rows: Row::parse_all(&rows).collect(), stats, whole, before })
                }
                _ if rows.starts_with("Can't find backend") => None,
                _ => return Err(problem::socket_garbage(path, &rows)),
            };
            backends.insert(name, backend);
        }
        let survey = survey.then(&mut next).map(|listing| (routed(&listing), declared::read(&listing)));
        Ok(Self { process, backends, survey })
    }

    /// What all servers of a backend were sent.
    pub(super) fn requests(&self, backend: &str) -> u64 {
        let backend = self.backends.get(backend).and_then(Option::as_ref);
        backend.into_iter().flat_map(|backend| &backend.stats).map(Stat::requests).sum()
    }

    /// Requests that have this backend and no server yet. A moment passes between its own number and its servers': some that are there may
    /// have ended in it. Nobody comes in it where nobody is led there.
    fn between(&self, backend: &str) -> u64 {
        let Some(Some(Backend { stats, before: Some(before), .. })) = self.backends.get(backend) else { return 0 };
        before.saturating_sub(stats.iter().map(|stat| stat.number("scur")).sum())
    }

    /// Whether somebody is in there.
    fn is_served(&self, backend: &str) -> bool {
        let rows = self.backends.get(backend).and_then(Option::as_ref).map(|backend| backend.rows.iter());
        rows.into_iter().flatten().any(|row| row.told() == MemberState::Ready && row.is_up())
    }

    /// Whether one of these servers has nothing in hand by its word. HAProxy counts a request at its server once it is connected, a moment
    /// after it chose that: right after a server went out, its zero is none yet.
    pub(super) fn calls_idle(&self, servers: &BTreeSet<String>) -> bool {
        let is_idle = |stat: &&Stat| {
            stat.in_flight() == 0 && servers.contains(&format!("{}/{}", stat.text("pxname"), stat.text("svname")))
        };
        self.servers().any(|stat| is_idle(&stat))
    }

    /// The servers of every backend.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Stat> {
        self.backends.values().flatten().flat_map(|backend| &backend.stats)
    }

    /// What each backend and its servers counted; None where they do not count answers.
    pub(super) fn tables(&self) -> impl Iterator<Item = (&String, Option<Table>)> {
        let there = self.backends.iter().filter_map(|(name, backend)| Some((name, backend.as_ref()?)));
        there.map(|(name, backend)| (name, backend.whole.as_ref().and_then(|whole| Table::of(whole, backend.stats.iter()))))
    }

    /// The backends whose algorithm may be a map of a fixed size.
    fn mapped(&self) -> BTreeSet<String> {
        let algorithm = |backend: &Option<Backend>| Some(backend.as_ref()?.whole.as_ref()?.text("algo").to_owned());
        let is_mapped = |backend| algorithm(backend).is_some_and(|it| MAPPED.contains(&it.as_str()));
        self.backends.iter().filter(|(_, backend)| is_mapped(backend)).map(|(name, _)| name.clone()).collect()
    }

    /// The backends' numbers, valid for this process.
    fn ids(&self) -> BTreeMap<String, String> {
        let rows = |name, backend: &Option<Backend>| Some((name, backend.as_ref()?.rows.first()?.backend_id().to_owned()));
        self.backends.iter().filter_map(|(name, backend)| rows(name.clone(), backend)).collect()
    }
}

/// What `show stat` is asked for: bits.
pub(super) const WHOLE: u8 = 2;
pub(super) const SERVERS: u8 = 4;

/// Asks for the statistics of one backend, its servers or both, or of all where its number is not known yet. By name, `show stat`
/// would find a frontend of the same name first.
pub(super) fn statistics(id: Option<&String>, of: u8) -> String {
    format!("show stat {} {of} -1", id.map_or("-1", String::as_str))
}

/// Whether the backend of a pool has a second one among these, or is that.
fn is_one_of_two(name: &str, names: &[String]) -> bool {
    name.ends_with(super::TRIAL) || names.iter().any(|other| other.strip_suffix(super::TRIAL) == Some(name))
}

fn routed(listing: &str) -> Servers {
    let mut servers = Servers::new();
    for row in Row::parse_all(listing).filter(|row| row.told() != MemberState::Out) {
        if let Some(address) = row.address() {
            servers.entry(address).or_default().push((row.backend().to_owned(), row.server().to_owned()));
        }
    }
    servers
}

impl Haproxy {
    /// Makes a look into what is seen, and remembers what the next step needs of it. The master's `workers` are asked for where that
    /// was not done yet, and since when requests are counted likewise.
    pub(super) async fn take_in(
        &mut self,
        pools: &BTreeMap<PoolName, PoolSpec>,
        mut look: Look,
        (workers, begun): Beside,
    ) -> Result<Seen, Problem> {
        if let Some((servers, declared)) = look.survey.take() {
            self.survey = Some((Instant::now(), servers));
            self.declared = declared;
        }
        let sides = |name: &PoolName| [name.to_string(), super::trial(name)];
        let ours: Ours =
            pools.iter().flat_map(|(name, spec)| sides(name).map(|backend| (backend, self.ours(name, spec)))).collect();
        let anybody_out = look.backends.iter().any(|(name, backend)| {
            let rows = backend.iter().flat_map(|backend| &backend.rows);
            rows.filter(|row| row.told() != MemberState::Ready).any(|row| is_ours(&ours, name, row))
        });
        let generations = match (&self.config.master_socket, anybody_out) {
            (_, false) => Vec::new(),
            (Some(master), true) => {
                let workers = match workers {
                    Some(workers) => workers?,
                    None => generations::workers(master).await?,
                };
                generations::old(master, workers, look.process.pid).await?
            }
            (None, true) => kin::old(look.process.pid).await?,
        };
        let file = StateFile::read(&self.config.state_file)?;
        let restarted = self.identity.as_ref().is_some_and(|identity| *identity != look.process.identity());
        self.identity = Some(look.process.identity());
        self.lived = Duration::from_secs(look.process.lived);
        if restarted {
            tracing::warn!(identity = %look.process.identity(), "HAProxy restarted or was reloaded");
            self.complaints.clear();
            self.find_ignored(&ours, &look, &file);
        }
        self.ids = look.ids();
        self.mapped = look.mapped();
        self.count_unanswered(&look).await?;
        // Before the counters: what is lost in between is said the next time.
        let counting = self.hear(&look, begun).await;
        let mut seen = Seen { identity: format!("{}{counting}", look.process.identity()), ..Seen::default() };
        self.hearing.keep(pools);
        for (name, spec) in pools {
            self.compare(name, &seen.identity, &look);
            let mut backends = Vec::new();
            for backend in sides(name) {
                let there = match look.backends.get(&backend) {
                    Some(Some(Backend { rows, stats, .. })) => {
                        let ours = ours.get(&backend).cloned().unwrap_or_default();
                        Some(self.pool(name, &backend, &ours, rows, stats, &file)?)
                    }
                    _ => None,
                };
                backends.push(there);
            }
            let mut backends = backends.into_iter();
            let pool = match (backends.next().flatten(), backends.next().flatten()) {
                (Some(stable), Some(trial)) => Ok(merge::both(name, spec, stable, trial)),
                (Some(stable), None) => Ok(stable),
                (None, _) => Err(problem::pool_unknown(name, format!("name a backend of haproxy.cfg `{name}`, and reload"))),
            };
            let old = |address| generations.iter().map(|generation| generation.at(address)).sum::<u64>();
            let pool = pool.map(|mut pool: PoolSeen| {
                pool.iter_mut().for_each(|(address, member)| member.in_flight += old(*address));
                pool
            });
            seen.pools.insert(name.clone(), pool);
            self.count(name, &look);
            let split = self.maps.look(&self.config.socket, name, spec.split.as_ref()).await?;
            self.note_ways(name, spec, &look, split.as_ref().and_then(|split| split.running.as_ref()));
            if let Some(split) = split {
                seen.splits.insert(name.clone(), self.since.fill(name, split));
            }
        }
        self.remember(pools, &seen).await?;
        Ok(seen)
    }

    /// The addresses the spec names, and those that were named before.
    fn ours(&self, name: &PoolName, spec: &PoolSpec) -> BTreeSet<SocketAddr> {
        spec.members.values().map(|member| member.address).chain(self.journal.addresses(name)).collect()
    }

    fn pool(
        &mut self,
        name: &PoolName,
        backend: &str,
        ours: &BTreeSet<SocketAddr>,
        rows: &[Row],
        stats: &[Stat],
        file: &StateFile,
    ) -> Result<PoolSeen, Problem> {
        let mut by_address = BTreeMap::<SocketAddr, Vec<&Row>>::new();
        for (row, address) in rows.iter().filter_map(|row| Some((row, row.address()?))) {
            by_address.entry(address).or_default().push(row);
        }
        let by_name: BTreeMap<&str, &Stat> = stats.iter().map(|stat| (stat.text("svname"), stat)).collect();
        let mut pool = PoolSeen::new();
        for address in ours {
            let mut at_address = by_address.get(address).into_iter().flatten().copied();
            let place = (backend.to_owned(), *address);
            let Some(row) = at_address.next() else {
                self.servers.remove(&place);
                continue;
            };
            // A gauge that is not there must not read as zero.
            let stat = by_name.get(row.server());
            let stat = stat.ok_or_else(|| problem::socket_garbage(&self.config.socket, "a server without statistics"))?;
            let mut member = self.member(name, &place, row, stat, file);
            let others: Vec<&str> = at_address.map(Row::server).collect();
            if !others.is_empty() {
                let claims = format!("servers {}, {}", row.server(), others.join(", "));
                member.remark = Remark::Refused(problem::ambiguous(name, *address, &claims));
            }
            self.servers.insert(place, row.clone());
            pool.insert(*address, member);
        }
        Ok(pool)
    }

    fn member(&mut self, pool: &PoolName, place: &Place, row: &Row, stat: &Stat, file: &StateFile) -> MemberSeen {
        let address = place.1;
        let ignored = self.ignored.contains(place);
        let (on_disk, weight_on_disk) = if ignored { row.unaided() } else { file.after_restart(row) };
        let elsewhere = self.elsewhere(pool, place, row);
        let running = match row.told() {
            MemberState::Ready if !row.is_up() => MemberState::Out,
            MemberState::Out | MemberState::Drain if elsewhere.is_some() => MemberState::Ready,
            told => told,
        };
        let remark = if row.has_agent_check() {
            Remark::Refused(problem::agent_check(pool, row.server()))
        } else if ignored {
            Remark::Note(problem::file_ignored(&self.config.state_file, &row.name()))
        } else if let Some(elsewhere) = elsewhere {
            Remark::AlsoRouted(elsewhere)
        } else if row.told() == MemberState::Ready && !row.is_up() {
            Remark::Down(check(stat))
        } else {
            let complaint = self.complaints.get(place).cloned().map(Remark::Complaint);
            if self.ways.has_stayed(place) { Remark::Later } else { complaint.unwrap_or(Remark::None) }
        };
        let unanswered = self.unanswered.of(row.backend(), row.server());
        MemberSeen {
            told: row.told(),
            running,
            on_disk,
            weight: (row.weight(), weight_on_disk),
            side: (Side::Stable, Side::Stable),
            in_flight: stat.in_flight(),
            out_for: self.out_for(place, row, stat),
            cut: self.journal.entry(pool, address).map_or(0, |entry| entry.cut),
            requests: stat.requests() + unanswered,
            errors: stat.errors() + unanswered,
            // How old a session is says how long its connection was idle, too.
            oldest: None,
            latency: self.latency(pool, stat),
            remark,
        }
    }

    /// How long a server has been out. Where this agent was not there to see it go, HAProxy's own count of whole seconds
    /// stands in: a deadline is never called early.
    fn out_for(&mut self, place: &Place, row: &Row, stat: &Stat) -> Duration {
        if row.told() != MemberState::Out {
            self.outs.remove(place);
            return Duration::ZERO;
        }
        // What was not out at the last look went since, also where another process was looked at then.
        let went_before = self.servers.get(place).is_none_or(|before| before.told() == MemberState::Out);
        let earlier = if went_before { changed_before(stat, self.lived) } else { Duration::ZERO };
        let now = Instant::now();
        now.duration_since(*self.outs.entry(place.clone()).or_insert_with(|| now.checked_sub(earlier).unwrap_or(now)))
    }

    fn note_ways(&mut self, name: &PoolName, spec: &PoolSpec, look: &Look, running: Option<&TrafficSplit>) {
        if !self.maps.is_prepared(name) {
            return;
        }
        let (stable, trial) = (name.to_string(), super::trial(name));
        for (backend, other, side) in [(&stable, &trial, Side::Stable), (&trial, &stable, Side::Trial)] {
            // Where the other one has nobody, everybody is led here.
            let leads = way::leads(running, side) || !look.is_served(other);
            let is_to_lead = way::leads(spec.split.as_ref(), side);
            self.ways.note(backend, leads, is_to_lead, look.between(backend), spec.drain_deadline);
        }
    }

    /// Another server than this one that routes to its address.
    fn elsewhere(&self, pool: &PoolName, place: &Place, row: &Row) -> Option<String> {
        let (_, servers) = self.survey.as_ref()?;
        let other = servers.get(&place.1)?.iter().find(|(backend, server)| {
            let own = *backend == place.0
                || *backend == pool.as_str()
                || (*backend == super::trial(pool) && self.maps.is_prepared(pool));
            (backend.as_str(), server.as_str()) != (row.backend(), row.server()) && !own
        })?;
        let managed = self.servers.values().any(|row| (row.backend(), row.server()) == (other.0.as_str(), other.1.as_str()));
        (!managed).then(|| format!("{}/{}", other.0, other.1))
    }

    /// Marks the servers a fresh process put in although the file, written before it started, says out.
    fn find_ignored(&mut self, ours: &Ours, look: &Look, file: &StateFile) {
        self.ignored.clear();
        let written = state_file::written_at(&self.config.state_file);
        if written.is_none_or(|written| written + START_MARGIN_S > look.process.started) {
            return;
        }
        for (name, backend) in &look.backends {
            for row in backend.iter().flat_map(|backend| &backend.rows).filter(|row| is_ours(ours, name, row)) {
                let (on_disk, _) = file.after_restart(row);
                if let (Some(address), MemberState::Out, true) = (row.address(), on_disk, row.told() != MemberState::Out) {
                    self.ignored.insert((name.clone(), address));
                }
            }
        }
    }

    /// Keeps the journal: the spec's servers are ours, and those that vanished from it until they are out for good.
    async fn remember(&mut self, pools: &BTreeMap<PoolName, PoolSpec>, seen: &Seen) -> Result<(), Problem> {
        let addresses = |spec: &PoolSpec| spec.members.values().map(|member| member.address).collect();
        let wanted: BTreeMap<&PoolName, BTreeSet<SocketAddr>> =
            pools.iter().map(|(name, spec)| (name, addresses(spec))).collect();
        let is_wanted =
            |name: &PoolName, address: &SocketAddr| wanted.get(name).is_some_and(|wanted| wanted.contains(address));
        let is_done = |there: Option<&MemberSeen>| {
            there.is_none_or(|there| there.told == MemberState::Out && there.on_disk == MemberState::Out)
        };
        self.journal
            .update(|journal| {
                for (name, pool) in seen.pools.iter().filter_map(|(name, pool)| Some((name, pool.as_ref().ok()?))) {
                    let entries = journal.entry(name.clone()).or_default();
                    entries.retain(|address, _| is_wanted(name, address) || !is_done(pool.get(address)));
                    for address in pool.keys().filter(|address| is_wanted(name, address)) {
                        entries.entry(*address).or_default();
                    }
                }
            })
            .await
    }
}

fn is_ours(ours: &Ours, name: &str, row: &Row) -> bool {
    row.address().is_some_and(|address| ours.get(name).is_some_and(|ours| ours.contains(&address)))
}

/// How long ago a server changed for certain. HAProxy counts whole seconds, of which one may be rounded up; and where one of its
/// threads is behind another at the end of a second, it says minus one, as a number without a sign. Nothing changed before the
/// process began.
fn changed_before(stat: &Stat, lived: Duration) -> Duration {
    let ago = Duration::from_secs(stat.number("lastchg").saturating_sub(1));
    if ago <= lived { ago } else { Duration::ZERO }
}

/// The last check as people read it.
fn check(stat: &Stat) -> String {
    let parts = [stat.text("check_status"), stat.text("check_code"), stat.text("last_chk")];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_that_is_behind_says_makes_no_drain_overdue() {
        let stat = |ago: &str| {
            let text = format!("# pxname,svname,scur,lastchg\nshop,s0,6,{ago}\n");
            Stat::parse_all(&text).unwrap().remove(0)
        };
        let after = |ago, lived| changed_before(&stat(ago), Duration::from_secs(lived)).as_secs();
        assert_eq!([after("0", 60), after("1", 60), after("31", 60)], [0, 0, 30]);
        // Minus one, and what is older than the process.
        assert_eq!([after("4294967295", 60), after("31", 7)], [0, 0]);
    }
}
