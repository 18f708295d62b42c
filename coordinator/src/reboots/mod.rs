//! Reboots of hosts: one document with a writer of its own, as upgrades of agents have.
//!
//! What is seen goes in, `core` decides, the decision is durable, and only then anybody is told. Taking a host out and bringing it
//! back is asked of the driver, as people ask: what it refuses them it refuses here.

use crate::driver::{Access, Ask, Picture, Reboots as Allows};
use crate::store::{Store, StoreError};
use crate::upgrades::Steer;
use baton_core::name::{HostName, RebootId};
use baton_core::problem::{Code, Problem};
use baton_core::reboot::Reboot;
use baton_core::reboot::look::{NOT_ALLOWED, chosen, look, told};
use baton_core::reboot::plan::{Next, Stand, plan};
use baton_core::rollout::command::Command;
use baton_core::upgrade::{Paused, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often it is looked at although nothing was heard, and how soon again after the store failed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hosts that are named in one refusal.
const NAMED: usize = 20;

/// Everybody's end of it.
#[derive(Clone)]
pub struct Reboots(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    access: Access,
    /// What is durable. Held while it is written.
    kept: tokio::sync::Mutex<Option<Reboot>>,
    shown: watch::Sender<Arc<Shown>>,
    wake: Notify,
}

/// The reboots as last decided, and what follows for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    pub reboot: Option<Reboot>,
    pub stands: BTreeMap<HostName, Stand>,
    /// Who should leave which boot now.
    pub orders: BTreeMap<HostName, String>,
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Empty: every host but those of load balancers.
    pub hosts: Vec<HostName>,
    pub at_once: usize,
    pub back_within: Duration,
    pub by: String,
    pub why: String,
}

