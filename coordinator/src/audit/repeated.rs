//! Who is refused the same again and again is recorded once a minute: nobody who has a certificate can fill the log either.

use super::chain::Entry;
use baton_core::name::Digest;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Refusals that are remembered at once. More are recorded, each for itself.
const KNOWN_MAX: usize = 4096;

/// The refusals of the last while, and how many equal ones were left out since each.
#[derive(Debug, Default)]
pub(super) struct Repeated(BTreeMap<Digest, Since>);

#[derive(Debug)]
struct Since {
    recorded: Instant,
    left_out: u32,
}

impl Repeated {
    /// Whether a refusal is recorded, and how many equal ones were left out before it.
    pub(super) fn admit(&mut self, entry: &Entry, window: Duration) -> Option<u32> {
        let now = Instant::now();
        let refused = entry.refused.as_deref().unwrap_or_default();
        let key = Digest::of([&entry.who, &entry.from, &entry.call, &entry.about, refused].join("\0").as_bytes());
        let fresh = |since: &Since| now.duration_since(since.recorded) <= window;
        if let Some(known) = self.0.get_mut(&key) {
            if fresh(known) {
                known.left_out = known.left_out.saturating_add(1);
                return None;
            }
            known.recorded = now;
            return Some(std::mem::take(&mut known.left_out));
        }
        if self.0.len() >= KNOWN_MAX {
            self.0.retain(|_, since| fresh(since));
        }
        if self.0.len() < KNOWN_MAX {
            self.0.insert(key, Since { recorded: now, left_out: 0 });
        }
        Some(0)
    }
}
