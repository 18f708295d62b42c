//! What to change in a balancer: a pure function from the spec, a look and the probes' answers.

use super::driver::{Change, MemberSeen, PoolSeen, Remark};
use super::problem;
use baton_core::fleet::MemberKey;
use baton_core::fleet::spec::{Exchange, MemberSpec, MemberState, PoolSpec};
use baton_core::fleet::split::Side;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What each member that was asked answered: `Err` is the problem for the report.
pub(crate) type Answers = BTreeMap<MemberKey, Result<(), Problem>>;

/// What to change in one pool, and why the rest is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Those that come in first, those that go out last: the other way round loses requests even within one command line.
    pub(crate) changes: Vec<Change>,
    pub(crate) problems: BTreeMap<MemberKey, Problem>,
}

/// The members that have to answer before they may be put in.
pub(crate) fn to_ask<'a>(
    spec: &'a PoolSpec,
    seen: &'a PoolSeen,
) -> impl Iterator<Item = (&'a MemberKey, &'a MemberSpec)> + 'a {
    let claims = Claims::of(spec);
    spec.members.iter().filter(move |(_, member)| {
        claims.clear(seen, member).is_some_and(|there| rank(member.state) > rank(there.told) && refusal(there).is_none())
    })
}

/// Keeps members on trial out as long as the pool cannot be divided: there, they would get the share of any other.
pub(crate) fn hold_trial(spec: &PoolSpec, answers: &mut Answers, problem: &Problem) {
    for (key, _) in spec.members.iter().filter(|(_, member)| member.side == Side::Trial) {
        answers.insert(key.clone(), Err(problem.clone()));
    }
}

/// Decides one pool.
///
/// A member comes in only when it answered. None goes out when that would leave the pool empty although the spec wants
/// somebody in: then it stays until the other one is in. Nor does one that waits for others, as the pool's exchange says.
pub(crate) fn decide(name: &PoolName, spec: &PoolSpec, seen: &PoolSeen, answers: &Answers) -> Decision {
    let claims = Claims::of(spec);
    let mut decision = Decision::default();
    let mut outs = Vec::new();
    for (key, member) in &spec.members {
        match next(name, spec, &claims, seen, key, member, answers) {
            Next::Keep => {}
            Next::Problem(problem) => {
                decision.problems.insert(key.clone(), problem);
            }
            Next::Change(change) if change.state == MemberState::Ready => decision.changes.push(change),
            Next::Change(change) => outs.push((Some(key), change)),
        }
    }
    outs.extend(vanished(name, &claims, seen).map(|change| (None, change)));
    exchange(spec, &claims, seen, &mut decision.changes, &mut outs);

    let empties = wants_somebody(spec) && !somebody_in(spec, &claims, seen, &decision.changes);
    for (key, change) in outs {
        let routed = seen.get(&change.address).is_some_and(|there| there.running == MemberState::Ready);
        match key {
            Some(key) if empties && routed => {
                decision.problems.insert(key.clone(), problem::would_be_empty(name, key));
            }
            None if empties && routed => {}
            _ => decision.changes.push(change),
        }
    }
    decision
}

/// Keeps back what waits for a member that is to be in and is not: a host's own, or all of them.
fn exchange(
    spec: &PoolSpec,
    claims: &Claims<'_>,
    seen: &PoolSeen,
    changes: &mut Vec<Change>,
    outs: &mut Vec<(Option<&MemberKey>, Change)>,
) {
    let coming = changes.iter().filter(|change| change.state == MemberState::Ready).map(|change| change.address);
    let coming: BTreeSet<SocketAddr> = coming.collect();
    let is_in = |member: &MemberSpec| {
        claims.clear(seen, member).is_some_and(|there| there.told == MemberState::Ready) || coming.contains(&member.address)
    };
    let wanted = spec.members.iter().filter(|(_, member)| member.state == MemberState::Ready);
    let missing: Vec<&MemberKey> = wanted.filter(|(_, member)| !is_in(member)).map(|(key, _)| key).collect();
    let routed = |change: &Change| seen.get(&change.address).is_some_and(|there| there.running == MemberState::Ready);
    match spec.exchange {
        Exchange::Each => {}
        Exchange::Host => outs.retain(|(key, change)| {
            !key.is_some_and(|key| routed(change) && missing.iter().any(|other| other.host == key.host))
        }),
        Exchange::All if !missing.is_empty() && outs.iter().any(|(_, change)| routed(change)) => {
            changes.clear();
            outs.retain(|(_, change)| !routed(change));
        }
        Exchange::All => {}
    }
}

enum Next {
    Keep,
    Change(Change),
    Problem(Problem),
}

