//! What can happen in a state, and what it leads to.

use crate::decide::{Decisions, Pass};
use crate::happen::Happening;
use crate::scope::Store;
use crate::state::{Known, Late, Mark, PARTIES, Party, Process, SLOTS, Stamped, State, View, WEBS};
use crate::switch;
use crate::truth::{self, Invariant};

/// Which coordinator: the one that drives, or the one that should not be there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Driver {
    Newest,
    Stale,
}

impl Decisions {
    /// What a party would say now.
    pub(crate) fn saying(&self, state: &State, party: usize) -> Stamped {
        let Party { ledger, .. } = state.parties[party];
        let what = match party.checked_sub(WEBS) {
            None => self.say_host(ledger.what, &state.places[party]),
            Some(balancer) => self.say_balancer(ledger.what, &state.members[balancer]),
        };
        let answers = |view: &View| view.known[party].issued.mark == ledger.mark;
        let is_echo = answers(&state.view) || state.stale.as_ref().filter(|stale| stale.epoch > 0).is_some_and(answers);
        Stamped { what, mark: if is_echo { ledger.mark } else { Mark::default() } }
    }

    /// Whether a coordinator would learn anything from it, or would have to tell the party its newest spec once more.
    pub(crate) fn is_news(&self, state: &State, party: usize, said: Stamped) -> bool {
        let Party { spec, stale_spec, .. } = state.parties[party];
        let is_news = |view: &View, on_its_way: Option<Stamped>| {
            let Known { issued, heard, echoed, connected } = view.known[party];
            let answers = said.mark == issued.mark;
            (heard, echoed, connected) != (Some(said.what), answers, true) || (!answers && on_its_way != Some(issued))
        };
        let decides = |_: &&View| self.scope.store == Store::Copied;
        is_news(&state.view, spec) || state.stale.as_ref().filter(decides).is_some_and(|view| is_news(view, stale_spec))
    }

    /// A coordinator hears a report, tells the party its newest spec where that is behind, and plans.
    pub(crate) fn hear(&self, state: &mut State, driver: Driver, party: usize, said: Stamped) {
        let Some(view) = view_of(state, driver) else { return };
        let known = &mut view.known[party];
        (known.heard, known.connected) = (Some(said.what), true);
        known.echoed = said.mark == known.issued.mark;
        let again = (!known.echoed).then_some(known.issued);
        if again.is_some() {
            *slot_of(state, driver, party) = again;
        }
        self.pass(state, driver, false);
    }

    /// An agent reports, and is heard at once.
    pub(crate) fn report_at_once(&self, state: &mut State, party: usize) {
        let said = self.saying(state, party);
        self.hear(state, Driver::Newest, party, said);
    }

    /// One pass: what it decides is written down, and then on its way.
    pub(crate) fn pass(&self, state: &mut State, driver: Driver, late: bool) {
        let Some(view) = view_of(state, driver) else { return };
        let Pass { books, issued, broken, wake_at: _ } = self.plan_for(view, late);
        let before = std::mem::replace(&mut view.books, books);
        let epoch = view.epoch;
        for (known, what) in view.known.iter_mut().zip(issued) {
            if let Some(what) = what {
                known.issue(what, epoch);
            }
        }
        let told = view.known.map(|known| known.issued);
        state.broken |= broken;
        for party in (0..PARTIES).filter(|party| issued[*party].is_some()) {
            *slot_of(state, driver, party) = Some(told[party]);
        }
        if driver == Driver::Newest {
            truth::look_at_success(self, state, before);
        }
    }

    /// Another coordinator takes over from the store: a new epoch, every spec stamped anew, and nothing heard.
    pub(crate) fn take_over(&self, state: &mut State, goes_on: bool) {
        if goes_on {
            state.stale = Some(match self.scope.store {
                Store::Copied => state.view,
                Store::Shared => View { known: state.view.known.map(Known::told_and_no_more), ..View::default() },
            });
            for party in state.parties.iter_mut().filter(|_| self.scope.store == Store::Copied) {
                party.stale_spec = party.spec.take();
            }
        }
        let view = &mut state.view;
        view.epoch += 1;
        for known in &mut view.known {
            known.issue(known.issued.what, view.epoch);
            *known = known.told_and_no_more();
        }
        self.pass(state, Driver::Newest, false);
    }

