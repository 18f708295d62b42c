//! What the traffic says of a rollout: what speaks against it, and whether the end of a bake is good enough to go on.

use super::place::Places;
use super::waiting::Reason;
use super::{Direction, Evidence, Rollout, RolloutState};
use crate::analysis::judgement::Judgement;
use crate::analysis::settings::{GateSettings, NotEnough};
use crate::fleet::spec::MemberState;
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, ReleaseId};
use crate::problem::{Code, Problem};
use crate::time::Moment;
use std::time::Duration;

/// A bet on failures that is worth twice what it began with is doubt. On a release that is no worse it seldom is, and not for long.
const DOUBT: f64 = 2.0;

/// For so long a wave is watched beyond its bake while there is doubt.
const LINGER: Duration = Duration::from_secs(30);

/// More failures than the manifest allows.
const TOO_MANY: Code = Code(903);

/// The gate's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Ruled out, or nothing to rule out.
    Go,
    Wait(Reason),
    /// It waited for as long as it may.
    Enough(NotEnough, Problem),
}

/// Asks the gate, once the wave has baked. It needs an old release to compare with, and a balancer that counts. Where there is
/// doubt, nobody needs to have asked for a gate.
#[must_use]
pub fn ask(rollout: &Rollout, service: &Service, now: Moment) -> Word {
    let left = lingers(rollout).map_or(Duration::ZERO, |until| until.since(now));
    if !left.is_zero() {
        return Word::Wait(Reason::Doubt { left });
    }
    let Some((gate, has, needs)) = holds(rollout, service) else { return Word::Go };
    let left = until(rollout, gate).since(now);
    if !left.is_zero() {
        return Word::Wait(Reason::Data { has, needs, left });
    }
    let share = f64::from(gate.rule_out_ppm) / 10_000.0;
    let problem = Problem::new(Code(902), format!("not enough data: has {has} of {needs} requests"))
        .saw("to rule out", format!("{share} % more failures than the old release"))
        .saw("waited", humantime::format_duration(gate.max_wait).to_string())
        .help("wait for traffic and resume, or let it through as it is");
    match gate.on_not_enough_data {
        NotEnough::Promote => Word::Go,
        otherwise => Word::Enough(otherwise, problem),
    }
}

/// When the gate will have waited for as long as it may, while it holds the rollout.
#[must_use]
pub fn wake_at(rollout: &Rollout, service: &Service, now: Moment) -> Option<Moment> {
    rollout.wave_done.and_then(|_| ends(rollout, service)).filter(|moment| *moment > now)
}

/// When the gate will have waited for as long as it may, and nobody doubts any more.
#[must_use]
pub fn ends(rollout: &Rollout, service: &Service) -> Option<Moment> {
    let gate = holds(rollout, service).map(|(gate, _, _)| until(rollout, gate));
    [gate, lingers(rollout)].into_iter().flatten().max()
}

/// Until when a wave that was watched is watched on, because failures speak against the new release, though not loudly enough to
/// be evidence yet. At little traffic a short bake ends before there can be any, however bad the release is.
fn lingers(rollout: &Rollout) -> Option<Moment> {
    let bake = rollout.strategy.bake_of(rollout.wave);
    let doubts = rollout.judgement.failures_worth() >= DOUBT;
    let compares = rollout.direction == Direction::Forward && rollout.from.is_some_and(|from| from != rollout.to);
    let since = rollout.wave_done.filter(|_| doubts && compares && !bake.is_zero() && !is_vouched_for(rollout))?;
    Some(since + bake + LINGER)
}

/// Evidence needs a host: the one where most failed, or the first that takes part.
#[must_use]
pub fn against(rollout: &Rollout, problem: Problem) -> Option<Evidence> {
    let takes_part = |host: &&HostName| rollout.left_out.iter().all(|left_out| left_out.host != **host);
    let worst = rollout.judgement.worst_host().or_else(|| rollout.hosts.iter().find(takes_part));
    worst.or(rollout.hosts.first()).map(|host| Evidence { host: host.clone(), problem })
}

fn holds<'a>(rollout: &'a Rollout, service: &Service) -> Option<(&'a GateSettings, u64, u64)> {
    // What a few people look at before everybody comes is no measure of it.
    let gate = rollout.strategy.gate.as_ref().filter(|_| !rollout.is_previewed())?;
    let compares = rollout.from.is_some_and(|from| from != rollout.to) && service.balancer.is_some();
    let (has, needs) = rollout.judgement.missing(gate).filter(|_| compares && !is_vouched_for(rollout))?;
    (has > 0 || !mutant!("analysis passes because its targets vanished")).then_some((gate, has, needs))
}

/// A person let the wave through although it was watched.
fn is_vouched_for(rollout: &Rollout) -> bool {
    rollout.promoted > rollout.wave + 1
}

/// A person who resumes gives it the whole time again.
fn until(rollout: &Rollout, gate: &GateSettings) -> Moment {
    let baked = rollout.wave_done.map_or(rollout.progressed, |since| since + rollout.strategy.bake_of(rollout.wave));
    baked.max(rollout.progressed) + gate.max_wait
}

