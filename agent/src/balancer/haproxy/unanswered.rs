//! Requests that ended without an answer, which HAProxy counts at no server and logs nowhere.
//!
//! Where an application breaks a connection without an answer, HAProxy answers 502 only if the request was the first of its
//! client's connection. On a kept one, and in HTTP/2 always, it closes without a word, so that the client may ask again. But of the
//! whole backend it counts what began, what is open, and the status each request ended with, also of those whose client left. What
//! ended without any status is what is left, and exactly that: see the measured lines in the tests. Which server it was follows
//! from the servers' own counters, see [`Server::silent`].

use super::look::{Look, SERVERS, WHOLE, statistics};
use super::text::{Process, Stat};
use super::{Haproxy, socket};
use crate::balancer::{durable, problem};
use baton_core::problem::Problem;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// HAProxy counts a request at its server a moment before it counts it as ended.
const MOMENT: Duration = Duration::from_secs(1);

/// What ended without an answer since this process of HAProxy was seen first, and the file that remembers it.
#[derive(Debug)]
pub(super) struct Unanswered {
    path: PathBuf,
    kept: Kept,
    /// Whether the file says something else.
    is_new: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    identity: String,
    backends: BTreeMap<String, Tally>,
}

/// Of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tally {
    /// So many of those that ended without a status are accounted for.
    known: i64,
    /// Those that their servers left unanswered.
    servers: BTreeMap<String, u64>,
    before: Table,
    /// What it is found out from which server it was: before the last moment at least, and when that one began.
    since: (Past, Past),
    /// So many more are counted elsewhere: of the last moment, and of the one before.
    elsewhere: (u64, u64),
    #[serde(skip)]
    turned: Option<Instant>,
}

/// The servers at an instant until which everything that had ended was known, and what was counted at them.
///
/// A server is often done with a request some looks before its backend is: the client has to be told first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    servers: BTreeMap<String, Server>,
    counted: BTreeMap<String, u64>,
}

/// The counters of a backend and of its servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    began: i64,
    open: i64,
    /// With a status.
    ended: i64,
    servers: BTreeMap<String, Server>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Server {
    /// Each try.
    began: i64,
    open: i64,
    /// Answers that another one follows, and switches to another protocol.
    informed: i64,
    answered: i64,
    refused: i64,
    /// Tries that another one followed.
    again: i64,
    broken: i64,
    ended_by_server: i64,
    ended_by_client: i64,
}

/// How many requests a server may have left unanswered since an earlier look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Silent {
    most: i64,
    /// As it looks, with those whose client left first.
    likely: i64,
    /// Which server it rather was: one that also refuses connections, one whose requests ended without a client that left.
    weight: (bool, i64),
}

impl Table {
    /// None where HAProxy does not look into what it passes on: then there is no status.
    pub(super) fn of<'a>(backend: &Stat, servers: impl Iterator<Item = &'a Stat>) -> Option<Self> {
        let servers = servers.map(|stat| (stat.text("svname").to_owned(), Server::of(stat)));
        (!backend.text("hrsp_2xx").is_empty()).then(|| Self {
            began: number(backend, "stot"),
            open: number(backend, "scur"),
            ended: number(backend, "hrsp_1xx") + answered(backend),
            servers: servers.collect(),
        })
    }

    /// How many ended without a status at least. What began is of an earlier look or of the same: several threads count while one of
    /// them lists, and what began in between must not look as if it had ended.
    fn silent(&self, began: i64) -> i64 {
        began - self.open - self.ended
    }
}

impl Server {
    fn of(stat: &Stat) -> Self {
        Self {
            began: number(stat, "stot"),
            open: number(stat, "scur"),
            informed: number(stat, "hrsp_1xx"),
            answered: answered(stat),
            refused: number(stat, "econ"),
            again: number(stat, "wretr") + number(stat, "wredis"),
            broken: number(stat, "eresp"),
            ended_by_server: number(stat, "srv_abrt"),
            ended_by_client: number(stat, "cli_abrt"),
        }
    }

