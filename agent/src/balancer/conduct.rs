//! The one procedure above every driver: look, decide, ask, change, look again, cut what had its time, report. What will most likely
//! be decided is made ready during the first look.

use super::decide::{self, Answers, Decision};
use super::drift::{self, Settled};
use super::driver::{Change, Driver, MemberSeen, PoolSeen, Remark, Seen};
use super::warming::{Pools, Warming};
use super::{Balancer, Reconciled, divide, problem};
use crate::probe::Question;
use baton_core::fleet::MemberKey;
use baton_core::fleet::ability::BalancerAbility;
use baton_core::fleet::report::{MemberReport, PoolReport};
use baton_core::fleet::spec::{MemberSpec, MemberState, PoolSpec};
use baton_core::fleet::split::Side;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use baton_core::release::Probe;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// While requests are in flight at a member that goes out: each look costs well under a millisecond, and each
/// millisecond waited is a millisecond a host does not serve.
const MOVING: Duration = Duration::from_millis(10);

/// After so many passes in a row a drain is a long one: nobody waits for its last millisecond, and it may last for hours.
const MOVING_PASSES: u32 = 500;
const LINGERING: Duration = Duration::from_millis(200);

/// While something has to be cured elsewhere: a member that does not answer, a socket that is gone.
const AILING: Duration = Duration::from_millis(50);

/// With nothing to do: how long a balancer that restarted and forgot may go unnoticed.
const REST: Duration = Duration::from_secs(1);

/// For one question to a member and its answer. One that takes longer is asked again on the next pass.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);

/// A driver and how soon it wants to be looked at again.
#[derive(Debug)]
pub(crate) struct Conductor<D> {
    driver: D,
    settled: Settled,
    warming: Warming,
    last: Option<Last>,
    pace: Duration,
    /// Passes in a row with the same trouble: a permanent one is not asked about twenty times a second for ever.
    ailing: u32,
    /// Passes in a row with a drain under way.
    draining: u32,
}

impl<D: Driver> Conductor<D> {
    pub(crate) fn new(driver: D, settled: Settled) -> Self {
        Self { driver, settled, warming: Warming::default(), last: None, pace: MOVING, ailing: 0, draining: 0 }
    }

    async fn pass(&mut self, pools: &BTreeMap<PoolName, PoolSpec>) -> BTreeMap<PoolName, PoolReport> {
        if pools.is_empty() {
            // What it can do is asked for before anything is asked of it.
            self.driver.survey().await;
            (self.last, self.pace) = (None, REST);
            return BTreeMap::new();
        }
        match self.settle(pools).await {
            Ok(done) => self.report(pools, done),
            Err(problem) => {
                self.ail();
                pools.keys().map(|pool| (pool.clone(), unknown(problem.clone()))).collect()
            }
        }
    }

