//! One service: how it is, where each of its hosts stands, and its rollout.

use super::super::preview::placement;
use super::{freeze, millis, proof, version};
use crate::driver::Picture;
use baton_core::fleet::orders::Queued;
use baton_core::fleet::report::{InstanceReport, InstanceState, MemberReport};
use baton_core::fleet::{Fleet, Service};
use baton_core::name::{HostName, ReleaseId, ServiceName, Slot};
use baton_core::problem::Problem;
use baton_core::rollout::gate::is_paused_for_evidence;
use baton_core::rollout::waiting::{Reason, Waiting};
use baton_core::rollout::{Direction, LeftOut, Rollout, RolloutState, Turned};
use baton_core::time::Moment;
use baton_proto::v1::{
    EvidenceView, LeftOutView, LiveView, QueuedView, RolloutView, ServiceHostView, ServiceView, SplitView, WaitingView,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn view(picture: &Picture, name: &ServiceName, service: &Service, now: Moment) -> ServiceView {
    let fleet = &picture.fleet;
    let rollout = fleet.latest_rollout(name);
    let waiting = picture.waiting.get(name).map_or(&[][..], Vec::as_slice);
    let active = rollout.filter(|rollout| rollout.state.is_active());
    let places: Vec<Place<'_>> = service
        .hosts
        .iter()
        .map(|host| Place {
            fleet,
            name,
            service,
            host,
            waiting: waiting.iter().find(|it| it.host.as_ref() == Some(host)),
            now,
        })
        .collect();
    let mut order: Vec<&Place<'_>> = places.iter().collect();
    if let Some(rollout) = active {
        let place_in = |host: &HostName| rollout.hosts.iter().position(|other| other == host);
        order.sort_by_key(|place| place_in(place.host).unwrap_or(usize::MAX));
    }
    let goal = |host: &HostName| active.map_or_else(|| service.at_rest(host), Rollout::goal);
    let hosts: Vec<ServiceHostView> = order.into_iter().map(|place| place.view(goal(place.host))).collect();
    let done = hosts.iter().filter(|host| host.done).count();
    let has_it = |rollout: &Rollout, left_out: &LeftOut| {
        let is_done = hosts.iter().any(|host| host.done && host.host == left_out.host.as_str());
        is_done && goal(&left_out.host) == Some(rollout.to)
    };
    let rollout = rollout.map(|rollout| {
        let late = rollout.left_out.iter().filter(|it| has_it(rollout, it)).count();
        let view = rollout_view(fleet, rollout, done, now);
        let asks = waiting.iter().find_map(|waiting| match &waiting.reason {
            Reason::Approval { preview, .. } if rollout.state == RolloutState::Running => Some(preview.clone()),
            _ => None,
        });
        RolloutView {
            promotable: view.promotable || asks.is_some(),
            preview: asks.flatten().unwrap_or_default(),
            left_out: rollout.left_out.iter().map(|it| left_out_view(it, has_it(rollout, it))).collect(),
            hosts_done: if rollout.state == RolloutState::Partial { view.hosts_done + count(late) } else { view.hosts_done },
            ..view
        }
    });
    ServiceView {
        name: name.to_string(),
        health: health(&places, service, active).to_owned(),
        committed_version: version(fleet, service.committed),
        previous_version: version(fleet, service.previous),
        pool: service.balancer.as_ref().map(|balancer| balancer.pool.to_string()).unwrap_or_default(),
        rollout,
        waiting: waiting.iter().map(waiting_view).collect(),
        warm_version: version(fleet, service.warm.map(|warm| warm.release)),
        warm_left_ms: service.warm.map_or(0, |warm| millis(warm.until.since(now))),
        sources: proof::sources_at_rest(&service.strategy, picture.doubts.get(name)),
        live: live(fleet, service),
        restart_interrupts: service.strategy.renewing().interrupts(service.hosts.len()),
        freeze: freeze(service.orders.freeze.as_ref(), now),
        queue: service.orders.queue.iter().map(|queued| queued_view(fleet, queued, now)).collect(),
        removal: service.orders.removal.as_ref().map(|removal| super::order(removal, now)),
        hosts,
        splits: splits(fleet, service),
    }
}

/// What the hosts of a service have at rest, the most hosts first. One release, unless hosts keep another one.
pub(in crate::api) fn live(fleet: &Fleet, service: &Service) -> Vec<LiveView> {
    let mut hosts = BTreeMap::<ReleaseId, Vec<String>>::new();
    for host in &service.hosts {
        if let Some(release) = service.at_rest(host) {
            hosts.entry(release).or_default().push(host.to_string());
        }
    }
    let view = |(release, hosts)| LiveView { version: version(fleet, Some(release)), hosts };
    let mut live: Vec<LiveView> = hosts.into_iter().map(view).collect();
    live.sort_by_key(|live| Reverse(live.hosts.len()));
    live
}

/// The releases that serve, over all hosts of a service.
pub(super) fn served(fleet: &Fleet, name: &ServiceName, service: &Service) -> BTreeSet<ReleaseId> {
    let now = Moment::default();
    let places = service.hosts.iter().map(|host| Place { fleet, name, service, host, waiting: None, now });
    places.flat_map(|place| place.served()).map(|(release, _)| release).collect()
}

/// How each balancer of the service divides its requests.
fn splits(fleet: &Fleet, service: &Service) -> BTreeMap<String, SplitView> {
    let Some(balancer) = &service.balancer else { return BTreeMap::new() };
    let split = |on: &HostName| {
        let host = fleet.hosts.get(on)?;
        let wanted = host.issued.pools.get(&balancer.pool).and_then(|pool| pool.split.as_ref());
        let seen = host.report().and_then(|report| report.pools.get(&balancer.pool)).and_then(|pool| pool.split.as_ref());
        Some((on.to_string(), super::host::split(wanted, seen)?))
    };
    balancer.on.iter().filter_map(split).collect()
}

/// `healthy` while as many serve as the strategy promises: a host that is replaced right now is no sickness. `unknown` where
/// that hangs on hosts that are silent, or on load balancers that are: what they last said is no evidence of what they do.
fn health(places: &[Place<'_>], service: &Service, active: Option<&Rollout>) -> &'static str {
    let total = places.len();
    let serving = places.iter().filter(|place| place.serving().is_some()).count();
    let silent = places.iter().filter(|place| place.is_silent() || place.waits_for_a_balancers_word()).count();
    let may_miss = active.map_or(0, |rollout| rollout.strategy.max_unavailable.at_most(total));
    match serving {
        _ if serving + may_miss >= total && serving > 0 => "healthy",
        _ if service.committed.is_none() && serving == 0 => "unknown",
        _ if serving + may_miss + silent >= total && silent > 0 => "unknown",
        0 => "down",
        _ => "degraded",
    }
}

/// What an agent says of a load balancer that leads nobody anywhere: its program does not answer, has no such pool, does not start, or
/// has no certificate that it could serve.
const LEADS_NOBODY: [u16; 4] = [402, 406, 413, 447];

/// How long an agent may be away before what it last said counts for nothing: one that is upgraded is back sooner.
const SILENT_FROM: Duration = Duration::from_secs(10);

/// A service on one of its hosts.
struct Place<'a> {
    fleet: &'a Fleet,
    name: &'a ServiceName,
    service: &'a Service,
    host: &'a HostName,
    waiting: Option<&'a Waiting>,
    now: Moment,
}

impl Place<'_> {
    fn view(&self, goal: Option<ReleaseId>) -> ServiceHostView {
        let mut instances = self.instances();
        instances.sort_by_key(|(slot, instance)| (Reverse(age(&instance.state)), *slot));
        let running = instances.iter().filter(|(_, instance)| instance.state.may_run());
        let serving = self.serving();
        let (step, detail, since) = self.step(&instances, serving);
        let members = self.members();
        // What stays warm runs, and answers nobody.
        let runs = |release| instances.iter().any(|(_, it)| it.state.may_run() && it.release == release);
        let only_goal = match goal {
            Some(goal) => runs(goal) && self.served().iter().all(|(release, _)| *release == goal),
            None => !instances.iter().any(|(_, it)| it.state.may_run()),
        };
        let done = only_goal && self.waiting.is_none() && (serving.is_some() || goal.is_none());
        let mut versions: Vec<String> = running.map(|(_, instance)| version(self.fleet, Some(instance.release))).collect();
        versions.dedup();
        ServiceHostView {
            host: self.host.to_string(),
            versions,
            step,
            detail,
            step_ms: millis(since),
            done,
            in_flight: members.iter().map(|member| member.in_flight).sum(),
            requests: members.iter().map(|member| member.requests).sum(),
            errors: members.iter().map(|member| member.errors).sum(),
            cut: members.iter().map(|member| member.cut).sum(),
            serves: serving.is_some(),
        }
    }

    /// The word for the column, what is behind it, and for how long.
    fn step(&self, instances: &[(Slot, &InstanceReport)], serving: Option<Duration>) -> (String, String, Duration) {
        if let Some(waiting) = self.waiting {
            let detail = match &waiting.reason {
                // Most hosts of most rollouts: the word says it.
                Reason::Turn { .. } => String::new(),
                reason => reason.to_string(),
            };
            return (waiting.reason.word().to_owned(), detail, since(&waiting.reason));
        }
        let host = self.fleet.hosts.get(self.host);
        if host.is_none_or(|host| !host.connected && host.heard.is_none()) {
            return ("unknown".to_owned(), "its agent has not been heard yet".to_owned(), Duration::ZERO);
        }
        if self.is_silent() {
            let heard = host.and_then(|host| host.heard.as_ref());
            let silent_for = heard.map_or(Duration::ZERO, |heard| self.now.since(heard.at));
            let reason = Reason::AgentSilent { silent_for };
            return (reason.word().to_owned(), reason.to_string(), silent_for);
        }
        if let Some(since) = serving {
            return ("serving".to_owned(), String::new(), since);
        }
        let Some((_, instance)) = instances.first() else {
            return ("down".to_owned(), "nothing runs here".to_owned(), Duration::ZERO);
        };
        let problem = |problem: &Problem| problem.to_string();
        match &instance.state {
            InstanceState::Starting { since, last } => {
                ("starting".to_owned(), last.as_ref().map(problem).unwrap_or_default(), *since)
            }
            InstanceState::Ready { since } if self.waits_for_a_balancers_word() => {
                let unheard = self.unheard_balancers().map(|(on, problem)| match problem {
                    None => format!("{on} has not said yet"),
                    Some(problem) => format!("{on} cannot say: {problem}"),
                });
                let what = format!("whether it serves, {}", unheard.collect::<Vec<_>>().join(", "));
                ("ready".to_owned(), what, *since)
            }
            InstanceState::Ready { since } => ("ready".to_owned(), "no balancer routes to it".to_owned(), *since),
            InstanceState::Unready { since, problem: why } => ("unready".to_owned(), problem(why), *since),
            InstanceState::Stopping { since } => ("stopping".to_owned(), String::new(), *since),
            InstanceState::Failed { problem: why } => ("failed".to_owned(), problem(why), Duration::ZERO),
        }
    }

    /// How long an instance has been ready that every balancer routes to; None when there is none, or nobody says so any more.
    fn serving(&self) -> Option<Duration> {
        if self.is_silent() {
            return None;
        }
        self.served().into_iter().map(|(_, ready_for)| ready_for).max()
    }

    fn is_silent(&self) -> bool {
        self.is_silent_on(self.host)
    }

    fn is_silent_on(&self, host: &HostName) -> bool {
        let Some(host) = self.fleet.hosts.get(host) else { return true };
        let lately = host.heard.as_ref().is_some_and(|heard| self.now.since(heard.at) < SILENT_FROM);
        !host.connected && !lately
    }

    /// Load balancers of the service of which nobody knows now whom they lead requests to, and why: an agent that was never heard,
    /// or that cannot tell.
    fn unheard_balancers(&self) -> impl Iterator<Item = (&HostName, Option<&Problem>)> {
        let on = self.service.balancer.iter().flat_map(|balancer| balancer.on.iter().map(|on| (on, &balancer.pool)));
        on.filter_map(|(on, pool)| {
            let host = self.fleet.hosts.get(on);
            let report = host.and_then(|host| host.report());
            let Some(report) = report else { return self.is_silent_on(on).then_some((on, None)) };
            let problem = report.pools.get(pool)?.problem.as_ref()?;
            (!LEADS_NOBODY.contains(&problem.code.0)).then_some((on, Some(problem)))
        })
    }

    /// Whether something is ready here, and only a load balancer of which nobody knows could say whether it serves.
    fn waits_for_a_balancers_word(&self) -> bool {
        let unheard: Vec<&HostName> = self.unheard_balancers().map(|(on, _)| on).collect();
        let may_serve = |(slot, it): &(Slot, &InstanceReport)| it.state.ready_for().is_some() && self.is_in(*slot, &unheard);
        self.serving().is_none() && !unheard.is_empty() && self.instances().iter().any(may_serve)
    }

    /// Whether every load balancer routes to a slot, but for those that are not asked.
    fn is_in(&self, slot: Slot, unasked: &[&HostName]) -> bool {
        let mut on = self.service.balancer.iter().flat_map(|balancer| &balancer.on).filter(|on| !unasked.contains(on));
        on.all(|balancer| self.member(balancer, slot).is_some_and(MemberReport::is_in))
    }

    /// The releases of the instances that are ready and that every balancer routes to, and for how long they have been ready.
    fn served(&self) -> Vec<(ReleaseId, Duration)> {
        let instances = self.instances();
        let served = instances.iter().filter(|(slot, _)| self.is_in(*slot, &[]));
        served.filter_map(|(_, instance)| Some((instance.release, instance.state.ready_for()?))).collect()
    }

    fn instances(&self) -> Vec<(Slot, &InstanceReport)> {
        let report = self.fleet.hosts.get(self.host).and_then(|host| host.report());
        let all = report.into_iter().flat_map(|report| &report.instances);
        all.filter(|(key, _)| key.service == *self.name).map(|(key, instance)| (key.slot, instance)).collect()
    }

    /// This host's members, as every balancer of the service says they are.
    fn members(&self) -> Vec<&MemberReport> {
        let on = self.service.balancer.iter().flat_map(|balancer| &balancer.on);
        on.flat_map(|balancer| self.service.slots().filter_map(move |slot| self.member(balancer, slot))).collect()
    }

    fn member(&self, balancer: &HostName, slot: Slot) -> Option<&MemberReport> {
        let pool = &self.service.balancer.as_ref()?.pool;
        let report = self.fleet.hosts.get(balancer)?.report()?;
        let key = baton_core::fleet::MemberKey { host: self.host.clone(), slot };
        report.pools.get(pool)?.members.get(&key)
    }
}

const fn age(state: &InstanceState) -> Duration {
    match state {
        InstanceState::Starting { since, .. } => *since,
        // Whatever was ready once is older than what still starts.
        InstanceState::Ready { since } | InstanceState::Unready { since, .. } | InstanceState::Stopping { since } => {
            since.saturating_add(Duration::from_secs(3600))
        }
        InstanceState::Failed { .. } => Duration::ZERO,
    }
}

/// Since when a reason holds, where it says so.
const fn since(reason: &Reason) -> Duration {
    match reason {
        Reason::AgentSilent { silent_for } => *silent_for,
        Reason::Draining { out_for, .. } => *out_for,
        Reason::Stopping { since } | Reason::Withdrawing { since, .. } | Reason::Probe { since, .. } => *since,
        Reason::Healthy { ready_for, .. } => *ready_for,
        Reason::Hook { since: Some(since), .. } => *since,
        _ => Duration::ZERO,
    }
}

fn waiting_view(waiting: &Waiting) -> WaitingView {
    let problem = match &waiting.reason {
        Reason::Failed { problem } => Some(problem),
        Reason::Hook { problem, .. } => problem.as_deref(),
        Reason::Probe { last: problem, .. }
        | Reason::BalancerUnreachable { problem, .. }
        | Reason::Enrolling { problem, .. } => problem.as_ref(),
        _ => None,
    };
    WaitingView {
        host: waiting.host.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: waiting.reason.word().to_owned(),
        text: waiting.reason.to_string(),
        problem: problem.map(Into::into),
    }
}

fn queued_view(fleet: &Fleet, queued: &Queued, now: Moment) -> QueuedView {
    QueuedView {
        rollout: queued.id.to_string(),
        version: version(fleet, Some(queued.release)),
        by: queued.by.clone(),
        since_ms: millis(now.since(queued.since)),
    }
}

fn left_out_view(left_out: &LeftOut, caught_up: bool) -> LeftOutView {
    LeftOutView { host: left_out.host.to_string(), by: left_out.by.clone(), why: left_out.why.clone(), caught_up }
}

/// What served before. A rollback for hosts that kept another release goes from theirs: the live one never changed.
fn comes_from(fleet: &Fleet, rollout: &Rollout) -> String {
    let kept: Vec<String> = rollout.brings_back().map(|release| version(fleet, Some(release))).collect();
    if kept.is_empty() { version(fleet, rollout.from) } else { kept.join(", ") }
}

pub(super) fn rollout_view(fleet: &Fleet, rollout: &Rollout, done: usize, now: Moment) -> RolloutView {
    let total = rollout.hosts.len();
    let done = match rollout.state {
        // Those who took part.
        RolloutState::Succeeded | RolloutState::Partial => total - rollout.left_out.len().min(total),
        // Both releases are everywhere, and the old one answers.
        _ if rollout.state.is_active() && rollout.is_previewed() => 0,
        _ => done.min(total),
    };
    let pause = rollout.pause.as_ref();
    RolloutView {
        id: rollout.id.to_string(),
        state: state(rollout.state).to_owned(),
        direction: match rollout.direction {
            Direction::Forward => "forward".to_owned(),
            Direction::Back => "back".to_owned(),
        },
        from_version: comes_from(fleet, rollout),
        to_version: version(fleet, Some(rollout.to)),
        by: rollout.by.clone(),
        hosts_done: count(done),
        hosts_total: count(total),
        // From 1, as people count.
        wave: count(rollout.wave + 1),
        waves: count(rollout.strategy.waves.len()),
        elapsed_ms: millis(rollout.ended.unwrap_or(now).since(rollout.started)),
        placement: placement(rollout.strategy.placement, fleet.releases.get(&rollout.to).map(Arc::as_ref)).to_owned(),
        strategy: rollout.strategy.word().to_owned(),
        share: share(rollout),
        turned_by: match &rollout.turned {
            None => String::new(),
            Some(Turned::Evidence) => "evidence".to_owned(),
            Some(Turned::Operator { by }) => by.clone(),
        },
        paused_by: pause.map(|pause| pause.by.clone()).unwrap_or_default(),
        paused_why: pause.map(|pause| pause.why.clone()).unwrap_or_default(),
        promotable: is_paused_for_evidence(rollout),
        preview: String::new(),
        no_way_back: fleet
            .services
            .get(&rollout.service)
            .is_some_and(|service| rollout.from.is_some_and(|from| service.forbids(from).is_some())),
        proof: proof::view(rollout, &version(fleet, Some(rollout.to)), &comes_from(fleet, rollout)),
        hooks: super::hooks::view(fleet, rollout, now),
        left_out: rollout.left_out.iter().map(|it| left_out_view(it, false)).collect(),
        completes: rollout.completes(),
        renews: match rollout.anew {
            true => rollout.starts.keys().map(ToString::to_string).collect(),
            false => Vec::new(),
        },
        evidence: rollout
            .evidence
            .iter()
            .map(|it| EvidenceView { host: it.host.to_string(), problem: Some((&it.problem).into()) })
            .collect(),
    }
}

/// The share of traffic asked for in the wave under way.
fn share(rollout: &Rollout) -> u32 {
    let wave = rollout.strategy.waves.get(rollout.wave);
    let only_rules = rollout.wave == 0 && !rollout.strategy.users.rules.is_empty();
    wave.and_then(|wave| wave.share)
        .filter(|_| rollout.direction == Direction::Forward && !only_rules)
        .map_or(0, |share| u16::from(share).into())
}

const fn state(state: RolloutState) -> &'static str {
    match state {
        RolloutState::Pending => "pending",
        RolloutState::Running => "running",
        RolloutState::Paused => "paused",
        RolloutState::Reverting => "reverting",
        RolloutState::Succeeded => "succeeded",
        RolloutState::Partial => "partial",
        RolloutState::Reverted => "reverted",
        RolloutState::Failed => "failed",
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
