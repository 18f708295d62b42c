//! The model: the states of [`crate::state`], and everything that can happen in one.

use crate::decide::Decisions;
use crate::happen::Happening;
use crate::scope::{Reports, Scope, Store};
use crate::state::{Id, Known, Late, Mark, Process, Stamped, State, View, WEBS, Which};
use crate::truth::{self, Invariant};
use crate::world::{Driver, moves, slot_of};
use baton_core::rollout::RolloutState;
use stateright::{Model, Property};

/// One thing that happens. Parties are numbers: hosts from 0, balancers from 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A spec arrives.
    Accept(Driver, u8),
    /// An agent does the next thing its ledger says: a host one plan, a balancer one write.
    CarryOut(u8),
    /// An instance becomes ready, or is gone.
    GoOn(u8, u8),
    /// The requests at a member that went out are answered.
    Finish(u8, u8),
    Report(u8),
    /// A report arrives.
    Hear(Driver, u8),
    /// Nothing else can happen by itself, so time passes: a deadline, a bake, the end of what is warm.
    Wait,
    /// Nothing can happen any more, and it should not have come to this.
    Stuck,

    RollBack,
    /// What the coordinator that should not be there any more sent last arrives once more.
    Repeat(u8),
    LoseSpec(Driver, u8),
    LoseReport(u8),
    /// What is on its way arrives later once more, or later than what comes after it.
    DelaySpec(u8),
    DelayReport(u8),
    /// What was delayed arrives.
    Arrive,
    /// The coordinator dies, and another one takes over; the old one may go on all the same.
    TakeOver {
        goes_on: bool,
    },
    LosePower(u8),
    Exit(u8),
    /// A start of the new release fails.
    Fail(u8, u8),
    FallSilent(u8),
    /// The next deadline passes although things move.
    Hurry,
}

/// A scope and what core decides in it.
#[derive(Debug)]
pub struct Baton {
    pub(crate) decisions: Decisions,
}