    /// Of those that ended without a status, how many are counted otherwise at most. One whose connection was reset is in `eresp`.
    /// And one that had an answer of 100 or 103 has no status until the next answer, so also where it is the client that leaves.
    fn elsewhere(&self, before: &Self) -> i64 {
        let reset = (self.broken - before.broken).min(self.ended_by_server - before.ended_by_server);
        let informed = before.informed.min(before.open) + self.informed - before.informed;
        let left = (self.ended_by_client - before.ended_by_client).min(informed);
        reset.max(0) + left.max(0)
    }

    fn silent(&self, before: &Self) -> Silent {
        let failed = self.refused - before.refused + self.again - before.again;
        let done = self.answered - before.answered + failed;
        let began = self.began - before.began;
        let likely =
            began - (self.open - before.open) - done - (self.informed - before.informed) - (self.broken - before.broken);
        let left = self.ended_by_client - before.ended_by_client;
        Silent { most: began + before.open - done, likely, weight: (failed > 0, 2 * likely - left) }
    }
}

impl Silent {
    /// So many of them are counted.
    fn without(self, counted: u64) -> Self {
        let (refuses, likelihood) = self.weight;
        let counted = counted.cast_signed();
        Self { most: self.most - counted, likely: self.likely - counted, weight: (refuses, likelihood - 2 * counted) }
    }
}

impl Tally {
    /// From here on.
    fn begin(table: Table) -> Self {
        let past = Past { servers: table.servers.clone(), counted: BTreeMap::new() };
        Self {
            known: table.silent(table.began),
            servers: BTreeMap::new(),
            since: (past.clone(), past),
            before: table,
            elsewhere: (0, 0),
            turned: None,
        }
    }

    /// Whether there seem to be more than are known.
    fn suspects(&self, table: &Table) -> bool {
        table.silent(table.began) > self.known
    }

    /// Takes in a look, and the one right before it, or the same. Says whether anything was counted.
    fn take(&mut self, first: Table, table: Table, now: Instant) -> bool {
        if table.began < self.before.began {
            // `clear counters all`
            *self = Self::begin(table);
            return true;
        }
        let before = |name| self.before.servers.get(name).copied().unwrap_or_default();
        let elsewhere: i64 = table.servers.iter().map(|(name, server)| server.elsewhere(&before(name))).sum();
        self.elsewhere.0 += elsewhere.unsigned_abs();
        let more = (table.silent(first.began) - self.known).max(0);
        self.known += more;
        let more = self.without_those_elsewhere(more.unsigned_abs());
        let counted = self.share(more, &table);
        self.before = table;
        if now.duration_since(*self.turned.get_or_insert(now)) >= MOMENT {
            self.turn(first.servers);
            self.turned = Some(now);
        }
        counted
    }

    /// Another moment begins.
    fn turn(&mut self, servers: BTreeMap<String, Server>) {
        self.elsewhere = (0, self.elsewhere.0);
        let now = Past { servers, counted: self.servers.clone() };
        self.since.0 = std::mem::replace(&mut self.since.1, now);
    }

    fn without_those_elsewhere(&mut self, more: u64) -> u64 {
        let (late, early) = &mut self.elsewhere;
        let from_early = more.min(*early);
        let from_late = (more - from_early).min(*late);
        *early -= from_early;
        *late -= from_late;
        more - from_early - from_late
    }

    /// Counts requests at the servers that left them unanswered, none at one that cannot have.
    fn share<'a>(&mut self, mut more: u64, table: &'a Table) -> bool {
        if more == 0 {
            return false;
        }
        let since = |(name, server): (&'a String, &Server)| {
            let past = &self.since.0;
            let before = past.servers.get(name).copied().unwrap_or_default();
            let counted = |counts: &BTreeMap<String, u64>| counts.get(name).copied().unwrap_or_default();
            (name, server.silent(&before).without(counted(&self.servers) - counted(&past.counted)))
        };
        let mut all: Vec<(&String, Silent)> = table.servers.iter().map(since).collect();
        all.sort_by_key(|(_, silent)| Reverse(silent.weight));
        let whole = more;
        // As it looks; then as it can be.
        for looks in [true, false] {
            for (name, silent) in &mut all {
                let most = if looks { silent.most.min(silent.likely) } else { silent.most };
                let here = more.min(most.max(0).unsigned_abs());
                if here > 0 {
                    *self.servers.entry((*name).clone()).or_default() += here;
                    silent.most = silent.most.saturating_sub_unsigned(here);
                    more -= here;
                }
            }
        }
        more < whole
    }
}

