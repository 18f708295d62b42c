//! Upgrades of agents: one document, one writer, beside the driver's.
//!
//! The same shape in small: what agents say goes in, `core` decides, the decision is durable, and only then anybody is told. It
//! knows no service and the driver knows nothing of it: a rollout goes on over the restart of an agent.

mod sessions;

pub use sessions::Stated;

use crate::driver::{Access, LinkId, Picture};
use crate::store::{Store, StoreError};
use baton_core::name::{Digest, HostName, UpgradeId};
use baton_core::problem::{Code, Problem};
use baton_core::strategy::Amount;
use baton_core::upgrade::plan::{Next, Stand, plan};
use baton_core::upgrade::{Package, Paused, State, Step, Upgrade};
use baton_proto::convert::{UpgradeOrder, UpgradeReport};
use sessions::Sessions;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often an open upgrade is looked at although nothing was heard, and how soon again after the store failed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Hosts that are named in one refusal.
const NAMED: usize = 20;

/// Everybody's end of it.
#[derive(Clone)]
pub struct Upgrades(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    access: Access,
    /// What is durable. Held while it is written.
    kept: tokio::sync::Mutex<Option<Upgrade>>,
    sessions: Mutex<Sessions>,
    shown: watch::Sender<Arc<Shown>>,
    wake: Notify,
}

/// The upgrade as last decided, and what follows for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    pub upgrade: Option<Upgrade>,
    pub stands: BTreeMap<HostName, Stand>,
    pub ring: usize,
    pub orders: BTreeMap<HostName, UpgradeOrder>,
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub package: Package,
    /// Empty: every host.
    pub hosts: Vec<HostName>,
    pub rings: Vec<Amount>,
    pub healthy_for: Duration,
    pub back_within: Duration,
    pub by: String,
}

/// What somebody makes of an upgrade that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    Pause,
    Resume,
    Abort,
}

