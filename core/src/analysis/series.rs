//! From what a Prometheus says of two releases to what happened since the last look.
//!
//! It is asked for counters and never for rates: a rate over a minute, asked for every few seconds, would count the same failure
//! again and again. So the differences are taken here, series by series, as they are for every other source.

use super::meters::Whose;
use super::source::Slots;
use crate::name::ReleaseId;
use crate::scrape::{Totals, counted};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The counters of one release, by instance.
pub type Instances = BTreeMap<String, Totals>;

/// What came back for one release: its counters, or what was seen instead of numbers.
pub type Answer = Result<Instances, String>;

/// The last answer for each release, and what was counted since the last [`Series::take`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Series {
    releases: BTreeMap<ReleaseId, Known>,
    #[serde(skip)]
    pending: Slots,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    whose: Whose,
    instances: Instances,
    /// Why nothing was found the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl Series {
    /// Takes in what came back for a release.
    pub fn see(&mut self, release: ReleaseId, whose: Whose, answer: Answer) {
        let fresh = || Known { whose, instances: Instances::new(), trouble: None };
        let known = self.releases.entry(release).or_insert_with(fresh);
        known.whose = whose;
        let now = match answer {
            Ok(now) => now,
            Err(why) => {
                known.trouble = Some(why);
                return;
            }
        };
        known.trouble = None;
        for (instance, totals) in &now {
            let counts = known.instances.get(instance).and_then(|last| totals.since(*last));
            if let Some(counts) = counts {
                self.pending.add(whose, instance.clone(), counts);
            }
        }
        // What is gone and comes back may have been another process meanwhile.
        known.instances = now;
    }

    /// Forgets releases that nobody asks about any more.
    pub fn keep(&mut self, is_asked: impl Fn(&ReleaseId) -> bool) {
        self.releases.retain(|release, _| is_asked(release));
    }

    /// What was counted since the last time, and begins to count anew.
    pub fn take(&mut self) -> Slots {
        std::mem::take(&mut self.pending)
    }

    /// From now on what is there is the old release: a rollout begins, or ended.
    pub fn relabel(&mut self) {
        self.releases.values_mut().for_each(|known| known.whose = Whose::Old);
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
        let of = |whose: Whose| self.releases.values().find(|known| known.whose == whose);
        let mut doubts = Vec::new();
        for (whose, release) in releases {
            match of(*whose) {
                None => doubts.push(format!("nothing was asked of {release} yet")),
                Some(known) => doubts.extend(known.trouble.as_ref().map(|why| format!("{release}: {why}"))),
            }
        }
        let mut counted = self.releases.values().flat_map(|known| known.instances.values()).peekable();
        if counted.peek().is_some() && counted.all(|totals| totals.errors.is_none()) {
            doubts.push("nothing is there yet that counts errors: none has happened, or the query is wrong".to_owned());
        }
        doubts
    }
}

/// One series of an answer: its labels and its value.
pub type Sample = (BTreeMap<String, String>, f64);

/// How many instances are told apart; beyond that they are counted as one.
const APART: usize = 200;

/// What two answers say of one release: what counts every request, and what counts those that failed.
///
/// # Errors
/// What is wrong with them, for people.
pub fn instances(requests: &[Sample], errors: &[Sample]) -> Answer {
    let by_instance = |samples: &[Sample]| totals(samples, |labels| labels.get("instance").cloned().unwrap_or_default());
    let (asked, failed) = (by_instance(requests)?, by_instance(errors)?);
    if asked.is_empty() {
        return Err("the query for requests finds nothing".to_owned());
    }
    // A query may add everything up, and the other one not: then what is left to compare is all of it.
    let (asked, failed) = if asked.len() <= APART && failed.keys().all(|instance| asked.contains_key(instance)) {
        (asked, failed)
    } else {
        let together = |samples: &[Sample]| totals(samples, |_| String::new());
        (together(requests)?, together(errors)?)
    };
    let totals = |(instance, requests)| {
        let errors = failed.get(&instance).map(|errors| *errors as u64);
        (instance, Totals { requests: requests as u64, errors })
    };
    Ok(asked.into_iter().map(totals).collect())
}

fn totals(samples: &[Sample], name: fn(&BTreeMap<String, String>) -> String) -> Result<BTreeMap<String, f64>, String> {
    let mut sums = BTreeMap::new();
    for (labels, value) in samples {
        let sum: &mut f64 = sums.entry(name(labels)).or_default();
        *sum = counted(*value)
            .and_then(|value| counted(*sum + value))
            .ok_or_else(|| format!("a series is {value}, which no counter can be"))?;
    }
    Ok(sums)
}