impl Unanswered {
    /// Opens the file. One that cannot be read only makes the counts those since this agent started.
    pub(super) fn open(path: PathBuf) -> Self {
        let kept = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, kept, is_new: false }
    }

    pub(super) fn of(&self, backend: &str, server: &str) -> u64 {
        let tally = self.kept.backends.get(backend);
        tally.and_then(|tally| tally.servers.get(server)).copied().unwrap_or_default()
    }

    /// Requests that the agent itself is about to end are counted by it, and unanswered some of them.
    pub(super) async fn cut(&mut self, backend: &str, cut: u64) -> Result<(), Problem> {
        let Some(tally) = self.kept.backends.get_mut(backend).filter(|_| cut > 0) else { return Ok(()) };
        tally.elsewhere.0 += cut;
        self.is_new = true;
        self.keep().await
    }

    async fn keep(&mut self) -> Result<(), Problem> {
        if self.is_new {
            let text = serde_json::to_string(&self.kept).unwrap_or_default();
            durable::replace(&self.path, text).await.map_err(|error| problem::state_folder(&self.path, &error))?;
            self.is_new = false;
        }
        Ok(())
    }
}

impl Haproxy {
    /// Counts what ended without an answer since the last look.
    pub(super) async fn count_unanswered(&mut self, look: &Look) -> Result<(), Problem> {
        let identity = look.process.identity();
        if self.unanswered.kept.identity != identity {
            self.unanswered.kept = Kept { identity: identity.clone(), backends: BTreeMap::new() };
        }
        for (name, table) in look.tables() {
            let backends = &mut self.unanswered.kept.backends;
            match (table, backends.get_mut(name)) {
                (None, _) => {}
                (Some(table), None) => {
                    backends.insert(name.clone(), Tally::begin(table));
                    self.unanswered.is_new = true;
                }
                (Some(table), Some(tally)) => {
                    let looked = match tally.suspects(&table) {
                        true => twice(&self.config.socket, self.ids.get(name), name, &identity).await,
                        false => Some((table.clone(), table)),
                    };
                    // What was not seen now is seen the next time.
                    let Some((first, table)) = looked else { continue };
                    self.unanswered.is_new |= tally.take(first, table, Instant::now());
                }
            }
        }
        self.unanswered.keep().await
    }
}

/// Looks at a backend two times, one right after the other.
async fn twice(path: &std::path::Path, id: Option<&String>, name: &str, identity: &str) -> Option<(Table, Table)> {
    let commands = ["show info".to_owned(), statistics(id, WHOLE | SERVERS), statistics(id, WHOLE | SERVERS)];
    let blocks = socket::ask(path, &commands).await.ok()?;
    let process = Process::parse(blocks.first()?)?;
    let table = |block: Option<&String>| {
        let mut stats = Stat::parse_all(block?)?;
        stats.retain(|stat| stat.text("pxname") == name);
        let backend = stats.iter().find(|stat| stat.is_backend())?;
        Table::of(backend, stats.iter().filter(|stat| stat.is_server()))
    };
    let (first, second) = (table(blocks.get(1))?, table(blocks.get(2))?);
    (process.identity() == identity).then_some((first, second))
}

fn number(stat: &Stat, column: &str) -> i64 {
    i64::try_from(stat.number(column)).unwrap_or(i64::MAX)
}

