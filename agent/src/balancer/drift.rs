//! What somebody changes by hand in a balancer: put right and told of, or left alone and shown.
//!
//! A member was changed by hand when it is no longer as it was asked for, although nothing else was asked for since and the
//! balancer's process is the same: one that restarted may have forgotten, and is told again. What the fleet asks anew of a
//! member, as a rollout does, is done whatever somebody did to it before.

use super::decide::{Answers, Decision, side};
use super::driver::{MemberSeen, PoolSeen, Seen};
use super::{durable, problem};
use baton_core::fleet::MemberKey;
use baton_core::fleet::report::Correction;
use baton_core::fleet::spec::{MemberSpec, MemberState, PoolSpec};
use baton_core::fleet::split::Side;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

/// What becomes of a member that somebody changed by hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// It is as the fleet wants it a moment later.
    #[default]
    Correct,
    /// It stays as it is until the fleet asks something else of it, and is shown.
    Leave,
}

/// What was asked for and seen to be so. Kept on disk: what is left alone is so across restarts of the agent.
#[derive(Debug)]
pub(crate) struct Settled {
    /// None: nothing is left alone, and nothing remembered by the next agent.
    path: Option<PathBuf>,
    state: State,
    corrected: BTreeMap<(PoolName, SocketAddr), Corrected>,
}

/// How often a member was put right, when last, and what it was then.
#[derive(Debug)]
struct Corrected {
    times: u32,
    at: Instant,
    was: Asked,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The balancer's process.
    identity: String,
    pools: BTreeMap<PoolName, BTreeMap<SocketAddr, Asked>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    state: MemberState,
    weight: u16,
    side: Side,
}

/// The members of a pool that are left as somebody made them, and what is said of each.
pub(crate) type Left = BTreeMap<MemberKey, Problem>;

impl Settled {
    /// Remembers in a file where members are to be left alone. One that cannot be read knows of none.
    pub(crate) fn open(drift: Drift, path: PathBuf) -> Self {
        let path = (drift == Drift::Leave).then_some(path);
        let bytes = path.as_ref().and_then(|path| fs::read(path).ok());
        let state = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, state, corrected: BTreeMap::new() }
    }

    /// Who was changed by hand and is left so.
    pub(crate) fn left(&self, identity: &str, name: &PoolName, spec: &PoolSpec, seen: &PoolSeen) -> Left {
        if self.path.is_none() {
            return Left::new();
        }
        let changed = self.state.changed(identity, name, spec, seen);
        changed.map(|(key, asked, there, _)| (key.clone(), problem::left_alone(key, asked.words(), there.words()))).collect()
    }

    /// Counts who was changed by hand and is to be put right now: once, until it is as it was asked for again.
    pub(crate) fn notice(&mut self, pools: &BTreeMap<PoolName, PoolSpec>, seen: &Seen) {
        if self.path.is_some() {
            return;
        }
        for (name, spec) in pools {
            let Some(Ok(there)) = seen.pools.get(name) else { continue };
            let changed = self.state.changed(&seen.identity, name, spec, there);
            let changed: Vec<_> = changed.map(|(key, _, was, address)| (key.clone(), was, address)).collect();
            for (key, was, address) in changed {
                tracing::warn!(pool = %name, member = %key, made = %was.words(), "changed by hand, and put right");
                let now = Instant::now();
                let known = self.corrected.entry((name.clone(), address)).or_insert(Corrected { times: 0, at: now, was });
                *known = Corrected { times: known.times.saturating_add(1), at: now, was };
                self.state.pools.entry(name.clone()).or_default().remove(&address);
            }
        }
    }

    /// That a member was put right.
    pub(crate) fn corrected(&self, pool: &PoolName, address: SocketAddr, now: Instant) -> Option<Correction> {
        let Corrected { times, at, was } = self.corrected.get(&(pool.clone(), address))?;
        Some(Correction { times: *times, ago: now.saturating_duration_since(*at), was: was.words() })
    }

    /// Takes down who is as asked for, and forgets of whom something else is asked.
    pub(crate) async fn note(&mut self, pools: &BTreeMap<PoolName, PoolSpec>, seen: &Seen) {
        if !self.state.take_down(pools, seen) {
            return;
        }
        let Some(path) = &self.path else { return };
        let text = serde_json::to_string(&self.state).unwrap_or_default();
        if let Err(error) = durable::replace(path, text).await {
            tracing::warn!(path = %path.display(), %error, "what is left alone in the balancer is not remembered");
        }
    }
}

