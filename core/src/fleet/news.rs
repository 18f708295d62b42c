//! Whether a report gives a planner anything that the one before did not. Most hosts of a large fleet repeat themselves most of
//! the time, and a pass over all of it for each would find what the last one found.

use super::Fleet;
use super::report::{HostReport, InstanceReport, InstanceState, MemberReport, PoolReport};
use std::time::Duration;

impl Fleet {
    /// How long an instance is ready until no decision asks for longer.
    #[must_use]
    pub fn proven_after(&self) -> Duration {
        let healthy = self.releases.values().map(|release| release.health.healthy_for);
        let withdraws = self.services.values().filter_map(|service| service.balancer.as_ref()?.withdraw);
        healthy.chain(withdraws.map(|withdraw| withdraw.unready_for)).max().unwrap_or_default()
    }
}

impl HostReport {
    /// Whether anything is different from the report before that a plan could depend on. How old things are is nothing new where
    /// they are older than anybody asks for, and what is only counted is for those who judge.
    #[must_use]
    pub fn is_news_after(&self, before: &Self, proven_after: Duration) -> bool {
        // Every field is named: whoever adds one decides whether plans depend on it.
        let Self {
            observed,
            boot,
            instances,
            pools,
            releases,
            problems,
            balancer,
            hooks,
            memory: _,
            counters: _,
            falls: _,
            room: _,
        } = self;
        let same = (observed, boot, problems, balancer)
            == (&before.observed, &before.boot, &before.problems, &before.balancer)
            && (releases, hooks) == (&before.releases, &before.hooks)
            && same(instances, &before.instances, |now, then| is_same_instance(now, then, proven_after))
            && same(pools, &before.pools, is_same_pool);
        !same
    }
}

fn same<'a, K: PartialEq + 'a, V: 'a, I>(now: I, then: I, is_same: impl Fn(&V, &V) -> bool) -> bool
where
    I: IntoIterator<Item = (&'a K, &'a V), IntoIter: ExactSizeIterator>,
{
    let (now, then) = (now.into_iter(), then.into_iter());
    now.len() == then.len() && now.zip(then).all(|((key, now), (other, then))| key == other && is_same(now, then))
}

fn is_same_instance(now: &InstanceReport, then: &InstanceReport, proven_after: Duration) -> bool {
    let is_proven = |since: Duration| since >= proven_after;
    let state = match (&now.state, &then.state) {
        (InstanceState::Ready { since: now }, InstanceState::Ready { since: then }) => is_proven(*now) && is_proven(*then),
        (now, then) => now == then,
    };
    state && (now.release, &now.incarnation, now.start) == (then.release, &then.incarnation, then.start)
}

fn is_same_pool(now: &PoolReport, then: &PoolReport) -> bool {
    let division = |pool: &PoolReport| pool.split.as_ref().map(|split| (split.split.clone(), split.on_disk));
    (&now.balancer, &now.problem) == (&then.balancer, &then.problem)
        && division(now) == division(then)
        && same(&now.members, &then.members, is_same_member)
}

/// What is open at a member matters while it is out.
fn is_same_member(now: &MemberReport, then: &MemberReport) -> bool {
    let rests = |it: &MemberReport| it.is_in() || it.in_flight == 0;
    let shown = |it: &MemberReport| (it.running, it.on_disk, it.side, it.full_in);
    rests(now) && rests(then) && shown(now) == shown(then) && now.problem == then.problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::spec::MemberState;
    use crate::fleet::{InstanceKey, MemberKey};
    use crate::name::{Digest, ReleaseId, Slot};

    const PROVEN: Duration = Duration::from_secs(5);

    fn instance(state: InstanceState) -> InstanceReport {
        InstanceReport { release: ReleaseId(Digest::of(b"1")), incarnation: "1".into(), start: 0, state }
    }

    fn report(state: InstanceState, member: MemberReport) -> HostReport {
        let key = InstanceKey { service: "shop".parse().unwrap(), slot: Slot(0) };
        let member = (MemberKey { host: "web1".parse().unwrap(), slot: Slot(0) }, member);
        let pool = PoolReport { members: [member].into(), ..PoolReport::default() };
        HostReport {
            instances: [(key, instance(state))].into_iter().collect(),
            pools: [("shop".parse().unwrap(), pool)].into(),
            ..HostReport::default()
        }
    }

    fn ready(seconds: u64) -> InstanceState {
        InstanceState::Ready { since: Duration::from_secs(seconds) }
    }

    fn member(running: MemberState, in_flight: u64, requests: u64) -> MemberReport {
        MemberReport { in_flight, requests, out_for: Duration::from_millis(requests), ..MemberReport::quiet(running) }
    }

    #[test]
    fn ages_and_counters_are_nothing_new_once_nothing_depends_on_them() {
        use MemberState::{Out, Ready};
        let stopping = |seconds| InstanceState::Stopping { since: Duration::from_secs(seconds) };
        for (name, then, now, is_news) in [
            ("ready as before", report(ready(5), member(Ready, 3, 7)), report(ready(9), member(Ready, 0, 9)), false),
            ("proven now", report(ready(4), member(Ready, 0, 1)), report(ready(5), member(Ready, 0, 1)), true),
            ("not yet proven", report(ready(3), member(Ready, 0, 1)), report(ready(4), member(Ready, 0, 1)), true),
            ("anew", report(ready(9), member(Ready, 0, 1)), report(ready(1), member(Ready, 0, 1)), true),
            ("stopping", report(stopping(1), member(Out, 0, 1)), report(stopping(2), member(Out, 0, 1)), true),
            ("draining", report(ready(9), member(Out, 2, 1)), report(ready(9), member(Out, 2, 2)), true),
            ("drained", report(ready(9), member(Out, 2, 1)), report(ready(9), member(Out, 0, 2)), true),
            ("out as before", report(ready(9), member(Out, 0, 1)), report(ready(9), member(Out, 0, 2)), false),
            ("let in", report(ready(9), member(Out, 0, 1)), report(ready(9), member(Ready, 0, 1)), true),
        ] {
            assert_eq!(now.is_news_after(&then, PROVEN), is_news, "{name}");
        }
    }

    #[test]
    fn everything_else_that_is_different_is_news() {
        let before = report(ready(9), member(MemberState::Ready, 0, 1));
        let changed = |change: fn(&mut HostReport)| {
            let mut report = before.clone();
            change(&mut report);
            report.is_news_after(&before, PROVEN)
        };
        assert!(!changed(|_| {}));
        assert!(!changed(|it| it.room = Some(1)));
        assert!(changed(|it| it.boot = "2".into()));
        assert!(changed(|it| it.observed.generation = it.observed.generation.next()));
        assert!(changed(|it| it.instances.clear()));
        assert!(changed(|it| it.instances.iter_mut().for_each(|(_, it)| it.incarnation = "2".into())));
        assert!(changed(|it| it.instances.iter_mut().for_each(|(_, it)| it.start = 1)));
        assert!(changed(|it| it.pools.values_mut().for_each(|it| it.balancer = "2".into())));
        assert!(changed(|it| it.pools.values_mut().for_each(|it| it.split = Some(Default::default()))));
        assert!(changed(|it| it
            .pools
            .values_mut()
            .flat_map(|it| it.members.values_mut())
            .for_each(|it| it.full_in = Some(PROVEN))));
    }
}
