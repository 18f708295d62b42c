//! One state of the whole small world: a few hundred bytes, so that tens of millions of them can be looked at.
//!
//! Documents are numbers here: what they say stands in the tables of [`crate::decide`]. Stamps are kept beside them, as ranks: only
//! their order matters, and the smallest numbers with that order are the same for states that differ in nothing else.
//!
//! Hashes are taken of whole words: field by field they would take longer than everything else.

use std::hash::{Hash, Hasher};

/// The most hosts, balancers and slots a host that a scope may have.
pub(crate) const WEBS: usize = 3;
pub(crate) const BALANCERS: usize = 2;
pub(crate) const SLOTS: usize = 2;
pub(crate) const PARTIES: usize = WEBS + BALANCERS;
pub(crate) const MEMBERS: usize = WEBS * SLOTS;

/// A document in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Id(pub(crate) u16);

/// Epoch and generation, the latter as a rank within its host and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Mark {
    pub(crate) epoch: u8,
    pub(crate) generation: u8,
}

/// A document and its stamp: a spec that was issued, is on its way or is in a ledger; a report with the stamp it echoes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamped {
    pub(crate) what: Id,
    pub(crate) mark: Mark,
}

/// What a coordinator knows of one party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Known {
    pub(crate) issued: Stamped,
    pub(crate) heard: Option<Id>,
    /// Whether what was heard carries the stamp of the spec issued last: of old stamps nothing else matters.
    pub(crate) echoed: bool,
    pub(crate) connected: bool,
}

/// A coordinator: what it wrote down of services and rollouts, and what it knows of every party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct View {
    pub(crate) books: Id,
    pub(crate) epoch: u8,
    pub(crate) known: [Known; PARTIES],
}

/// An agent's ledger, and what is on its way to it and from it: the newest of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Party {
    pub(crate) ledger: Stamped,
    pub(crate) spec: Option<Stamped>,
    /// The same from the coordinator that should not be there any more.
    pub(crate) stale_spec: Option<Stamped>,
    pub(crate) report: Option<Stamped>,
}

/// The old release and the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Which {
    Old,
    New,
}

/// What really is in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Process {
    #[default]
    None,
    Starting(Which),
    Ready(Which),
    Stopping(Which),
    Failed(Which),
}

/// A slot of a host, and whether what ran there died by itself since it was last ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) process: Process,
    pub(crate) struck: bool,
}

/// A member in the balancer that really runs: whether it is in, now and after a restart. Unknown counts as out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Member {
    pub(crate) running: Option<bool>,
    pub(crate) disk: Option<bool>,
    pub(crate) busy: bool,
}

/// A message that arrives long after everything else, or a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Late {
    Spec(u8, Stamped),
    Report(u8, Stamped),
}

/// What may still go wrong, and what people may still ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Faults of all kinds together; the rest says of which kinds.
    pub faults: u8,
    /// A coordinator dies and another takes over from the store.
    pub crashes: u8,
    /// A coordinator that was taken over from goes on, with the store as it was.
    pub doubles: u8,
    /// Which parties may lose power or their balancer, one bit each: hosts first.
    pub parties: u8,
    /// Which hosts may lose the instance that serves.
    pub exits: u8,
    /// How often a message comes late or twice.
    pub late: u8,
    /// How often a party falls silent for so long that it counts as silent.
    pub silences: u8,
    /// How many starts of the new release may fail.
    pub failures: u8,
    /// How often a deadline passes while things still move.
    pub hurries: u8,
    /// How often somebody asks for a rollback. No fault.
    pub rollbacks: u8,
}

/// Everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct State {
    pub(crate) view: View,
    pub(crate) stale: Option<View>,
    pub(crate) parties: [Party; PARTIES],
    pub(crate) places: [[Place; SLOTS]; WEBS],
    pub(crate) members: [[Member; MEMBERS]; BALANCERS],
    pub(crate) late: Option<Late>,
    pub(crate) budget: Budget,
    /// The invariants that do not hold, one bit each.
    pub(crate) broken: u32,
}

impl Stamped {
    fn word(self) -> u64 {
        u64::from(self.what.0) | u64::from(self.mark.epoch) << 16 | u64::from(self.mark.generation) << 20
    }
}

/// One bit more than a word says, so that nothing and the first are two things.
fn word(stamped: Option<Stamped>) -> u64 {
    stamped.map_or(0, |it| it.word() | 1 << 26)
}

