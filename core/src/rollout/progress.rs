//! How a rollout moves through its states: total, monotone, and only ever by what was seen.

use super::converge::Step;
use super::gate::{self, Word};
use super::hooks::{self, Gate, Hooks};
use super::waiting::Reason;
use super::{Direction, Evidence, LeftOut, Pause, Rollout, RolloutState, Turned};
use crate::analysis::judgement;
use crate::analysis::settings::NotEnough;
use crate::fleet::hooks::HookState;
use crate::fleet::{Fleet, Service, Warm};
use crate::hook::Point;
use crate::name::{HostName, ReleaseId};
use crate::problem::Problem;
use crate::strategy::OnFailure;
use crate::time::Moment;
use std::time::Duration;

/// Where one host stands in this pass.
#[derive(Debug, Clone)]
pub struct Standing {
    pub host: HostName,
    /// Whether it is one of the service's hosts.
    pub belongs: bool,
    /// The wave of the rollout it belongs to.
    pub wave: usize,
    /// Whether its agent is there.
    pub connected: bool,
    /// Whether requests to it are answered, as far as was last heard.
    pub serves: bool,
    /// Whether it serves, and gets more and more of the traffic: no host that others may count on yet.
    pub grows: bool,
    /// It was told to come in, and not every balancer has said that it is: it may just have been told to go out, and what was heard
    /// before is no word of it.
    pub entering: bool,
    pub goal: Option<ReleaseId>,
    pub step: Step,
    /// The step drains what the host was told to run, and no free slot.
    pub drains_told: bool,
    /// It left the service, and with its step nothing is told to run there: nobody looks at it any more then.
    pub last_seen: bool,
    /// Something was begun here and is not finished.
    pub begun: bool,
    /// By what was told nothing of it is in, or what the rollout goes to is not.
    pub away: bool,
    /// It was told to run something, and nothing of it is in.
    pub idle: bool,
    /// Every balancer was told that the release it should have is in.
    pub entered: bool,
    /// The host was told to run the rollout's new release.
    pub has_new: bool,
    /// What it was told to run of the release it should have was ready, as far as was last heard.
    pub ready: bool,
    /// The start its instance must be of at least.
    pub start: u32,
    /// Why it takes no part: then nothing waits for it.
    pub aside: Option<Box<Reason>>,
}

/// Moves the rollout as far as what was seen allows. Returns whether it changed: then every host is looked at again.
pub fn advance(fleet: &Fleet, rollout: &mut Rollout, service: &mut Service, standings: &[Standing], now: Moment) -> bool {
    let before = rollout.clone();
    if rollout.state == RolloutState::Pending {
        rollout.state = RolloutState::Running;
    }
    gather_evidence(fleet, rollout, standings, now);
    turn_on_evidence(rollout, service);
    heed_doubt(fleet, rollout);
    heed_hooks(rollout, service);
    match rollout.state {
        RolloutState::Running => go_forward(fleet, rollout, service, standings, now),
        // In the pass that turned it round, hosts were looked at for the release it went to: done with that is not back.
        RolloutState::Reverting if before.direction == Direction::Back => go_back(rollout, standings, now),
        _ => {}
    }
    // What moves in this pass is not what has stood for too long: after a long bake it would look so.
    if *rollout == before {
        give_up_waiting(fleet, rollout, service, standings, now);
    }
    if *rollout == before {
        return false;
    }
    if !rollout.state.is_active() {
        service.orders.kept.clear();
    }
    rollout.progressed = now;
    true
}

/// When the rollout may move although nothing is heard.
#[must_use]
pub fn wake_at(fleet: &Fleet, rollout: &Rollout, service: &Service, standings: &[Standing], now: Moment) -> Option<Moment> {
    let bake = rollout.wave_done.map(|since| since + rollout.strategy.bake_of(rollout.wave));
    let moves = matches!(rollout.state, RolloutState::Running | RolloutState::Reverting);
    let deadline = moves.then(|| expected_since(rollout, service) + progress_deadline(fleet, rollout, service));
    let refused = standings.iter().any(|standing| refusal(standing).is_some());
    let refused = refused.then(|| rollout.progressed + start_timeout(fleet, rollout.to));
    // What is over has been looked at: a rollout that waits for a person is not looked at again and again.
    [bake, deadline, refused].into_iter().flatten().filter(|moment| *moment > now).min()
}

