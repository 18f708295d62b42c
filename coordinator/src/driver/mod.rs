//! The single writer: what was heard and asked goes in, decisions come out, durable before they have any effect.
//!
//! One pass is one paragraph (`Driver::pass`): take what arrived, apply requests, plan, have the plan checked, commit once,
//! send. Whatever wakes the driver carries no data; a pass always looks at everything. `core` decides, the store remembers,
//! this file only puts them in order.

mod clock;
mod counted;
mod links;
mod numbers;
mod picture;
mod request;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use links::{Hello, LinkId, Links, Reboots, Specs};
pub use picture::Picture;
pub use request::{Access, Ask, When};

use crate::identity::wall_time;
use crate::store::{Changes, HostRecord, Store, StoreError, Thaw, Which};
use baton_core::analysis::judgement::Judgement;
use baton_core::fleet::fence::Fence;
use baton_core::fleet::past::{Forgotten, Remembers};
use baton_core::fleet::{Fleet, Heard, Host};
use baton_core::name::{RolloutId, ServiceName};
use baton_core::problem::Problem;
use baton_core::rollout::balancers;
use baton_core::rollout::interlock::{self, Violation};
use baton_core::rollout::plan::{Plan, refused};
use baton_core::rollout::waiting::Waiting;
use baton_core::time::{Moment, earlier};
use counted::{Counted, see_capacity};
use links::Mail;
use request::{Offered, Reply, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long nothing may be heard of a host before it counts as silent: five heartbeats.
pub const SILENCE: Duration = Duration::from_secs(10);

/// How often the clock is made durable while a rollout depends on it.
const CLOCK_EVERY: Duration = Duration::from_secs(5);

/// How long the driver waits after the store failed before it tries to decide again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How soon observations reach those who watch; decisions reach them at once. A picture copies the fleet, and that should
/// not happen for every heartbeat of every host.
const SHOW_AFTER: Duration = Duration::from_millis(25);

/// The shortest sleep: a wake-up that is due already must not become a busy loop.
const NAP: Duration = Duration::from_millis(2);

/// A plan is made at least this often, whatever is heard: no decision waits for longer because somebody forgot to ask for it.
const PLAN_EVERY: Duration = Duration::from_secs(5);

/// What decides: `core`'s planner, or in a test one that is wrong.
pub type Planner = fn(&Fleet, Moment) -> Plan;

/// Holds the fleet and moves it.
pub struct Driver {
    store: Arc<dyn Store>,
    planner: Planner,
    clock: Clock,
    links: Arc<Links>,
    pictures: watch::Sender<Arc<Picture>>,
    fleet: Fleet,
    counted: Counted,
    offered: Offered,
    /// The number of the last rollout that got an id.
    sequence: u64,
    waiting: BTreeMap<ServiceName, Vec<Waiting>>,
    /// When the clock was last made durable.
    clock_kept: Moment,
    trouble: Option<Trouble>,
    /// What the interlock refused in the last plan that changed anything: said once.
    violations: Vec<Violation>,
    /// Since when the published picture is behind.
    unshown: Option<Instant>,
    /// When the first of the connected hosts would count as silent.
    silence_at: Option<Moment>,
    /// Whether anything was heard since the last plan that another one could depend on.
    news: bool,
    /// Until when a plan would be the last one again, unless there is news.
    settled_until: Option<Moment>,
}

/// Why nothing is decided, and when to try again.
#[derive(Debug)]
struct Trouble {
    problem: Problem,
    retry_at: Moment,
}

impl Driver {
    /// Takes over the fleet: the next epoch, and every issued spec under it, in one transaction.
    ///
    /// What the specs ask for is what was issued before; only who asks changes, so that agents stop listening to any
    /// coordinator that drove before (invariant 9).
    ///
    /// # Errors
    /// Those of the store; nothing was taken over then.
    pub async fn take_over(store: Arc<dyn Store>, planner: Planner) -> Result<(Self, Access), StoreError> {
        let snapshot = store.load().await?;
        let (held, moment, sequence) = (snapshot.epoch, snapshot.moment, snapshot.sequence);
        let mut fleet = snapshot.into_fleet();
        fleet.fence = Some(Fence::at_start(&fleet));
        fleet.take_over();
        let hosts = fleet.hosts.iter().map(|(name, host)| (name.clone(), record(host))).collect();
        store.commit(&Changes { held, epoch: fleet.epoch, moment, sequence, hosts, ..Changes::default() }).await?;
        let clock = Clock::from(moment);
        let links = Arc::new(Links::default());
        let (pictures, seen) = watch::channel(Arc::new(Picture::new(&fleet, moment)));
        let access = Access::new(Arc::clone(&links), seen, clock);
        let driver = Self {
            store,
            planner,
            clock,
            links,
            pictures,
            fleet,
            counted: Counted::default(),
            offered: Offered::new(),
            sequence,
            waiting: BTreeMap::new(),
            clock_kept: moment,
            trouble: None,
            violations: Vec::new(),
            unshown: None,
            silence_at: None,
            news: true,
            settled_until: None,
        };
        Ok((driver, access))
    }

    /// Remembers at least so many releases of a service beside those that something needs.
    #[must_use]
    pub fn remembering(mut self, releases: usize) -> Self {
        self.fleet.remembers = Remembers(self.fleet.remembers.0.max(releases));
        self
    }

    /// Drives until `shutdown`.
    ///
    /// # Errors
    /// When another driver took over: this one must not decide anything any more.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), StoreError> {
        let links = Arc::clone(&self.links);
        let mut shutdown = std::pin::pin!(shutdown);
        let outcome = loop {
            let wake_at = match self.pass().await {
                Ok(wake_at) => wake_at,
                Err(error) => break Err(error),
            };
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                () = links.woken() => {}
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
            }
        };
        links.close();
        outcome
    }

    /// One pass. Returns when to make the next one even if nothing wakes the driver.
    async fn pass(&mut self) -> Result<Option<Instant>, StoreError> {
        let mut mail = self.links.take();
        let now = self.clock.now();
        let requests = std::mem::take(&mut mail.requests);
        self.observe(mail, now);
        if let Some(trouble) = self.trouble.as_ref().filter(|trouble| now < trouble.retry_at) {
            let retry_at = trouble.retry_at;
            requests.into_iter().for_each(|request| request.refuse(&trouble.problem));
            return Ok(self.next_wake(Some(retry_at), now));
        }
        let wake_at = self.decide(requests, now).await?;
        if self.trouble.is_none() && self.fleet.fenced().is_none() {
            self.links.send(&self.fleet.hosts);
        }
        let decides = self.trouble.is_none() && self.fleet.fenced().is_none();
        let look_at = self.counted.late_at().filter(|_| decides);
        Ok(self.next_wake(earlier(wake_at, look_at), now))
    }

    /// Takes in what was heard. Nothing here is durable: agents repeat it.
    fn observe(&mut self, mail: Mail, now: Moment) {
        let proven_after = self.fleet.proven_after();
        for (name, (at, report)) in mail.reports {
            let at = self.clock.at(at);
            self.counted.hear(&self.fleet, &name, &report, at);
            if let Some(host) = self.fleet.hosts.get_mut(&name) {
                self.news |= host.heard.as_ref().is_none_or(|heard| report.is_news_after(&heard.report, proven_after));
                host.heard = Some(Heard { at, report });
                self.unshown.get_or_insert_with(Instant::now);
            }
        }
        for (rollout, at, answer) in mail.answers {
            self.counted.answered(&self.fleet, &rollout, self.clock.at(at), answer);
        }
        for (service, answers) in mail.series {
            self.counted.counted(&self.fleet, &service, answers, now);
        }
        self.silence_at = None;
        for (name, host) in &mut self.fleet.hosts {
            let silence_at = mail.heard.get(name).map(|at| self.clock.at(*at) + SILENCE).filter(|at| *at > now);
            self.silence_at = earlier(self.silence_at, silence_at);
            let connected = silence_at.is_some();
            if connected != host.connected {
                tracing::info!(host = %name, connected, "host");
                host.connected = connected;
                self.news = true;
                self.unshown.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Applies what was asked, plans, has the plan checked, and makes all of it durable as one transaction.
    async fn decide(&mut self, requests: Vec<Request>, now: Moment) -> Result<Option<Moment>, StoreError> {
        let recovers = self.trouble.is_some();
        let looks = match self.fleet.fenced() {
            Some(_) => BTreeMap::new(),
            None => self.counted.looks(&self.fleet, now),
        };
        let returned = balancers::returned(&self.fleet);
        let asked = !(requests.is_empty() && looks.is_empty() && returned.is_empty());
        let must_write = recovers || self.clock_is_due(now);
        let settled_until = self.settled_until.take().filter(|until| now < *until);
        if let Some(until) = settled_until.filter(|_| !asked && !must_write && !self.news) {
            self.settled_until = Some(until);
            return Ok(Some(until));
        }
        self.news = false;
        let plan = (!asked).then(|| (self.planner)(&self.fleet, now));
        let quiet = plan.as_ref().is_some_and(|plan| !plan.changes_anything());
        if let Some(plan) = plan.as_ref().filter(|_| quiet && !must_write) {
            self.waiting.clone_from(&plan.waiting);
            self.settled_until = earlier(plan.wake_at, Some(now + PLAN_EVERY));
            return Ok(self.settled_until);
        }
        let mut draft = self.fleet.clone();
        for (id, judgement) in &looks {
            if let Some(rollout) = draft.rollouts.get_mut(id) {
                rollout.judgement.clone_from(judgement);
            }
        }
        let mut sequence = self.sequence;
        for name in returned {
            tracing::info!(host = %name, "the load balancer that was declared dead answers: it counts again");
            if let Some(host) = draft.hosts.get_mut(&name) {
                host.dead_balancer = None;
            }
        }
        let mut replies: Vec<Reply> = Vec::with_capacity(requests.len());
        for request in requests {
            let past = self.past(request.names(&draft, &self.offered)).await;
            replies.push(request.apply(&mut draft, past, &mut self.offered, &mut sequence, now));
        }
        let moved = |fleet: &Fleet| fleet.fence.as_ref().is_some_and(|fence| fence.moved);
        if draft.fenced().is_none() && (self.fleet.fenced().is_some() || moved(&draft) && !moved(&self.fleet)) {
            tracing::info!(
                epoch = draft.epoch.0,
                "every host was heard, or is gone on without: this coordinator decides again"
            );
            sequence = numbers::beyond(sequence, draft.epoch);
        } else if draft.epoch != self.fleet.epoch {
            tracing::info!(epoch = draft.epoch.0, "a host came over from a coordinator with a later epoch");
            sequence = numbers::beyond(sequence, draft.epoch);
        }
        let plan = plan.unwrap_or_else(|| (self.planner)(&draft, now));
        let plan = self.checked(plan, &draft, now);
        plan.take(&mut draft);
        see_capacity(&mut draft, now);
        self.close(&mut draft, &looks, now);
        let changes = Changes { forgotten: plan.forgotten, ..self.changes(&draft, sequence, now) };
        let decided = !changes.decides_nothing();
        if decided || recovers || self.clock_is_due(now) {
            if let Err(error) = self.store.commit(&changes).await {
                replies.into_iter().for_each(|reply| reply.refuse(&error.problem()));
                return self.stand_still(error, now);
            }
            self.clock_kept = now;
        }
        if self.trouble.take().is_some() {
            tracing::info!("the store works again");
        }
        log(&changes, &self.fleet);
        self.counted.took(&looks, now);
        self.fleet = draft;
        self.sequence = sequence;
        self.waiting = plan.waiting;
        if decided || recovers {
            self.show(now);
        }
        replies.into_iter().for_each(Reply::send);
        // Planning twice changes nothing; if it ever did, the second plan should not wait for somebody to wake us.
        Ok(if decided { Some(now) } else { plan.wake_at })
    }

    /// What a request names and the fleet has forgotten.
    async fn past(&self, named: Option<Which>) -> Result<Vec<Forgotten>, Problem> {
        let Some(which) = named else { return Ok(Vec::new()) };
        self.store.forgotten(&which).await.map_err(|error| error.problem())
    }

    /// Rollouts that end take with them what was counted to the last.
    fn close(&self, draft: &mut Fleet, looks: &BTreeMap<RolloutId, Judgement>, now: Moment) {
        for (id, rollout) in draft.rollouts.iter_mut().filter(|(_, rollout)| !rollout.state.is_active()) {
            if self.fleet.rollouts.get(id).is_some_and(|before| before.state.is_active()) {
                self.counted.close(rollout, looks.contains_key(id), now);
            }
        }
    }

    /// The plan, if the interlock lets it pass; else one that pauses what it refused.
    fn checked(&mut self, plan: Plan, fleet: &Fleet, now: Moment) -> Plan {
        let violations = interlock::check(fleet, &plan).err().unwrap_or_default();
        let known = std::mem::replace(&mut self.violations, violations);
        if self.violations.is_empty() {
            return plan;
        }
        for violation in self.violations.iter().filter(|violation| !known.contains(violation)) {
            tracing::error!(%violation, "the interlock refused a plan: this is a bug in Baton");
        }
        refused(fleet, &self.violations, now)
    }

    /// What is different in `draft` from what is durable.
    fn changes(&self, draft: &Fleet, sequence: u64, now: Moment) -> Changes {
        let hosts = draft.hosts.iter().filter(|(name, host)| {
            let before = self.fleet.hosts.get(*name);
            before.is_none_or(|before| record(before) != record(host))
        });
        Changes {
            held: self.fleet.epoch,
            epoch: draft.epoch,
            moment: now,
            at: wall_time(),
            sequence,
            hosts: hosts.map(|(name, host)| (name.clone(), record(host))).collect(),
            services: difference(&self.fleet.services, &draft.services),
            releases: difference(&self.fleet.releases, &draft.releases),
            rollouts: difference(&self.fleet.rollouts, &draft.rollouts),
            freeze: (self.fleet.freeze != draft.freeze).then(|| Thaw(draft.freeze.clone())),
            // A dormant one is made anew at every start.
            fence: draft.fence.clone().filter(|fence| !fence.dormant && self.fleet.fence != draft.fence),
            gone_hosts: gone(&self.fleet.hosts, &draft.hosts),
            gone_services: gone(&self.fleet.services, &draft.services),
            ..Changes::default()
        }
    }

    /// Decides nothing for a while: what is not durable must not have an effect. Hosts go on with what they have.
    fn stand_still(&mut self, error: StoreError, now: Moment) -> Result<Option<Moment>, StoreError> {
        if matches!(error, StoreError::Fenced { .. }) {
            return Err(error);
        }
        if self.trouble.is_none() {
            tracing::error!(%error, "the store failed: nothing is decided until it works again");
        }
        let retry_at = now + RETRY_AFTER;
        self.trouble = Some(Trouble { problem: error.problem(), retry_at });
        self.show(now);
        Ok(Some(retry_at))
    }

    fn show(&mut self, now: Moment) {
        self.unshown = None;
        let mut picture = Picture::new(&self.fleet, now);
        picture.sequence = self.sequence;
        picture.waiting.clone_from(&self.waiting);
        picture.usual = self.counted.usual(now);
        picture.doubts = self.counted.doubts(&self.fleet);
        let trouble = self.trouble.as_ref().map(|trouble| trouble.problem.clone());
        picture.trouble = trouble.or(picture.trouble);
        self.pictures.send_replace(Arc::new(picture));
    }

    fn is_active(&self) -> bool {
        self.fleet.rollouts.values().any(|rollout| rollout.state.is_active())
    }

    fn clock_is_due(&self, now: Moment) -> bool {
        self.is_active() && now.since(self.clock_kept) >= CLOCK_EVERY
    }

    /// The earliest of: what the plan asks for, a host that would fall silent, the clock, a picture that is due.
    fn next_wake(&mut self, wake_at: Option<Moment>, now: Moment) -> Option<Instant> {
        let clock = self.is_active().then(|| self.clock_kept + CLOCK_EVERY);
        let wake = earlier(wake_at, earlier(self.silence_at, clock));
        let wake = wake.map(|moment| self.clock.instant(moment).max(Instant::now() + NAP));
        let Some(since) = self.unshown else { return wake };
        let due = since + SHOW_AFTER;
        if due <= Instant::now() {
            self.show(now);
            return wake;
        }
        Some(wake.map_or(due, |wake| wake.min(due)))
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts = self.fleet.hosts.len();
        f.debug_struct("Driver").field("epoch", &self.fleet.epoch).field("hosts", &hosts).finish_non_exhaustive()
    }
}

fn record(host: &Host) -> HostRecord {
    HostRecord {
        address: host.address,
        issued: host.issued.clone(),
        accepted: host.accepted,
        maintenance: host.maintenance.clone(),
        dead_balancer: host.dead_balancer.clone(),
        labels: host.labels.clone(),
    }
}

fn difference<K: Ord + Clone, V: PartialEq + Clone>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    changed.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn gone<K: Ord + Clone, V>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> BTreeSet<K> {
    before.keys().filter(|key| !after.contains_key(*key)).cloned().collect()
}

fn log(changes: &Changes, before: &Fleet) {
    for (id, rollout) in &changes.rollouts {
        let stands = |it: &baton_core::rollout::Rollout| (it.state, it.direction, it.wave);
        if before.rollouts.get(id).map(stands) != Some(stands(rollout)) {
            let (service, (state, direction, wave)) = (&rollout.service, stands(rollout));
            tracing::info!(rollout = %id, %service, ?state, ?direction, wave, "rollout");
        }
    }
    for (host, record) in &changes.hosts {
        tracing::debug!(%host, generation = %record.issued.generation, "spec");
    }
}
