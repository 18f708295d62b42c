//! What is believed of one service on one host: the planner's reading of specs and reports.
//!
//! Every question that leads to something irreversible is answered from a report that echoes the newest spec, of the host
//! and of each balancer; no answer means wait.

use super::waiting::Reason;
use super::walk::Walk;
use super::{Direction, Rollout};
use crate::fleet::report::{InstanceReport, InstanceState, MemberReport, PoolReport};
use crate::fleet::spec::{InstanceSpec, MemberSpec, MemberState, PoolSpec};
use crate::fleet::{Fleet, Host, InstanceKey, LiteMap, MemberKey, Service};
use crate::name::{HostName, PoolName, ReleaseId, ServiceName, Slot};
use crate::time::Moment;

use std::time::Duration;

/// One service wherever it runs: what all of its places have in common, looked up once.
#[derive(Debug, Clone)]
pub struct Places<'a> {
    fleet: &'a Fleet,
    name: &'a ServiceName,
    service: &'a Service,
    now: Moment,
    rollout: Option<&'a Rollout>,
    fronts: Vec<Front<'a>>,
}

/// One service on one host.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    pub fleet: &'a Fleet,
    pub name: &'a ServiceName,
    pub service: &'a Service,
    pub host_name: &'a HostName,
    pub now: Moment,
    rollout: Option<&'a Rollout>,
    /// Looked up once, like everything below: much is asked of a place.
    host: Option<&'a Host>,
    issued: Vec<(Slot, &'a InstanceSpec)>,
    reported: Vec<(Slot, &'a InstanceReport)>,
    balancers: Vec<Balancer<'a>>,
}

/// How long an agent may be away before what it last said counts for nothing: one that is upgraded is back sooner.
const SILENT: Duration = Duration::from_secs(10);

impl<'a> Places<'a> {
    #[must_use]
    pub fn of(fleet: &'a Fleet, name: &'a ServiceName, service: &'a Service, now: Moment) -> Self {
        let mut fronts = service.balancer.as_ref().map_or_else(Vec::new, |pool| {
            let front = |on: &'a HostName| Front::of(fleet, on, &pool.pool);
            pool.on.iter().map(front).collect()
        });
        if fronts.iter().any(|front| !front.is_dead()) {
            fronts.retain(|front| !front.is_dead());
        }
        Self { fleet, name, service, now, rollout: fleet.active_rollout(name), fronts }
    }

    /// The same in a rollout as it is by now: a plan may have turned it round, ended it or begun it.
    #[must_use]
    pub fn under(self, rollout: Option<&'a Rollout>) -> Self {
        Self { rollout, ..self }
    }

    /// The place on one host.
    #[must_use]
    pub fn at(&self, host_name: &'a HostName) -> Place<'a> {
        let mut place = self.nowhere(host_name);
        self.go(&mut place, &mut Walks::of(self), host_name);
        place
    }

    /// Looks at the places on many hosts, in the order of their names, and hands each to `see` with its index in `hosts`. To look
    /// for each host among all of them would take many times as long as to walk along them once.
    pub fn walk(&self, hosts: &[&'a HostName], mut see: impl FnMut(usize, &Place<'a>)) {
        let mut order: Vec<(&'a HostName, usize)> = hosts.iter().enumerate().map(|(index, host)| (*host, index)).collect();
        order.sort_unstable();
        let Some((first, _)) = order.first() else { return };
        let (mut place, mut walks) = (self.nowhere(first), Walks::of(self));
        for (host, index) in order {
            self.go(&mut place, &mut walks, host);
            see(index, &place);
        }
    }

    /// A place of which nothing is known yet.
    fn nowhere(&self, host_name: &'a HostName) -> Place<'a> {
        let Self { fleet, name, service, now, rollout, .. } = *self;
        let unknown = |front: &Front<'a>| Balancer { front: *front, members_told: Vec::new(), members_seen: Vec::new() };
        let balancers = self.fronts.iter().map(unknown).collect();
        let (issued, reported) = (Vec::new(), Vec::new());
        Place { fleet, name, service, host_name, now, rollout, host: None, issued, reported, balancers }
    }

    /// Makes it the place on a host. Its lists are filled again, and not made anew for each of thousands of hosts.
    fn go(&self, place: &mut Place<'a>, walks: &mut Walks<'a>, host_name: &'a HostName) {
        place.host_name = host_name;
        // One that nobody accepted yet is as if it had not joined.
        place.host = walks.hosts.get(host_name).filter(|host| host.accepted);
        of_service(place.host.map(|host| &host.issued.instances), self.name, &mut place.issued);
        of_service(place.host.and_then(Host::report).map(|report| &report.instances), self.name, &mut place.reported);
        let first = MemberKey { host: host_name.clone(), slot: Slot(0) };
        for (balancer, (told, seen)) in place.balancers.iter_mut().zip(&mut walks.fronts) {
            if let Some(told) = told {
                told.of_host(&first, &mut balancer.members_told);
            }
            if let Some(seen) = seen {
                seen.of_host(&first, &mut balancer.members_seen);
            }
        }
    }
}

/// How far a walk along the places has come, among the hosts and among the members of each balancer, told and seen.
struct Walks<'a> {
    hosts: Walk<'a, HostName, Host>,
    fronts: Vec<(MemberWalk<'a, MemberSpec>, MemberWalk<'a, MemberReport>)>,
}

/// Along the members of a pool, where there is one.
type MemberWalk<'a, V> = Option<Walk<'a, MemberKey, V>>;

impl<'a> Walks<'a> {
    fn of(places: &Places<'a>) -> Self {
        let members = |front: &Front<'a>| {
            (front.told.map(|pool| Walk::of(&pool.members)), front.seen.map(|pool| Walk::of(&pool.members)))
        };
        Self { hosts: Walk::of(&places.fleet.hosts), fronts: places.fronts.iter().map(members).collect() }
    }
}

impl<'a> Place<'a> {
    #[must_use]
    pub const fn host(&self) -> Option<&'a Host> {
        self.host
    }

    #[must_use]
    pub fn key(&self, slot: Slot) -> InstanceKey {
        InstanceKey { service: self.name.clone(), slot }
    }

    #[must_use]
    pub fn member(&self, slot: Slot) -> MemberKey {
        MemberKey { host: self.host_name.clone(), slot }
    }

    /// The instances the host was told to run, by slot.
    pub fn issued(&self) -> impl Iterator<Item = (Slot, &'a InstanceSpec)> {
        self.issued.iter().copied()
    }

    /// The instances the host last said it has, by slot.
    pub fn reported(&self) -> impl Iterator<Item = (Slot, &'a InstanceReport)> {
        self.reported.iter().copied()
    }

    /// Instances that still run although the host was told to have none in their slot.
    pub fn leftovers(&self) -> impl Iterator<Item = (Slot, &'a InstanceReport)> {
        self.reported()
            .filter(|(slot, instance)| instance.state.may_run() && !self.issued().any(|(issued, _)| issued == *slot))
    }

    /// The slot told to run a release, of at least this start. Of two, the one that is ready: the other is in the way.
    #[must_use]
    pub fn slot_of(&self, release: ReleaseId, start: u32) -> Option<Slot> {
        let fits = move |spec: &InstanceSpec| spec.release == release && spec.start >= start;
        let slots = || self.issued().filter(move |(_, spec)| fits(spec)).map(|(slot, _)| slot);
        slots().find(|slot| self.is_ready(*slot)).or_else(|| slots().next())
    }

    /// Whether the host last said that the instance in this slot is ready, and it is the one it was told to run.
    #[must_use]
    pub fn is_ready(&self, slot: Slot) -> bool {
        let told = self.issued().find(|(issued, _)| *issued == slot).map(|(_, spec)| (spec.release, spec.start));
        self.reported().any(|(reported, instance)| {
            reported == slot && Some((instance.release, instance.start)) == told && instance.state.ready_for().is_some()
        })
    }

    /// Whether requests to this host are answered, as far as was last heard: some slot is ready and in everywhere.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.issued().any(|(slot, _)| self.serves_in(slot))
    }

    /// Whether requests to this host were answered when everybody last spoke: some slot is ready, and every balancer read back that
    /// it is in, whatever they were told since. Who has not spoken since a coordinator began does what it was told; of a host that
    /// has been silent for long nobody knows, and it does not count.
    #[must_use]
    pub fn answers(&self) -> bool {
        let unheard = self.host.is_some_and(|host| host.heard.is_none());
        let silent = |host: &&Host| !host.connected && host.heard.as_ref().is_some_and(|it| self.now.since(it.at) >= SILENT);
        if self.host.filter(silent).is_some() {
            return false;
        }
        let is_in = |balancer: &Balancer<'_>, slot: Slot| match balancer.member_report(slot) {
            Some(member) => member.running == MemberState::Ready,
            None => balancer.state(slot) == Some(MemberState::Ready),
        };
        let answers = |slot: Slot| (self.is_ready(slot) || unheard) && self.balancers().all(|it| is_in(it, slot));
        self.issued().any(|(slot, _)| answers(slot))
    }

    /// The same for one slot.
    #[must_use]
    pub fn serves_in(&self, slot: Slot) -> bool {
        self.is_ready(slot)
            && self.balancers().all(|balancer| {
                balancer.state(slot) == Some(MemberState::Ready)
                    && balancer.member_report(slot).is_none_or(|member| member.running == MemberState::Ready)
            })
    }

    /// The same for any other slot than this one.
    #[must_use]
    pub fn serves_beside(&self, slot: Slot) -> bool {
        self.issued().any(|(other, _)| other != slot && self.serves_in(other))
    }

    /// Whether requests may be answered here: something is ready, be it what the host was told to run or not, and some
    /// balancer was told to put it in, read back or not. A host that was never heard since a coordinator began may well serve.
    #[must_use]
    pub fn may_serve_in(&self, slot: Slot) -> bool {
        let told = || self.balancers().any(|balancer| balancer.state(slot) == Some(MemberState::Ready));
        let ready = || self.reported().any(|(reported, it)| reported == slot && it.state.ready_for().is_some());
        let unheard = || self.host.is_some_and(|host| host.heard.is_none());
        self.serves_in(slot) || ((ready() || unheard()) && told())
    }

    /// Whether no other slot was told in, and the host has not said that what ran in this one has ended: it may serve again by
    /// itself.
    #[must_use]
    pub fn alone_may_come_back_in(&self, slot: Slot) -> bool {
        let ended =
            |(reported, it): (Slot, &InstanceReport)| reported == slot && matches!(it.state, InstanceState::Failed { .. });
        let has_ended =
            self.host.is_some_and(|host| host.connected && host.echoed().is_some()) && self.reported().any(ended);
        let other = self.issued().any(|(other, _)| other != slot && self.is_told_in(other));
        self.is_told_in(slot) && !other && !has_ended
    }

    /// Whether every balancer was told that the slot is in.
    #[must_use]
    pub fn is_told_in(&self, slot: Slot) -> bool {
        self.balancers().all(|balancer| balancer.state(slot) == Some(MemberState::Ready))
    }

    /// Whether a slot holds what an earlier rollout left beside what serves: no part of what is under way.
    ///
    /// At rest that is the warm release. In a rollout it is any but the one it goes to; once that has come in, what is beside it
    /// is still to be retired, as everything is where nothing is to run. A rollout to the release that is live already has nothing
    /// of another to retire.
    fn is_left(&self, slot: Slot, told: &InstanceSpec) -> bool {
        let is_out = self.balancers().all(|balancer| balancer.state(slot) == Some(MemberState::Out));
        let mut serving = self.issued().filter(|(other, _)| *other != slot && self.is_told_in(*other));
        let Some((_, serving)) = serving.next().filter(|_| is_out) else { return false };
        match self.rollout {
            Some(rollout) => {
                let (goal, renews) = (rollout.goal(), rollout.renews());
                goal.is_some_and(|goal| goal != told.release && (renews || goal != serving.release))
            }
            None => self.service.warm.is_some_and(|warm| warm.release == told.release),
        }
    }

    /// Whether the host is not at rest because of us: something was begun there and is not finished.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        let mut instances = 0;
        for (slot, _) in self.issued().filter(|(slot, told)| !self.is_left(*slot, told)) {
            instances += 1;
            let enrolled = self.is_told_in(slot);
            let unproven = self.service.balancer.is_none() && !self.is_ready(slot);
            if !enrolled || unproven {
                return true;
            }
        }
        instances > 1 || self.leftovers().next().is_some()
    }

    /// Whether the host was told to run nothing of the service, and nothing is known to run there. One that is there has
    /// said so in answer to its newest spec: until then its ledger may hold what it was told before.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let answers = self.host().is_none_or(|host| !host.connected || host.echoed().is_some());
        answers && self.issued().next().is_none() && self.leftovers().next().is_none()
    }

    /// Whether something here gets more and more of the traffic, and has not all of its share: the way back does not look at that.
    #[must_use]
    pub fn grows(&self) -> bool {
        let grows = |slot| self.balancers().any(|on| on.member_report(slot).is_some_and(|member| member.full_in.is_some()));
        self.goes_forward() && self.issued().any(|(slot, _)| self.is_told_in(slot) && grows(slot))
    }

    pub(super) fn goes_forward(&self) -> bool {
        self.rollout.is_none_or(|rollout| rollout.direction == Direction::Forward)
    }

    /// The first balancer that cannot be asked, or whose balancer does not answer: it may go on with what it has.
    #[must_use]
    pub fn unreachable(&self) -> Option<Reason> {
        self.balancers().find_map(|balancer| balancer.reach().err())
    }

    /// The balancers in front of the service that count; none where nobody routes to it.
    ///
    /// One that was declared dead does not count while it says nothing, as long as another one is left.
    pub fn balancers(&self) -> impl Iterator<Item = &Balancer<'a>> {
        self.balancers.iter()
    }
}