/// What is counted that must not be: more failures than the manifest allows.
#[must_use]
pub fn too_many(rollout: &Rollout) -> Option<Evidence> {
    let (most, proof) = (rollout.strategy.max_failed?, &rollout.judgement.proof);
    let failed = failed(rollout).saturating_sub(proof.forgiven);
    let known = rollout.evidence.iter().any(|evidence| evidence.problem.code == TOO_MANY);
    if failed <= most || known {
        return None;
    }
    let requests = if failed == 1 { "request" } else { "requests" };
    let since = if proof.forgiven > 0 { format!(", after {} before the retry", proof.forgiven) } else { String::new() };
    let mut problem = Problem::new(TOO_MANY, format!("{failed} {requests} failed{since}, and the manifest allows {most}"))
        .saw("new release", format!("{} failed", proof.new))
        .saw("old release", format!("{} failed", proof.old))
        .saw("cut", format!("{} at the end of a drain", proof.cut))
        .help("find out what failed, or allow more in [proof] max_failed");
    let probes = &proof.probes;
    if rollout.from.is_some() && probes.failed > 0 {
        let last = probes.last_failure.as_deref().unwrap_or_default();
        problem = problem.saw("prober", format!("{} of {} failed, the last: {last}", probes.failed, probes.asked));
    }
    against(rollout, problem)
}

fn failed(rollout: &Rollout) -> u64 {
    rollout.judgement.proof.failed_or_seen(rollout.from.is_some())
}

/// Somebody who knows that too many failed tries again on these hosts: as many may fail once more.
pub fn forgive(rollout: &mut Rollout, hosts: &[HostName]) {
    let is_meant = |it: &Evidence| it.problem.code == TOO_MANY && hosts.contains(&it.host);
    if rollout.evidence.iter().any(is_meant) {
        rollout.judgement.proof.forgiven = failed(rollout);
    }
}

/// Why a rollout that needs proof cannot end well: nothing was counted, or not everything.
#[must_use]
pub fn unproven(rollout: &Rollout) -> Option<String> {
    let proof = &rollout.judgement.proof;
    if is_vouched_for(rollout) {
        return None;
    }
    if let Some(why) = rollout.strategy.max_failed.and_then(|_| proof.unproven()) {
        return Some(why);
    }
    let silent = rollout.strategy.prober.is_some() && proof.probes.asked == 0;
    let why = proof.probes.last_trouble.as_deref().unwrap_or("nothing came back");
    silent.then(|| format!("the prober could ask nothing, so nothing is proven: {why}"))
}

/// Whether it is paused at the end of a wave because too little was counted, and for nothing else: the gate is not passed, or it
/// cannot be proven. Then a person may take it as it is.
#[must_use]
pub fn is_paused_for_evidence(rollout: &Rollout) -> bool {
    let by_baton = rollout.pause.as_ref().is_some_and(|pause| pause.by == "baton");
    let paused = rollout.state == RolloutState::Paused && by_baton && rollout.evidence.is_empty();
    let is_through = rollout.wave + 1 == rollout.strategy.waves.len();
    let is_missing = |gate| !is_vouched_for(rollout) && rollout.judgement.missing(gate).is_some();
    let lacks = rollout.strategy.gate.as_ref().is_some_and(is_missing) || (is_through && unproven(rollout).is_some());
    paused && rollout.wave_done.is_some() && lacks
}

/// Whether nothing leads to the old release any more, by what everybody was told: then nobody answers beside the new one.
#[must_use]
pub fn answers_alone(fleet: &Fleet, rollout: &Rollout, now: Moment) -> bool {
    let Some(service) = fleet.services.get(&rollout.service) else { return false };
    let places = Places::of(fleet, &rollout.service, service, now);
    let is_led_to = |host: &HostName| {
        let place = places.at(host);
        let mut old = place.issued().filter(|(_, instance)| Some(instance.release) == rollout.from);
        let is_told_in = |state: Option<MemberState>| state.is_some_and(|state| state != MemberState::Out);
        let is_balanced = place.balancers().next().is_some();
        old.any(|(slot, _)| !is_balanced || place.balancers().any(|balancer| is_told_in(balancer.state(slot))))
    };
    !service.hosts.iter().any(is_led_to)
}

/// What the traffic of the new release says against it.
#[must_use]
pub fn verdict(fleet: &Fleet, rollout: &Rollout) -> Option<Evidence> {
    let (new, old) = versions(fleet, rollout)?;
    let judgement = &rollout.judgement;
    let evidence = match judgement.verdict_of_prometheus(&new, &old) {
        Some(problem) => against(rollout, problem),
        None => judgement.verdict(&new, &old).map(|(host, problem)| Evidence { host, problem }),
    };
    let known = |code| rollout.evidence.iter().any(|evidence| evidence.problem.code == code);
    evidence.filter(|evidence| !known(evidence.problem.code))
}

/// What makes it doubtful, and is no evidence: said once.
pub fn doubt(fleet: &Fleet, rollout: &mut Rollout) -> Option<String> {
    let (new, old) = versions(fleet, rollout)?;
    let (judgement, guard) = (&mut rollout.judgement, rollout.strategy.guard);
    let Judgement { memory, failures, slow, .. } = judgement;
    let slower = || slow.as_mut().and_then(|slow| slow.ask(&guard, &new, &old));
    memory.ask(&new, &old).or_else(|| failures.ask(&guard, &new, &old)).or_else(slower)
}

/// The two that are compared; None: there is no old one.
fn versions(fleet: &Fleet, rollout: &Rollout) -> Option<(String, String)> {
    let version = |release: Option<ReleaseId>| {
        let release = fleet.releases.get(&release?);
        Some(release.map_or_else(String::new, |release| release.version.to_string()))
    };
    Some((version(Some(rollout.to))?, version(rollout.from)?))
}
