//! One look at Envoy: what it says of its endpoints and versions, and what the files say.

use super::admin::{self, Counters, Host, Hosts, Ready};
use super::listing::{self, Line, Listing, number};
use super::{Endpoint, Envoy};
use crate::balancer::ask::Place;
use crate::balancer::driver::{MemberSeen, PoolSeen, Remark, Seen};
use crate::balancer::{decide, problem};
use crate::connections;
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// Two readings of when a process started, in whole seconds each, may differ by this much.
const START_MARGIN_S: u64 = 2;

impl Envoy {
    pub(super) async fn look(&mut self, ready: &Ready, pools: &BTreeMap<PoolName, PoolSpec>) -> Result<Seen, Problem> {
        self.identify(ready).await?;
        let place = &self.config.admin;
        let (clusters, counters) = tokio::try_join!(admin::clusters(place), admin::counters(place))?;
        self.hear_routes(&counters);
        let mut seen = Seen { identity: self.identity.clone().unwrap_or_default(), ..Seen::default() };
        self.done.clear();
        self.idle.clear();
        for (name, spec) in pools {
            let pool = match self.check(name, clusters.contains_key(name.as_str())).await {
                Ok(()) => {
                    let none = Hosts::new();
                    let hosts = clusters.get(name.as_str()).unwrap_or(&none);
                    let file = self.file(name)?;
                    Ok(self.pool(name, spec, hosts, &file, &counters))
                }
                Err(problem) => Err(problem),
            };
            let split = self.dividing.seen(name, pool.as_ref().ok(), &counters);
            seen.splits.extend(split.map(|split| (name.clone(), split)));
            seen.pools.insert(name.clone(), pool);
        }
        self.counters = counters;
        Ok(seen)
    }

    /// Pid and start time, where the process can be seen; else when it says it started.
    async fn identify(&mut self, ready: &Ready) -> Result<(), Problem> {
        self.pid = ready.pid.or_else(|| self.holder());
        let start = |pid: u32| procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok();
        let known = self.pid.and_then(|pid| Some(format!("{pid}@{}", start(pid)?.starttime)));
        if known.is_some() && known == self.identity {
            return Ok(());
        }
        let server = admin::server(&self.config.admin).await?;
        let identity = known.unwrap_or_else(|| self.by_uptime(server.uptime_s));
        self.zone = server.zone;
        if self.identity.as_ref() != Some(&identity) {
            if self.identity.replace(identity).is_some() {
                tracing::warn!(identity = ?self.identity, "Envoy restarted");
            }
            self.suited.clear();
            self.dividing.forget();
            self.complaints.clear();
            self.listed.clear();
        }
        Ok(())
    }

