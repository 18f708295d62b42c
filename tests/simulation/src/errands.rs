//! The hooks of one host: what its agent wrote down, and the processes that really ran.
//!
//! Records outlive everything, processes the agent, and nothing a reboot but the records.

use super::host::{Effect, Host};
use super::random::Random;
use baton_core::fleet::hooks::{HookOutcome, HookReport};
use baton_core::hook::{HookKey, Point};
use baton_core::problem::{Code, Problem};
use std::collections::BTreeMap;
use std::time::Duration;

/// One attempt as the agent wrote it down, and its process while there is one.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    attempt: u32,
    begun: u64,
    ended: Option<HookOutcome>,
    process: Option<HookProcess>,
    /// Written down by an agent that is about to start it.
    about: bool,
}

#[derive(Debug, Clone)]
struct HookProcess {
    ends: u64,
    fails: bool,
    /// Whether somebody will see how it ends: its own agent, or a unit that keeps it.
    seen: bool,
}

pub(super) type Errands = BTreeMap<HookKey, Errand>;

impl Host {
    /// What an agent does about its hooks: first it writes down, then it starts, then it watches.
    pub(super) fn run_hooks(&mut self, now: u64, random: &mut Random, effects: &mut Vec<Effect>) {
        self.errands.values_mut().for_each(|errand| errand.look(now));
        for (key, errand) in self.errands.iter_mut().filter(|(_, errand)| errand.about) {
            errand.about = false;
            let (ends, fails) = (now + random.between(50, 6_000), random.chance(15));
            errand.process = Some(HookProcess { ends, fails, seen: true });
            effects.push(Effect::Ran(key.clone(), errand.attempt));
        }
        let told = self.ledger.hooks.clone();
        for (key, told) in &told {
            if !self.holds(told.release, now) {
                continue;
            }
            let known = self.errands.get(key).is_some_and(|errand| errand.attempt >= told.attempt);
            let busy = self.errands.iter().any(|(other, errand)| other.point == key.point && errand.ended.is_none());
            if !known && !busy {
                let errand = Errand { attempt: told.attempt, begun: now, ended: None, process: None, about: true };
                self.errands.insert(key.clone(), errand);
            }
        }
    }

    /// The agent died: whatever it was about to start is never started, and it sees no end any more.
    pub(super) fn lose_watch(&mut self, random: &mut Random) {
        let kept = random.chance(50);
        for errand in self.errands.values_mut() {
            errand.about = false;
            if let Some(process) = &mut errand.process {
                process.seen &= kept;
            }
        }
    }

    pub(super) fn end_hooks(&mut self) {
        for errand in self.errands.values_mut() {
            (errand.about, errand.process) = (false, None);
        }
    }

    pub(super) fn hook_reports(&self, now: u64) -> BTreeMap<HookKey, HookReport> {
        let report = |errand: &Errand| {
            let since = Duration::from_millis(now.saturating_sub(errand.begun));
            let state = errand.ended.clone().unwrap_or(HookOutcome::Running { since });
            HookReport { attempt: errand.attempt, state }
        };
        self.errands.iter().map(|(key, errand)| (key.clone(), report(errand))).collect()
    }

    pub(super) fn is_in_a_hook(&self) -> bool {
        self.errands.values().any(|errand| errand.ended.is_none())
    }

    pub(super) fn is_migrating(&self) -> bool {
        self.errands.iter().any(|(key, errand)| key.point == Point::Migrate && errand.ended.is_none())
    }
}

impl Errand {
    /// What an agent that looks finds: still running, ended, or nothing.
    fn look(&mut self, now: u64) {
        if self.ended.is_some() || self.about {
            return;
        }
        let problem = |code, what: &str| Problem::new(Code(code), what);
        self.ended = match &self.process {
            None => Some(HookOutcome::Unknown { problem: problem(803, "nobody knows") }),
            Some(process) if process.ends > now => None,
            Some(HookProcess { seen: false, .. }) => Some(HookOutcome::Unknown { problem: problem(803, "nobody saw") }),
            Some(HookProcess { fails: true, .. }) => Some(HookOutcome::Failed { problem: problem(801, "it failed") }),
            Some(_) => Some(HookOutcome::Succeeded { output: Vec::new() }),
        };
        if self.ended.is_some() {
            self.process = None;
        }
    }
}