    /// An agent gets a spec: it rejects the past. Returns whether it took it.
    pub(crate) fn accept(state: &mut State, party: usize, spec: Stamped) -> bool {
        let ledger = &mut state.parties[party].ledger;
        if spec.mark < ledger.mark {
            return false;
        }
        if spec.mark.epoch < ledger.mark.epoch || (spec.mark == ledger.mark && spec.what != ledger.what) {
            state.broken |= Invariant::Fencing.bit();
        }
        *ledger = spec;
        true
    }

    /// An agent acts on its ledger.
    pub(crate) fn carry_out(&self, state: &mut State, party: usize) {
        let ledger = state.parties[party].ledger.what;
        match party.checked_sub(WEBS) {
            None => {
                let before = state.places[party].map(|place| place.process);
                let after = self.act(ledger, before);
                for (place, process) in state.places[party].iter_mut().zip(after) {
                    place.process = process;
                }
                truth::look_at_act(self, state, party, before);
            }
            Some(balancer) => {
                let document = self.documents.get(ledger);
                let places = state.places;
                let Some(left) = switch::step(document, &mut state.members[balancer], &places, self.scope.busy) else {
                    return;
                };
                if left {
                    truth::look_at_floor(self, state, balancer);
                }
            }
        }
    }

    /// What ran on a host ends by itself.
    pub(crate) fn end_processes(state: &mut State, host: usize, becomes: impl Fn(Process) -> Process) {
        for place in &mut state.places[host] {
            let after = becomes(place.process);
            place.struck |= place.process.is_ready() && after != place.process;
            place.process = after;
        }
    }

    /// A host loses power, or a balancer's host does: what is on disk is what is left.
    pub(crate) fn lose_power(state: &mut State, party: usize) {
        match party.checked_sub(WEBS) {
            None => Self::end_processes(state, party, |_| Process::None),
            Some(balancer) => {
                for member in &mut state.members[balancer] {
                    (member.running, member.busy) = (member.disk, false);
                }
            }
        }
        let it = &mut state.parties[party];
        (it.spec, it.stale_spec, it.report) = (None, None, None);
    }

    /// The slot goes on by itself.
    pub(crate) fn go_on(state: &mut State, host: usize, slot: usize, fails: bool) {
        let place = &mut state.places[host][slot];
        place.process = match place.process {
            Process::Starting(which) if fails => Process::Failed(which),
            Process::Starting(which) => {
                place.struck = false;
                Process::Ready(which)
            }
            Process::Stopping(_) => Process::None,
            as_it_is => as_it_is,
        };
    }

    pub(crate) fn arrive(&self, state: &mut State) {
        match state.late.take() {
            Some(Late::Spec(party, spec)) => {
                let taken = Self::accept(state, usize::from(party), spec);
                self.note_unless(taken, Happening::LateRejected);
            }
            Some(Late::Report(party, said)) => self.hear(state, Driver::Newest, usize::from(party), said),
            None => {}
        }
    }
}

pub(crate) fn view_of(state: &mut State, driver: Driver) -> Option<&mut View> {
    match driver {
        Driver::Newest => Some(&mut state.view),
        Driver::Stale => state.stale.as_mut(),
    }
}

/// Where a coordinator's specs to a party are on their way.
pub(crate) fn slot_of(state: &mut State, driver: Driver, party: usize) -> &mut Option<Stamped> {
    let party = &mut state.parties[party];
    match driver {
        Driver::Newest => &mut party.spec,
        Driver::Stale => &mut party.stale_spec,
    }
}

/// Whether anything moves on a host by itself.
pub(crate) fn moves(state: &State, host: usize) -> impl Iterator<Item = usize> + use<> {
    let places = state.places[host];
    (0..SLOTS).filter(move |slot| matches!(places[*slot].process, Process::Starting(_) | Process::Stopping(_)))
}
