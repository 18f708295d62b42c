//! HAProxy through its runtime socket.
//!
//! Adopts the backend named like the pool, and of it only the servers whose addresses the spec names. Order and gotchas are
//! the measured ones: state on disk before the change; out is `maint`, never `drain`; back in only from `maint`, and only
//! after the member answered from here; nothing is believed before it is read back; a zero counts only when every
//! generation of the process says zero. A restart that forgot is seen by the process's identity and by what it says, and
//! the next pass sets it right.
//!
//! What it needs in haproxy.cfg stands in `agent/examples/haproxy.cfg`.

mod generations;
mod journal;
mod kin;
mod look;
mod row;
mod socket;
mod state_file;
mod text;

use super::conduct::Conductor;
use super::driver::{Change, Driver, Seen};
use super::{Balancer, HaproxyConfig, problem};
use baton_core::fleet::ability::{BalancerAbility, SplitAbility};
use baton_core::fleet::spec::{MemberState, PoolSpec};
use baton_core::fleet::split::TrafficSplit;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use journal::Journal;
use look::{Look, Servers};
use row::Row;
use state_file::StateFile;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use text::Stat;

/// A server of a pool.
type Place = (PoolName, SocketAddr);

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
    ids: BTreeMap<PoolName, String>,
    /// Since when they are out.
    outs: BTreeMap<Place, Instant>,
    /// What was answered when they were last told something.
    complaints: BTreeMap<Place, String>,
    /// Servers that came back in although the file says out.
    ignored: BTreeSet<Place>,
    /// Servers that are not in maintenance, of any backend, and when they were listed.
    survey: Option<(Instant, Servers)>,
}

/// Opens the driver.
///
/// # Errors
/// [`Problem`] when the agent's state folder cannot be written.
pub(super) fn open(config: HaproxyConfig, state: &Path) -> Result<Box<dyn Balancer>, Problem> {
    std::fs::create_dir_all(state).map_err(|error| problem::state_folder(state, &error))?;
    let haproxy = Haproxy {
        config,
        journal: Journal::open(state.join("haproxy.json")),
        identity: None,
        servers: BTreeMap::new(),
        ids: BTreeMap::new(),
        outs: BTreeMap::new(),
        complaints: BTreeMap::new(),
        ignored: BTreeSet::new(),
        survey: None,
    };
    Ok(Box::new(Conductor::new(haproxy)))
}

impl Driver for Haproxy {
    async fn observe(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) -> Result<Seen, Problem> {
        let survey_due = self.survey.as_ref().is_none_or(|(at, _)| at.elapsed() >= SURVEY);
        let look = match Look::take(&self.config.socket, pools.keys(), &self.ids, survey_due).await {
            // What another process listed is not what this one has, nor are its backends' numbers.
            Ok(look) if self.identity.as_ref() != Some(&look.process.identity()) => {
                Look::take(&self.config.socket, pools.keys(), &BTreeMap::new(), true).await?
            }
            Ok(look) => look,
            Err(problem) => {
                self.hold_out_on_disk(pools).await;
                return Err(problem);
            }
        };
        self.take_in(pools, look).await
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<(), Problem> {
        let rows: Vec<(&Change, Row)> = changes
            .iter()
            .filter_map(|change| Some((change, self.servers.get(&(change.pool.clone(), change.address))?.clone())))
            .collect();
        self.journal
            .update(|pools| {
                for (change, row) in &rows {
                    let entry = pools.entry(change.pool.clone()).or_default().entry(change.address).or_default();
                    if change.state == MemberState::Out && row.told() != MemberState::Out {
                        entry.cut = 0;
                    }
                }
            })
            .await?;
        let before = StateFile::read(&self.config.state_file)?;
        let mut file = before.clone();
        for (change, row) in &rows {
            file.set(row.clone().with(change.state, change.weight));
        }
        if file != before {
            file.write(&self.config.state_file).await?;
        }
        let commands: Vec<(Place, String)> = rows
            .iter()
            .flat_map(|(change, row)| {
                commands(change, row).into_iter().map(|text| ((change.pool.clone(), change.address), text))
            })
            .collect();
        self.tell(&commands).await
    }

    async fn divide(&mut self, pool: &PoolName, split: Option<&TrafficSplit>) -> Result<(), Problem> {
        match split {
            Some(split) => Err(problem::cannot_split(pool, &split.needs())),
            None => Ok(()),
        }
    }

    fn ability(&self) -> BalancerAbility {
        BalancerAbility { driver: "haproxy".to_owned(), split: SplitAbility::None }
    }

    async fn cut(&mut self, pool: &PoolName, address: SocketAddr) -> Result<(), Problem> {
        let Some(row) = self.servers.get(&(pool.clone(), address)).cloned() else { return Ok(()) };
        let commands = ["show stat -1 4 -1".to_owned(), format!("shutdown sessions server {}", row.name())];
        let blocks = socket::ask(&self.config.socket, &commands).await?;
        let stats = blocks.first().and_then(|block| Stat::parse_all(block)).unwrap_or_default();
        let mut cut: u64 = stats
            .iter()
            .filter(|stat| (stat.text("pxname"), stat.text("svname")) == (row.backend(), row.server()))
            .map(|stat| stat.number("scur"))
            .sum();
        if let (Some(master), Some(pid)) = (&self.config.master_socket, self.pid()) {
            cut += generations::cut(master, &generations::old(master, pid).await?, address).await?;
        }
        let counted = |pools: &mut BTreeMap<PoolName, BTreeMap<SocketAddr, journal::Entry>>| {
            pools.entry(pool.clone()).or_default().entry(address).or_default().cut += cut;
        };
        self.journal.update(counted).await
    }
}

impl Haproxy {
    fn pid(&self) -> Option<u32> {
        self.identity.as_deref()?.split('@').next()?.parse().ok()
    }

    async fn tell(&mut self, commands: &[(Place, String)]) -> Result<(), Problem> {
        if commands.is_empty() {
            return Ok(());
        }
        let lines: Vec<&String> = commands.iter().map(|(_, line)| line).collect();
        let answers = socket::ask(&self.config.socket, &lines).await?;
        for ((place, line), answer) in commands.iter().zip(&answers) {
            self.complaints.remove(place);
            if answer.starts_with("Permission denied") {
                return Err(problem::not_admin(&self.config.socket, "operator"));
            }
            tracing::info!(pool = %place.0, address = %place.1, command = %line, answer = %answer.trim(), "haproxy");
        }
        for ((place, _), answer) in commands.iter().zip(&answers).filter(|(_, answer)| !answer.trim().is_empty()) {
            self.complaints.insert(place.clone(), answer.trim().to_owned());
        }
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
            let somebody_in = before
                .rows(name.as_str())
                .any(|row| row.told() == MemberState::Ready && wanted(row) == Some(MemberState::Ready));
            if wants_somebody && !somebody_in {
                continue;
            }
            for row in before.rows(name.as_str()).filter(|row| wanted(row) == Some(MemberState::Out)) {
                if row.told() != MemberState::Out {
                    file.set(row.clone().with(MemberState::Out, row.weight()));
                }
            }
        }
        if file != before {
            let _ = file.write(&self.config.state_file).await;
        }
    }
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