impl Reboots {
    /// Goes on with what the store has.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: Arc<dyn Store>, access: Access) -> Result<Self, StoreError> {
        let kept = store.reboot().await?;
        let shown = watch::Sender::new(Arc::new(Shown { reboot: kept.clone(), ..Shown::default() }));
        Ok(Self(Arc::new(Shared { store, access, kept: tokio::sync::Mutex::new(kept), shown, wake: Notify::new() })))
    }

    /// Looks after it for ever.
    pub async fn run(self) {
        let mut pictures = self.0.access.pictures();
        loop {
            let look_again = match self.pass().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(%error, "reboots stand still until the store works again");
                    Some(LOOK_EVERY)
                }
            };
            let later = async {
                match look_again {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.wake.notified() => {}
                changed = pictures.changed(), if look_again.is_some() => if changed.is_err() { return },
                () = later => {}
            }
        }
    }

    /// Decides, makes it durable, shows it, and has the driver do what follows. Returns when to look again; None: there is
    /// nothing to look at.
    async fn pass(&self) -> Result<Option<Duration>, StoreError> {
        let mut kept = self.0.kept.lock().await;
        let Some(reboot) = kept.clone() else { return Ok(None) };
        let picture = self.0.access.picture();
        // Neither behind a fence nor without a store: what could not be remembered is not begun.
        if picture.trouble.is_some() {
            return Ok(Some(LOOK_EVERY));
        }
        let next = self.planned(&reboot, &picture);
        self.keep(&mut kept, &reboot, &next.reboot, &picture).await?;
        let (open, mut after) = (next.reboot.is_open(), next.reboot.clone());
        let wait = next.wake_at.map_or(LOOK_EVERY, |at| at.since(self.0.access.now()).min(LOOK_EVERY));
        let Next { drains, returns, tells, gives_up, .. } = next.clone();
        let look_again = open || !gives_up.is_empty();
        self.show(next);
        for host in drains {
            let (by, why) = (reboot.by.clone(), format!("to be rebooted ({}): {}", reboot.id, reboot.why));
            let drain = Command::Drain { host: host.clone(), stop: false, reboot: true, by, why };
            if let Err(problem) = self.0.access.ask(Ask::Order(Box::new(drain))).await {
                after = after.refused(&host, problem);
            }
        }
        for (host, boot) in tells {
            let tell = Command::Reboot { host: host.clone(), boot, by: reboot.by.clone() };
            // Somebody brings it back just now, or requests are led there again: it is not told, and its turn goes on.
            if let Err(problem) = self.0.access.ask(Ask::Order(Box::new(tell))).await {
                tracing::info!(%host, %problem, "not told to reboot yet");
            }
        }
        for host in gives_up {
            let give_up = Command::GiveUpReboot { host: host.clone(), by: reboot.by.clone() };
            if let Err(problem) = self.0.access.ask(Ask::Order(Box::new(give_up))).await {
                tracing::warn!(%host, %problem, "not given up yet");
            }
        }
        for host in returns {
            let undrain = Command::Undrain { host: host.clone(), by: reboot.by.clone() };
            if let Err(problem) = self.0.access.ask(Ask::Order(Box::new(undrain))).await {
                tracing::warn!(%host, %problem, "not brought back yet");
            }
        }
        let before = kept.clone().unwrap_or_else(|| after.clone());
        self.keep(&mut kept, &before, &after, &picture).await?;
        Ok(look_again.then_some(wait))
    }

    async fn keep(
        &self,
        kept: &mut Option<Reboot>,
        before: &Reboot,
        after: &Reboot,
        picture: &Picture,
    ) -> Result<(), StoreError> {
        if before != after {
            self.0.store.keep_reboot(picture.fleet.epoch, after).await?;
            log(before, after);
            *kept = Some(after.clone());
        }
        Ok(())
    }

    fn planned(&self, reboot: &Reboot, picture: &Picture) -> Next {
        let now = self.0.access.now();
        let hellos = self.0.access.links().hellos();
        let allows = |host: &HostName| allows(host, hellos.get(host).map(|hello| &hello.reboots));
        // Whoever was told for reboots before these is looked after too.
        let hosts = &picture.fleet.hosts;
        let others = hosts.iter().filter(|(name, host)| told(host).is_some() && !reboot.order.contains(name));
        let all: Vec<HostName> = reboot.order.iter().chain(others.map(|(name, _)| name)).cloned().collect();
        let seen = look(&picture.fleet, &all, allows, now);
        plan(reboot, &seen, now)
    }

    fn show(&self, next: Next) {
        let Next { reboot, stands, orders, .. } = next;
        let shown = Arc::new(Shown { reboot: Some(reboot), stands, orders });
        self.0.shown.send_if_modified(|before| {
            let changed = *before != shown;
            *before = shown;
            changed
        });
    }

    /// Begins, or says what it would be.
    ///
    /// # Errors
    /// B0744 while others are open, B0567 where a host does not allow it, those of [`chosen`], and those of the store.
    pub async fn begin(&self, wish: Wish, dry_run: bool) -> Result<Arc<Shown>, Problem> {
        let mut kept = self.0.kept.lock().await;
        let picture = self.picture()?;
        if let Some(open) = kept.as_ref().filter(|reboot| reboot.is_open()) {
            return Err(Problem::new(Code(744), format!("hosts are being rebooted: {}", open.id))
                .saw("asked for by", open.by.clone())
                .help("baton reboot shows how far it is; baton reboot --cancel ends it where it stands"));
        }
        let now = self.0.access.now();
        let order = chosen(&picture.fleet, &wish.hosts, now)?;
        self.all_allow(&order)?;
        let number = picture.number_after(kept.as_ref().map(|before| before.id.as_str()));
        let reboot = Reboot {
            id: RebootId::new(format!("b-{number}")).map_err(|error| Problem::new(Code(1010), error.to_string()))?,
            order,
            at_once: wish.at_once,
            back_within: wish.back_within,
            by: wish.by,
            why: wish.why,
            begun: now,
            ended: None,
            state: State::Active,
            courses: BTreeMap::new(),
        };
        if dry_run {
            let Next { stands, .. } = self.planned(&reboot, &picture);
            return Ok(Arc::new(Shown { reboot: Some(reboot), stands, orders: BTreeMap::new() }));
        }
        self.0.store.keep_reboot(picture.fleet.epoch, &reboot).await.map_err(|error| error.problem())?;
        tracing::info!(reboot = %reboot.id, hosts = reboot.order.len(), by = reboot.by, "reboots");
        *kept = Some(reboot);
        drop(kept);
        self.looked_at().await
    }

    /// Pauses, resumes or cancels what is open.
    ///
    /// # Errors
    /// B0745 when nothing is; those of the store.
    pub async fn steer(&self, steer: Steer, by: String) -> Result<Arc<Shown>, Problem> {
        let mut kept = self.0.kept.lock().await;
        let Some(reboot) = kept.clone().filter(Reboot::is_open) else {
            return Err(Problem::new(Code(745), "no host is being rebooted")
                .help("baton reboot shows what was; baton reboot HOST begins"));
        };
        let picture = self.picture()?;
        let cancelled = matches!(reboot.state, State::Aborted { .. });
        let steered = match steer {
            // What is cancelled only comes to its end.
            _ if cancelled => reboot.clone(),
            Steer::Pause if reboot.state == State::Active => {
                Reboot { state: State::Paused(Paused::By(by)), ..reboot.clone() }
            }
            Steer::Pause => reboot.clone(),
            Steer::Resume => reboot.clone().resumed(self.0.access.now()),
            Steer::Abort => Reboot { state: State::Aborted { by }, ..reboot.clone() },
        };
        self.keep(&mut kept, &reboot, &steered, &picture).await.map_err(|error| error.problem())?;
        drop(kept);
        self.looked_at().await
    }

    /// Nothing is drained before every host said that it may be rebooted.
    fn all_allow(&self, order: &[HostName]) -> Result<(), Problem> {
        let hellos = self.0.access.links().hellos();
        let refusal = |host: &HostName| {
            let problem = allows(host, hellos.get(host).map(|hello| &hello.reboots)).err()?;
            Some((host.to_string(), problem))
        };
        let refusals: Vec<(String, Problem)> = order.iter().filter_map(refusal).take(NAMED).collect();
        let Some((_, first)) = refusals.first() else { return Ok(()) };
        let names: Vec<&str> = refusals.iter().map(|(host, _)| host.as_str()).collect();
        let mut problem = Problem::new(first.code, format!("{} cannot be rebooted from here", names.join(", ")));
        problem.seen = refusals.iter().map(|(host, problem)| (host.clone(), problem.what.clone())).collect();
        problem.help.clone_from(&first.help);
        Err(problem)
    }

    /// The fleet, unless the coordinator decides nothing just now.
    fn picture(&self) -> Result<Arc<Picture>, Problem> {
        let picture = self.0.access.picture();
        match &picture.trouble {
            Some(problem) => Err(problem.clone()),
            None => Ok(picture),
        }
    }

    async fn looked_at(&self) -> Result<Arc<Shown>, Problem> {
        self.pass().await.map_err(|error| error.problem())?;
        self.0.wake.notify_one();
        Ok(self.shown())
    }

    /// The reboots as last decided.
    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        self.0.shown.borrow().clone()
    }

    /// The same, as it changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Shown>> {
        self.0.shown.subscribe()
    }
}

impl std::fmt::Debug for Reboots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reboots").field("shown", &self.0.shown).finish_non_exhaustive()
    }
}

/// What a host says of reboots. One that is not there says nothing against them: its turn comes once it is.
fn allows(host: &HostName, said: Option<&Allows>) -> Result<(), Problem> {
    match said {
        None | Some(Allows::Allowed) => Ok(()),
        Some(Allows::Refused(problem)) => Err(problem.clone()),
        Some(Allows::Unsaid) => {
            Err(Problem::new(NOT_ALLOWED, format!("the agent of {host} is too old to be told")).help("baton agents upgrade"))
        }
    }
}

fn log(before: &Reboot, after: &Reboot) {
    let reboot = &after.id;
    if before.state.word() != after.state.word() {
        tracing::info!(%reboot, state = after.state.word(), "reboots");
    }
    for (host, course) in after.courses.iter().filter(|(host, course)| before.courses.get(*host) != Some(course)) {
        match &course.failed {
            Some(problem) => tracing::warn!(%reboot, %host, %problem, "not rebooted as it should be"),
            None => tracing::info!(%reboot, %host, phase = ?course.phase, "reboot of a host"),
        }
    }
}
