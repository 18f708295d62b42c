//! What happens next: one queue over virtual time.

use super::scenario::Happening;
use baton_core::fleet::report::HostReport;
use baton_core::fleet::spec::HostSpec;
use baton_core::name::HostName;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

#[derive(Debug)]
pub(super) enum Event {
    Happens(Happening),
    AgentLooks(HostName),
    AgentReturns(HostName),
    Heals(HostName),
    CoordinatorReturns,
    CoordinatorWakes,
    ToHost(HostName, Box<HostSpec>),
    /// A host is told to leave the boot it is in.
    LeaveBoot(HostName, String),
    ToCoordinator(HostName, Box<HostReport>),
}

/// Events by the moment they are due; of two at one moment, the one asked for first.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    /// The next look of each agent and the coordinator's next wake-up: when, and which event.
    looks: BTreeMap<HostName, (u64, u64)>,
    wake: Option<(u64, u64)>,
}

impl Agenda {
    /// Takes the event that is due next.
    pub(super) fn next(&mut self) -> Option<(u64, Event)> {
        loop {
            let Reverse((at, sequence)) = self.queue.pop()?;
            if let Some(event) = self.events.remove(&sequence) {
                return Some((at, event));
            }
        }
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    /// An agent's next look: the earliest asked for, and only one.
    pub(super) fn look_at(&mut self, name: &HostName, at: u64) {
        if self.makes_way(self.looks.get(name).copied(), at) {
            self.at(at, Event::AgentLooks(name.clone()));
            self.looks.insert(name.clone(), (at, self.sequence));
        }
    }

    /// The coordinator's next wake-up, likewise.
    pub(super) fn wake_at(&mut self, at: u64) {
        if self.makes_way(self.wake, at) {
            self.at(at, Event::CoordinatorWakes);
            self.wake = Some((at, self.sequence));
        }
    }

    /// Whether a new event should take the place of the one that was due; removes that one, if so.
    fn makes_way(&mut self, due: Option<(u64, u64)>, at: u64) -> bool {
        match due.filter(|(_, sequence)| self.events.contains_key(sequence)) {
            Some((due, _)) if due <= at => false,
            Some((_, sequence)) => self.events.remove(&sequence).is_some(),
            None => true,
        }
    }
}