/// Collects what speaks against the new release: one piece a host is enough.
fn gather_evidence(fleet: &Fleet, rollout: &mut Rollout, standings: &[Standing], now: Moment) {
    if rollout.direction == Direction::Back {
        return;
    }
    let traffic = gate::verdict(fleet, rollout).or_else(|| gate::too_many(rollout));
    rollout.evidence.extend(traffic);
    let patience = start_timeout(fleet, rollout.to);
    let stuck = now.since(rollout.progressed) >= patience;
    let takes_part = |standing: &&Standing| standing.goal == Some(rollout.to) && standing.aside.is_none();
    for standing in standings.iter().filter(takes_part) {
        let problem = match &standing.step {
            Step::Failed(problem) => Some(problem),
            _ => refusal(standing).filter(|_| stuck),
        };
        let known = rollout.evidence.iter().any(|evidence| evidence.host == standing.host);
        if let (Some(problem), false) = (problem, known) {
            rollout.evidence.push(Evidence { host: standing.host.clone(), problem: problem.clone() });
        }
    }
}

/// A balancer that says why it does not put the new instance in: evidence, once it had the time to start.
fn refusal(standing: &Standing) -> Option<&Problem> {
    match &standing.step {
        Step::Wait(Reason::Enrolling { problem, .. }) => problem.as_ref(),
        _ => None,
    }
}

fn turn_on_evidence(rollout: &mut Rollout, service: &Service) {
    let Some(evidence) = rollout.evidence.first() else { return };
    // What its instances do speaks against a release while a rollout is held, too: it would only get worse.
    let judged = rollout.evidence.iter().any(|evidence| judgement::gets_worse(evidence.problem.code));
    let held = rollout.state == RolloutState::Paused && judged && rollout.strategy.on_failure == OnFailure::Revert;
    if rollout.direction == Direction::Back || !(held || rollout.state == RolloutState::Running) {
        return;
    }
    match rollout.strategy.on_failure {
        OnFailure::Revert => turn_back_if_there_is_a_way(rollout, service),
        OnFailure::Pause => {
            let why = format!("{} on {}", evidence.problem.what, evidence.host);
            pause(rollout, "baton".into(), why);
        }
    }
}

/// Turns the arrow round by itself, unless a hook that has run forbids it, or there is nothing to go back to: then a person
/// decides.
fn turn_back_if_there_is_a_way(rollout: &mut Rollout, service: &Service) {
    let evidence = rollout.evidence.first().map(|evidence| format!("{} on {}", evidence.problem.what, evidence.host));
    let why = match hooks::no_way_back(service, rollout.from) {
        Some(hook) => format!("{} has run, so there is no way back", hook.point),
        // Back is where nothing runs: what still serves, of a first release that never got everywhere, would go as well.
        None if rollout.from.is_none() && !rollout.kept.is_empty() => {
            let name = &rollout.service;
            format!("no release was live before: baton deploy --supersede mends it, baton rollback {name} stops what serves")
        }
        None if rollout.completes() => "what it brings is live already, so there is nothing to go back to".to_owned(),
        None => return turn_back(rollout, Turned::Evidence),
    };
    let why = format!("{}; {why}", evidence.unwrap_or_default());
    if rollout.state != RolloutState::Paused {
        pause(rollout, "baton".into(), why);
    }
}

/// What speaks against the new release where that is too little to go back for holds the rollout, once: memory that grows, failures
/// that an incident would bring, too. A person knows more.
fn heed_doubt(fleet: &Fleet, rollout: &mut Rollout) {
    if rollout.state != RolloutState::Running || rollout.direction == Direction::Back {
        return;
    }
    if let Some(why) = gate::doubt(fleet, rollout) {
        pause(rollout, "baton".into(), why);
    }
}

/// A hook that went wrong, or may have, holds the rollout. The first one ends it where that is what failures lead to: nothing
/// has changed yet.
fn heed_hooks(rollout: &mut Rollout, service: &Service) {
    if rollout.state != RolloutState::Running || rollout.direction == Direction::Back {
        return;
    }
    let Some((key, run, problem)) = hooks::broken(service, rollout) else { return };
    let failed = matches!(run.state, HookState::Failed { .. }) && key.point == Point::BeforeRollout;
    if failed && rollout.strategy.on_failure == OnFailure::Revert {
        rollout.evidence.push(Evidence { host: run.host.clone(), problem: problem.clone() });
        return turn_back_if_there_is_a_way(rollout, service);
    }
    pause(rollout, "baton".into(), problem.what.clone());
}

/// Turns the arrow round.
pub fn turn_back(rollout: &mut Rollout, turned: Turned) {
    rollout.direction = Direction::Back;
    rollout.state = RolloutState::Reverting;
    rollout.turned = Some(turned);
    rollout.pause = None;
    rollout.wave_done = None;
}

