//! What an application's own metrics say: which counters of its page are meant, and what they add up to.
//!
//! A page is what Prometheus would scrape, and what cannot be read of it is no number. Nothing here asks anybody: text goes in.

mod exposition;
mod selector;
#[cfg(test)]
mod tests;

pub use selector::{NoSelector, Selector};

use crate::analysis::counts::Counts;
use exposition::Sample;
use serde::{Deserialize, Serialize};

/// Beyond this a double no longer counts one by one.
const MOST: f64 = 9_007_199_254_740_992.0;

/// Where an instance's counters are found: a page on its own port, and two metrics on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrape {
    /// Beginning with a slash.
    pub path: String,
    /// What counts every request,
    pub requests: Selector,
    /// and what counts those that failed.
    pub errors: Selector,
}

/// What the counters of a page add up to, since the process that shows it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub requests: u64,
    /// None: nothing on the page matches. Many libraries show a counter only once it has counted something.
    pub errors: Option<u64>,
}

impl Totals {
    /// What was counted between two readings. None: it began anew in between.
    #[must_use]
    pub fn since(self, last: Self) -> Option<Counts> {
        let requests = self.requests.checked_sub(last.requests)?;
        let errors = self.errors.unwrap_or(0).checked_sub(last.errors.unwrap_or(0))?;
        Some(Counts::new(requests, errors))
    }
}

/// The last try to read an instance's counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    Counted(Totals),
    /// What was seen instead of numbers.
    Trouble(String),
}

impl Scrape {
    /// Reads a page.
    ///
    /// # Errors
    /// What is wrong with it, for people: no metrics, no such metric, or one that cannot have counted anything.
    pub fn read(&self, page: &str) -> Result<Totals, String> {
        let samples = exposition::samples(page)?;
        let requests = total(&self.requests, &samples)?.ok_or_else(|| format!("no metric is {}", self.requests))?;
        Ok(Totals { requests, errors: total(&self.errors, &samples)? })
    }
}

/// The sum of everything a selector matches.
fn total(selector: &Selector, samples: &[Sample<'_>]) -> Result<Option<u64>, String> {
    let mut sum = None;
    for sample in selector.matching(samples) {
        let so_far = sum.unwrap_or(0.0)
            + counted(sample.value)
                .ok_or_else(|| format!("{} is {}, which no counter can be", sample.name, sample.value))?;
        sum = Some(so_far);
    }
    match sum.map(counted) {
        None => Ok(None),
        Some(Some(sum)) => Ok(Some(sum as u64)),
        Some(None) => Err(format!("{selector} adds up to more than can be counted")),
    }
}

/// A value that a counter can have.
pub(crate) fn counted(value: f64) -> Option<f64> {
    (value.is_finite() && (0.0..=MOST).contains(&value)).then_some(value)
}
