//! One finding in a manifest, and the text people read.

use crate::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// What is wrong in a manifest, where, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    /// One sentence.
    pub what: String,
    /// The file, as it was named by whoever read it.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// In characters, within the line; 0 marks a place where something is missing.
    pub length: usize,
    /// The line itself, with secrets and control characters masked.
    pub source_line: String,
    /// Said at the place.
    pub label: String,
    /// What helps.
    pub help: Option<String>,
}

/// Whether the manifest can be used all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Diagnostic {
    /// Renders the finding the way rustc does, without colour, ending in a line break.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut impl Write) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(out, "{}[{}]: {}", self.severity.word(), self.code, self.what)?;
        writeln!(out, "{gutter}--> {}:{}:{}", self.path, self.line, self.column)?;
        writeln!(out, "{gutter} |")?;
        writeln!(out, "{}", format!("{number} | {}", self.source_line).trim_end())?;
        let before: usize = self.source_line.chars().take(self.column.saturating_sub(1)).map(width).sum();
        let marked: usize = self.source_line.chars().skip(self.column.saturating_sub(1)).take(self.length).map(width).sum();
        let mark = format!("{gutter} | {}{} {}", " ".repeat(before), "^".repeat(marked.max(1)), self.label);
        writeln!(out, "{}", mark.trim_end())?;
        self.help.iter().try_for_each(|help| writeln!(out, "help: {help}"))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

impl From<&Diagnostic> for Problem {
    fn from(diagnostic: &Diagnostic) -> Problem {
        let place = format!("{}:{}:{}", diagnostic.path, diagnostic.line, diagnostic.column);
        let mut problem = Problem::new(diagnostic.code, &diagnostic.what).saw("place", place);
        if !diagnostic.source_line.trim().is_empty() {
            problem = problem.saw("line", diagnostic.source_line.trim());
        }
        // Where nothing else helps, what is said at the place does: "did you mean".
        let label = Some(&diagnostic.label).filter(|label| !label.is_empty());
        problem.help = diagnostic.help.as_ref().or(label).cloned();
        problem
    }
}

/// The columns a character takes on a terminal, near enough for the marks to stand below what they mark.
fn width(character: char) -> usize {
    match u32::from(character) {
        0x1100..=0x115F | 0x2E80..=0xA4CF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF => 2,
        0xFE30..=0xFE6F | 0xFF00..=0xFF60 | 0xFFE0..=0xFFE6 | 0x1_F300..=0x1_FAFF | 0x2_0000..=0x3_FFFD => 2,
        _ => 1,
    }
}