/// Holds the rollout: what was begun is finished, nothing new begins.
pub fn pause(rollout: &mut Rollout, by: String, why: String) {
    rollout.state = RolloutState::Paused;
    rollout.pause = Some(Pause { by, why });
}

fn go_forward(fleet: &Fleet, rollout: &mut Rollout, service: &mut Service, standings: &[Standing], now: Moment) {
    let unnoticed = |it: &Standing| {
        mutant!("a host that was never updated goes unnoticed") && matches!(it.step, Step::Wait(Reason::AgentSilent { .. }))
    };
    if !standings.iter().all(|it| it.step == Step::Done || it.aside.is_some() || it.last_seen || unnoticed(it)) {
        return;
    }
    let since = *rollout.wave_done.get_or_insert(now);
    let next = rollout.wave + 1;
    if is_watched(rollout, now) {
        return;
    }
    match gate::ask(rollout, service, now) {
        Word::Go => {}
        Word::Wait(_) => return,
        Word::Enough(NotEnough::Revert, problem) => {
            rollout.evidence.extend(gate::against(rollout, problem));
            return turn_back_if_there_is_a_way(rollout, service);
        }
        Word::Enough(_, problem) => {
            let why = format!("{}; baton promote {} takes it so", problem.what, rollout.service);
            return pause(rollout, "baton".into(), why);
        }
    }
    if next < rollout.strategy.waves.len() {
        if is_let_through(rollout, next) {
            rollout.wave = next;
            rollout.wave_done = None;
        }
        return;
    }
    if let Some(why) = gate::unproven(rollout) {
        let why = format!("{why}; baton promote {} takes it so", rollout.service);
        return pause(rollout, "baton".into(), why);
    }
    if rollout.from != Some(rollout.to) && !standings.iter().any(takes_part(rollout)) {
        let why = "every host is drained or skipped, so nobody has the release; baton hosts undrain HOST, then resume";
        return pause(rollout, "baton".into(), why.to_owned());
    }
    match (Hooks { fleet, service, rollout, now }).once(Point::AfterRollout) {
        Gate::Open => {}
        Gate::Ask(key, run) => return drop(service.hooks.insert(key, *run)),
        Gate::Wait(_) => return,
    }
    rollout.wave_done = None;
    rollout.left_out = left_out(standings);
    let lacks = rollout.left_out.iter().any(|left_out| rollout.is_meant_for(&left_out.host));
    rollout.state = if lacks { RolloutState::Partial } else { RolloutState::Succeeded };
    rollout.ended = Some(now);
    service.committed = Some(rollout.to);
    if let Some(from) = rollout.from.filter(|from| *from != rollout.to) {
        service.previous = Some(from);
        let until = (since + rollout.strategy.keep_old).max(now);
        service.warm = rollout.strategy.keeps_old().then_some(Warm { release: from, until });
    }
}

/// Whether a host of the service has the new release, where everything is done.
fn takes_part(rollout: &Rollout) -> impl Fn(&Standing) -> bool + '_ {
    |it| it.belongs && it.aside.is_none() && it.goal == Some(rollout.to)
}

/// Whether the wave that is done is still watched: its time is not over, and nobody said that it is good.
fn is_watched(rollout: &Rollout, now: Moment) -> bool {
    let bake = rollout.strategy.bake_of(rollout.wave);
    let over = rollout.wave_done.is_some_and(|since| now.since(since) >= bake);
    !over && rollout.promoted <= rollout.wave + 1
}

/// Whether a wave needs no person's word, or has it. The first wave has it from the deploy, unless it enters together.
#[must_use]
pub fn is_let_through(rollout: &Rollout, wave: usize) -> bool {
    let asks = rollout.strategy.waves.get(wave).is_some_and(|wave| wave.approve);
    !asks || rollout.promoted > wave || (wave == 0 && !rollout.strategy.lockstep)
}

/// How many hosts of the waves reached are ready to enter, or have entered, and of how many.
#[must_use]
pub fn staged(rollout: &Rollout, standings: &[Standing]) -> (usize, usize) {
    let reached = || standings.iter().filter(|it| it.goal == Some(rollout.to) && it.aside.is_none());
    let ready = reached().filter(|standing| standing.entered || matches!(standing.step, Step::Enroll(_))).count();
    (ready, reached().count())
}

