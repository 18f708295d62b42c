//! The balancer of the small world: one write at a time, in the order every driver keeps, so that anything may happen between.

use crate::decide::Document;
use crate::state::{MEMBERS, Member, Place, SLOTS, WEBS};
use baton_core::fleet::spec::Exchange;
use baton_core::mutant;

type Places = [[Place; SLOTS]; WEBS];

/// The next write towards what should be: a member enters in the running balancer and then on disk, and leaves on disk and
/// then in the running one; whoever enters comes first. None: nothing to do, or it waits for others. Else whether a member
/// left the running balancer.
pub(crate) fn step(document: &Document, members: &mut [Member; MEMBERS], places: &Places, busy: bool) -> Option<bool> {
    let held = held(document, members, places);
    let with = |is_in: bool| (0..MEMBERS).filter(move |member| document.members[*member] == Some(is_in));
    let order = with(true).chain(with(false)).filter(|member| !held[*member]);
    for index in order {
        let wanted = document.members[index] == Some(true);
        let answers = places[index / SLOTS][index % SLOTS].process.is_ready();
        let member = &mut members[index];
        if wanted {
            if member.running != Some(true) && answers {
                member.running = Some(true);
                return Some(false);
            }
            if member.running == Some(true) && member.disk != Some(true) {
                member.disk = Some(true);
                return Some(false);
            }
        } else if member.disk != Some(false) && !mutant!("a restarted balancer forgets") {
            member.disk = Some(false);
            return Some(false);
        } else if member.running != Some(false) {
            let left = member.running == Some(true);
            (member.running, member.busy) = (Some(false), busy && left);
            return Some(left);
        }
    }
    None
}

/// The members that wait for others, as the exchange of the pool says.
fn held(document: &Document, members: &[Member; MEMBERS], places: &Places) -> [bool; MEMBERS] {
    let is_in = |member: usize| members[member].running == Some(true);
    let answers = |member: usize| places[member / SLOTS][member % SLOTS].process.is_ready();
    let missing = |member: usize| document.members[member] == Some(true) && !is_in(member) && !answers(member);
    let leaves = |member: usize| document.members[member] == Some(false) && is_in(member);
    let any = |is: &dyn Fn(usize) -> bool| (0..MEMBERS).any(is);
    match document.exchange {
        Exchange::Each => [false; MEMBERS],
        Exchange::Host => std::array::from_fn(|member| {
            let host = |other: usize| other / SLOTS == member / SLOTS;
            leaves(member) && any(&|other| host(other) && missing(other))
        }),
        Exchange::All => [any(&missing) && any(&leaves); MEMBERS],
    }
}
