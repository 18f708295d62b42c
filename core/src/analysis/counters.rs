//! From the counters on the instances' own pages to what happened since the last look, by release.
//!
//! A counter only ever grows while its process lives. A page that cannot be read says nothing for or against anybody, and why
//! it cannot is kept for whoever asks.

use super::meters::Whose;
use super::source::Slots;
use crate::fleet::MemberKey;
use crate::fleet::report::InstanceReport;
use crate::scrape::{Reading, Totals};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many instances are named that cannot be read.
const NAMED: usize = 3;

/// The last reading of every instance, and what was counted since the last [`Counters::take`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    instances: BTreeMap<MemberKey, Known>,
    #[serde(skip)]
    pending: Slots,
}

/// One start of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    incarnation: String,
    whose: Whose,
    /// What was read last. None: nothing could be.
    totals: Option<Totals>,
    /// Why nothing could be read the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl Counters {
    /// Takes in what an agent read of an instance, of which it says what runs there.
    pub fn see(&mut self, member: &MemberKey, instance: &InstanceReport, whose: Whose, reading: &Reading) {
        let fresh = || Known { incarnation: instance.incarnation.clone(), whose, totals: None, trouble: None };
        let known = self.instances.entry(member.clone()).or_insert_with(fresh);
        if known.incarnation != instance.incarnation {
            *known = fresh();
        }
        known.whose = whose;
        match reading {
            Reading::Trouble(why) => known.trouble = Some(why.clone()),
            Reading::Counted(now) => {
                known.trouble = None;
                if let Some(counts) = known.totals.and_then(|last| now.since(last)) {
                    self.pending.add(whose, member.to_string(), counts);
                }
                known.totals = Some(*now);
            }
        }
    }

    /// Forgets an instance that is gone.
    pub fn forget(&mut self, member: &MemberKey) {
        self.instances.remove(member);
    }

    /// The instances that are read.
    pub fn members(&self) -> impl Iterator<Item = &MemberKey> {
        self.instances.keys()
    }

    /// What was counted since the last time, and begins to count anew.
    pub fn take(&mut self) -> Slots {
        std::mem::take(&mut self.pending)
    }

    /// From now on what is there is the old release: a rollout begins, or ended.
    pub fn relabel(&mut self) {
        self.instances.values_mut().for_each(|known| known.whose = Whose::Old);
    }

    /// Whether anything was there on any instance that counts errors.
    #[must_use]
    pub fn count_errors(&self) -> bool {
        self.instances.values().any(|known| known.totals.is_some_and(|totals| totals.errors.is_some()))
    }

    /// Why nothing, or not everything, is compared; empty: there is no reason not to.
    #[must_use]
    pub fn doubts(&self, new: &str, old: &str) -> Vec<String> {
        self.doubts_of(&[(Whose::New, new), (Whose::Old, old)])
    }

    /// Why nothing, or not everything, could be compared if a rollout began now.
    #[must_use]
    pub fn doubts_at_rest(&self, release: &str) -> Vec<String> {
        self.doubts_of(&[(Whose::Old, release)])
    }

    fn doubts_of(&self, releases: &[(Whose, &str)]) -> Vec<String> {
        let of = |whose: Whose| self.instances.values().filter(move |known| known.whose == whose);
        let mut doubts = Vec::new();
        for (whose, release) in releases {
            if of(*whose).next().is_none() {
                doubts.push(format!("no agent has read those of {release} yet"));
            }
        }
        let troubled = self.instances.iter().filter_map(|(member, known)| Some((member, known.trouble.as_ref()?)));
        doubts.extend(troubled.clone().take(NAMED).map(|(member, why)| format!("{member}: {why}")));
        if let Some(more) = troubled.count().checked_sub(NAMED).filter(|more| *more > 0) {
            doubts.push(format!("and {more} instances more that cannot be read"));
        }
        if self.instances.values().any(|known| known.totals.is_some()) && !self.count_errors() {
            doubts.push("nothing is there yet that counts errors: none has happened, or the name is wrong".to_owned());
        }
        doubts
    }
}