fn next(
    name: &PoolName,
    spec: &PoolSpec,
    claims: &Claims<'_>,
    seen: &PoolSeen,
    key: &MemberKey,
    member: &MemberSpec,
    answers: &Answers,
) -> Next {
    if let Some(several) = claims.several(member.address) {
        return Next::Problem(problem::ambiguous(name, member.address, &several));
    }
    let Some(there) = seen.get(&member.address) else {
        return Next::Problem(problem::server_missing(name.as_str(), key, member.address));
    };
    if let Some(problem) = refusal(there) {
        return Next::Problem(problem.clone());
    }
    let side = side(spec, member);
    let (weights, sides) = ((member.weight, member.weight), (side, side));
    if (there.told, there.on_disk) == (member.state, member.state) && (there.weight, there.side) == (weights, sides) {
        return Next::Keep;
    }
    if rank(member.state) > rank(there.told) {
        match answers.get(key) {
            Some(Ok(())) => {}
            Some(Err(problem)) => return Next::Problem(problem.clone()),
            None => return Next::Keep,
        }
    }
    Next::Change(Change {
        pool: name.clone(),
        address: member.address,
        state: member.state,
        weight: member.weight,
        side,
        wanted: true,
    })
}

fn vanished<'a>(name: &'a PoolName, claims: &'a Claims<'_>, seen: &'a PoolSeen) -> impl Iterator<Item = Change> + 'a {
    seen.iter()
        .filter(|(address, _)| !claims.0.contains_key(address))
        .filter(|(_, there)| refusal(there).is_none())
        .filter(|(_, there)| there.told != MemberState::Out || there.on_disk != MemberState::Out)
        .map(|(address, there)| Change {
            pool: name.clone(),
            address: *address,
            state: MemberState::Out,
            weight: there.weight.0,
            side: there.side.0,
            wanted: false,
        })
}

/// The side a member is to serve: without a split there is one only.
pub(crate) fn side(spec: &PoolSpec, member: &MemberSpec) -> Side {
    if spec.split.is_some() { member.side } else { Side::Stable }
}

fn wants_somebody(spec: &PoolSpec) -> bool {
    spec.members.values().any(|member| member.state == MemberState::Ready)
}

fn somebody_in(spec: &PoolSpec, claims: &Claims<'_>, seen: &PoolSeen, ins: &[Change]) -> bool {
    !ins.is_empty()
        || spec.members.values().filter(|member| member.state == MemberState::Ready).any(|member| {
            claims
                .clear(seen, member)
                .is_some_and(|there| there.told == MemberState::Ready && there.running == MemberState::Ready)
        })
}

/// Which members claim an address: of hundreds, each is looked at once.
struct Claims<'a>(BTreeMap<SocketAddr, Vec<&'a MemberKey>>);

impl<'a> Claims<'a> {
    fn of(spec: &'a PoolSpec) -> Self {
        let mut claims = BTreeMap::<_, Vec<_>>::new();
        for (key, member) in &spec.members {
            claims.entry(member.address).or_default().push(key);
        }
        Self(claims)
    }

    /// Who claims an address, when more than one does.
    fn several(&self, address: SocketAddr) -> Option<String> {
        let keys = self.0.get(&address).filter(|keys| keys.len() > 1)?;
        Some(keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }

    /// The server of a member, when no other member claims it.
    fn clear<'s>(&self, seen: &'s PoolSeen, member: &MemberSpec) -> Option<&'s MemberSeen> {
        seen.get(&member.address).filter(|_| self.0.get(&member.address).is_none_or(|keys| keys.len() == 1))
    }
}

fn refusal(there: &MemberSeen) -> Option<&Problem> {
    match &there.remark {
        Remark::Refused(problem) => Some(problem),
        _ => None,
    }
}