impl Hash for Stamped {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.word());
    }
}

impl Hash for Known {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let heard = self.heard.map_or(0, |id| u64::from(id.0) | 1 << 16);
        hasher.write_u64(self.issued.word() | heard << 32 | u64::from(self.echoed) << 50 | u64::from(self.connected) << 51);
    }
}

impl Hash for Party {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.ledger.word() | word(self.spec) << 32);
        hasher.write_u64(word(self.stale_spec) | word(self.report) << 32);
    }
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let process = match self.process {
            Process::None => 0,
            Process::Starting(which) => 1 + which as u8,
            Process::Ready(which) => 3 + which as u8,
            Process::Stopping(which) => 5 + which as u8,
            Process::Failed(which) => 7 + which as u8,
        };
        hasher.write_u8(process << 1 | u8::from(self.struck));
    }
}

impl Hash for Member {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let state = |is_in: Option<bool>| is_in.map_or(0, |is_in| 1 + u8::from(is_in));
        hasher.write_u8(state(self.running) << 3 | state(self.disk) << 1 | u8::from(self.busy));
    }
}

impl Process {
    /// What runs, or may.
    pub(crate) const fn alive(self) -> Option<Which> {
        match self {
            Self::Starting(which) | Self::Ready(which) | Self::Stopping(which) => Some(which),
            Self::None | Self::Failed(_) => None,
        }
    }

    pub(crate) const fn is_ready(self) -> bool {
        matches!(self, Self::Ready(_))
    }
}

impl Known {
    /// What was issued, and nothing heard.
    pub(crate) fn told_and_no_more(self) -> Self {
        Self { issued: self.issued, ..Self::default() }
    }

    /// Issues a spec, newer than every one before.
    pub(crate) fn issue(&mut self, what: Id, epoch: u8) {
        let mark = Mark { epoch, generation: self.issued.mark.generation + 1 };
        (self.issued, self.echoed) = (Stamped { what, mark }, false);
    }
}

impl State {
    /// Brings the stamps down to the smallest numbers with the same order, and forgets what can happen no more.
    pub(crate) fn settle(&mut self) {
        if self.budget.faults == 0 {
            self.budget = Budget { rollbacks: self.budget.rollbacks, ..Budget::default() };
        }
        // One that decides nothing, and of which every ledger knows better, has no effect any more.
        let counts = |stale: &View| {
            let mut all = stale.known.iter().zip(&self.parties);
            stale.epoch > 0 || all.any(|(known, party)| known.issued.mark > party.ledger.mark)
        };
        self.stale = self.stale.filter(counts);
        for party in 0..PARTIES {
            self.forget_old_echo(party);
            let mut seen = [0_u64; 8];
            self.each_mark(party, |mark| seen[usize::from(mark.epoch)] |= 1 << mark.generation);
            self.each_mark(party, |mark| {
                let below = seen[usize::from(mark.epoch)] & ((1 << mark.generation) - 1);
                mark.generation = u8::try_from(below.count_ones()).unwrap_or(u8::MAX);
            });
        }
    }

    /// A report that echoes nobody's newest spec never will: the number it carries does not matter.
    fn forget_old_echo(&mut self, party: usize) {
        let newest = self.view.known[party].issued.mark;
        // Only a stale coordinator that still decides would listen; its epoch is not zero.
        let stale = self.stale.filter(|stale| stale.epoch > 0).map(|stale| stale.known[party].issued.mark);
        let forget = |report: &mut Stamped| {
            if report.mark != newest && Some(report.mark) != stale {
                report.mark = Mark::default();
            }
        };
        self.parties[party].report.iter_mut().for_each(forget);
        if let Some(Late::Report(of, report)) = &mut self.late
            && usize::from(*of) == party
        {
            forget(report);
        }
    }

    fn each_mark(&mut self, party: usize, mut each: impl FnMut(&mut Mark)) {
        each(&mut self.view.known[party].issued.mark);
        if let Some(stale) = &mut self.stale {
            each(&mut stale.known[party].issued.mark);
        }
        let Party { ledger, spec, stale_spec, report } = &mut self.parties[party];
        let in_flight = [spec, stale_spec, report].into_iter().flatten();
        [ledger].into_iter().chain(in_flight).for_each(|it| each(&mut it.mark));
        if let Some(Late::Spec(of, it) | Late::Report(of, it)) = &mut self.late
            && usize::from(*of) == party
        {
            each(&mut it.mark);
        }
    }
}