    /// Does what is due, and comes back with the last look and why something was not done.
    async fn settle<'a>(&mut self, asked: &'a BTreeMap<PoolName, PoolSpec>) -> Result<Done<'a>, Problem> {
        let (mut seen, answers) = self.look(asked).await?;
        let eased = self.warming.ease(asked, &seen, self.driver.steps(), Instant::now());
        let pools = &*eased;
        self.settled.notice(pools, &seen);
        let (divided, undivided) = divide::before(&mut self.driver, pools, &seen).await?;
        // To divide takes its time: what was answered before is asked for again.
        let answers = ask(pools, &seen, if divided { BTreeMap::new() } else { answers }).await;
        let decisions = self.decide(pools, &seen, &answers, &undivided);
        let changes: Vec<_> = decisions.values().flat_map(|decision| decision.changes.iter().cloned()).collect();
        if !changes.is_empty() {
            self.driver.apply(&changes).await?;
        }
        let united = divide::after(&mut self.driver, pools, &seen).await?;
        if divided || united || !changes.is_empty() {
            seen = self.driver.observe(pools).await?;
        }
        let overdue = overdue(pools, &seen);
        if !overdue.is_empty() {
            for (pool, address) in &overdue {
                self.driver.cut(pool, *address).await?;
            }
            seen = self.driver.observe(pools).await?;
        }
        self.settled.note(pools, &seen).await;
        Ok(Done { pools: eased, seen, answers, decisions })
    }

    /// Looks, and meanwhile does what will most likely follow, by what was seen last: asks those that are to come in, and has the
    /// changes made ready. What is decided then hangs on the new look alone; a driver that acts if nothing has changed may have acted.
    async fn look(&mut self, asked: &BTreeMap<PoolName, PoolSpec>) -> Result<(Seen, BTreeMap<PoolName, Answers>), Problem> {
        let Last { seen, answers } = self.last.take().unwrap_or_default();
        // How a pool is divided goes before its members, and whose share grows has it worked out by a new look.
        let plain = |(name, spec): &(&PoolName, &PoolSpec)| spec.slow_start.is_zero() && divide::is_so(name, spec, &seen);
        let is_plain = asked.iter().all(|pool| plain(&pool));
        let likely = match is_plain {
            true => self.likely(asked, &seen, &expected(asked, &seen, &answers)),
            false => Vec::new(),
        };
        let asking = ask(asked, &seen, BTreeMap::new());
        if likely.is_empty() || !self.driver.acts_if_unchanged() {
            let (seen, answers) = tokio::join!(self.driver.observe_before(asked, &likely), asking);
            return Ok((seen?, answers));
        }
        let answers = asking.await;
        let likely = self.likely(asked, &seen, &answers);
        Ok((self.driver.observe_before(asked, &likely).await?, answers))
    }

    /// What would be changed if everything were as it was seen, and these had answered.
    fn likely(
        &self,
        pools: &BTreeMap<PoolName, PoolSpec>,
        seen: &Seen,
        answers: &BTreeMap<PoolName, Answers>,
    ) -> Vec<Change> {
        let decisions = self.decide(pools, seen, answers, &BTreeMap::new());
        decisions.into_values().flat_map(|decision| decision.changes).collect()
    }

    fn decide(
        &self,
        pools: &BTreeMap<PoolName, PoolSpec>,
        seen: &Seen,
        answers: &BTreeMap<PoolName, Answers>,
        undivided: &BTreeMap<PoolName, Problem>,
    ) -> BTreeMap<PoolName, Decision> {
        let decision = |(name, spec, pool): (&PoolName, &PoolSpec, &PoolSeen)| {
            let mut answers = answers.get(name).cloned().unwrap_or_default();
            if let Some(problem) = undivided.get(name) {
                decide::hold_trial(spec, &mut answers, problem);
            }
            let left = self.settled.left(&seen.identity, name, spec, pool);
            drift::hold(&left, &mut answers);
            let mut decision = decide::decide(name, spec, pool, &answers);
            drift::keep(left, spec, &mut decision);
            (name.clone(), decision)
        };
        each(pools, seen).map(decision).collect()
    }

    fn report(&mut self, asked: &BTreeMap<PoolName, PoolSpec>, done: Done<'_>) -> BTreeMap<PoolName, PoolReport> {
        let Done { pools, seen, answers, decisions } = done;
        let now = Instant::now();
        let mut reports: BTreeMap<PoolName, PoolReport> = pools
            .iter()
            .map(|(name, spec)| {
                let report = match seen.pools.get(name) {
                    Some(Ok(pool)) => {
                        let report = pool_report(&seen.identity, spec, pool, decisions.get(name));
                        let (split, problem) = divide::report(name, spec, seen.splits.get(name));
                        blame_split(spec, PoolReport { split, ..report }, problem)
                    }
                    Some(Err(problem)) => PoolReport { balancer: seen.identity.clone(), ..unknown(problem.clone()) },
                    None => unknown(problem::changing_hands("the pool was not seen")),
                };
                (name.clone(), report)
            })
            .collect();
        for (name, report) in &mut reports {
            let Some((asked, eased)) = asked.get(name).zip(pools.get(name)) else { continue };
            for (key, member) in &mut report.members {
                let Some((full, eased)) = asked.members.get(key).zip(eased.members.get(key)) else { continue };
                member.corrected = self.settled.corrected(name, full.address, now).map(Box::new);
                let full_in = self.warming.full_in(name, asked, eased, full, now);
                member.full_in = full_in.filter(|_| member.running == MemberState::Ready);
            }
        }
        self.set_pace(&pools, &seen, &reports);
        self.last = Some(Last { seen, answers });
        reports
    }

    fn set_pace(&mut self, pools: &BTreeMap<PoolName, PoolSpec>, seen: &Seen, reports: &BTreeMap<PoolName, PoolReport>) {
        let mut members = reports.values().flat_map(|report| report.members.values());
        let unfinished = |(_, _, pool): (_, _, &PoolSeen)| pool.values().any(|there| there.remark == Remark::Later);
        let draining = is_draining(pools, reports) || each(pools, seen).any(unfinished);
        if reports.values().any(|report| report.problem.is_some()) || members.any(|member| member.problem.is_some()) {
            self.ail();
        } else {
            self.ailing = 0;
            self.pace = REST;
        }
        self.pace = self.pace.min(self.warming.next().unwrap_or(REST).max(MOVING));
        self.draining = if draining { self.draining.saturating_add(1) } else { 0 };
        if draining {
            self.pace = if self.draining <= MOVING_PASSES { MOVING } else { LINGERING };
        }
    }

    fn ail(&mut self) {
        self.pace = AILING.saturating_mul(1 << (self.ailing / 20).min(5)).min(REST);
        self.ailing = self.ailing.saturating_add(1);
    }
}