/// How much traffic a state lets in: going up has to be earned with an answer.
const fn rank(state: MemberState) -> u8 {
    match state {
        MemberState::Out => 0,
        MemberState::Drain => 1,
        MemberState::Ready => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::release::Probe;
    use std::time::Duration;

    fn address(slot: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, slot], 80))
    }

    fn key(slot: u8) -> MemberKey {
        format!("web{slot}/0").parse().unwrap()
    }

    fn state(letter: char) -> MemberState {
        match letter {
            'i' => MemberState::Ready,
            'd' => MemberState::Drain,
            _ => MemberState::Out,
        }
    }

    /// One letter a member, from web1 on: `i`n, `d`rain, `o`ut; in what is seen also `x`: told in, and down.
    fn check(wanted: &str, seen: &str, answering: &[u8], expect: &[&str]) {
        check_exchange(Exchange::Each, wanted, seen, answering, expect);
    }

    fn check_exchange(exchange: Exchange, wanted: &str, seen: &str, answering: &[u8], expect: &[&str]) {
        let pool: PoolName = "shop".parse().unwrap();
        let members = (1u8..).zip(wanted.chars()).filter(|(_, letter)| *letter != '-').map(|(slot, letter)| {
            let member = MemberSpec {
                address: address(slot),
                state: state(letter),
                weight: 1,
                side: Side::Stable,
                probe: Probe::Tcp,
            };
            (key(slot), member)
        });
        let spec = PoolSpec {
            service: "shop".parse().unwrap(),
            members: members.collect(),
            drain_deadline: Duration::from_secs(1),
            slow_start: Duration::ZERO,
            split: None,
            exchange,
        };
        let seen: PoolSeen = (1u8..).zip(seen.chars()).filter(|(_, letter)| *letter != '-').map(there).collect();
        let answers = to_ask(&spec, &seen)
            .map(|(key, member)| {
                let problem = problem::not_answering(key, "connect", "refused");
                let answers = answering.iter().any(|slot| address(*slot) == member.address);
                (key.clone(), if answers { Ok(()) } else { Err(problem) })
            })
            .collect();
        let decision = decide(&pool, &spec, &seen, &answers);
        let mut got: Vec<String> = decision
            .changes
            .iter()
            .map(|change| format!("{} {:?}", change.address.ip().to_string().trim_start_matches("127.0.0."), change.state))
            .collect();
        got.extend(decision.problems.iter().map(|(key, problem)| format!("{key} {}", problem.code)));
        assert_eq!(got, expect, "wanted {wanted}");
    }

    fn there((slot, letter): (u8, char)) -> (SocketAddr, MemberSeen) {
        let told = if letter == 'x' { MemberState::Ready } else { state(letter) };
        let running = if letter == 'x' { MemberState::Out } else { told };
        let member = MemberSeen {
            told,
            running,
            on_disk: told,
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
        (address(slot), member)
    }

    #[test]
    fn what_is_already_so_changes_nothing() {
        check("iod", "iod", &[], &[]);
    }

    #[test]
    fn a_member_comes_in_only_when_it_answers() {
        check("ii", "io", &[2], &["2 Ready"]);
        check("ii", "io", &[], &["web2/0 B0409"]);
        check("ii", "id", &[], &["web2/0 B0409"]);
    }

    #[test]
    fn who_comes_in_comes_before_who_goes_out() {
        check("oi", "io", &[2], &["2 Ready", "1 Out"]);
    }

    #[test]
    fn nobody_goes_out_when_nobody_would_be_left() {
        check("oi", "io", &[], &["web1/0 B0418", "web2/0 B0409"]);
        check("oi", "ix", &[], &["web1/0 B0418"]);
        check("-i", "io", &[], &["web2/0 B0409"]);
    }

    #[test]
    fn all_change_together_or_none_does() {
        check_exchange(Exchange::All, "oiio", "iooi", &[2, 3], &["2 Ready", "3 Ready", "1 Out", "4 Out"]);
        check_exchange(Exchange::All, "oiio", "iooi", &[2], &["web3/0 B0409"]);
        check_exchange(Exchange::All, "oii", "oio", &[], &["web3/0 B0409"]);
    }

    #[test]
    fn who_waits_for_nobody_comes_in_although_another_does_not_answer() {
        check_exchange(Exchange::All, "oii", "ooo", &[2], &["2 Ready", "web3/0 B0409"]);
    }

    #[test]
    fn a_host_keeps_the_member_it_has_until_its_other_one_answers() {
        // Each member here has a host of its own, so nobody waits for web3.
        check_exchange(Exchange::Host, "oiio", "iooi", &[2], &["2 Ready", "1 Out", "4 Out", "web3/0 B0409"]);
        let pool: PoolName = "shop".parse().unwrap();
        let member =
            |slot, state| MemberSpec { address: address(slot), state, weight: 1, side: Side::Stable, probe: Probe::Tcp };
        let members = [("web1/0", member(1, MemberState::Out)), ("web1/1", member(2, MemberState::Ready))];
        let others = [("web2/0", member(3, MemberState::Out)), ("web2/1", member(4, MemberState::Ready))];
        let members = members.into_iter().chain(others).map(|(key, member)| (key.parse().unwrap(), member));
        let spec = PoolSpec {
            service: "shop".parse().unwrap(),
            members: members.collect(),
            drain_deadline: Duration::from_secs(1),
            slow_start: Duration::ZERO,
            split: None,
            exchange: Exchange::Host,
        };
        let seen: PoolSeen = [(1, 'i'), (2, 'o'), (3, 'i'), (4, 'o')].into_iter().map(there).collect();
        let answers = [("web1/1".parse().unwrap(), Ok(()))].into();
        let decision = decide(&pool, &spec, &seen, &answers);
        let changed: Vec<u16> = decision.changes.iter().map(|it| u16::from(it.state == MemberState::Ready)).collect();
        assert_eq!(changed, [1, 0], "web1 changes, web2 keeps what it has: {:?}", decision.changes);
    }

    #[test]
    fn a_pool_is_emptied_when_nobody_is_wanted_in() {
        check("oo", "ii", &[], &["1 Out", "2 Out"]);
    }

    #[test]
    fn who_is_down_anyway_may_go_out() {
        check("oi", "xo", &[], &["1 Out", "web2/0 B0409"]);
    }

    #[test]
    fn who_vanished_goes_out() {
        check("-i", "ii", &[], &["1 Out"]);
    }

    #[test]
    fn a_member_without_a_server_is_named() {
        check("ii", "i-", &[], &["web2/0 B0407"]);
    }
}
