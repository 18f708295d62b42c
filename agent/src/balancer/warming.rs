//! Slow start: a member that comes in gets its share of the traffic little by little, as far as others have more.

use super::driver::{MemberSeen, PoolSeen, Seen};
use baton_core::fleet::spec::{MemberSpec, MemberState, PoolSpec};
use baton_core::name::PoolName;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Pools as they were asked for, or as they are to be just now.
pub(crate) type Pools<'a> = Cow<'a, BTreeMap<PoolName, PoolSpec>>;

/// Since when members are in. An agent that was restarted reads it from their weights.
#[derive(Debug, Default)]
pub(crate) struct Warming {
    since: BTreeMap<(PoolName, SocketAddr), Instant>,
    /// When the next of them gets more.
    next: Option<Duration>,
}

impl Warming {
    /// The pools as they are to be now, where weights grow in so many steps: those that are warm are left as they are asked for.
    pub(crate) fn ease<'a>(
        &mut self,
        pools: &'a BTreeMap<PoolName, PoolSpec>,
        seen: &Seen,
        steps: u32,
        now: Instant,
    ) -> Pools<'a> {
        self.next = None;
        self.since.retain(|(pool, _), _| pools.get(pool).is_some_and(|spec| !spec.slow_start.is_zero()));
        let mut eased = Cow::Borrowed(pools);
        for (name, spec) in pools.iter().filter(|(_, spec)| !spec.slow_start.is_zero()) {
            let Some(Ok(there)) = seen.pools.get(name) else { continue };
            let ages = self.ages(name, spec, there, now);
            let step = |age: Duration| (age.as_millis() * u128::from(steps) / spec.slow_start.as_millis().max(1)) as u64;
            let reached = |member: &MemberSpec| {
                let age = ages.get(&member.address).copied().unwrap_or_default();
                step(age).min(steps.into()) + 1
            };
            let in_now = |member: &&MemberSpec| member.state == MemberState::Ready;
            // Where everybody just came in, nobody is to be spared.
            let Some(most) = spec.members.values().filter(in_now).map(reached).max() else { continue };
            for (key, member) in spec.members.iter().filter(|(_, member)| in_now(member)) {
                let has = reached(member);
                if has == most {
                    continue;
                }
                let weight = (u64::from(member.weight) * has / most).max(1);
                if let Some(spec) = eased.to_mut().get_mut(name).and_then(|pool| pool.members.get_mut(key)) {
                    spec.weight = u16::try_from(weight).unwrap_or(member.weight);
                }
                let age = ages.get(&member.address).copied().unwrap_or_default();
                let left = (spec.slow_start * u32::try_from(has).unwrap_or(u32::MAX) / steps).saturating_sub(age);
                self.next = Some(self.next.map_or(left, |next| next.min(left)));
            }
        }
        eased
    }

    /// How soon something of it is due.
    pub(crate) const fn next(&self) -> Option<Duration> {
        self.next
    }

    /// How long until a member that is in has all of its weight; none where it has, or is not in.
    pub(crate) fn full_in(
        &self,
        pool: &PoolName,
        asked: &PoolSpec,
        eased: &MemberSpec,
        full: &MemberSpec,
        now: Instant,
    ) -> Option<Duration> {
        // One that came in with this very pass is as young as can be.
        let since = self.since.get(&(pool.clone(), full.address)).copied().unwrap_or(now);
        let left = asked.slow_start.saturating_sub(now.saturating_duration_since(since));
        (eased.weight < full.weight).then_some(left)
    }

    /// How long the members that are in have been so.
    fn ages(&mut self, name: &PoolName, spec: &PoolSpec, there: &PoolSeen, now: Instant) -> BTreeMap<SocketAddr, Duration> {
        let mut ages = BTreeMap::new();
        for member in spec.members.values() {
            let key = (name.clone(), member.address);
            let seen = there.get(&member.address).filter(|seen| seen.told == MemberState::Ready);
            let Some(seen) = seen.filter(|_| member.state == MemberState::Ready) else {
                self.since.remove(&key);
                continue;
            };
            let since = *self.since.entry(key).or_insert_with(|| {
                let had = age_of(spec.slow_start, member, seen);
                now.checked_sub(had).unwrap_or(now)
            });
            ages.insert(member.address, now.saturating_duration_since(since));
        }
        ages
    }
}

