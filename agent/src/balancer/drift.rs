//! What somebody changes by hand in a balancer: put right, or left alone and shown.
//!
//! A member was changed by hand when it is no longer as it was asked for, although nothing else was asked for since and the
//! balancer's process is the same: one that restarted may have forgotten, and is told again. What the fleet asks anew of a
//! member, as a rollout does, is done whatever somebody did to it before.

use super::decide::{Answers, Decision, side};
use super::driver::{MemberSeen, PoolSeen, Seen};
use super::{durable, problem};
use baton_core::fleet::MemberKey;
use baton_core::fleet::spec::{MemberSpec, MemberState, PoolSpec};
use baton_core::fleet::split::Side;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// None: nothing is left alone, and nothing remembered.
    path: Option<PathBuf>,
    state: State,
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
        Self { path, state }
    }

    /// Who was changed by hand.
    pub(crate) fn left(&self, identity: &str, name: &PoolName, spec: &PoolSpec, seen: &PoolSeen) -> Left {
        let known = self.state.pools.get(name).filter(|_| self.path.is_some() && self.state.identity == process(identity));
        let Some(known) = known else { return Left::new() };
        let changed = spec.members.iter().filter_map(|(key, member)| {
            let asked = Asked::of(spec, member);
            let there = Asked::seen(seen.get(&member.address)?);
            let by_hand = known.get(&member.address) == Some(&asked) && there != asked;
            by_hand.then(|| (key.clone(), problem::left_alone(key, asked.words(), there.words())))
        });
        changed.collect()
    }

    /// Takes down who is as asked for, and forgets of whom something else is asked.
    pub(crate) async fn note(&mut self, pools: &BTreeMap<PoolName, PoolSpec>, seen: &Seen) {
        let Some(path) = &self.path else { return };
        let mut state = self.state.clone();
        if state.identity != process(&seen.identity) {
            state = State { identity: process(&seen.identity).to_owned(), ..State::default() };
        }
        for (name, spec) in pools {
            let Some(Ok(there)) = seen.pools.get(name) else { continue };
            let known = state.pools.entry(name.clone()).or_default();
            known.retain(|address, asked| {
                spec.members.values().any(|member| member.address == *address && Asked::of(spec, member) == *asked)
            });
            for member in spec.members.values() {
                let asked = Asked::of(spec, member);
                if there.get(&member.address).is_some_and(|there| Asked::seen(there) == asked) {
                    known.insert(member.address, asked);
                }
            }
        }
        if state == self.state {
            return;
        }
        let text = serde_json::to_string(&state).unwrap_or_default();
        if let Err(error) = durable::replace(path, text).await {
            tracing::warn!(path = %path.display(), %error, "what is left alone in the balancer is not remembered");
        }
        self.state = state;
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
}
