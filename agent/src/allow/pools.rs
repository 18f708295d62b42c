//! What of a load balancer may be changed here, and where it may send requests.

use super::{Allow, any, with};
use baton_core::fleet::MemberKey;
use baton_core::fleet::report::PoolReport;
use baton_core::fleet::spec::{Exchange, MemberSpec, MemberState, PoolSpec};
use baton_core::name::PoolName;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What of the pools that a host is asked for may be done here.
#[derive(Debug, Default)]
pub struct Bounded {
    /// What the load balancer is told: members that may not be are out.
    pub pools: BTreeMap<PoolName, PoolSpec>,
    /// The pools that may not be changed, and why.
    refused: BTreeMap<PoolName, Problem>,
    /// The members that get no requests although they should, and why.
    held: Vec<(PoolName, MemberKey, Problem)>,
}

impl Allow {
    /// Leaves out the pools that may not be changed, and holds out the members that are where nothing may be. Of a pool nothing is
    /// changed where one side of its requests would have no member left, and while members of it wait for one another: what it
    /// serves is nearer to what is meant than nothing at all, or a half of it.
    #[must_use]
    pub fn bound(&self, mut pools: BTreeMap<PoolName, PoolSpec>) -> Bounded {
        let refused = pools.extract_if(.., |name, _| !any(&self.pools, name.as_str()));
        let mut refused: BTreeMap<_, _> = refused.map(|(name, _)| (name.clone(), not_ours(&name))).collect();
        let untouched = pools.extract_if(.., |_, pool| {
            let mut sides = self.strays(pool).map(|member| member.side);
            let serves = |it: &MemberSpec| it.state == MemberState::Ready && !self.is_stray(it);
            let left = |side| pool.members.values().any(|it| it.side == side && serves(it));
            sides.any(|side| pool.exchange != Exchange::Each || !left(side))
        });
        let untouched: Vec<_> = untouched.collect();
        refused.extend(untouched.into_iter().filter_map(|(name, pool)| {
            let first = self.strays(&pool).next()?;
            Some((name, self.elsewhere(first.address)))
        }));
        let mut held = Vec::new();
        for (name, pool) in &mut pools {
            for (key, member) in pool.members.iter_mut().filter(|(_, member)| self.is_stray(member)) {
                member.state = MemberState::Out;
                held.push((name.clone(), key.clone(), self.elsewhere(member.address)));
            }
        }
        Bounded { pools, refused, held }
    }

    /// The members that should get requests, and may not.
    fn strays<'a>(&'a self, pool: &'a PoolSpec) -> impl Iterator<Item = &'a MemberSpec> {
        pool.members.values().filter(|member| self.is_stray(member))
    }

    /// Whether a member should get requests, and may not. What drains still gets those that belong to it.
    fn is_stray(&self, member: &MemberSpec) -> bool {
        member.state != MemberState::Out && !self.members.iter().any(|place| place.has(member.address))
    }

    fn elsewhere(&self, address: SocketAddr) -> Problem {
        let members: Vec<String> = self.members.iter().map(ToString::to_string).collect();
        let line = with("members", &members, &address.ip().to_string());
        Problem::new(Code(569), format!("this host's own settings do not allow that requests are sent to {address}"))
            .saw("agent.toml", "[allow] members does not name it")
            .help(format!(
                "where that is meant, write it below [allow] in /etc/baton/agent.toml on this host and restart its agent: {}",
                crate::text::line(&line, 2000)
            ))
    }
}

impl Bounded {
    /// Says of what was not done that it was not, in what the load balancer says.
    pub fn tell(self, seen: &mut BTreeMap<PoolName, PoolReport>) {
        for (pool, member, problem) in self.held {
            if let Some(member) = seen.get_mut(&pool).and_then(|pool| pool.members.get_mut(&member)) {
                // What the load balancer itself says comes first: it may keep the last one that serves.
                member.problem.get_or_insert(problem);
            }
        }
        let unserved = |problem| PoolReport { problem: Some(problem), ..PoolReport::default() };
        seen.extend(self.refused.into_iter().map(|(name, problem)| (name, unserved(problem))));
    }
}

