//! How things read in evidence. Text from outside is made harmless here, before it travels.

use baton_core::problem::Problem;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

/// Of one piece of evidence in a log's line.
const EVIDENCE_MAX: usize = 200;

/// One line of foreign text: control characters escaped, at most `max` characters.
#[must_use]
pub fn line(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == max {
            shown.push('…');
            break;
        }
        match character {
            '\t' => shown.push(' '),
            character if character.is_control() || is_direction(character) => {
                // Writing to a string cannot fail.
                let _ = write!(shown, "{}", character.escape_unicode());
            }
            character => shown.push(character),
        }
    }
    shown
}

/// Marks that make a terminal show text in another order than it is.
const fn is_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What was seen of a problem, in one line: `address coord:7443, tls alert CertificateExpired`.
#[must_use]
pub fn evidence(problem: &Problem) -> String {
    let seen: Vec<String> =
        problem.seen.iter().map(|(label, seen)| format!("{label} {}", line(seen, EVIDENCE_MAX))).collect();
    seen.join(", ")
}

/// `850 ms`, `12.5 s`, `3 min 20 s`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 if duration.subsec_millis() >= 50 => format!("{:.1} s", duration.as_secs_f64()),
        1..60 => format!("{seconds} s"),
        60..3_600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `31.2 MB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let tenths = |unit: u64| bytes as f64 / unit as f64;
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", tenths(1_000)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", tenths(1_000_000)),
        _ => format!("{:.1} GB", tenths(1_000_000_000)),
    }
}

/// An operating system's error without its number: `connection refused`.
#[must_use]
pub fn io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => format!("{:?}", error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_cannot_reach_a_terminal() {
        assert_eq!(line("a\x1b[2Jb\r\u{202e}c", 99), "a\\u{1b}[2Jb\\u{d}\\u{202e}c");
        assert_eq!(line("abcdef", 3), "abc…");
    }

    #[test]
    fn errors_and_durations_read_as_people_write_them() {
        assert_eq!(io_error(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(duration(Duration::from_millis(850)), "850 ms");
        assert_eq!(duration(Duration::from_secs(60)), "1 min");
        assert_eq!(duration(Duration::from_millis(12_500)), "12.5 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
    }
}