/// One balancer's host, as the fleet knows it, and the service's pool there.
#[derive(Debug, Clone, Copy)]
struct Front<'a> {
    name: &'a HostName,
    host: Option<&'a Host>,
    /// What it was last told.
    told: Option<&'a PoolSpec>,
    /// What it last said.
    seen: Option<&'a PoolReport>,
}

/// A balancer, with the members of one host.
#[derive(Debug, Clone)]
pub struct Balancer<'a> {
    front: Front<'a>,
    members_told: Vec<(Slot, &'a MemberSpec)>,
    members_seen: Vec<(Slot, &'a MemberReport)>,
}

impl<'a> Front<'a> {
    fn of(fleet: &'a Fleet, name: &'a HostName, pool: &PoolName) -> Self {
        let host = fleet.hosts.get(name).filter(|host| host.accepted);
        let told = host.and_then(|host| host.issued.pools.get(pool));
        let seen = host.and_then(Host::report).and_then(|report| report.pools.get(pool));
        Self { name, host, told, seen }
    }

    /// Whether it was declared dead, and nothing is heard that says otherwise.
    fn is_dead(&self) -> bool {
        let answers = |host: &Host| host.connected && self.seen.is_some_and(|pool| pool.problem.is_none());
        self.host.is_some_and(|host| host.dead_balancer.is_some() && !answers(host))
    }
}

impl<'a> Balancer<'a> {
    #[must_use]
    pub const fn name(&self) -> &'a HostName {
        self.front.name
    }

    pub(super) fn reach(&self) -> Result<(), Reason> {
        let problem = self.front.seen.and_then(|pool| pool.problem.clone());
        match self.front.host {
            Some(host) if host.connected && problem.is_none() => Ok(()),
            _ => Err(self.unreachable(problem)),
        }
    }

    /// Whether its last word answers its newest spec and was that nothing leads to a slot, now or after a restart. Its host has
    /// nothing newer and does nothing else by itself, so that stays so while nothing is heard.
    pub(super) fn has_shut(&self, slot: Slot) -> bool {
        let believed = self.echoed_pool().is_some_and(|pool| pool.problem.is_none());
        let is_out = self.member_report(slot).is_some_and(MemberReport::is_out);
        believed && is_out && self.state(slot) == Some(MemberState::Out)
    }

    pub(super) fn unreachable(&self, problem: Option<crate::problem::Problem>) -> Reason {
        Reason::BalancerUnreachable { balancer: self.name().clone(), problem }
    }

    /// What the balancer was last told of a slot.
    pub(super) fn state(&self, slot: Slot) -> Option<MemberState> {
        self.members_told.iter().find(|(of, _)| *of == slot).map(|(_, member)| member.state)
    }

    /// Whether the balancer has read back that it divides the pool's requests as it was told.
    pub(super) fn divides(&self, pool: &PoolReport) -> bool {
        let told = self.front.told.and_then(|pool| pool.split.as_ref());
        told == pool.split.as_ref().map(|seen| &seen.split)
    }

    /// What it says of the pool in answer to its newest spec.
    pub(super) fn echoed_pool(&self) -> Option<&'a PoolReport> {
        self.front.seen.filter(|_| self.front.host.is_some_and(|host| host.echoed().is_some()))
    }

    pub(super) fn member_report(&self, slot: Slot) -> Option<&'a MemberReport> {
        self.members_seen.iter().find(|(of, _)| *of == slot).map(|(_, member)| *member)
    }
}

/// The instances of one service, by slot, into a list that is cleared before.
fn of_service<'a, I>(instances: Option<&'a LiteMap<InstanceKey, I>>, name: &ServiceName, found: &mut Vec<(Slot, &'a I)>) {
    found.clear();
    let of_service = instances.into_iter().flatten().filter(|(key, _)| key.service == *name);
    found.extend(of_service.map(|(key, instance)| (key.slot, instance)));
}
