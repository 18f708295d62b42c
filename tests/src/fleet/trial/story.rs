//! The story: the acts on one pool after another, each told from the operator's command to the last client.

use super::act::{Act, acts};
use super::client::Clients;
use super::fault::{Fault, When};
use super::notice::Notice;
use super::operator::{Deploy, Watcher};
use super::rest::{self, Rest};
use super::service::{self, Behaviour};
use super::verdict::{Answer, Measured, Summary, judge};
use super::{TrialArgs, agents, confined, idle, instances, reboots, tell};
use crate::fleet::front::Front;
use crate::fleet::life;
use crate::fleet::pool::{POOLS, Pool};
use crate::fleet::provision::journal;
use crate::fleet::record::{Fleet, Part};
use anyhow::Context as _;
use baton_cli::demo::load::executions;
use baton_proto::v1::{FleetView, RolloutView, ServiceView};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Nothing takes this long unless it hangs.
const END_DEADLINE: Duration = Duration::from_secs(150);
/// From the operator's command to the step a fault waits for.
const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// How often an act is played for its step to be seen.
const TRIES: u32 = 4;

/// States in which a rollout stays until a person acts.
const ENDS: [&str; 4] = ["succeeded", "reverted", "failed", "paused"];

/// Who plays, and with what.
#[derive(Debug)]
pub(super) struct Story<'a> {
    fleet: &'a Fleet,
    args: &'a TrialArgs,
}

/// One pool: its service, its clients, and which version is live.
struct Stage<'a> {
    fleet: &'a Fleet,
    pool: &'static Pool,
    clients: Clients,
    watcher: Watcher,
    live: u32,
    newest: u32,
}

/// What happens between releases, while clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Disturbed,
    Upgraded,
    Rebooted,
}

impl Between {
    /// What the coordinator does to agents and hosts is the same whichever load balancer stands there; hosts reboot once, with
    /// the services of both pools on them.
    fn of(pool: &Pool) -> impl Iterator<Item = Self> + use<> {
        let (haproxy, both) = (pool.front == Front::Haproxy, pool.front == Front::Haproxy && pool.ports.len() == 1);
        let more = [haproxy.then_some(Self::Upgraded), both.then_some(Self::Rebooted)];
        std::iter::once(Self::Disturbed).chain(more.into_iter().flatten())
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Disturbed => "agents upgraded and removed on their hosts",
            Self::Upgraded => "agents upgraded by the coordinator",
            Self::Rebooted => "hosts rebooted one after the other",
        }
    }
}

impl<'a> Story<'a> {
    #[must_use]
    pub(super) fn new(fleet: &'a Fleet, args: &'a TrialArgs) -> Self {
        Self { fleet, args }
    }

    /// Plays every act on every pool that has a load balancer in this fleet.
    ///
    /// # Errors
    /// When a service cannot even be set up, or the machinery breaks: what Baton did wrong is in the summary.
    pub(super) fn play(&self) -> anyhow::Result<Summary> {
        let idle = idle::measure(self.fleet)?;
        tell(&format!("{} {idle:?}, before anything was deployed", goal(&idle)));
        let (mut answers, mut rests) = (Vec::new(), Vec::new());
        for pool in POOLS.iter().filter(|pool| self.fleet.before(pool).next().is_some()) {
            let mut stage = Stage::set(self.fleet, pool, self.args.rate)?;
            for act in acts(pool).iter().filter(|act| self.wants(act.name)) {
                let answer = stage.play_until_struck(act).with_context(|| self.scene(act, pool))?;
                tell(&line(&answer));
                answers.push(answer);
            }
            for between in Between::of(pool).filter(|between| self.wants(between.name())) {
                let rest = stage.between(between)?;
                tell(&format!("{} {rest:?}", mark(&rest.wrong)));
                rests.push(rest);
            }
        }
        let at_rest = idle::measure(self.fleet)?;
        tell(&format!("--  at rest with services: {at_rest:?}"));
        Ok(Summary::new(answers, rests, idle, at_rest))
    }