/// The wave that only waits for a person's word, if one does.
#[must_use]
pub fn asks_for(rollout: &Rollout, standings: &[Standing], now: Moment) -> Option<usize> {
    if rollout.direction == Direction::Back {
        return None;
    }
    let (ready, of) = staged(rollout, standings);
    let enters = standings.iter().any(|standing| matches!(standing.step, Step::Enroll(_)));
    let enter = (rollout.strategy.lockstep && enters && ready == of).then_some(rollout.wave);
    let done = rollout.wave_done.is_some() && !is_watched(rollout, now);
    let wave = enter.or(done.then_some(rollout.wave + 1));
    wave.filter(|wave| !is_let_through(rollout, *wave))
}

/// Whether hosts that enter together waited for a person's word until some were told something else, of another service perhaps,
/// and have not answered that yet.
fn asked_before(rollout: &Rollout, standings: &[Standing]) -> bool {
    let waits = |it: &&Standing| it.goal == Some(rollout.to) && it.aside.is_none();
    let is_ready = |it: &Standing| {
        it.entered || matches!(it.step, Step::Enroll(_)) || (it.ready && it.step == Step::Wait(Reason::Echo))
    };
    let asks = rollout.strategy.lockstep && rollout.direction == Direction::Forward;
    let enters = || standings.iter().filter(waits).any(|standing| !standing.entered);
    asks && enters() && !is_let_through(rollout, rollout.wave) && standings.iter().filter(waits).all(is_ready)
}

/// A silent host that the rollout never touched has nothing to take back: it is not waited for.
fn go_back(rollout: &mut Rollout, standings: &[Standing], now: Moment) {
    let is_back = |standing: &Standing| match standing.step {
        _ if standing.aside.is_some() || standing.last_seen => true,
        Step::Done => true,
        Step::Wait(Reason::AgentSilent { .. } | Reason::NeverJoined) => !standing.begun && !standing.has_new,
        _ => false,
    };
    if standings.iter().all(is_back) {
        rollout.left_out = left_out(standings);
        rollout.state = RolloutState::Reverted;
        rollout.ended = Some(now);
    }
}

/// The hosts that took no part, with who said so.
fn left_out(standings: &[Standing]) -> Vec<LeftOut> {
    let name = |standing: &Standing| match *standing.aside.clone()? {
        Reason::Drained { by, why } | Reason::Rebooting { by, why } | Reason::Skipped { by, why } => {
            Some(LeftOut { host: standing.host.clone(), by, why })
        }
        _ => None,
    };
    standings.iter().filter_map(name).collect()
}

/// Nothing waits for ever: forward it pauses and asks, backward it says that a person is needed.
fn give_up_waiting(fleet: &Fleet, rollout: &mut Rollout, service: &Service, standings: &[Standing], now: Moment) {
    let deadline = progress_deadline(fleet, rollout, service);
    let is_done = |standing: &Standing| standing.step == Step::Done || standing.aside.is_some();
    let watches = rollout.wave_done.is_some() && standings.iter().all(is_done);
    let at_ease = watches || asks_for(rollout, standings, now).is_some() || asked_before(rollout, standings);
    if at_ease || now.since(expected_since(rollout, service)) < deadline || mutant!("what cannot recover is waited for") {
        return;
    }
    match rollout.state {
        RolloutState::Running => {
            pause(rollout, "baton".into(), format!("nothing has moved for {} s", deadline.as_secs()));
        }
        RolloutState::Reverting => {
            rollout.state = RolloutState::Failed;
            rollout.ended = Some(now);
        }
        _ => {}
    }
}

/// Since when it should have moved: not while its wave is watched.
fn expected_since(rollout: &Rollout, service: &Service) -> Moment {
    let baked = rollout.wave_done.map(|since| since + rollout.strategy.bake_of(rollout.wave));
    let judged = rollout.wave_done.and_then(|_| gate::ends(rollout, service));
    [baked, judged].into_iter().flatten().fold(rollout.progressed, Moment::max)
}

/// The deadline of the strategy, never shorter than what a single host or a hook under way may lawfully take.
fn progress_deadline(fleet: &Fleet, rollout: &Rollout, service: &Service) -> Duration {
    let longest = [rollout.from, Some(rollout.to)].into_iter().flatten().filter_map(|id| fleet.releases.get(&id));
    let longest = longest.map(|it| it.health.start_timeout + it.health.healthy_for + it.run.stop.timeout).max();
    let alone = rollout.strategy.progress_deadline.max(rollout.strategy.drain_deadline + longest.unwrap_or_default());
    let slow_start = service.balancer.as_ref().map_or(Duration::ZERO, |balancer| balancer.slow_start);
    alone + slow_start + hooks::patience(fleet, service, rollout)
}

fn start_timeout(fleet: &Fleet, release: ReleaseId) -> Duration {
    fleet.releases.get(&release).map_or(Duration::ZERO, |release| release.health.start_timeout)
}
