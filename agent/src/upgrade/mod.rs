//! The agent's own package: told by the coordinator, fetched and checked here, installed by a program of its own.
//!
//! Whatever happens, this host has one of two agents afterwards, the new one or the one before, and the coordinator hears which.
//! Instances and balancers are not concerned: they outlive every agent.

mod apply;
mod dpkg;
mod mark;
mod packages;
mod record;
#[cfg(test)]
pub(crate) mod tests;

pub use apply::upgrade_as_recorded;

use crate::artifact::{Source, fetch};
use crate::runtime::systemd;
use crate::text;
use baton_core::name::PackageVersion;
use baton_core::problem::{Code, Problem};
use baton_core::upgrade::plan::Progress;
use baton_proto::convert::{UpgradeOrder, UpgradeReport};
use baton_proto::v1;
use dpkg::Dpkg;
use mark::Mark;
use packages::Packages;
use record::{Folder, Record, State};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The word that makes this program the one that installs.
pub const APPLY: &str = "upgrade-apply";

/// The unit it runs as.
const UNIT: &str = "baton-agent-upgrade.service";

/// Where the package puts the agent.
const PROGRAM: &str = "/usr/bin/baton-agent";

/// How often it is looked whether an upgrade under way has ended.
const LOOK: Duration = Duration::from_millis(500);

/// What the session needs of it.
#[derive(Debug)]
pub struct Ends {
    /// What the coordinator is told first.
    pub stated: v1::AgentPackage,
    pub orders: watch::Sender<Option<UpgradeOrder>>,
    pub reports: watch::Receiver<Option<UpgradeReport>>,
    /// Where it is marked that there is a session, and of which package; none: this agent is of no package.
    mark: Option<(Mark, PackageVersion)>,
}

/// The task that carries orders out.
#[derive(Debug)]
pub struct Room {
    folder: io::Result<Folder>,
    source: Arc<dyn Source>,
    stated: Stated,
    orders: watch::Receiver<Option<UpgradeOrder>>,
    reports: watch::Sender<Option<UpgradeReport>>,
}

/// What this agent is, as far as packages go.
#[derive(Debug, Clone)]
struct Stated {
    runs: Option<PackageVersion>,
    architecture: String,
    refuses: Option<Problem>,
}

/// Looks at what this agent was started from, and makes the room and the session's ends of it.
pub fn open(state: &Path, allowed: bool, source: Arc<dyn Source>) -> (Room, Ends) {
    let stated = Stated::look(&Dpkg::default(), std::env::current_exe().ok().as_deref(), allowed, systemd::runs_here());
    let (order, orders) = watch::channel(None);
    let (report, reports) = watch::channel(None);
    let ends = Ends {
        stated: v1::AgentPackage {
            version: stated.runs.as_ref().map(ToString::to_string).unwrap_or_default(),
            architecture: stated.architecture.clone(),
            refuses: stated.refuses.as_ref().map(Into::into),
        },
        orders: order,
        reports,
        mark: stated.runs.clone().map(|version| (Mark::default(), version)),
    };
    (Room { folder: Folder::open(state), source, stated, orders, reports: report }, ends)
}

impl Ends {
    /// Takes in what the coordinator says; a message without an id takes the order back. One that cannot be understood is none:
    /// it must not cost the session.
    pub fn ordered(&self, message: v1::UpgradeOrder) {
        let order = (!message.id.is_empty()).then(|| UpgradeOrder::try_from(message)).transpose();
        let order = order.unwrap_or_else(|error| {
            tracing::warn!(%error, "an order for this agent's package cannot be understood");
            None
        });
        self.orders.send_replace(order);
    }

    /// The coordinator accepted this agent's hello. Marked once: nobody takes it back but an upgrade, which restarts the agent.
    pub fn accepted(&mut self) {
        if let Some((mark, version)) = self.mark.take()
            && let Err(error) = mark.set(&version)
        {
            tracing::warn!(%error, "cannot mark that there is a session; an upgrade would not see it");
            self.mark = Some((mark, version));
        }
    }
}

