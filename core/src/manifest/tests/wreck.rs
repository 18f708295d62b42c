//! Wrecked manifests: whatever the text, an answer, and never a panic.

use super::{SAMPLE, edited};
use crate::manifest::{LARGEST, Severity, parse};

/// Everything a manifest can be, so that each reader is reached.
fn full() -> String {
    let more = "user = \"shop\"\nenv = { RUST_LOG = \"info\", DB_PASSWORD_FILE = \"/etc/shop/db\" }\n\
                stop = { signal = \"SIGINT\", timeout = \"5s\" }\n\n[rollout]\nwaves = [1, \"50%\"]\nbake = \"5m\"\n\
                placement = \"side-by-side\"\nmax_unavailable = \"34%\"\n\n[health]\ninterval = \"2s\"\n";
    edited("\n[health]\n", more)
}

/// Asks for a verdict, and for its text where there is one to render.
fn judge(text: &str) {
    match parse("baton.toml", text) {
        Ok(manifest) => assert!(!manifest.origins().is_empty()),
        Err(found) => {
            assert!(found.iter().any(|finding| finding.severity == Severity::Error), "refused without a reason:\n{text}");
            for diagnostic in found {
                assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
                assert!(diagnostic.render().lines().count() >= 4);
            }
        }
    }
}

#[test]
fn the_full_manifest_is_sound_before_it_is_wrecked() {
    super::sound(&full());
}

#[test]
fn no_prefix_of_a_manifest_panics() {
    for text in [SAMPLE.to_string(), full()] {
        for (end, _) in text.char_indices() {
            judge(&text[..end]);
        }
    }
}

#[test]
fn no_line_left_out_or_doubled_panics() {
    let text = full();
    let lines: Vec<&str> = text.lines().collect();
    for at in 0..lines.len() {
        let mut without = lines.clone();
        without.remove(at);
        judge(&without.join("\n"));
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        judge(&doubled.join("\n"));
    }
}

/// Values of every type and of unfriendly shapes, for every place where a value stands.
const VALUES: [&str; 28] = [
    "0",
    "-1",
    "65536",
    "9223372036854775807",
    "0x1F",
    "1e400",
    "nan",
    "true",
    "[]",
    "[[]]",
    "{}",
    "[{}]",
    "\"\"",
    "\"\\u0000\"",
    "\"{\"",
    "\"}{\"",
    "\"{port\"",
    "\"{Port}\"",
    "\"한글 {포트}\"",
    "\"'\"",
    "\"\\\\\"",
    "'''\n'''",
    "1979-05-27",
    "\"99999999999999999999s\"",
    "\"9999999999999 years\"",
    "\"100%\"",
    "\"\u{202e}\"",
    "[1, \"a\", [2], {b = 3}]",
];

#[test]
fn no_value_at_any_place_panics() {
    let text = full();
    for (at, line) in text.lines().enumerate() {
        let Some((key, _)) = line.split_once('=') else { continue };
        for value in VALUES {
            let wrecked: Vec<String> = text
                .lines()
                .enumerate()
                .map(|(number, line)| if number == at { format!("{key}= {value}") } else { line.to_string() })
                .collect();
            judge(&wrecked.join("\n"));
        }
    }
}

/// A small generator with a fixed seed (xorshift64*): the same wrecks in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

#[test]
fn no_random_damage_panics() {
    let alphabet: Vec<char> = "{}[]\"'=.,#\\\n\t \0azAZ09-_%한\u{FFFD}\u{1F600}".chars().collect();
    let text: Vec<char> = full().chars().collect();
    let mut dice = Dice(0x00ba_7011);
    for _ in 0..20_000 {
        let mut wrecked = text.clone();
        for _ in 0..=dice.below(4) {
            let at = dice.below(wrecked.len());
            match dice.below(3) {
                0 => wrecked[at] = alphabet[dice.below(alphabet.len())],
                1 => wrecked.insert(at, alphabet[dice.below(alphabet.len())]),
                _ => drop(wrecked.drain(at..(at + dice.below(12)).min(wrecked.len()))),
            }
        }
        judge(&wrecked.into_iter().collect::<String>());
    }
}

#[test]
fn deep_nesting_and_huge_files_are_refused() {
    judge(&"[".repeat(100_000));
    judge(&format!("a = {}", "{a=".repeat(50_000)));
    judge(&format!("a.{}b = 1", "a.".repeat(50_000)));
    judge(&"# comment\n".repeat(LARGEST / 10 + 1));
}
