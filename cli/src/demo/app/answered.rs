//! What an instance counts of itself, for its `/metrics`.

use http::StatusCode;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// Answers by status, but for those to whoever watches it. One that was never given is not there, as in most libraries.
#[derive(Debug, Default)]
pub(super) struct Answered(Mutex<BTreeMap<u16, u64>>);

impl Answered {
    pub(super) fn count(&self, status: StatusCode) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(status.as_u16()).or_default() += 1;
    }

    pub(super) fn page(&self) -> String {
        let mut page =
            "# HELP http_requests_total Requests that were answered.\n# TYPE http_requests_total counter\n".to_owned();
        for (status, count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // Writing to a string cannot fail.
            let _ = writeln!(page, "http_requests_total{{code=\"{status}\"}} {count}");
        }
        page
    }
}