/// What came of a pass: the pools as they were to be at its time, the last look, and why something was not done.
struct Done<'a> {
    pools: Pools<'a>,
    seen: Seen,
    answers: BTreeMap<PoolName, Answers>,
    decisions: BTreeMap<PoolName, Decision>,
}

/// What was seen at the end of the last pass, and what was answered in it.
#[derive(Debug, Default)]
struct Last {
    seen: Seen,
    answers: BTreeMap<PoolName, Answers>,
}

impl<D: Driver> Balancer for Conductor<D> {
    fn reconcile<'a>(&'a mut self, pools: &'a BTreeMap<PoolName, PoolSpec>) -> Reconciled<'a> {
        Box::pin(self.pass(pools))
    }

    fn poll_after(&self) -> Duration {
        self.pace
    }

    fn ability(&self) -> BalancerAbility {
        self.driver.ability()
    }

    fn notes(&self) -> Vec<Problem> {
        self.driver.notes()
    }
}

/// Whether a member that is to go has not gone yet. Asked pool by pool: the same member of another pool may be there to stay.
fn is_draining(pools: &BTreeMap<PoolName, PoolSpec>, reports: &BTreeMap<PoolName, PoolReport>) -> bool {
    reports.iter().any(|(pool, report)| {
        let wanted = |key: &MemberKey| Some(pools.get(pool)?.members.get(key)?.state);
        report.members.iter().any(|(key, member)| {
            wanted(key) != Some(MemberState::Ready) && member.problem.is_none() && !member.is_drained(Duration::MAX)
        })
    })
}