impl Upgrades {
    /// Goes on with what the store has.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: Arc<dyn Store>, access: Access) -> Result<Self, StoreError> {
        let kept = store.upgrade().await?;
        let shown = Shown { upgrade: kept.clone(), ..Shown::default() };
        let sessions = Mutex::new(Sessions::new(access.now()));
        let (kept, shown) = (tokio::sync::Mutex::new(kept), watch::Sender::new(Arc::new(shown)));
        Ok(Self(Arc::new(Shared { store, access, kept, sessions, shown, wake: Notify::new() })))
    }

    /// Looks after it for ever.
    pub async fn run(self) {
        let mut pictures = self.0.access.pictures();
        loop {
            let look_again = match self.pass().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(%error, "the upgrade of the agents stands still until the store works again");
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

    /// Decides, makes it durable, and shows it. Returns when to look again; None: there is nothing to look at.
    async fn pass(&self) -> Result<Option<Duration>, StoreError> {
        let mut kept = self.0.kept.lock().await;
        let Some(upgrade) = kept.clone() else { return Ok(None) };
        let picture = self.0.access.picture();
        // Neither behind a fence nor without a store: what could not be remembered is not begun.
        if picture.trouble.is_some() {
            return Ok(upgrade.state.is_open().then_some(LOOK_EVERY));
        }
        let next = self.planned(&upgrade, &picture);
        if next.upgrade != upgrade {
            self.0.store.keep_upgrade(picture.fleet.epoch, &next.upgrade).await?;
            log(&upgrade, &next.upgrade);
            *kept = Some(next.upgrade.clone());
        }
        let open = next.upgrade.state.is_open();
        let wait = next.wake_at.map_or(LOOK_EVERY, |at| at.since(self.0.access.now()).min(LOOK_EVERY));
        self.show(next);
        Ok(open.then_some(wait))
    }

    fn planned(&self, upgrade: &Upgrade, picture: &Picture) -> Next {
        let seen = self.sessions().seen(picture, &upgrade.id);
        plan(upgrade, &seen, self.0.access.now())
    }

    fn show(&self, next: Next) {
        let shown = Arc::new(Shown::of(next));
        self.0.shown.send_if_modified(|before| {
            let changed = *before != shown;
            *before = shown;
            changed
        });
    }

    /// Begins an upgrade, or says what one would be. The same package again is the upgrade that is open.
    ///
    /// # Errors
    /// B0743 for a host nobody knows, B0740 while another one is open, B0742 when no host would take it; those of the store.
    pub async fn begin(&self, wish: Wish, dry_run: bool) -> Result<Arc<Shown>, Problem> {
        let mut kept = self.0.kept.lock().await;
        let picture = self.picture()?;
        if let Some(open) = kept.as_ref().filter(|upgrade| upgrade.state.is_open()) {
            if open.package == wish.package {
                return Ok(self.shown());
            }
            self.may_replace(open)?;
        }
        let upgrade = self.upgrade(wish, kept.as_ref(), &picture)?;
        let next = self.planned(&upgrade, &picture);
        takes_any(&next)?;
        if dry_run {
            return Ok(Arc::new(Shown::of(next)));
        }
        self.0.store.keep_upgrade(picture.fleet.epoch, &upgrade).await.map_err(|error| error.problem())?;
        tracing::info!(upgrade = %upgrade.id, version = %upgrade.package.version, by = upgrade.by, "upgrade of agents");
        *kept = Some(upgrade);
        drop(kept);
        self.looked_at().await
    }

    /// Pauses, resumes or ends the upgrade that is open.
    ///
    /// # Errors
    /// B0741 when none is; those of the store.
    pub async fn steer(&self, steer: Steer, by: String) -> Result<Arc<Shown>, Problem> {
        let mut kept = self.0.kept.lock().await;
        let Some(upgrade) = kept.clone().filter(|upgrade| upgrade.state.is_open()) else {
            return Err(Problem::new(Code(741), "no upgrade of agents is under way")
                .help("baton agents status shows the last one; baton agents upgrade --package FILE.deb begins one"));
        };
        let picture = self.picture()?;
        let steered = match steer {
            Steer::Pause if upgrade.state == State::Active => {
                Upgrade { state: State::Paused(Paused::By(by)), ..upgrade.clone() }
            }
            Steer::Pause => upgrade.clone(),
            Steer::Resume => upgrade.clone().resumed(),
            Steer::Abort => Upgrade { state: State::Aborted { by }, ended: Some(self.0.access.now()), ..upgrade.clone() },
        };
        if steered != upgrade {
            self.0.store.keep_upgrade(picture.fleet.epoch, &steered).await.map_err(|error| error.problem())?;
            log(&upgrade, &steered);
            *kept = Some(steered);
        }
        drop(kept);
        self.looked_at().await
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

    /// Whether all that is left of an upgrade are hosts that are away: then another one may take its place.
    fn may_replace(&self, open: &Upgrade) -> Result<(), Problem> {
        let shown = self.shown();
        let settled = |stand: &Stand| matches!(stand, Stand::Done | Stand::LeftOut(_) | Stand::Away);
        if !shown.stands.is_empty() && shown.stands.values().all(settled) {
            return Ok(());
        }
        let what = format!("another upgrade of the agents is {}: to {}", open.state.word(), open.package.version);
        Err(Problem::new(Code(740), what)
            .saw("begun by", open.by.clone())
            .help("baton agents status shows how far it is; baton agents abort ends it where it stands"))
    }

    fn upgrade(&self, wish: Wish, before: Option<&Upgrade>, picture: &Picture) -> Result<Upgrade, Problem> {
        let known = &picture.fleet.hosts;
        if let Some(stranger) = wish.hosts.iter().find(|host| !known.contains_key(*host)) {
            let names: Vec<&str> = known.keys().take(NAMED).map(HostName::as_str).collect();
            let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            return Err(Problem::new(Code(743), format!("there is no host called {stranger}")).saw("joined", names));
        }
        let mut order: Vec<HostName> = if wish.hosts.is_empty() { known.keys().cloned().collect() } else { wish.hosts };
        let mut once = std::collections::BTreeSet::new();
        order.retain(|host| once.insert(host.clone()));
        // Those that are here come first: the first ring should be of one that can show something.
        let sessions = self.sessions();
        order.sort_by_key(|host| sessions.stated(host).is_none_or(|stated| stated.takes.is_err()));
        let number = picture.number_after(before.map(|before| before.id.as_str()));
        let id = UpgradeId::new(format!("u-{number}")).map_err(|error| Problem::new(Code(1010), error.to_string()))?;
        Ok(Upgrade {
            id,
            package: wish.package,
            rings: rings(wish.rings, order.len()),
            order,
            healthy_for: wish.healthy_for,
            back_within: wish.back_within,
            by: wish.by,
            begun: self.0.access.now(),
            ended: None,
            state: State::Active,
            courses: BTreeMap::new(),
        })
    }

    /// An agent connected.
    pub fn opened(&self, host: &HostName, link: LinkId, stated: Stated) {
        let now = self.0.access.now();
        self.sessions().opened(host, link, stated, now);
        self.0.wake.notify_one();
    }

    /// An agent said what became of its order.
    pub fn reported(&self, host: &HostName, link: LinkId, report: UpgradeReport) {
        self.sessions().reported(host, link, report);
        self.0.wake.notify_one();
    }

    /// An agent's stream ended.
    pub fn closed(&self, host: &HostName, link: LinkId) {
        let now = self.0.access.now();
        self.sessions().closed(host, link, now);
        self.0.wake.notify_one();
    }

    /// What an agent that is connected said of its package.
    #[must_use]
    pub fn stated(&self, host: &HostName) -> Option<Stated> {
        self.sessions().stated(host).cloned()
    }

    /// The upgrade as last decided.
    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        self.0.shown.borrow().clone()
    }

    /// The same, as it changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Shown>> {
        self.0.shown.subscribe()
    }

    /// Whether a host is to fetch a package now.
    #[must_use]
    pub fn names(&self, host: &HostName, digest: Digest) -> bool {
        self.shown().orders.get(host).is_some_and(|order| order.package.artifact.digest == digest)
    }

    /// The package that must not go while somebody may still need it.
    #[must_use]
    pub fn needs(&self) -> Option<Digest> {
        let shown = self.shown();
        let open = shown.upgrade.as_ref().filter(|upgrade| upgrade.state.is_open());
        open.map(|upgrade| upgrade.package.artifact.digest)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn of(next: Next) -> Self {
        let Next { upgrade, stands, ring, orders, .. } = next;
        let order = |host: HostName| {
            let order = UpgradeOrder {
                id: upgrade.id.clone(),
                attempt: upgrade.attempt(&host),
                package: upgrade.package.clone(),
                back_within: upgrade.back_within,
            };
            (host, order)
        };
        Self { orders: orders.into_iter().map(order).collect(), upgrade: Some(upgrade), stands, ring }
    }
}

impl std::fmt::Debug for Upgrades {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgrades").field("shown", &self.0.shown).finish_non_exhaustive()
    }
}

