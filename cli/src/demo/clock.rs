//! Durations as people write them on a command line.

use std::time::Duration;

/// Reads `200ms`, `1m 30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}