/// The pools of the spec that were seen.
fn each<'a>(
    pools: &'a BTreeMap<PoolName, PoolSpec>,
    seen: &'a Seen,
) -> impl Iterator<Item = (&'a PoolName, &'a PoolSpec, &'a PoolSeen)> + 'a {
    pools.iter().filter_map(|(name, spec)| Some((name, spec, seen.pools.get(name)?.as_ref().ok()?)))
}

/// As if every member that is to come in answered, but those that did not the last time.
fn expected(
    pools: &BTreeMap<PoolName, PoolSpec>,
    seen: &Seen,
    last: &BTreeMap<PoolName, Answers>,
) -> BTreeMap<PoolName, Answers> {
    let answers = |(name, spec, pool): (&PoolName, _, _)| {
        let before = |key: &MemberKey| last.get(name).and_then(|answers| answers.get(key)).cloned();
        let answers = decide::to_ask(spec, pool).map(|(key, _)| (key.clone(), before(key).unwrap_or(Ok(()))));
        (name.clone(), answers.collect())
    };
    each(pools, seen).map(answers).collect()
}

/// Asks every member that is to come in and has not answered yet, all at once.
async fn ask(
    pools: &BTreeMap<PoolName, PoolSpec>,
    seen: &Seen,
    mut answers: BTreeMap<PoolName, Answers>,
) -> BTreeMap<PoolName, Answers> {
    let has_answered = |name: &PoolName, key: &MemberKey| answers.get(name).is_some_and(|answers| answers.contains_key(key));
    let questions = each(pools, seen).flat_map(|(name, spec, pool)| {
        let missing = decide::to_ask(spec, pool).filter(move |(key, _)| !has_answered(name, key));
        missing.map(move |(key, member)| async move {
            let question = question(member);
            let answer = question.ask().await;
            let problem = |seen| problem::not_answering(key, &question.to_string(), &format!("{seen}"));
            (name, key, answer.map_err(problem))
        })
    });
    let new = join_all(questions).await;
    for (pool, key, answer) in new {
        answers.entry(pool.clone()).or_default().insert(key.clone(), answer);
    }
    answers
}

/// What is asked of a member from here: HAProxy assumes UP when a server leaves maintenance, and the way from the balancer
/// to the member is part of what must work. An exec probe belongs to the member's own host; from here, that it listens is
/// all there is to see.
fn question(member: &MemberSpec) -> Question {
    let probe = match &member.probe {
        Probe::Exec { .. } => Probe::Tcp,
        probe => probe.clone(),
    };
    Question { probe, address: member.address, timeout: PROBE_TIMEOUT, surroundings: None }
}

/// Members whose requests had their time.
fn overdue(pools: &BTreeMap<PoolName, PoolSpec>, seen: &Seen) -> Vec<(PoolName, SocketAddr)> {
    each(pools, seen)
        .flat_map(|(name, spec, pool)| {
            spec.members
                .values()
                .filter(|member| member.state == MemberState::Out)
                .filter_map(|member| Some((member.address, pool.get(&member.address)?)))
                .filter(|(_, there)| there.told == MemberState::Out && !matches!(there.remark, Remark::Refused(_)))
                .filter(|(_, there)| there.in_flight > 0 && there.out_for >= spec.drain_deadline)
                .map(|(address, _)| (name.clone(), address))
        })
        .collect()
}

fn unknown(problem: Problem) -> PoolReport {
    PoolReport { problem: Some(problem), ..PoolReport::default() }
}

fn pool_report(identity: &str, spec: &PoolSpec, pool: &PoolSeen, decision: Option<&Decision>) -> PoolReport {
    let members = spec.members.iter().map(|(key, member)| {
        let decided = decision.and_then(|decision| decision.problems.get(key)).cloned();
        let report = match pool.get(&member.address) {
            Some(there) => member_report(spec, key, member, there, decided),
            None => no_server(decided),
        };
        (key.clone(), report)
    });
    PoolReport { balancer: identity.to_owned(), members: members.collect(), ..PoolReport::default() }
}

fn member_report(
    spec: &PoolSpec,
    key: &MemberKey,
    member: &MemberSpec,
    there: &MemberSeen,
    decided: Option<Problem>,
) -> MemberReport {
    MemberReport {
        running: there.running,
        on_disk: there.on_disk,
        in_flight: there.in_flight,
        oldest: there.oldest.filter(|_| there.in_flight > 0),
        out_for: there.out_for,
        cut: there.cut,
        requests: there.requests,
        errors: there.errors,
        side: there.side.0,
        full_in: None,
        latency: there.latency.clone().map(Box::new),
        corrected: None,
        problem: decided.or_else(|| discrepancy(key, decide::side(spec, member), member, there)),
    }
}

/// Why a server is not as it was asked for, when nothing kept us from asking.
fn discrepancy(key: &MemberKey, side: Side, member: &MemberSpec, there: &MemberSeen) -> Option<Problem> {
    let complaint = match &there.remark {
        Remark::Refused(problem) | Remark::Note(problem) => return Some(problem.clone()),
        Remark::Down(check) if member.state != MemberState::Out => return Some(problem::down(key, check)),
        Remark::AlsoRouted(elsewhere) if member.state != MemberState::Ready => {
            return Some(problem::also_routed(key, elsewhere));
        }
        Remark::Complaint(text) => text.as_str(),
        Remark::Later => return None,
        _ => "",
    };
    let asked = (member.state, member.state, member.weight, member.weight);
    let seen = (there.told, there.on_disk, there.weight.0, there.weight.1);
    (asked != seen || (side, side) != there.side)
        .then(|| problem::not_taken(key, describe(asked), describe(seen), complaint))
}

/// A split that is not as it should be is said of the members on trial: it keeps them from their turn and nobody else.
fn blame_split(spec: &PoolSpec, mut report: PoolReport, problem: Option<Problem>) -> PoolReport {
    let Some(problem) = problem else { return report };
    for (key, member) in &mut report.members {
        let on_trial = spec.members.get(key).is_some_and(|member| member.side == Side::Trial);
        if on_trial && member.problem.is_none() {
            member.problem = Some(problem.clone());
        }
    }
    report
}

fn describe((running, disk, weight, weight_on_disk): (MemberState, MemberState, u16, u16)) -> String {
    format!("{running:?} weight {weight}, after a restart {disk:?} weight {weight_on_disk}")
}

/// The balancer has no such server, so nothing of it routes there, now or after a restart.
fn no_server(problem: Option<Problem>) -> MemberReport {
    MemberReport { problem, ..MemberReport::quiet(MemberState::Out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::fleet::spec::Exchange;

    fn pool(state: MemberState) -> PoolSpec {
        let address = "127.0.0.1:8101".parse().unwrap();
        let member = MemberSpec { address, state, weight: 1, side: Side::Stable, probe: Probe::Tcp };
        let members = BTreeMap::from([("web1/0".parse().unwrap(), member)]);
        PoolSpec {
            service: "shop".parse().unwrap(),
            members,
            drain_deadline: Duration::from_secs(30),
            slow_start: Duration::ZERO,
            exchange: Exchange::Each,
            split: None,
        }
    }

    fn report(state: MemberState, in_flight: u64) -> PoolReport {
        let member = MemberReport { in_flight, ..MemberReport::quiet(state) };
        let members = BTreeMap::from([("web1/0".parse().unwrap(), member)]);
        PoolReport { balancer: "1@1".to_owned(), members, ..PoolReport::default() }
    }

    fn both<T>(shop: T, till: T) -> BTreeMap<PoolName, T> {
        BTreeMap::from([("shop".parse().unwrap(), shop), ("till".parse().unwrap(), till)])
    }

    #[test]
    fn a_member_that_is_out_of_one_pool_and_in_another_is_at_rest_in_both() {
        let pools = both(pool(MemberState::Out), pool(MemberState::Ready));
        assert!(!is_draining(&pools, &both(report(MemberState::Out, 0), report(MemberState::Ready, 3))));
        assert!(is_draining(&pools, &both(report(MemberState::Out, 1), report(MemberState::Ready, 3))));
    }
}