fn not_ours(pool: &PoolName) -> Problem {
    Problem::new(Code(564), format!("this host's own settings do not allow that its pool `{pool}` is changed"))
        .saw("agent.toml", "[allow] pools does not name it")
        .help(format!(
            "where that is meant, write it below [allow] in /etc/baton/agent.toml on this host and restart its agent: \
             pools = [\"{pool}\"]"
        ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::fleet::report::MemberReport;
    use baton_core::fleet::split::Side;
    use baton_core::name::Slot;
    use baton_core::release::Probe;
    use std::time::Duration;

    fn allow(text: &str) -> Allow {
        toml::from_str(text).unwrap()
    }

    fn pool(service: &str, members: &[(&str, MemberState)]) -> PoolSpec {
        let member = |(address, state): &(&str, MemberState)| {
            let address: SocketAddr = address.parse().unwrap();
            (key(address), MemberSpec { address, state: *state, weight: 100, side: Side::Stable, probe: Probe::Tcp })
        };
        PoolSpec {
            service: service.parse().unwrap(),
            members: members.iter().map(member).collect(),
            drain_deadline: Duration::ZERO,
            slow_start: Duration::ZERO,
            split: None,
            exchange: Exchange::Each,
        }
    }

    fn key(address: SocketAddr) -> MemberKey {
        MemberKey { host: format!("web{}", address.port()).parse().unwrap(), slot: Slot(0) }
    }

    #[test]
    fn only_the_pools_that_are_named_may_be_changed() {
        let asked: BTreeMap<PoolName, PoolSpec> =
            ["shop", "till-1", "wiki"].map(|name| (name.parse().unwrap(), pool(name, &[]))).into();
        for (settings, changed) in [
            ("", &["shop", "till-1", "wiki"][..]),
            ("pools = [\"shop\", \"till-*\"]", &["shop", "till-1"]),
            ("pools = []", &[]),
            // Where nothing may run, a load balancer may still be driven.
            ("services = []", &["shop", "till-1", "wiki"]),
        ] {
            let bounded = allow(settings).bound(asked.clone());
            assert_eq!(bounded.pools.keys().map(PoolName::as_str).collect::<Vec<_>>(), changed, "{settings}");
            let mut seen = bounded.pools.keys().map(|name| (name.clone(), PoolReport::default())).collect();
            bounded.tell(&mut seen);
            assert_eq!(seen.len(), asked.len(), "{settings}: nothing is passed over in silence");
            for (name, pool) in seen {
                let problem = pool.problem.filter(|problem| problem.help.is_some()).map(|problem| problem.code);
                assert_eq!(problem, Some(Code(564)).filter(|_| !changed.contains(&name.as_str())), "{settings}: {name}");
            }
        }
    }

    #[test]
    fn requests_go_only_where_the_host_lets_them_go() {
        use MemberState::{Drain, Out, Ready};
        let asked = [("10.0.3.1:81", Ready), ("10.0.4.1:82", Ready), ("10.0.4.1:83", Out), ("[fd00::1]:84", Ready)];
        let asked: BTreeMap<PoolName, PoolSpec> = [("shop".parse().unwrap(), pool("shop", &asked))].into();
        for (settings, states, held) in [
            ("", [Ready, Ready, Out, Ready], &[][..]),
            ("members = [\"10.0.3.*\"]", [Ready, Out, Out, Out], &[82, 84]),
            ("members = [\"10.0.3.1\", \"fd00::*\"]", [Ready, Out, Out, Ready], &[82]),
            ("members = [\"10.0.3.1:80\", \"10.0.4.1:82\"]", [Out, Ready, Out, Out], &[81, 84]),
            ("members = [\"10.0.4.0/23\"]", [Out, Ready, Out, Out], &[81, 84]),
        ] {
            let bounded = allow(settings).bound(asked.clone());
            let shop = bounded.pools.values().next().unwrap();
            assert_eq!(shop.members.values().map(|member| member.state).collect::<Vec<_>>(), states, "{settings}");
            let seen = shop.members.iter().map(|(key, told)| (key.clone(), MemberReport::quiet(told.state)));
            let seen = PoolReport { members: seen.collect(), ..PoolReport::default() };
            let mut seen = BTreeMap::from([("shop".parse::<PoolName>().unwrap(), seen)]);
            bounded.tell(&mut seen);
            let members = seen.into_values().next().unwrap().members;
            let problems = members.iter().filter(|(_, it)| it.problem.as_ref().is_some_and(|it| it.code == Code(569)));
            let names: Vec<String> = problems.map(|(key, _)| key.host.to_string()).collect();
            assert_eq!(names, held.iter().map(|port| format!("web{port}")).collect::<Vec<_>>(), "{settings}");
        }
        // Of a pool that nobody would serve nothing is changed.
        for settings in ["members = []", "members = [\"10.0.5.*\"]", "members = [\"10.0.4.1:83\"]"] {
            let bounded = allow(settings).bound(asked.clone());
            assert!(bounded.pools.is_empty() && bounded.held.is_empty(), "{settings}");
            let mut seen = BTreeMap::new();
            bounded.tell(&mut seen);
            let problems = seen.values().map(|pool| pool.problem.as_ref().map(|problem| problem.code));
            assert_eq!(problems.collect::<Vec<_>>(), [Some(Code(569))], "{settings}");
        }
        // Nor of one whose members wait for one another, or one side of which nobody would serve.
        let change = |change: &dyn Fn(&mut PoolSpec)| {
            let mut asked = asked.clone();
            asked.values_mut().for_each(change);
            allow("members = [\"10.0.3.*\"]").bound(asked)
        };
        let at = |port: &str| MemberKey { host: format!("web{port}").parse().unwrap(), slot: Slot(0) };
        assert!(change(&|pool| pool.exchange = Exchange::All).pools.is_empty());
        assert!(change(&|pool| pool.exchange = Exchange::Host).pools.is_empty());
        let trial =
            |port: &'static str| move |pool: &mut PoolSpec| pool.members.get_mut(&at(port)).unwrap().side = Side::Trial;
        assert!(change(&trial("82")).pools.is_empty() && change(&trial("81")).pools.is_empty());
        assert_eq!(change(&trial("83")).held.len(), 2, "nobody is in there anyway");
        assert!(
            change(&|pool| pool.members.get_mut(&at("81")).unwrap().state = Drain).pools.is_empty(),
            "what drains serves nobody new"
        );
        // What drains still gets what belongs to it.
        let drains = change(&|pool| pool.members.get_mut(&at("82")).unwrap().state = Drain);
        let states: Vec<_> = drains.pools.values().flat_map(|pool| pool.members.values()).map(|it| it.state).collect();
        assert_eq!(states, [Ready, Out, Out, Out]);
        let held = allow("members = [\"10.0.3.*\"]").bound(asked).held;
        let help = held.first().and_then(|(_, _, problem)| problem.help.as_deref()).unwrap();
        assert!(help.ends_with("members = [\"10.0.3.*\", \"10.0.4.1\"]"), "what is allowed now goes on: {help}");
    }
}
