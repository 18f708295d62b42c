//! What must hold in the small world itself, whatever coordinators and agents believe: the invariants, seen from outside.
//!
//! The numbers are those of ARCHITECTURE.md. The seeded simulation asks the same of its larger world.

use crate::decide::Decisions;
use crate::scope::Manner;
use crate::state::{BALANCERS, MEMBERS, Process, SLOTS, State, WEBS, Which};
use baton_core::rollout::RolloutState;

/// One bit of [`State::broken`] each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invariant {
    Floor,
    Routable,
    Ready,
    Disk,
    Fencing,
    Told,
    Completeness,
    Exclusion,
    OneRollout,
    Interlock,
    Twice,
    Stuck,
}

impl Invariant {
    pub(crate) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Whether what ran in a member's slot died by itself: then nobody could have taken it out in time.
fn is_struck(state: &State, member: usize) -> bool {
    state.places[member / SLOTS][member % SLOTS].struck
}

fn answers(state: &State, member: usize) -> bool {
    state.places[member / SLOTS][member % SLOTS].process.is_ready()
}

/// 3 and 6: whoever is in is ready, and whoever would be in after a restart is, too. So nothing is stopped that is routed to,
/// nothing is put in that is not ready, and nothing else starts in the slot of a member that is in.
pub(crate) fn look(decisions: &Decisions, state: &mut State) {
    for balancer in 0..decisions.scope.balancers {
        for member in 0..MEMBERS {
            if answers(state, member) || is_struck(state, member) {
                continue;
            }
            let it = state.members[balancer][member];
            if it.running == Some(true) {
                state.broken |= Invariant::Ready.bit();
            }
            if it.disk == Some(true) {
                state.broken |= Invariant::Disk.bit();
            }
        }
    }
}

/// 1 and 4, for a member that just left: enough hosts are in and would really answer, unless some died by themselves.
pub(crate) fn look_at_floor(decisions: &Decisions, state: &mut State, balancer: usize) {
    let scope = &decisions.scope;
    let died = state.places.iter().flatten().any(|place| place.struck);
    if died || scope.manner == Manner::Exclusive {
        return;
    }
    let may_miss = scope.service().strategy.max_unavailable.at_most(scope.hosts);
    if serving(state, balancer, scope.hosts) + may_miss < scope.hosts {
        state.broken |= Invariant::Floor.bit();
    }
}

/// The hosts of which some member is in and answers.
fn serving(state: &State, balancer: usize, hosts: usize) -> usize {
    let is_in = |member: usize| state.members[balancer][member].running == Some(true) && answers(state, member);
    (0..hosts).filter(|host| (0..SLOTS).any(|slot| is_in(host * SLOTS + slot))).count()
}

/// What a host just did: 2 nothing is stopped with requests open, 22 nothing starts beside what it cannot coexist with, and
/// nothing runs that its ledger does not say.
pub(crate) fn look_at_act(decisions: &Decisions, state: &mut State, host: usize, before: [Process; SLOTS]) {
    let told = decisions.documents.get(state.parties[host].ledger.what).told;
    for slot in 0..SLOTS {
        let now = state.places[host][slot].process;
        let stops = matches!(now, Process::Stopping(_)) && before[slot] != now;
        let open = (0..BALANCERS).any(|balancer| state.members[balancer][host * SLOTS + slot].busy);
        if stops && open {
            state.broken |= Invariant::Routable.bit();
        }
        if let Process::Starting(which) | Process::Ready(which) = now
            && told[slot] != Some(which)
        {
            state.broken |= Invariant::Told.bit();
        }
        if matches!(now, Process::Starting(_)) && before[slot] != now && !is_alone(decisions, state, now) {
            state.broken |= Invariant::Exclusion.bit();
        }
    }
}

fn is_alone(decisions: &Decisions, state: &State, started: Process) -> bool {
    let stands = decisions.books.get(state.view.books).stands;
    let exclusive = decisions.scope.manner == Manner::Exclusive && stands.rolling;
    let mut others = state.places.iter().flatten().filter_map(|place| place.process.alive());
    !exclusive || others.all(|other| Some(other) == started.alive())
}

/// 13: a rollout that succeeds does so where every host runs the new release, and no other but what is warm and out.
pub(crate) fn look_at_success(decisions: &Decisions, state: &mut State, before: crate::state::Id) {
    let (was, is) = (decisions.books.get(before).stands, decisions.books.get(state.view.books).stands);
    if is.state != Some(RolloutState::Succeeded) || was.state == is.state {
        return;
    }
    for host in 0..decisions.scope.hosts {
        for slot in 0..SLOTS {
            let Some(runs) = state.places[host][slot].process.alive().filter(|runs| Some(*runs) != is.committed) else {
                continue;
            };
            let routed = state.members.iter().any(|members| members[host * SLOTS + slot].running == Some(true));
            if is.warm != Some(runs) || routed {
                state.broken |= Invariant::Completeness.bit();
            }
        }
    }
}

/// What must be where nothing happens any more: an end, or a pause that says why; and after an end, every host runs what is
/// committed and is in everywhere.
pub(crate) fn is_at_rest(decisions: &Decisions, state: &State) -> bool {
    let stands = decisions.books.get(state.view.books).stands;
    match stands.state {
        Some(RolloutState::Paused | RolloutState::Failed) => stands.says_why,
        Some(RolloutState::Succeeded | RolloutState::Reverted) => is_served(decisions, state, stands.committed),
        _ => false,
    }
}

fn is_served(decisions: &Decisions, state: &State, committed: Option<Which>) -> bool {
    let hosts = decisions.scope.hosts;
    let runs = |host: usize| state.places[host].iter().filter_map(|place| place.process.alive()).collect::<Vec<_>>();
    (0..hosts.min(WEBS)).all(|host| runs(host) == committed.into_iter().collect::<Vec<_>>())
        && (0..decisions.scope.balancers).all(|balancer| serving(state, balancer, hosts) == hosts)
}
