//! One look at nginx: what it says it serves, what the file says, and what workers from before still hold.

use super::page::{self, Line, Page, Place, Pools, Splits};
use super::processes::{self, Master, Worker};
use super::reload::Settled;
use super::workers::Workers;
use super::{Nginx, program, sides};
use crate::balancer::ask::{self, Place as Endpoint, Silence};
use crate::balancer::driver::{MemberSeen, PoolSeen, Remark, Seen, SplitSeen};
use crate::balancer::requests::Tally;
use crate::balancer::{decide, problem};
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::Side;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long workers from before a reload may still answer for it.
const STALE: Duration = Duration::from_millis(300);

/// What nginx itself says it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) page: Page,
    /// The worker that answers.
    pub(super) pid: Option<u32>,
    pub(super) version: Option<String>,
}

impl Echo {
    pub(super) async fn ask(endpoint: &Endpoint) -> Result<Self, Silence> {
        let answer = ask::get(endpoint, page::PATH).await?;
        let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        let garbage = || Silence::Garbage(format!("{} {body}", answer.status));
        let generation = header("baton-generation").and_then(|text| text.parse().ok()).ok_or_else(garbage)?;
        let names = answer.headers.get_all("baton-pool").iter().filter_map(|name| name.to_str().ok()?.parse().ok());
        let mut pools: Pools = names.map(|name| (name, BTreeMap::new())).collect();
        for value in answer.headers.get_all("baton-member") {
            let member = value.to_str().ok().and_then(Line::of_answer);
            let (pool, address, line) = member.ok_or_else(garbage)?;
            pools.entry(pool).or_default().insert(address, line);
        }
        let mut words = body.split_ascii_whitespace().skip(1);
        let pid = words.next().and_then(|pid| pid.parse().ok());
        let splits = answer.headers.get_all("baton-split").iter();
        let splits = splits.filter_map(|value| sides::of_answer(value.to_str().ok()?)).collect();
        Ok(Self { page: Page { generation, pools, splits, logged: false }, pid, version: words.next().map(str::to_owned) })
    }
}

/// What is known of what runs.
enum Running {
    Known(Pools, Splits),
    /// nginx has never read the file.
    Nothing,
    /// It should have, and nobody answers where it says so.
    Unknown,
}

impl Running {
    fn known(&self) -> (Pools, Splits) {
        match self {
            Self::Known(pools, splits) => (pools.clone(), splits.clone()),
            Self::Nothing | Self::Unknown => (Pools::new(), Splits::new()),
        }
    }
}

impl Nginx {
    pub(super) async fn look(&mut self, master: Master, pools: &BTreeMap<PoolName, PoolSpec>) -> Result<Seen, Problem> {
        let fresh = self.identity.as_ref() != Some(&master.identity());
        if fresh {
            if self.identity.replace(master.identity()).is_some() {
                tracing::warn!(identity = %master.identity(), "nginx restarted");
            }
            self.orphans = tokio::task::spawn_blocking(processes::orphans).await.unwrap_or_default();
            (self.said, self.pending, self.mixed) = (0, None, None);
            self.current.clear();
        }
        if let Ok(requests) = &self.requests {
            requests.believe(Workers { master, orphans: self.orphans.clone() });
        }
        let echo = self.newest_echo().await?;
        if let Settled::NotYet(seen) = self.settle(master, echo.as_ref()).await? {
            return Err(problem::changing_hands(seen));
        }
        if fresh && let Ok(accepted) = program::test(&self.config).await {
            let version = echo.as_ref().map(|echo| echo.version.as_deref());
            self.notes = version.map_or_else(Vec::new, |version| accepted.notes(version, &self.config));
            self.learn(&accepted);
        }
        let place = self.place()?;
        let (file, edited) = match &place {
            Place::Foreign => return Err(problem::file_foreign(&self.config.include)),
            Place::Missing => (Page::default(), false),
            Place::Ours { page, edited } => (page.clone(), *edited || self.may_log.is_some_and(|may| may != page.logged)),
        };
        self.expect_requests(&file.pools);
        // Before the counters: what is lost in between is said the next time.
        let counting = self.requests.as_ref().map_or_else(|_| String::new(), |requests| format!("+{}", requests.begun()));
        let generation = echo.as_ref().map_or(0, |echo| echo.page.generation).max(file.generation);
        let running = match (echo, &place) {
            // Somebody wrote lines of their own into it and may have reloaded: what stands there is the worst case.
            (Some(_), _) if edited => Running::Known(file.pools.clone(), file.splits.clone()),
            (Some(echo), _) => Running::Known(echo.page.pools, echo.page.splits),
            (None, Place::Ours { .. }) => Running::Unknown,
            (None, _) => Running::Nothing,
        };
        self.find_leaving(master).await?;
        let seen = pools.iter().map(|(name, spec)| {
            let members = self.pool(name, spec, &running, &file, edited);
            (name.clone(), Ok(members))
        });
        let seen: BTreeMap<_, _> = seen.collect();
        let (known, dividing) = running.known();
        let splits = pools.keys().filter_map(|name| Some((name.clone(), self.split(name, &dividing, &file, edited)?)));
        let splits = splits.collect();
        let seen = Seen { identity: format!("{}{counting}", master.identity()), pools: seen, splits };
        let others = if matches!(place, Place::Missing) { known } else { file.pools };
        let logged = file.logged;
        self.now = Page { splits: dividing, logged, ..now(&seen, others, generation.max(self.now.generation)) };
        Ok(seen)
    }