/// Answers that were the last ones.
fn answered(stat: &Stat) -> i64 {
    ["hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other"].iter().map(|column| number(stat, column)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "# pxname,svname,scur,stot,econ,eresp,wretr,wredis,type,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,\
        hrsp_other,cli_abrt,srv_abrt\n";

    /// The lines of a backend and its servers, without the backend's name; what is not said is nothing.
    fn lines(lines: &[&str]) -> Option<Table> {
        let text: String = lines.iter().map(|line| format!("shop,{line}\n")).collect();
        let stats = Stat::parse_all(&format!("{HEADER}{text}")).unwrap();
        let backend = stats.iter().find(|stat| stat.is_backend()).unwrap();
        Table::of(backend, stats.iter().filter(|stat| stat.is_server()))
    }

    fn table(all: &[&str]) -> Table {
        lines(all).unwrap()
    }

    /// A pool in which a request or two were answered; more of it follows.
    fn tally() -> Tally {
        Tally::begin(table(&[
            "s0,0,0,0,0,0,0,2,0,0,0,0,0,0,0,0",
            "s1,0,0,0,0,0,0,2,0,0,0,0,0,0,0,0",
            "BACKEND,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0",
        ]))
    }

    /// What a look counts at `s0` and at `s1`.
    fn counted(tally: &mut Tally, all: &[&str]) -> [u64; 2] {
        let table = table(all);
        tally.take(table.clone(), table, Instant::now());
        ["s0", "s1"].map(|server| tally.servers.get(server).copied().unwrap_or_default())
    }

    const QUIET: &str = "s1,0,0,0,0,0,0,2,0,0,0,0,0,0,0,0";

    /// As HAProxy 2.6 counted one request each, after one that was answered.
    #[test]
    fn only_what_is_counted_nowhere_else_is_unanswered() {
        for (what, server, backend, expected) in [
            ("closed on a kept connection", "0,2,0,0,0,0,2,0,1,0,0,0,0,0,0", "0,2,0,0,0,0,1,0,1,0,0,0,0,0,0", 1),
            ("reset on a kept one", "0,2,0,1,0,0,2,0,1,0,0,0,0,0,1", "0,2,0,1,0,0,1,0,1,0,0,0,0,0,1", 0),
            ("closed on the first", "0,2,0,1,0,0,2,0,1,0,0,0,0,0,0", "0,2,0,1,0,0,1,0,1,0,0,1,0,0,0", 0),
            ("reset on the first", "0,2,0,2,0,0,2,0,1,0,0,0,0,0,0", "0,2,0,2,0,0,1,0,1,0,0,1,0,0,0", 0),
            ("broken off in the answer", "0,2,0,1,0,0,2,0,2,0,0,0,0,0,1", "0,2,0,1,0,0,1,0,2,0,0,0,0,0,1", 0),
            ("closed after 103", "0,2,0,0,0,0,2,1,1,0,0,0,0,0,0", "0,2,0,0,0,0,1,0,1,0,0,0,0,0,0", 1),
            ("answered after 103", "0,2,0,0,0,0,2,1,2,0,0,0,0,0,0", "0,2,0,0,0,0,1,0,2,0,0,0,0,0,0", 0),
            ("no answer in time", "0,2,0,1,0,0,2,0,1,0,0,0,0,0,0", "0,2,0,1,0,0,1,0,1,0,0,1,0,0,0", 0),
            ("the client left while it sent", "0,2,0,0,0,0,2,0,1,0,0,0,0,1,0", "0,2,0,0,0,0,1,0,1,0,0,0,1,1,0", 0),
            ("the client left before the answer", "0,2,0,0,0,0,2,0,1,0,0,0,0,1,0", "0,2,0,0,0,0,1,0,1,0,1,0,0,1,0", 0),
            ("the client left in the answer", "0,2,0,0,0,0,2,0,2,0,0,0,0,1,0", "0,2,0,0,0,0,1,0,2,0,0,0,0,1,0", 0),
            ("the client left after 100", "0,2,0,0,0,0,2,1,1,0,0,0,0,1,0", "0,2,0,0,0,0,1,0,1,0,0,0,0,1,0", 0),
            ("in flight", "1,2,0,0,0,0,2,0,1,0,0,0,0,0,0", "1,2,0,0,0,0,1,0,1,0,0,0,0,0,0", 0),
            ("in a tunnel", "1,2,0,0,0,0,2,1,1,0,0,0,0,0,0", "1,2,0,0,0,0,1,0,1,0,0,0,0,0,0", 0),
            ("nobody there", "0,6,1,0,3,0,2,0,1,0,0,0,0,0,0", "0,2,1,0,3,0,1,0,1,0,0,1,0,0,0", 0),
            ("sent again", "0,4,0,0,4,0,2,0,1,0,0,1,0,0,0", "0,2,0,0,4,0,1,0,1,0,0,1,0,0,0", 0),
            ("denied", "0,2,0,0,0,0,2,0,2,0,0,0,0,0,0", "0,2,0,0,0,0,1,0,1,0,0,1,0,0,0", 0),
            ("redirected by a server's line", "0,2,0,0,0,0,2,0,1,0,0,0,0,0,0", "0,2,0,0,0,0,1,0,1,1,0,0,0,0,0", 0),
            ("dropped before a server was chosen", "0,1,0,0,0,0,2,0,1,0,0,0,0,0,0", "0,2,0,0,0,0,1,0,1,0,0,0,0,0,0", 0),
        ] {
            let mut tally = tally();
            let (server, backend) = (format!("s0,{server}"), format!("BACKEND,{backend}"));
            assert_eq!(counted(&mut tally, &[&server, QUIET, &backend]), [expected, 0], "{what}");
            assert_eq!(counted(&mut tally, &[&server, QUIET, &backend]), [expected, 0], "{what}, looked at again");
        }
    }

    #[test]
    fn it_is_counted_at_the_server_that_rather_did_it_and_at_none_that_cannot_have() {
        let s1 = "s1,2,52,0,0,0,0,2,0,50,0,0,0,0,0,0";
        let mut tally = tally();
        let ended = "BACKEND,2,106,0,0,0,0,1,0,101,0,0,0,0,0,0";
        assert_eq!(counted(&mut tally, &["s0,0,54,0,0,0,0,2,0,51,0,0,0,0,0,0", s1, ended]), [3, 0]);
        // It refuses connections, too; of the other, those that were in flight may be answered or not.
        let (s0, s1) = ("s0,0,60,0,0,4,0,2,0,51,0,0,0,0,0,0", "s1,0,62,0,0,0,0,2,0,62,0,0,0,0,0,0");
        assert_eq!(counted(&mut tally, &[s0, s1, "BACKEND,0,118,0,0,4,0,1,0,113,0,0,0,0,0,0"]), [5, 0]);
        // More than can be: not of these servers.
        let (s0, s1) = ("s0,0,61,0,0,4,0,2,0,52,0,0,0,0,0,0", "s1,0,63,0,0,0,0,2,0,62,0,0,0,0,0,0");
        assert_eq!(counted(&mut tally, &[s0, s1, "BACKEND,0,123,0,0,4,0,1,0,114,0,0,0,0,0,0"]), [5, 1]);
    }

    #[test]
    fn a_server_is_done_with_it_some_looks_before_the_backend_is() {
        let mut tally = tally();
        let left = "s0,0,1,0,0,0,0,2,0,0,0,0,0,0,0,0";
        assert_eq!(counted(&mut tally, &[left, QUIET, "BACKEND,1,1,0,0,0,0,1,0,0,0,0,0,0,0,0"]), [0, 0], "open there");
        let ended = table(&[left, QUIET, "BACKEND,0,1,0,0,0,0,1,0,0,0,0,0,0,0,0"]);
        let started = Instant::now();
        tally.take(ended.clone(), ended.clone(), started);
        assert_eq!(tally.servers, BTreeMap::from([("s0".to_owned(), 1)]));
        // It is not what the next one is taken for, now or later.
        let next = table(&[left, "s1,0,1,0,0,0,0,2,0,0,0,0,0,0,0,0", "BACKEND,0,2,0,0,0,0,1,0,0,0,0,0,0,0,0"]);
        for moments in 1..5 {
            let mut later = tally.clone();
            (0..moments).for_each(|_| later.turn(ended.servers.clone()));
            later.take(next.clone(), next.clone(), started);
            assert_eq!(later.servers, BTreeMap::from([("s0".to_owned(), 1), ("s1".to_owned(), 1)]), "after {moments}");
        }
    }

    #[test]
    fn what_begins_while_it_is_listed_has_not_ended() {
        let mut tally = tally();
        let servers = ["s0,0,1,0,0,0,0,2,0,1,0,0,0,0,0,0", QUIET];
        // The gauge was read a moment before the counter.
        let torn = table(&[servers[0], servers[1], "BACKEND,0,2,0,0,0,0,1,0,1,0,0,0,0,0,0"]);
        assert!(tally.suspects(&torn));
        let after = table(&["s0,0,2,0,0,0,0,2,0,2,0,0,0,0,0,0", QUIET, "BACKEND,0,2,0,0,0,0,1,0,2,0,0,0,0,0,0"]);
        assert!(
            !tally.take(torn, after, Instant::now()),
            "of what had begun by the first look, all is answered by the second"
        );
        assert_eq!(tally.servers, BTreeMap::new());
        // One that began and ended between the two is seen the next time.
        let first = tally.before.clone();
        let all = ["s0,0,3,0,0,0,0,2,0,2,0,0,0,0,0,0", QUIET, "BACKEND,0,3,0,0,0,0,1,0,2,0,0,0,0,0,0"];
        assert!(!tally.take(first, table(&all), Instant::now()));
        assert_eq!(counted(&mut tally, &all), [1, 0]);
    }

    #[test]
    fn what_the_agent_cut_and_what_is_counted_a_moment_earlier_is_not_counted_twice() {
        let mut tally = tally();
        tally.elsewhere.0 += 1;
        let (s0, whole) = ("s0,0,1,0,0,0,0,2,0,0,0,0,0,0,0,0", "BACKEND,0,1,0,0,0,0,1,0,0,0,0,0,0,0,0");
        assert_eq!(counted(&mut tally, &[s0, QUIET, whole]), [0, 0], "cut");
        // Reset, and still open in the backend.
        let (s0, open) = ("s0,1,2,0,1,0,0,2,0,0,0,0,0,0,0,1", "BACKEND,1,2,0,1,0,0,1,0,0,0,0,0,0,0,1");
        assert_eq!(counted(&mut tally, &[s0, QUIET, open]), [0, 0]);
        let (s0, ended) = ("s0,0,2,0,1,0,0,2,0,0,0,0,0,0,0,1", "BACKEND,0,2,0,1,0,0,1,0,0,0,0,0,0,0,1");
        assert_eq!(counted(&mut tally, &[s0, QUIET, ended]), [0, 0]);
        let (s0, whole) = ("s0,0,3,0,1,0,0,2,0,0,0,0,0,0,0,1", "BACKEND,0,3,0,1,0,0,1,0,0,0,0,0,0,0,1");
        assert_eq!(counted(&mut tally, &[s0, QUIET, whole]), [1, 0], "another one");
    }

    #[test]
    fn a_restarted_agent_goes_on_and_cleared_counters_begin_anew() {
        let mut tally = tally();
        let (s0, whole) = ("s0,0,1,0,0,0,0,2,0,0,0,0,0,0,0,0", "BACKEND,0,1,0,0,0,0,1,0,0,0,0,0,0,0,0");
        assert_eq!(counted(&mut tally, &[s0, QUIET, whole]), [1, 0]);
        let text = serde_json::to_string(&tally).unwrap();
        let mut again: Tally = serde_json::from_str(&text).unwrap();
        assert_eq!(counted(&mut again, &[s0, QUIET, whole]), [1, 0]);
        let (s0, whole) = ("s0,0,3,0,0,0,0,2,0,0,0,0,0,0,0,0", "BACKEND,0,3,0,0,0,0,1,0,0,0,0,0,0,0,0");
        assert_eq!(counted(&mut again, &[s0, QUIET, whole]), [3, 0], "while it was away");
        // In flight when they were cleared.
        assert_eq!(
            counted(&mut again, &["s0,1,0,0,0,0,0,2,0,0,0,0,0,0,0,0", QUIET, "BACKEND,1,0,0,0,0,0,1,0,0,0,0,0,0,0,0"]),
            [0, 0]
        );
        assert_eq!(
            counted(&mut again, &["s0,0,0,0,0,0,0,2,0,1,0,0,0,0,0,0", QUIET, "BACKEND,0,0,0,0,0,0,1,0,1,0,0,0,0,0,0"]),
            [0, 0]
        );
        assert_eq!(
            counted(&mut again, &["s0,0,1,0,0,0,0,2,0,1,0,0,0,0,0,0", QUIET, "BACKEND,0,1,0,0,0,0,1,0,1,0,0,0,0,0,0"]),
            [1, 0]
        );
    }

    #[test]
    fn a_backend_that_passes_on_connections_counts_none() {
        assert_eq!(lines(&["s0,0,1,0,0,0,0,2,,,,,,,0,0", "BACKEND,0,1,0,0,0,0,1,,,,,,,0,0"]), None);
    }
}