/// Rings as they are gone through: one host first, growing, and the last reaches everybody.
fn rings(asked: Vec<Amount>, hosts: usize) -> Vec<Amount> {
    let mut rings = vec![Amount::Hosts(1)];
    for ring in asked.into_iter().chain([Amount::Percent(100)]) {
        if rings.last().is_some_and(|last| last.of(hosts) < ring.of(hosts)) {
            rings.push(ring);
        }
    }
    rings
}

/// Whether any host that is here takes the package.
fn takes_any(next: &Next) -> Result<(), Problem> {
    let left_out = |(host, stand): (&HostName, &Stand)| match stand {
        Stand::LeftOut(problem) => Some((host.to_string(), problem.what.clone())),
        _ => None,
    };
    let reasons: Vec<_> = next.stands.iter().map_while(left_out).take(NAMED).collect();
    if reasons.len() < next.stands.len().min(NAMED) {
        return Ok(());
    }
    let mut problem = Problem::new(Code(742), "no host would take this package");
    problem.seen = reasons;
    Err(problem.help("baton agents status shows what each host runs and takes"))
}

fn log(before: &Upgrade, after: &Upgrade) {
    let upgrade = &after.id;
    if before.state.word() != after.state.word() {
        tracing::info!(%upgrade, state = after.state.word(), "upgrade of agents");
    }
    for (host, course) in after.courses.iter().filter(|(host, course)| before.courses.get(*host) != Some(course)) {
        match &course.step {
            Step::Failed(problem) => tracing::warn!(%upgrade, %host, %problem, "the agent was not upgraded"),
            step => tracing::info!(%upgrade, %host, ?step, attempt = course.attempt, "upgrade of an agent"),
        }
    }
}