impl Stated {
    fn look(dpkg: &Dpkg, program: Option<&Path>, allowed: bool, systemd: bool) -> Self {
        let installed = (program == Some(Path::new(PROGRAM))).then(|| dpkg.installed()).flatten();
        let refuses = match (&installed, allowed) {
            (_, false) => Some(
                Problem::new(Code(550), "this host's agent is not upgraded by the coordinator")
                    .saw("agent.toml", "upgrades = false")
                    .help("upgrade it on its host: apt install ./baton-agent_*.deb; or set upgrades = true there"),
            ),
            (None, true) => {
                let program = program.map_or_else(|| "unknown".to_owned(), |program| program.display().to_string());
                Some(
                    Problem::new(Code(551), "this agent was not installed from a .deb package")
                        .saw("program", program)
                        .help("upgrade it the way it was installed, such as dnf upgrade for an .rpm"),
                )
            }
            (Some(_), true) if !systemd => {
                Some(Problem::new(Code(551), "this host is not run by systemd, which would restart the agent"))
            }
            (Some(_), true) => None,
        };
        let (runs, architecture) = installed.map(|it| (it.version, it.architecture.to_string())).unzip();
        Self { runs, architecture: architecture.unwrap_or_default(), refuses }
    }
}

impl Room {
    /// Carries out orders for ever.
    pub async fn serve(mut self) {
        self.settle().await;
        loop {
            let order = self.orders.borrow_and_update().clone();
            if let Some(order) = order {
                self.carry_out(order).await;
            }
            if self.orders.changed().await.is_err() {
                return;
            }
        }
    }

    /// What an agent before this one began.
    async fn settle(&self) {
        let Some(record) = self.folder.as_ref().ok().and_then(Folder::read) else { return };
        self.reports.send_replace(Some(record.report()));
        if record.state == State::Begun {
            self.attend().await;
        }
    }