    /// What the newest worker says that answers: for a moment after a reload, older ones may.
    async fn newest_echo(&mut self) -> Result<Option<Echo>, Problem> {
        let began = Instant::now();
        loop {
            let echo = match Echo::ask(&self.status).await {
                Ok(echo) => echo,
                Err(Silence::Nobody(_)) => return Ok(None),
                Err(silence) => return Err(silence.problem(&self.status)),
            };
            if echo.page.generation < self.said && began.elapsed() >= STALE {
                // Somebody went back to an older file.
                self.said = echo.page.generation;
                self.current.clear();
            }
            self.note(&echo);
            if echo.page.generation >= self.said {
                return Ok(Some(echo));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn place(&self) -> Result<Place, Problem> {
        match fs::read_to_string(&self.config.include) {
            Ok(text) => Ok(Place::parse(&text, &self.config)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Place::Missing),
            Err(error) => Err(problem::state_file(&self.config.include, &error)),
        }
    }

    /// The pools that nginx would start with.
    pub(super) fn file_pools(&self) -> Vec<PoolName> {
        match self.place() {
            Ok(Place::Ours { page, .. }) => page.pools.into_keys().collect(),
            _ => Vec::new(),
        }
    }

    async fn find_leaving(&mut self, master: Master) -> Result<(), Problem> {
        self.orphans.retain(|worker| worker.lives());
        let not_new = |worker: &Worker| worker.is_leaving() || !self.is_current(*worker);
        let old: BTreeSet<Worker> =
            master.workers().into_iter().filter(not_new).chain(self.orphans.iter().copied()).collect();
        let unseen = |error: io::Error| problem::changing_hands(format!("old workers cannot be looked into: {error}"));
        self.leaving.look(old, master).await.map_err(unseen)?;
        if self.leaving.is_empty() {
            self.cut.clear();
        }
        Ok(())
    }

    fn pool(&mut self, name: &PoolName, spec: &PoolSpec, running: &Running, file: &Page, edited: bool) -> PoolSeen {
        let out = |weight, side| Line { state: MemberState::Out, weight, side };
        let none = BTreeMap::new();
        let on_disk = file.pools.get(name).unwrap_or(&none);
        let known = match running {
            Running::Known(pools, _) => pools.get(name).unwrap_or(&none),
            _ => &none,
        };
        let wanted: BTreeMap<SocketAddr, _> = spec.members.values().map(|member| (member.address, member)).collect();
        let addresses: BTreeSet<SocketAddr> = wanted.keys().chain(on_disk.keys()).chain(known.keys()).copied().collect();
        let members = addresses.into_iter().map(|address| {
            let member = wanted.get(&address);
            let weight = member.map_or(1, |member| member.weight);
            let side = member.map_or(Side::Stable, |member| decide::side(spec, member));
            let told = match (running, member) {
                // Whatever is wanted is worth a reload, and until then anybody may get requests.
                (Running::Unknown, Some(member)) if member.state == MemberState::Out => {
                    Line { state: MemberState::Ready, weight, side }
                }
                _ => known.get(&address).copied().unwrap_or(out(weight, side)),
            };
            let mut disk = on_disk.get(&address).copied().unwrap_or(out(told.weight, told.side));
            if edited {
                disk.weight = 0;
            }
            (address, self.member(&(name.clone(), address), told, disk))
        });
        members.collect()
    }

    fn member(&mut self, place: &(PoolName, SocketAddr), told: Line, disk: Line) -> MemberSeen {
        let out_for = if told.state == MemberState::Out {
            self.outs.entry(place.clone()).or_insert_with(Instant::now).elapsed()
        } else {
            self.outs.remove(place);
            Duration::ZERO
        };
        let upstreams = [place.0.as_str(), &sides::trial(&place.0), ""];
        let counted = self.requests.as_ref().map_or_else(|_| Tally::default(), |requests| requests.of(&upstreams, &place.1));
        let heard = self.requests.is_ok() && self.may_log == Some(true);
        MemberSeen {
            told: told.state,
            running: told.state,
            on_disk: disk.state,
            weight: (told.weight, disk.weight),
            side: (told.side, disk.side),
            in_flight: if told.state == MemberState::Out { self.leaving.at(place.1) } else { 0 },
            out_for,
            cut: self.journal.entry(&place.0, place.1).map_or(0, |entry| entry.cut),
            requests: counted.requests,
            errors: counted.errors,
            // nginx tells of a request when it is over.
            oldest: None,
            latency: heard.then(|| counted.latency()),
            remark: Remark::None,
        }
    }

    /// How a pool is divided. Lines that somebody edited are to be written anew.
    fn split(&self, name: &PoolName, running: &Splits, file: &Page, edited: bool) -> Option<SplitSeen> {
        let on_disk = file.splits.get(name).filter(|_| !edited).cloned();
        let running = running.get(name).cloned();
        let begun = self.divided_at.get(name).copied().unwrap_or_default();
        let [stable, trial] = self.requests_of_sides(name);
        let (stable, trial) = (stable.saturating_sub(begun[0]), trial.saturating_sub(begun[1]));
        (running.is_some() || on_disk.is_some()).then_some(SplitSeen { running, on_disk, stable, trial, ruled: 0 })
    }

    /// Writes what should be out into the file although nginx does not run: one that starts now must not route there, and
    /// starts at all only when it finds every pool.
    ///
    /// Only ever takes out, and never the last one that would be in. What fails here is reported by the pass itself.
    pub(super) async fn hold_out_on_disk(&self, pools: &BTreeMap<PoolName, PoolSpec>) {
        let (before, missing) = match self.place() {
            Ok(Place::Ours { page, .. }) => (page, false),
            Ok(Place::Missing) => (Page::default(), true),
            _ => return,
        };
        let mut page = before.clone();
        for (name, spec) in pools {
            let lines = page.pools.entry(name.clone()).or_default();
            let wanted: BTreeMap<SocketAddr, MemberState> =
                spec.members.values().map(|member| (member.address, member.state)).collect();
            let stays = |(address, line): (&SocketAddr, &Line)| {
                line.state == MemberState::Ready && wanted.get(address) == Some(&MemberState::Ready)
            };
            if wanted.values().any(|state| *state == MemberState::Ready) && !lines.iter().any(stays) {
                continue;
            }
            for (_, line) in lines.iter_mut().filter(|(address, _)| wanted.get(address) == Some(&MemberState::Out)) {
                line.state = MemberState::Out;
            }
        }
        if page != before || missing {
            page.generation += 1;
            if let Err(problem) = self.write(page.render(&self.config)).await {
                tracing::warn!(%problem, "nginx is down, and its file cannot be written");
            }
        }
    }
}

/// What the next file starts from: what runs, so that a reload changes nothing that was not decided; pools nobody asked
/// about stay as they are.
fn now(seen: &Seen, mut pools: Pools, generation: u64) -> Page {
    for (name, members) in seen.pools.iter().filter_map(|(name, pool)| Some((name, pool.as_ref().ok()?))) {
        let line = |there: &MemberSeen| Line { state: there.told, weight: there.weight.0.max(1), side: there.side.0 };
        let lines = members.iter().map(|(address, there)| (*address, line(there)));
        pools.insert(name.clone(), lines.collect());
    }
    Page { generation, pools, ..Page::default() }
}
