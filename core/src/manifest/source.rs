//! The text of a manifest: byte ranges in, lines and columns out.

use std::ops::Range;

/// A manifest's text, with the ranges that must not be shown.
#[derive(Debug)]
pub(crate) struct Source<'s> {
    pub(super) path: &'s str,
    pub(super) text: &'s str,
    /// Values that look like secrets: masked in every line that is quoted (invariant 21).
    pub(super) masked: Vec<Range<usize>>,
}

/// A place in the text as people count it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) length: usize,
    pub(super) source_line: String,
}

impl<'s> Source<'s> {
    pub(crate) fn new(path: &'s str, text: &'s str) -> Self {
        Self { path, text, masked: Vec::new() }
    }

    /// The line a byte stands in, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }

    /// Where a range begins, and as much of it as its first line holds.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let begin = self.boundary(span.start);
        let line_begin = self.text[..begin].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[begin..].find('\n').map_or(self.text.len(), |at| begin + at);
        let end = self.boundary(span.end).clamp(begin, line_end);
        Place {
            line: self.line(begin),
            column: self.text[line_begin..begin].chars().count() + 1,
            length: self.text[begin..end].trim_end().chars().count(),
            source_line: self.shown(line_begin, line_end),
        }
    }

    /// The end of the last line that says anything: where something missing is pointed at.
    pub(super) fn end(&self) -> Range<usize> {
        let end = self.text.trim_end().len();
        end..end
    }

    fn boundary(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0)
    }

    fn shown(&self, begin: usize, end: usize) -> String {
        let visible = |(at, character): (usize, char)| {
            let masked = self.masked.iter().any(|range| range.contains(&(begin + at)));
            match character {
                _ if masked => '*',
                '\t' => ' ',
                _ if character.is_control() => '\u{FFFD}',
                _ => character,
            }
        };
        let line: String = self.text[begin..end].char_indices().map(visible).collect();
        line.trim_end_matches('\u{FFFD}').to_string()
    }
}