/// How long a member has been coming in, by the part of its weight that it has.
fn age_of(slow_start: Duration, member: &MemberSpec, seen: &MemberSeen) -> Duration {
    let has = seen.weight.0.min(member.weight);
    slow_start * u32::from(has) / u32::from(member.weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::driver::Remark;
    use super::*;
    use baton_core::fleet::spec::Exchange;
    use baton_core::fleet::split::Side;
    use baton_core::release::Probe;

    const TEN: Duration = Duration::from_secs(10);

    fn shop() -> PoolName {
        "shop".parse().unwrap()
    }

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, host], 80))
    }

    /// Members that are all to be in, with the weights they have; none: one that is still out.
    fn pool(weights: &[Option<u16>]) -> (BTreeMap<PoolName, PoolSpec>, Seen) {
        let hosts = || (1u8..).zip(weights);
        let member = |host| MemberSpec {
            address: address(host),
            state: MemberState::Ready,
            weight: 100,
            side: Side::Stable,
            probe: Probe::Tcp,
        };
        let spec = PoolSpec {
            service: "shop".parse().unwrap(),
            members: hosts().map(|(host, _)| (format!("web{host}/0").parse().unwrap(), member(host))).collect(),
            drain_deadline: TEN,
            slow_start: TEN,
            split: None,
            exchange: Exchange::Each,
        };
        let there = |weight: &Option<u16>| {
            let told = if weight.is_some() { MemberState::Ready } else { MemberState::Out };
            let weight = weight.unwrap_or(1);
            let (weight, side) = ((weight, weight), (Side::Stable, Side::Stable));
            MemberSeen {
                told,
                running: told,
                on_disk: told,
                weight,
                side,
                in_flight: 0,
                oldest: None,
                out_for: Duration::ZERO,
                cut: 0,
                requests: 0,
                errors: 0,
                latency: None,
                remark: Remark::None,
            }
        };
        let seen = hosts().map(|(host, weight)| (address(host), there(weight))).collect();
        (BTreeMap::from([(shop(), spec)]), Seen { pools: [(shop(), Ok(seen))].into(), ..Seen::default() })
    }

    fn weights(pools: &Pools<'_>) -> Vec<u16> {
        pools[&shop()].members.values().map(|member| member.weight).collect()
    }

    #[test]
    fn who_comes_in_among_others_gets_more_with_each_step() {
        let mut warming = Warming::default();
        let now = Instant::now();
        let (pools, before) = pool(&[Some(100), Some(100), None]);
        assert_eq!(weights(&warming.ease(&pools, &before, 9, now)), [100, 100, 10]);
        let (_, seen) = pool(&[Some(100), Some(100), Some(10)]);
        let mut had = Vec::new();
        for second in 0..=9 {
            let at = now + Duration::from_secs(second);
            let eased = warming.ease(&pools, &seen, 9, at);
            had.push(weights(&eased)[2]);
            let key = "web3/0".parse().unwrap();
            let (asked, eased) = (&pools[&shop()], &eased[&shop()].members[&key]);
            // It was already at a tenth when it was first seen in.
            let left = Duration::from_secs(9).saturating_sub(Duration::from_secs(second));
            let full_in = warming.full_in(&shop(), asked, eased, &asked.members[&key], at);
            assert_eq!(full_in, Some(left).filter(|left| !left.is_zero()), "after {second} s");
        }
        assert_eq!(had, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        assert_eq!(warming.next(), None, "nothing is left to do");
    }

    #[test]
    fn where_everybody_comes_in_at_once_nobody_is_spared() {
        let mut warming = Warming::default();
        let (pools, before) = pool(&[None, None]);
        assert_eq!(weights(&warming.ease(&pools, &before, 9, Instant::now())), [100, 100]);
    }

    #[test]
    fn an_agent_that_comes_back_goes_on_where_the_balancer_is() {
        let mut warming = Warming::default();
        let (now, (pools, seen)) = (Instant::now(), pool(&[Some(100), Some(40)]));
        assert_eq!(weights(&warming.ease(&pools, &seen, 9, now)), [100, 40]);
        assert!(warming.next().is_some_and(|next| next <= TEN / 9));
        assert_eq!(weights(&warming.ease(&pools, &seen, 9, now + Duration::from_secs(2))), [100, 60]);
    }

    #[test]
    fn whoever_goes_out_begins_anew() {
        let mut warming = Warming::default();
        let (now, (pools, seen)) = (Instant::now(), pool(&[Some(100), Some(100)]));
        assert_eq!(weights(&warming.ease(&pools, &seen, 9, now)), [100, 100]);
        let (_, out) = pool(&[Some(100), None]);
        assert_eq!(weights(&warming.ease(&pools, &out, 9, now)), [100, 10]);
    }
}