impl State {
    /// The members that are not as they were asked for any more, with what that was, what they are, and where.
    fn changed<'a>(
        &'a self,
        identity: &str,
        name: &PoolName,
        spec: &'a PoolSpec,
        seen: &'a PoolSeen,
    ) -> impl Iterator<Item = (&'a MemberKey, Asked, Asked, SocketAddr)> + 'a {
        let known = self.pools.get(name).filter(|_| self.identity == process(identity));
        let changed = move |known: &'a BTreeMap<SocketAddr, Asked>| {
            spec.members.iter().filter_map(move |(key, member)| {
                let asked = Asked::of(spec, member);
                let there = Asked::seen(seen.get(&member.address)?);
                let by_hand = known.get(&member.address) == Some(&asked) && there != asked;
                by_hand.then_some((key, asked, there, member.address))
            })
        };
        known.into_iter().flat_map(changed)
    }

    /// Returns whether anything is different from before.
    fn take_down(&mut self, pools: &BTreeMap<PoolName, PoolSpec>, seen: &Seen) -> bool {
        let mut differs = self.identity != process(&seen.identity);
        if differs {
            *self = Self { identity: process(&seen.identity).to_owned(), ..Self::default() };
        }
        for (name, spec) in pools {
            let Some(Ok(there)) = seen.pools.get(name) else { continue };
            let known = self.pools.entry(name.clone()).or_default();
            let asked: BTreeMap<SocketAddr, Asked> =
                spec.members.values().map(|member| (member.address, Asked::of(spec, member))).collect();
            let before = known.len();
            known.retain(|address, was| asked.get(address) == Some(was));
            differs |= known.len() != before;
            for (address, asked) in asked {
                if there.get(&address).is_some_and(|there| Asked::seen(there) == asked) {
                    differs |= known.insert(address, asked) != Some(asked);
                }
            }
        }
        differs
    }
}

/// Before a decision: who is left out by hand does not come in, and is not counted on.
pub(crate) fn hold(left: &Left, answers: &mut Answers) {
    answers.extend(left.iter().map(|(key, problem)| (key.clone(), Err(problem.clone()))));
}

/// After it: nothing else of theirs is changed either.
pub(crate) fn keep(left: Left, spec: &PoolSpec, decision: &mut Decision) {
    let theirs = |address: SocketAddr| left.keys().any(|key| spec.members.get(key).is_some_and(|it| it.address == address));
    decision.changes.retain(|change| !theirs(change.address));
    decision.problems.extend(left);
}

/// The process of an identity: what stands behind a `+` only says since when it was counted.
fn process(identity: &str) -> &str {
    identity.split_once('+').map_or(identity, |(process, _)| process)
}

impl Asked {
    fn of(spec: &PoolSpec, member: &MemberSpec) -> Self {
        Self { state: member.state, weight: member.weight, side: side(spec, member) }
    }

    const fn seen(there: &MemberSeen) -> Self {
        Self { state: there.told, weight: there.weight.0, side: there.side.0 }
    }

