//! Memory of the new release's instances that grows for ever: more than the old one's own did at that age, and does meanwhile.
//!
//! Growth is no matter of chance that a bet could be made on, so this is a rule, and it is a careful one. It says nothing where
//! there is nothing to compare with. Where most new instances do it, and old ones that run meanwhile do not, it is evidence; with
//! only one instance, or no old one beside it, a person decides.

use super::growth::{Grown, Growth, STEP, WINDOW};
use crate::name::{HostName, ReleaseId};
use crate::problem::{Code, Problem};
use serde::{Deserialize, Serialize};

/// The new release's memory grows.
pub(super) const GROWS: Code = Code(905);

/// Up to twice what the old release did is no growth,
const TIMES: u64 = 2;
/// and neither is what no allocator keeps still: KiB in a window,
const LEAST: u64 = 8 * 1024;
/// and this part of what the instance has.
const PART: u64 = 20;

/// What a rollout remembers of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub growth: Growth,
    /// The most that a new instance grew by in a window, and the old ones at that age.
    most: Option<(u64, Option<u64>)>,
    /// The most that an old instance grew by in a window meanwhile.
    meanwhile: Option<u64>,
    found: Option<Found>,
    /// A person was asked.
    asked: bool,
}

/// What speaks against it, in KiB a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    /// Where it is worst.
    host: HostName,
    by: u64,
    reached: u64,
    instances: u32,
    of: u32,
    /// What the old release did at that age, and does meanwhile.
    usual: u64,
    meanwhile: Option<u64>,
}

impl Memory {
    /// Compares the instances of both releases, as they are now.
    pub fn look(&mut self, new: ReleaseId, old: ReleaseId) {
        if new == old {
            return;
        }
        self.meanwhile = self.growth.of(old).map(|it| it.by).chain(self.meanwhile).max();
        for seen in self.growth.of(new) {
            if self.most.is_none_or(|(most, _)| seen.by > most) {
                self.most = Some((seen.by, self.growth.usual(old, seen.age)));
            }
        }
        let found = self.compare(new, old);
        if self.found.as_ref().is_none_or(|known| !known.is_strong() && found.as_ref().is_some_and(Found::is_strong)) {
            self.found = found;
        }
    }

    fn compare(&self, new: ReleaseId, old: ReleaseId) -> Option<Found> {
        let comparable = self.growth.of(new).filter_map(|seen| Some((seen, self.growth.usual(old, seen.age)?)));
        let comparable: Vec<_> = comparable.collect();
        let grows = |(seen, usual): &&(Grown<'_>, u64)| {
            let allowed = (*usual).max(self.meanwhile.unwrap_or(0)).saturating_mul(TIMES);
            seen.steadily && seen.by > allowed.saturating_add(LEAST.max(seen.from / PART))
        };
        let growing: Vec<_> = comparable.iter().filter(grows).collect();
        let (worst, usual) = growing.iter().max_by_key(|(seen, _)| seen.by)?;
        // One that is alone among many has a reason of its own.
        if growing.len() * 2 <= comparable.len() {
            return None;
        }
        let found = Found {
            host: worst.member.host.clone(),
            by: worst.by,
            reached: worst.from.saturating_add(worst.by),
            instances: count(growing.len()),
            of: count(comparable.len()),
            usual: *usual,
            meanwhile: self.meanwhile,
        };
        // Nobody is asked about the first of several: the others say more in a moment.
        let all_seen = self.growth.of(new).count() == self.growth.watched(new);
        (found.is_strong() || all_seen).then_some(found)
    }

    /// What is evidence against the new release.
    #[must_use]
    pub fn verdict(&self, new: &str, old: &str) -> Option<(HostName, Problem)> {
        let found = self.found.as_ref().filter(|found| found.is_strong())?;
        Some((found.host.clone(), found.problem(new, old)))
    }

    /// What is too little to go back for, and enough to ask a person: once.
    pub fn ask(&mut self, new: &str, old: &str) -> Option<String> {
        let found = self.found.as_ref().filter(|found| !self.asked && !found.is_strong())?;
        let why = found.why(new, old);
        self.asked = true;
        Some(why)
    }

    /// In words, for whoever looks at the rollout; None: there was nothing to watch.
    #[must_use]
    pub fn words(&self, old: &str) -> Option<String> {
        let (by, usual) = self.most?;
        let compared = match usual {
            Some(usual) => format!("{old} at that age {}", Pace(usual)),
            None => format!("not compared: no instance of {old} was seen at that age"),
        };
        Some(format!("grew {} at most; {compared}", Pace(by)))
    }
}

impl Found {
    const fn is_strong(&self) -> bool {
        self.instances >= 2 && self.meanwhile.is_some()
    }

    fn said_of(&self, new: &str) -> String {
        let instances = if self.of == 1 {
            "the only instance".to_owned()
        } else {
            format!("{} of {} instances", self.instances, self.of)
        };
        format!("memory of {instances} of {new} grew {} for {} min", Pace(self.by), minutes())
    }

    fn problem(&self, new: &str, old: &str) -> Problem {
        Problem::new(GROWS, format!("{new} takes more and more memory, and {old} does not"))
            .saw(new, format!("{}, to {:.0} MiB on {}", self.said_of(new), mib(self.reached), self.host))
            .saw(format!("{old}, at that age"), format!("at most {}", Pace(self.usual)))
            .saw(format!("{old}, meanwhile"), format!("at most {}", Pace(self.meanwhile.unwrap_or(0))))
            .help("look for what the new release keeps; `guard.memory = false` if it is meant to")
    }

    fn why(&self, new: &str, old: &str) -> String {
        let meanwhile = self
            .meanwhile
            .map_or_else(|| "none of its instances runs beside it".to_owned(), |by| format!("{} meanwhile", Pace(by)));
        let (new, usual) = (self.said_of(new), Pace(self.usual));
        format!("{new}, to {:.0} MiB on {}; {old} at that age at most {usual}, {meanwhile}", mib(self.reached), self.host)
    }
}

/// KiB in a window, as people say it.
struct Pace(u64);

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pace = mib(self.0) / minutes() as f64;
        if pace < 9.95 { write!(f, "{pace:.1} MiB/min") } else { write!(f, "{pace:.0} MiB/min") }
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

const fn minutes() -> u64 {
    STEP.as_secs() * WINDOW as u64 / 60
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
