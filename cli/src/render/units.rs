//! Numbers as people read them.

use std::time::Duration;

/// A duration at the precision that matters at its size: `350 ms`, `4.1 s`, `42 s`, `1 min 48 s`, `2 h 5 min`, `3 d 4 h`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{millis} ms"),
        1..10 => format!("{}.{} s", seconds, (millis % 1000) / 100),
        10..60 => format!("{seconds} s"),
        60..3_600 => parts(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => parts(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => parts(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn parts(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large} {large_unit}") } else { format!("{large} {large_unit} {small} {small_unit}") }
}

#[must_use]
pub fn millis(millis: u64) -> String {
    duration(Duration::from_millis(millis))
}

/// A share in hundredths of a percent: `5%`, `0.5%`.
#[must_use]
pub fn share(hundredths: u32) -> String {
    let share = u16::try_from(hundredths).ok().and_then(|share| baton_core::fleet::split::Share::try_from(share).ok());
    share.map_or_else(|| "?".to_owned(), |share| share.to_string())
}

/// A count with its thousands apart: `41 208`.
#[must_use]
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

/// A count and what is counted: `1 host`, `3 hosts`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// Hundredths of a percent as a share: `4.98%`.
#[must_use]
pub fn hundredths(places: u64) -> String {
    format!("{}.{:02}%", places / 100, places % 100)
}

/// Bytes in decimal units: `31.2 MB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} B"),
    }
}

/// The time of day in UTC, for lines of a log that has no clock of its own: `12:04:12Z`.
#[must_use]
pub fn clock(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::{bytes, clock, count, counted, millis};
    use std::time::Duration;

    #[test]
    fn durations_say_two_units_at_most() {
        let told = [0, 350, 4_199, 42_000, 60_000, 108_000, 7_500_000, 273_600_000].map(millis);
        assert_eq!(told, ["0 ms", "350 ms", "4.1 s", "42 s", "1 min", "1 min 48 s", "2 h 5 min", "3 d 4 h"]);
    }

    #[test]
    fn thousands_stand_apart_and_one_is_singular() {
        assert_eq!([0, 812, 2_204, 41_208, 1_000_000].map(count), ["0", "812", "2 204", "41 208", "1 000 000"]);
        assert_eq!(counted(1, "host", "hosts"), "1 host");
        assert_eq!(counted(0, "host", "hosts"), "0 hosts");
    }

    #[test]
    fn sizes_are_decimal_and_never_rounded_up() {
        assert_eq!([0, 999, 1_000, 31_299_999, 2_000_000_000].map(bytes), ["0 B", "999 B", "1.0 kB", "31.2 MB", "2.0 GB"]);
    }

    #[test]
    fn the_clock_is_utc_and_says_so() {
        assert_eq!(clock(Duration::from_secs(86_400 * 20_000 + 43_452)), "12:04:12Z");
    }
}