    fn words(self) -> String {
        format!("{:?} weight {}", self.state, self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::decide::decide;
    use super::super::driver::Remark;
    use super::*;
    use baton_core::fleet::spec::Exchange;
    use baton_core::release::Probe;
    use std::time::Duration;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 80))
    }

    fn spec(states: [MemberState; 2]) -> PoolSpec {
        let members = (1..).zip(states).map(|(host, state)| {
            let member = MemberSpec { address: address(host), state, weight: 1, side: Side::Stable, probe: Probe::Tcp };
            (format!("web{host}/0").parse().unwrap(), member)
        });
        PoolSpec {
            service: "shop".parse().unwrap(),
            members: members.collect(),
            drain_deadline: Duration::from_secs(30),
            slow_start: Duration::ZERO,
            exchange: Exchange::Each,
            split: None,
        }
    }

    fn seen(states: [MemberState; 2]) -> PoolSeen {
        let members = (1..).zip(states).map(|(host, state)| {
            let there = MemberSeen {
                told: state,
                running: state,
                on_disk: state,
                weight: (1, 1),
                side: (Side::Stable, Side::Stable),
                in_flight: 0,
                out_for: Duration::ZERO,
                cut: 0,
                requests: 0,
                errors: 0,
                latency: None,
                oldest: None,
                remark: Remark::None,
            };
            (address(host), there)
        });
        members.collect()
    }

    #[tokio::test]
    async fn who_is_left_out_is_not_counted_on_when_another_is_to_go_out() {
        use MemberState::{Out, Ready};
        let folder = tempfile::tempdir().unwrap();
        let name: PoolName = "shop".parse().unwrap();
        let open = |drift| Settled::open(drift, folder.path().join("drift.json"));
        let mut settled = open(Drift::Leave);
        let note = |states| {
            let pools = BTreeMap::from([(name.clone(), Ok(seen(states)))]);
            Seen { identity: "1@1+7".to_owned(), pools, ..Seen::default() }
        };
        let both = spec([Ready, Ready]);
        settled.note(&BTreeMap::from([(name.clone(), both.clone())]), &note([Ready, Ready])).await;
        assert!(settled.left("1@1+7", &name, &both, &seen([Ready, Ready])).is_empty());

        // Somebody takes the first one out; then the fleet wants the second one out. It would be the last.
        let (now, spec) = (seen([Out, Ready]), spec([Ready, Out]));
        for settled in [&settled, &open(Drift::Leave)] {
            let left = settled.left("1@1+8", &name, &spec, &now);
            assert_eq!(left.keys().map(ToString::to_string).collect::<Vec<_>>(), ["web1/0"]);
            let mut answers = Answers::from([("web1/0".parse().unwrap(), Ok(()))]);
            hold(&left, &mut answers);
            let mut decision = decide(&name, &spec, &now, &answers);
            keep(left, &spec, &mut decision);
            let codes = decision.problems.values().map(|problem| problem.code.0);
            assert_eq!((codes.collect::<Vec<_>>(), decision.changes), (vec![450, 418], vec![]));
        }
        // Another process, another wish, or another policy: nothing is left.
        assert!(settled.left("2@2", &name, &spec, &now).is_empty());
        assert!(settled.left("1@1", &name, &both_out(), &now).is_empty());
        assert!(open(Drift::Correct).left("1@1", &name, &spec, &now).is_empty());
    }

    fn both_out() -> PoolSpec {
        spec([MemberState::Out, MemberState::Out])
    }

    #[tokio::test]
    async fn what_is_put_right_is_counted_once_until_it_is_right_again() {
        use MemberState::{Out, Ready};
        let folder = tempfile::tempdir().unwrap();
        let name: PoolName = "shop".parse().unwrap();
        let mut settled = Settled::open(Drift::Correct, folder.path().join("drift.json"));
        let looks = |identity: &str, states| {
            let pools = BTreeMap::from([(name.clone(), Ok(seen(states)))]);
            Seen { identity: identity.to_owned(), pools, ..Seen::default() }
        };
        let pools = BTreeMap::from([(name.clone(), spec([Ready, Ready]))]);
        let times = |settled: &Settled| {
            settled.corrected(&name, address(1), Instant::now()).map(|it| format!("{} {}", it.times, it.was))
        };
        // It comes in by itself; somebody takes it out; it is not in yet; it is in; somebody takes it out again.
        for (states, expected) in [
            ([Out, Ready], None),
            ([Ready, Ready], None),
            ([Out, Ready], Some("1 Out weight 1")),
            ([Out, Ready], Some("1 Out weight 1")),
            ([Ready, Ready], Some("1 Out weight 1")),
            ([Out, Ready], Some("2 Out weight 1")),
        ] {
            settled.notice(&pools, &looks("1@1", states));
            settled.note(&pools, &looks("1@1", states)).await;
            assert_eq!(times(&settled).as_deref(), expected, "{states:?}");
        }
        // A balancer that restarted has forgotten, and one that is asked for something else is not there yet.
        settled.note(&pools, &looks("1@1", [Ready, Ready])).await;
        settled.notice(&pools, &looks("2@2", [Out, Ready]));
        settled.notice(&BTreeMap::from([(name.clone(), both_out())]), &looks("1@1", [Ready, Ready]));
        assert_eq!(times(&settled).as_deref(), Some("2 Out weight 1"));
    }
}