    fn wants(&self, name: &str) -> bool {
        self.args.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// What was going on when an act did not end.
    fn scene(&self, act: &Act, pool: &Pool) -> String {
        let agents = self.fleet.before(pool).map(|host| journal(host, "baton-agent"));
        let coordinator = self.fleet.coordinator().map(|host| journal(host, "baton-coordinator"));
        let all = agents.chain(coordinator).collect::<Vec<_>>().join("\n");
        format!("{} ({}) did not end\n{all}", act.name, pool.scene)
    }
}

impl<'a> Stage<'a> {
    /// Deploys the first version, and lets clients in once it serves.
    fn set(fleet: &'a Fleet, pool: &'static Pool, rate: u32) -> anyhow::Result<Self> {
        let coordinator = fleet.coordinator()?;
        service::publish(coordinator, fleet, pool, &version(1), Behaviour::Good)?;
        let (exit, said) = Deploy::start(coordinator, pool, &version(1))?.end(END_DEADLINE)?;
        anyhow::ensure!(exit == 0, "the first `baton deploy {}` exited {exit}\n{said}", pool.name);
        let balancer = fleet.before(pool).next().context("the pool needs a balancer")?;
        let clients = Clients::start(SocketAddr::from((balancer.address, pool.listen)), rate)?;
        let watcher = Watcher::start(coordinator.clone())?;
        Ok(Self { fleet, pool, clients, watcher, live: 1, newest: 1 })
    }

    /// Plays an act, and again with the next version when its step passed too quickly to be seen: a drain may take no time.
    fn play_until_struck(&mut self, act: &Act) -> anyhow::Result<Answer> {
        for _ in 1..TRIES {
            let answer = self.play(act)?;
            let missed = act.fault.is_some() && answer.after_return_s.is_none();
            if !missed || answer.failed > 0 {
                return Ok(answer);
            }
        }
        self.play(act)
    }

    fn play(&mut self, act: &Act) -> anyhow::Result<Answer> {
        let coordinator = self.fleet.coordinator()?;
        let (from, to) = (version(self.live), version(self.newest + 1));
        self.newest += 1;
        service::publish(coordinator, self.fleet, self.pool, &to, act.release)?;
        let begun = Instant::now();
        let deploy = Deploy::start(coordinator, self.pool, &to)?;
        let returned = act.fault.map(|(fault, when)| self.strike(fault, when, &to)).transpose()?.flatten();
        let name = self.pool.name;
        let noticed = act.release.needs_traffic().then(|| self.notice(&to)).transpose()?.flatten();
        let (id, outcome) = self.watcher.until(&format!("the end of {name} {to}"), END_DEADLINE, |view| {
            let rollout = rollout(view, name).filter(|rollout| rollout.to_version == to)?;
            is_over(rollout).then(|| (rollout.id.clone(), rollout.state.clone()))
        })?;
        let ended = Instant::now();
        let (exit, said) = deploy.end(END_DEADLINE)?;
        if outcome == "succeeded" {
            self.live = self.newest;
        }
        let phase = self.clients.mark()?;
        let notice = act.release.needs_traffic().then(|| Notice::ask(coordinator, &id, noticed, &phase)).transpose()?;
        let answer = judge(
            act,
            Measured {
                placement: self.pool.scene,
                outcome,
                exit,
                took_s: ended.saturating_duration_since(begun).as_secs_f64(),
                after_return_s: returned.map(|returned| ended.saturating_duration_since(returned).as_secs_f64()),
                notice,
                executions: executions::join(&phase.report.posts, &life::shared().join(name))?,
                versions: instances::versions(self.fleet, self.pool)?,
                phase,
                from,
                to,
                hosts: self.fleet.every(Part::Web).count(),
            },
        );
        if !answer.wrong.is_empty() {
            tell(&said);
        }
        Ok(answer)
    }