    fn by_uptime(&self, uptime_s: u64) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let started = now.saturating_sub(uptime_s);
        let before = self.identity.as_deref().and_then(|identity| identity.strip_prefix("envoy@")?.parse::<u64>().ok());
        format!("envoy@{}", before.filter(|before| before.abs_diff(started) <= START_MARGIN_S).unwrap_or(started))
    }

    /// Who listens on the admin address. Looking through every process is for when the socket is a new one.
    fn holder(&mut self) -> Option<u32> {
        let Place::Tcp(address) = &self.config.admin else { return None };
        let inode = connections::listeners_at(*address).ok()?.first()?.inode;
        if self.holder.is_none_or(|(known, _)| known != inode) {
            self.holder = Some((inode, connections::owner_of(inode).map(|owner| owner.pid)));
        }
        self.holder.and_then(|(_, pid)| pid)
    }

    /// Whether a pool's cluster is there and can be driven.
    async fn check(&mut self, name: &PoolName, is_there: bool) -> Result<(), Problem> {
        if self.suited.contains(name) && is_there {
            return Ok(());
        }
        let unknown = || problem::pool_unknown(name, format!("name a cluster of Envoy's configuration `{name}`"));
        let cluster = admin::cluster(&self.config.admin, name.as_str()).await?.ok_or_else(unknown)?;
        admin::suits(&cluster, name.as_str(), &self.path(name))?;
        self.dividing.learn(name, admin::has_sides(&cluster));
        self.suited.insert(name.clone());
        Ok(())
    }

    /// Looks at what can be done while there is no pool to look at, once for each Envoy.
    pub(super) async fn look_around(&mut self) {
        // What fails here is tried again.
        if self.follow_routes().await.is_ok() && self.dividing.trouble().is_none() {
            let _ = self.survey_clusters().await;
        }
    }

    async fn survey_clusters(&mut self) -> Result<(), Problem> {
        let ready = admin::ready(&self.config.admin).await.map_err(|silence| silence.problem(&self.config.admin))?;
        self.identify(&ready).await?;
        if self.dividing.surveyed == self.identity {
            return Ok(());
        }
        let counters = admin::counters(&self.config.admin).await?;
        self.hear_routes(&counters);
        for name in self.dividing.clusters() {
            if let Some(cluster) = admin::cluster(&self.config.admin, name.as_str()).await? {
                self.dividing.learn(&name, admin::has_sides(&cluster));
            }
        }
        self.dividing.surveyed = self.identity.clone();
        Ok(())
    }

    /// A file that Envoy could not read is as one that is not there.
    fn file(&self, name: &PoolName) -> Result<Listing, Problem> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Listing::parse(&text).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Listing::default()),
            Err(error) => Err(problem::state_file(&path, &error)),
        }
    }

    fn pool(&mut self, name: &PoolName, spec: &PoolSpec, hosts: &Hosts, file: &Listing, counters: &Counters) -> PoolSeen {
        let wanted: BTreeMap<SocketAddr, _> = spec.members.values().map(|member| (member.address, member)).collect();
        let addresses: BTreeSet<SocketAddr> =
            wanted.keys().chain(hosts.keys()).chain(file.members.keys()).copied().collect();
        let mut pool = PoolSeen::new();
        let in_effect = counters.version(name.as_str()) == file.version_text();
        for address in addresses {
            let endpoint = (name.clone(), address);
            let member = wanted.get(&address);
            let weight = member.map_or(1, |member| member.weight);
            let host = hosts.get(&address);
            let disk = file.members.get(&address).copied();
            let mut seen = self.member(&endpoint, host, disk, weight, counters);
            let on_disk = disk.map(|line| line.side);
            // Envoy does not say it: it is that of the file in effect.
            let last = if in_effect { on_disk } else { self.now_of(&endpoint).map(|line| line.side) };
            let asked = member.map_or_else(Default::default, |member| decide::side(spec, member));
            seen.side = (last.or(on_disk).unwrap_or(asked), on_disk.unwrap_or(asked));
            if member.is_none() && seen.told == MemberState::Out && seen.in_flight == 0 {
                self.done.insert(endpoint.clone());
            }
            if seen.told == MemberState::Out && seen.in_flight == 0 {
                self.idle.insert(endpoint.clone());
            }
            if host.is_some() {
                self.listed.insert(endpoint);
            }
            pool.insert(address, seen);
        }
        let running = pool.iter().filter(|(address, _)| hosts.contains_key(address) || file.members.contains_key(address));
        let zoned = |address| {
            let on_disk = || file.members.get(address).is_some_and(|line| line.zoned);
            hosts.get(address).map_or_else(on_disk, |host| host.zoned)
        };
        let line = |address, seen: &MemberSeen| Line {
            state: seen.told,
            weight: seen.weight.0,
            zoned: zoned(address),
            side: seen.side.0,
        };
        let members = running.map(|(address, seen)| (*address, line(address, seen)));
        let last = self.now.get(name).map_or(0, |listing| listing.version);
        let version = file.version.max(number(counters.version(name.as_str()))).max(last);
        self.now.insert(name.clone(), Listing { version, members: members.collect() });
        pool
    }

    /// What is known to run at an endpoint since the last look.
    fn now_of(&self, endpoint: &Endpoint) -> Option<Line> {
        self.now.get(&endpoint.0)?.members.get(&endpoint.1).copied()
    }

    fn member(
        &mut self,
        endpoint: &Endpoint,
        host: Option<&Host>,
        disk: Option<Line>,
        weight: u16,
        counters: &Counters,
    ) -> MemberSeen {
        let on_disk = disk.map_or(MemberState::Out, |line| line.state);
        let told = host.map_or(MemberState::Out, |host| match host.told.as_str() {
            // It is out of the file and still gets requests: the file has to say so again.
            _ if host.lingers => MemberState::Drain,
            "HEALTHY" | "UNKNOWN" => MemberState::Ready,
            "DRAINING" if on_disk != MemberState::Drain => MemberState::Out,
            _ => MemberState::Drain,
        });
        let failed =
            host.map(|host| host.failed.join(", ")).filter(|failed| told == MemberState::Ready && !failed.is_empty());
        let running = match (told, &failed) {
            (MemberState::Ready, Some(_)) => MemberState::Out,
            (MemberState::Drain, _) if host.is_some_and(|host| host.lingers) => MemberState::Ready,
            (told, _) => told,
        };
        let complaint = || self.complaints.get(&endpoint.0).cloned().map_or(Remark::None, Remark::Complaint);
        let remark = failed.map_or_else(complaint, Remark::Down);
        let in_flight = match host {
            Some(host) => host.active,
            None if self.listed.contains(endpoint) => self.connections_to(endpoint.1).len() as u64,
            None => 0,
        };
        let timed = !self.zone.is_empty() && host.is_some_and(|host| host.zoned);
        let out = told == MemberState::Out;
        if !out {
            self.outs.remove(endpoint);
            self.cut.remove(endpoint);
        }
        MemberSeen {
            told,
            running,
            on_disk,
            weight: (host.map_or(weight, |host| host.weight), disk.map_or(weight, |line| line.weight)),
            side: Default::default(),
            // A process from before a hot restart may have its requests anywhere.
            in_flight: in_flight + if out { counters.parent_connections() } else { 0 },
            out_for: if out {
                self.outs.entry(endpoint.clone()).or_insert_with(Instant::now).elapsed()
            } else {
                Duration::ZERO
            },
            cut: self.journal.entry(&endpoint.0, endpoint.1).map_or(0, |entry| entry.cut),
            requests: host.map_or(0, |host| host.requests),
            errors: host.map_or(0, |host| host.errors),
            // Envoy counts requests, and lists none.
            oldest: None,
            latency: timed.then(|| counters.took(endpoint.0.as_str(), &self.zone, &listing::zone(endpoint.1))),
            remark,
        }
    }

    /// Envoy refuses to start without a file that it was told to watch: an empty one is as good as none.
    pub(super) async fn write_missing(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) -> Result<(), Problem> {
        for name in pools.keys() {
            if !self.path(name).exists() {
                self.write(name, &Listing { version: 1, ..Listing::default() }).await?;
            }
        }
        Ok(())
    }

    /// Writes what should be out into the files although nobody answers: an Envoy that starts now must not route there.
    ///
    /// Only ever takes out, and never the last one that would be in. What fails here is reported by the pass itself.
    pub(super) async fn hold_out_on_disk(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) {
        for (name, spec) in pools {
            let Ok(before) = self.file(name) else { continue };
            let wanted: BTreeMap<SocketAddr, MemberState> =
                spec.members.values().map(|member| (member.address, member.state)).collect();
            let stays = |(address, line): (&SocketAddr, &Line)| {
                line.state == MemberState::Ready && wanted.get(address) == Some(&MemberState::Ready)
            };
            if wanted.values().any(|state| *state == MemberState::Ready) && !before.members.iter().any(stays) {
                continue;
            }
            let mut listing = before.clone();
            let outs = listing.members.iter_mut().filter(|(address, _)| wanted.get(address) == Some(&MemberState::Out));
            outs.for_each(|(_, line)| line.state = MemberState::Out);
            if listing != before {
                listing.version += 1;
                if let Err(problem) = self.write(name, &listing).await {
                    tracing::warn!(%problem, "Envoy does not answer, and its file cannot be written");
                }
            }
        }
    }
}
