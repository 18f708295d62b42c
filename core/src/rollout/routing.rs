//! Whether anything leads to a slot, or everything does: asked of every balancer, before whatever cannot be undone.

use super::place::{Balancer, Place};
use super::waiting::Reason;
use crate::fleet::report::MemberReport;
use crate::fleet::spec::MemberState;
use crate::fleet::withdraw::{Withdraw, Withdrawal};
use crate::name::Slot;
use std::time::Duration;

/// Whether anything still leads to a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routing {
    /// Every balancer has read back that the member is out, and nothing is in flight or what was had its time.
    Drained,
    /// Some balancer was never told to take it out.
    NotAsked,
    /// Told, not there yet.
    Waiting(Reason),
    /// Cannot be known, so it may still route.
    Unreachable(Reason),
}

/// Whether a slot gets traffic from every balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    In,
    /// In, but for balancers that cannot be asked: they never took it out, and have found out that it is ready after so long.
    FoundOut(Duration),
    /// Some balancer was never told to put it in.
    NotAsked,
    Waiting(Reason),
}

impl<'a> Place<'a> {
    #[must_use]
    pub fn routing(&self, slot: Slot, deadline: Duration) -> Routing {
        self.routing_on(slot, deadline, |_| true)
    }

    /// The same for a slot whose instance is about to be replaced: a balancer that cannot be told finds out by itself then, where
    /// people say so.
    #[must_use]
    pub fn routing_before_the_next(&self, slot: Slot, deadline: Duration) -> Routing {
        let withdraws = self.withdraw().is_some() && self.issued().any(|(issued, _)| issued == slot);
        self.routing_on(slot, deadline, |balancer| !withdraws || balancer.reach().is_ok())
    }

    /// How what is in a slot has to be ended before another instance is there: some balancer cannot be told.
    #[must_use]
    pub fn withdrawal(&self, slot: Slot, deadline: Duration) -> Option<Withdrawal> {
        let is_there = self.issued().any(|(issued, _)| issued == slot) && self.unreachable().is_some();
        self.withdraw().filter(|_| is_there).map(|withdraw| withdraw.within(deadline))
    }

    /// What people say of balancers that cannot be told, as long as some other one can: without a word of any there is nobody who
    /// would notice what becomes of the requests.
    fn withdraw(&self) -> Option<Withdraw> {
        let withdraw = self.service.balancer.as_ref()?.withdraw?;
        self.balancers().any(|balancer| balancer.reach().is_ok()).then_some(withdraw)
    }

    fn routing_on(&self, slot: Slot, deadline: Duration, counts: impl Fn(&Balancer<'a>) -> bool) -> Routing {
        // What is free takes nothing from anybody: there, the last word of one that cannot be asked now is enough.
        let is_free = !self.issued().any(|(issued, _)| issued == slot);
        let asked = || self.balancers().filter(|balancer| counts(balancer));
        for balancer in asked().filter(|balancer| !(is_free && balancer.has_shut(slot))) {
            if let Err(reason) = balancer.reach() {
                return Routing::Unreachable(reason);
            }
        }
        if self.balancers().any(|balancer| balancer.state(slot) != Some(MemberState::Out)) {
            return Routing::NotAsked;
        }
        for balancer in asked() {
            let draining = |in_flight, oldest, out_for| {
                let balancer = balancer.name().clone();
                Routing::Waiting(Reason::Draining { balancer, in_flight, oldest, out_for, deadline })
            };
            let Some(pool) = balancer.echoed_pool() else { return draining(0, None, Duration::ZERO) };
            if pool.problem.is_some() {
                return Routing::Unreachable(balancer.unreachable(pool.problem.clone()));
            }
            match balancer.member_report(slot) {
                None => return draining(0, None, Duration::ZERO),
                Some(member) if member.is_drained(deadline) => {}
                Some(member) if member.problem.is_some() => {
                    return Routing::Unreachable(balancer.unreachable(member.problem.clone()));
                }
                Some(member) => return draining(member.in_flight, member.oldest, member.out_for),
            }
        }
        Routing::Drained
    }

    #[must_use]
    pub fn enrolled(&self, slot: Slot) -> Enrolled {
        if !self.is_told_in(slot) {
            return Enrolled::NotAsked;
        }
        let mut unconfirmed = None;
        for balancer in self.balancers() {
            if let Err(reason) = balancer.reach() {
                match self.withdraw().filter(|_| balancer.member_report(slot).is_some_and(MemberReport::is_in)) {
                    Some(withdraw) => unconfirmed = Some(withdraw.unready_for),
                    None => return Enrolled::Waiting(reason),
                }
                continue;
            }
            let enrolling = |problem, full_in| {
                Enrolled::Waiting(Reason::Enrolling { balancer: balancer.name().clone(), problem, full_in })
            };
            let Some(pool) = balancer.echoed_pool() else { return enrolling(None, None) };
            if pool.problem.is_some() {
                return Enrolled::Waiting(balancer.unreachable(pool.problem.clone()));
            }
            match balancer.member_report(slot) {
                Some(member) if member.is_in() && balancer.divides(pool) => {
                    // The way back does not wait for a share.
                    if let (Some(left), true) = (member.full_in, self.goes_forward()) {
                        return enrolling(None, Some(left));
                    }
                }
                member => return enrolling(member.and_then(|member| member.problem.clone()), None),
            }
        }
        unconfirmed.map_or(Enrolled::In, Enrolled::FoundOut)
    }
}