    fn between(&mut self, between: Between) -> anyhow::Result<Rest> {
        let wrong = match between {
            Between::Disturbed => {
                let mut wrong = rest::disturb(self.fleet, self.pool)?;
                wrong.extend(confined::look(self.fleet)?);
                wrong
            }
            Between::Upgraded => agents::upgrade(self.fleet, self.pool)?,
            Between::Rebooted => reboots::reboot(self.fleet, self.pool)?,
        };
        Ok(rest::judge(self.pool.scene, between.name(), wrong, &self.clients.mark()?.report))
    }

    /// Waits for the step and strikes; the moment at which what died is back. `None`: it was over before the step was seen.
    fn strike(&mut self, fault: Fault, when: When, to: &str) -> anyhow::Result<Option<Instant>> {
        let name = self.pool.name;
        let seen = self.watcher.until(&format!("{when:?} of {name} {to}"), STEP_DEADLINE, |view| {
            let service = service(view, name)?;
            let rollout = service.rollout.as_ref().filter(|rollout| rollout.to_version == to)?;
            let over = is_over(rollout);
            (over || when.is_now(service)).then_some(!over)
        })?;
        seen.then(|| fault.strike(self.fleet, self.watcher.last(), self.pool)).transpose()
    }

    /// Waits for evidence against the release; the moment it is there. `None`: the rollout ended without.
    fn notice(&mut self, to: &str) -> anyhow::Result<Option<Instant>> {
        let name = self.pool.name;
        let seen = self.watcher.until(&format!("evidence against {name} {to}"), END_DEADLINE, |view| {
            let rollout = rollout(view, name).filter(|rollout| rollout.to_version == to)?;
            let found = !rollout.evidence.is_empty();
            (found || is_over(rollout)).then_some(found)
        })?;
        Ok(seen.then(Instant::now))
    }
}

fn service<'v>(view: &'v FleetView, name: &str) -> Option<&'v ServiceView> {
    view.services.iter().find(|service| service.name == name)
}

fn rollout<'v>(view: &'v FleetView, name: &str) -> Option<&'v RolloutView> {
    service(view, name)?.rollout.as_ref()
}

fn version(number: u32) -> String {
    format!("{number}.0.0")
}

fn is_over(rollout: &RolloutView) -> bool {
    ENDS.contains(&rollout.state.as_str())
}

fn goal(idle: &idle::Idle) -> &'static str {
    if idle.wrong().is_empty() { "ok " } else { "over its goal," }
}

fn mark(wrong: &[String]) -> &'static str {
    if wrong.is_empty() { "ok " } else { "BAD" }
}

fn line(answer: &Answer) -> String {
    let Answer { placement, act, outcome, took_s, requests, failed, .. } = answer;
    let after = answer.after_return_s.map(|after| format!(", {after} s after the return")).unwrap_or_default();
    let orders = &answer.executions;
    let mut text = format!(
        "{} {placement}: {act}: {outcome} in {took_s} s{after}; {failed} of {requests} requests failed, \
         {} of {} orders acknowledged, {} twice, {} lost",
        mark(&answer.wrong),
        orders.acknowledged,
        orders.sent,
        orders.twice,
        orders.lost
    );
    if let Some(notice) = &answer.notice {
        let after = notice.after_s.map(|after| format!("{after} s after the first failure, ")).unwrap_or_default();
        let (mixed, failed) = (notice.mixed_s, notice.new_failed);
        text.push_str(&format!(
            "\n      noticed {after}{mixed} s with both releases; by Baton's report {failed} failed on the new one"
        ));
    }
    for wrong in &answer.wrong {
        text.push_str(&format!("\n      {wrong}"));
    }
    let shown = if answer.notice.is_some() && answer.wrong.is_empty() { 0 } else { 5 };
    for failure in answer.failures.iter().take(shown) {
        text.push_str(&format!("\n      client at {:.2} s, {:?}: {}", failure.at_s, failure.kind, failure.text));
    }
    text
}