impl Baton {
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        Self { decisions: Decisions::new(scope) }
    }

    /// The first release everywhere, brought there by the same steps and with nothing going wrong; then the deploy of another.
    fn first(&self) -> State {
        let (books, nothing) = self.decisions.nothing();
        let mut state = State { view: View { books, epoch: 1, ..View::default() }, ..State::default() };
        let mark = Mark { epoch: 1, generation: 0 };
        for known in &mut state.view.known {
            *known = Known { issued: Stamped { what: nothing, mark }, ..Known::default() };
        }
        for party in &mut state.parties {
            party.ledger = Stamped { what: nothing, mark };
        }
        for index in self.decisions.indices() {
            state.view.known[index].connected = true;
        }
        let deployed = self.decisions.deploy(&state.view, Which::Old);
        self.tell(&mut state, deployed);
        loop {
            let mut actions = Vec::new();
            self.by_themselves(&state, &mut actions);
            let Some(next) = actions.first().and_then(|action| self.next_state(&state, *action)) else { break };
            state = next;
        }
        let deployed = self.decisions.deploy(&state.view, Which::New);
        self.tell(&mut state, deployed);
        state.budget = self.decisions.scope.budget;
        state.settle();
        state
    }

    /// A command was accepted: it is written down, and planned for.
    fn tell(&self, state: &mut State, books: Option<Id>) {
        if let Some(books) = books {
            state.view.books = books;
            self.decisions.pass(state, Driver::Newest, false);
        }
    }

    /// What goes on without faults and people.
    fn by_themselves(&self, state: &State, actions: &mut Vec<Action>) {
        let decisions = &self.decisions;
        for party in decisions.indices() {
            let number = party as u8;
            let it = &state.parties[party];
            if it.spec.is_some() {
                actions.push(Action::Accept(Driver::Newest, number));
            }
            if it.stale_spec.is_some() {
                actions.push(Action::Accept(Driver::Stale, number));
            }
            let mut after = *state;
            decisions.carry_out(&mut after, party);
            if after != *state {
                actions.push(Action::CarryOut(number));
            }
            match party.checked_sub(WEBS) {
                None => actions.extend(moves(state, party).map(|slot| Action::GoOn(number, slot as u8))),
                Some(balancer) => {
                    let busy = state.members[balancer].iter().enumerate().filter(|(_, member)| member.busy);
                    actions.extend(busy.map(|(member, _)| Action::Finish(number, member as u8)));
                }
            }
            if self.reports_news(state, party) {
                actions.push(Action::Report(number));
            }
            if it.report.is_some() {
                actions.push(Action::Hear(Driver::Newest, number));
                if state.stale.is_some() && decisions.scope.store == Store::Copied {
                    actions.push(Action::Hear(Driver::Stale, number));
                }
            }
        }
    }

    fn reports_news(&self, state: &State, party: usize) -> bool {
        let said = self.decisions.saying(state, party);
        state.parties[party].report != Some(said) && self.decisions.is_news(state, party, said)
    }

    /// What may go wrong, and what people may ask for.
    fn outside(&self, state: &State, actions: &mut Vec<Action>) {
        let (scope, budget) = (&self.decisions.scope, state.budget);
        if budget.rollbacks > 0 && self.decisions.roll_back(&state.view).is_some() {
            actions.push(Action::RollBack);
        }
        if state.late.is_some() {
            actions.push(Action::Arrive);
        }
        for party in self.decisions.indices() {
            let (number, it) = (party as u8, &state.parties[party]);
            let repeats = |stale: View| scope.store == Store::Shared && stale.known[party].issued.mark != it.ledger.mark;
            if state.stale.is_some_and(repeats) {
                actions.push(Action::Repeat(number));
            }
            if scope.lossy {
                actions.extend(it.spec.map(|_| Action::LoseSpec(Driver::Newest, number)));
                actions.extend(it.stale_spec.map(|_| Action::LoseSpec(Driver::Stale, number)));
                actions.extend(it.report.map(|_| Action::LoseReport(number)));
            }
            if budget.faults == 0 {
                continue;
            }
            if budget.late > 0 && state.late.is_none() {
                actions.extend(it.spec.map(|_| Action::DelaySpec(number)));
                let at_once = || scope.reports == Reports::AtOnce && self.reports_news(state, party);
                if it.report.is_some() || at_once() {
                    actions.push(Action::DelayReport(number));
                }
            }
            if budget.parties & (1 << party) != 0 {
                actions.push(Action::LosePower(number));
            }
            if budget.silences > 0 && state.view.known[party].connected {
                actions.push(Action::FallSilent(number));
            }
            if party < WEBS {
                self.ends(state, party, actions);
            }
        }
        if budget.crashes > 0 {
            actions.push(Action::TakeOver { goes_on: false });
        }
        if budget.doubles > 0 && state.stale.is_none() {
            actions.push(Action::TakeOver { goes_on: true });
        }
        if budget.hurries > 0 {
            actions.push(Action::Hurry);
        }
    }

    fn ends(&self, state: &State, host: usize, actions: &mut Vec<Action>) {
        let places = &state.places[host];
        if state.budget.exits & (1 << host) != 0 && places.iter().any(|place| place.process.is_ready()) {
            actions.push(Action::Exit(host as u8));
        }
        for (slot, place) in places.iter().enumerate() {
            if state.budget.failures > 0 && place.process == Process::Starting(Which::New) {
                actions.push(Action::Fail(host as u8, slot as u8));
            }
        }
    }

    /// Time passes only where nothing else can happen by itself.
    fn wait(&self, state: &State, actions: &mut Vec<Action>) {
        let pass = self.decisions.plan_for(&state.view, true);
        if !pass.is_nothing(state.view.books) {
            actions.push(Action::Wait);
        } else if state.late.is_none() && !truth::is_at_rest(&self.decisions, state) {
            actions.push(Action::Stuck);
        }
    }

    /// Takes a fault out of the budget.
    fn spend(state: &mut State) {
        state.budget.faults -= 1;
    }

    fn apply(&self, state: &mut State, action: Action) {
        let decisions = &self.decisions;
        match action {
            Action::Accept(driver, party) => {
                let party = usize::from(party);
                let Some(spec) = slot_of(state, driver, party).take() else { return };
                let taken = Decisions::accept(state, party, spec);
                decisions.note_unless(taken || driver == Driver::Newest, Happening::StaleRejected);
            }
            Action::CarryOut(party) => decisions.carry_out(state, usize::from(party)),
            Action::GoOn(host, slot) => Decisions::go_on(state, host.into(), slot.into(), false),
            Action::Finish(party, member) => {
                state.members[usize::from(party) - WEBS][usize::from(member)].busy = false;
            }
            Action::Report(party) => {
                let party = usize::from(party);
                match decisions.scope.reports {
                    Reports::AtOnce => decisions.report_at_once(state, party),
                    Reports::UnderWay => state.parties[party].report = Some(decisions.saying(state, party)),
                }
            }
            Action::Hear(driver, party) => {
                let party = usize::from(party);
                // The newest one's stream is where it came from; a stale one only overhears it.
                let report = &mut state.parties[party].report;
                let said = if driver == Driver::Newest { report.take() } else { *report };
                if let Some(said) = said {
                    decisions.hear(state, driver, party, said);
                }
            }
            Action::Wait => {
                decisions.note(Happening::DeadlinePassed);
                decisions.pass(state, Driver::Newest, true);
            }
            Action::Stuck => state.broken |= Invariant::Stuck.bit(),
            Action::RollBack => {
                state.budget.rollbacks -= 1;
                let books = decisions.roll_back(&state.view);
                self.tell(state, books);
            }
            Action::Repeat(party) => {
                let party = usize::from(party);
                let spec = state.stale.map(|stale| stale.known[party].issued);
                let taken = spec.is_none_or(|spec| Decisions::accept(state, party, spec));
                decisions.note_unless(taken, Happening::StaleRejected);
            }
            Action::LoseSpec(driver, party) => *slot_of(state, driver, party.into()) = None,
            Action::LoseReport(party) => state.parties[usize::from(party)].report = None,
            Action::Arrive => decisions.arrive(state),
            fault => {
                Self::spend(state);
                self.go_wrong(state, fault);
            }
        }
    }

    fn go_wrong(&self, state: &mut State, fault: Action) {
        let decisions = &self.decisions;
        match fault {
            Action::DelaySpec(party) => {
                state.budget.late -= 1;
                state.late = state.parties[usize::from(party)].spec.map(|spec| Late::Spec(party, spec));
            }
            Action::DelayReport(party) => {
                state.budget.late -= 1;
                let said = state.parties[usize::from(party)].report;
                let said = said.unwrap_or_else(|| decisions.saying(state, party.into()));
                state.late = Some(Late::Report(party, said));
            }
            Action::TakeOver { goes_on } => {
                let left = if goes_on { &mut state.budget.doubles } else { &mut state.budget.crashes };
                *left -= 1;
                if decisions.books.get(state.view.books).stands.rolling {
                    decisions.note(Happening::CrashedInRollout);
                }
                decisions.take_over(state, goes_on);
            }
            Action::LosePower(party) => {
                state.budget.parties &= !(1 << party);
                self.note_power(state, usize::from(party));
                Decisions::lose_power(state, usize::from(party));
            }
            Action::Exit(host) => {
                state.budget.exits &= !(1 << host);
                Decisions::end_processes(state, host.into(), |process| match process {
                    Process::Ready(which) => Process::Failed(which),
                    other => other,
                });
            }
            Action::Fail(host, slot) => {
                state.budget.failures -= 1;
                Decisions::go_on(state, host.into(), slot.into(), true);
            }
            Action::FallSilent(party) => {
                state.budget.silences -= 1;
                state.view.known[usize::from(party)].connected = false;
                decisions.pass(state, Driver::Newest, false);
            }
            Action::Hurry => {
                state.budget.hurries -= 1;
                decisions.pass(state, Driver::Newest, true);
            }
            _ => {}
        }
    }

    fn note_power(&self, state: &State, party: usize) {
        let between = |balancer: usize| state.members[balancer].iter().any(|member| member.running != member.disk);
        match party.checked_sub(WEBS) {
            None if state.places[party].iter().any(|place| place.process.is_ready()) => {
                self.decisions.note(Happening::LostPower);
            }
            Some(balancer) if between(balancer) => self.decisions.note(Happening::RestartedBetweenWrites),
            _ => {}
        }
    }

    fn note_end(&self, before: &State, after: &State) {
        let state = |it: &State| self.decisions.books.get(it.view.books).stands;
        let (was, is) = (state(before), state(after));
        let happening = match is.state {
            Some(RolloutState::Succeeded) if is.committed == Some(Which::Old) => Happening::BroughtBack,
            Some(RolloutState::Succeeded) => Happening::Succeeded,
            Some(RolloutState::Reverted) => Happening::Reverted,
            Some(RolloutState::Paused) => Happening::Paused,
            _ => return,
        };
        if was.state != is.state {
            self.decisions.note(happening);
        }
    }
}

impl Model for Baton {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken != 0 {
            return;
        }
        self.by_themselves(state, actions);
        if actions.is_empty() {
            self.wait(state, actions);
        }
        self.outside(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.apply(&mut next, action);
        truth::look(&self.decisions, &mut next);
        next.settle();
        if next.view.books != state.view.books {
            self.note_end(state, &next);
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! never {
            ($($text:literal: $invariant:ident),+ $(,)?) => {
                vec![$(Property::always($text, |_, state: &State| state.broken & Invariant::$invariant.bit() == 0)),+]
            };
        }
        never! {
            "1: nothing of ours takes a balancer below the floor": Floor,
            "2: nothing stops with requests open": Routable,
            "3: whoever is in is ready": Ready,
            "6: whoever is in after a restart is ready": Disk,
            "8: one active rollout": OneRollout,
            "9: an older epoch undoes nothing": Fencing,
            "13: a success is everywhere": Completeness,
            "22: what excludes each other never runs together": Exclusion,
            "a host runs nothing it was not told": Told,
            "the interlock refuses nothing the planner proposes": Interlock,
            "planning twice changes nothing": Twice,
            "where nothing happens any more the rollout has ended or says why not": Stuck,
        }
    }
}