    /// Waits until the program that installs has ended, however it did; reports what came of it.
    async fn attend(&self) {
        let Ok(folder) = &self.folder else { return };
        loop {
            let alive = systemd::is_alive(UNIT).await;
            // Read after it was looked: what ended in between has written it down.
            let Some(record) = folder.read() else { return };
            if record.state != State::Begun {
                self.reports.send_replace(Some(record.report()));
                return;
            }
            if !alive {
                let ended = Record { state: self.cut_off(&record), ..record };
                if let Err(error) = folder.write(&ended) {
                    tracing::warn!(%error, "how the upgrade ended cannot be written down");
                }
                self.reports.send_replace(Some(ended.report()));
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Nobody installs any more, and nobody wrote down an end: the machine was switched off, or somebody ended it.
    fn cut_off(&self, record: &Record) -> State {
        let installed = Dpkg::default().installed();
        let whole = installed.as_ref().is_some_and(|it| it.status == "installed" && it.version == record.package.version);
        if whole && self.stated.runs.as_ref() == Some(&record.package.version) {
            return State::Done;
        }
        let seen = installed.map_or("nothing".to_owned(), |it| format!("{} ({})", it.version, it.status));
        State::Failed(
            Problem::new(Code(555), "the upgrade of this host's agent was cut off, by a reboot or by somebody")
                .saw("installed now", seen)
                .help("on this host, where dpkg says more than installed: dpkg --configure -a; then baton agents resume"),
        )
    }

    async fn carry_out(&mut self, order: UpgradeOrder) {
        let known = self.folder.as_ref().ok().and_then(Folder::read);
        if let Some(record) = known.filter(|record| record.is_of(&order)) {
            self.reports.send_replace(Some(record.report()));
            if record.state == State::Begun {
                self.attend().await;
            }
            return;
        }
        let mut orders = self.orders.clone();
        let fetched = tokio::select! {
            fetched = self.fetch(&order) => fetched,
            // Taken back, or another one, before anything was done.
            _ = orders.changed() => return,
        };
        let begun = match fetched {
            Ok(from) => self.begin(&order, from).await,
            Err(problem) => Err(problem),
        };
        match begun {
            Ok(()) => self.attend().await,
            Err(problem) => {
                tracing::warn!(%problem, version = %order.package.version, "the agent is not upgraded");
                self.report(&order, Progress::Failed(problem));
            }
        }
    }

    fn report(&self, order: &UpgradeOrder, progress: Progress) {
        let report = UpgradeReport { id: order.id.clone(), attempt: order.attempt, progress };
        self.reports.send_replace(Some(report));
    }

    /// Brings the package here, and says what is the way back.
    async fn fetch(&self, order: &UpgradeOrder) -> Result<PackageVersion, Problem> {
        if let Some(problem) = &self.stated.refuses {
            return Err(problem.clone());
        }
        let folder = self.folder.as_ref().map_err(cannot_begin)?.clone();
        let from = self.stated.runs.clone().ok_or_else(|| cannot_begin(&io::Error::other("no version is known")))?;
        tracing::info!(version = %order.package.version, %from, "the agent is to be upgraded");
        let artifact = order.package.artifact;
        let progress = |done| self.report(order, Progress::Fetching { done, total: artifact.size });
        progress(0);
        fetch(self.source.as_ref(), &Packages(folder), artifact, progress).await?;
        Ok(from)
    }

    /// Everything else up to the moment in which somebody else goes on.
    async fn begin(&self, order: &UpgradeOrder, from: PackageVersion) -> Result<(), Problem> {
        let folder = self.folder.as_ref().map_err(cannot_begin)?.clone();
        let record = Record {
            id: order.id.clone(),
            attempt: order.attempt,
            package: order.package.clone(),
            from,
            back_within: order.back_within,
            state: State::Begun,
        };
        let state = folder.0.parent().unwrap_or(Path::new("/")).display().to_string();
        let words = [folder.program().display().to_string(), APPLY.to_owned(), state];
        let prepared = record.clone();
        let preparing = tokio::task::spawn_blocking(move || prepare(&Dpkg::default(), &folder, &prepared));
        preparing.await.map_err(|error| cannot_begin(&io::Error::other(error)))??;
        self.report(order, Progress::Installing);
        if let Err(problem) = systemd::run_beside(UNIT, "Upgrade of the Baton agent", &words).await {
            let failed = Record { state: State::Failed(problem.clone()), ..record };
            if let Ok(folder) = &self.folder {
                folder.write(&failed).map_err(|error| cannot_begin(&error))?;
            }
            return Err(problem);
        }
        Ok(())
    }
}

/// Checks the package, keeps the way back, lays the program aside, and writes down that it begins: the last thing, for from
/// then on it may have happened.
fn prepare(dpkg: &Dpkg, folder: &Folder, record: &Record) -> Result<(), Problem> {
    dpkg::check(&folder.next(), &record.package)?;
    let kept = folder.given();
    if dpkg::version_of(&kept).as_ref() == Some(&record.from) {
        fs::copy(&kept, folder.way_back()).map_err(|error| cannot_begin(&error))?;
    } else {
        dpkg.repack(&folder.way_back())?;
    }
    lay_aside(Path::new("/proc/self/exe"), &folder.program()).map_err(|error| cannot_begin(&error))?;
    folder.write(record).map_err(|error| cannot_begin(&error))
}

/// Copies a program; one that runs there already is replaced and not written into.
fn lay_aside(program: &Path, to: &Path) -> io::Result<()> {
    let new = to.with_extension("new");
    fs::copy(program, &new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o700))?;
    fs::rename(&new, to)
}

fn cannot_begin(error: &io::Error) -> Problem {
    Problem::new(Code(556), format!("the upgrade of this host's agent cannot begin: {}", text::io_error(error)))
        .help("check the disk and the rights of the agent's state folder, then baton agents resume")
}
