//! Text for people, kept apart from how it is coloured until it is written.
//!
//! Everything that reaches a terminal passes [`Page::to_text`], which escapes control characters: an application's last log
//! line must not be able to move the cursor, set the title or hide a line.

use anstyle::{AnsiColor, Style};
use std::fmt::Write;
use unicode_width::UnicodeWidthChar;

/// What a span means; the colour follows from it, and only repeats what the words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Strong,
    Quiet,
    Good,
    Busy,
    Bad,
    /// No words: a cell of this column begins here. Where a table does not fit, its cells are found by these.
    Column(&'static str),
}

/// A few words of one tone. Raw: escaped when written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub text: String,
    pub tone: Tone,
}

/// One line of spans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line(pub Vec<Span>);

/// Lines, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page(pub Vec<Line>);

/// How a page is written: with colours or without, and how wide at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    pub colour: bool,
    /// Columns; longer lines are cut with `…`. None: as long as they are.
    pub width: Option<usize>,
}

impl Page {
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a line of one tone-less span.
    pub fn text(&mut self, text: impl Into<String>) -> &mut Self {
        self.line(Line::of(text))
    }

    pub fn line(&mut self, line: Line) -> &mut Self {
        self.0.push(line);
        self
    }

    pub fn extend(&mut self, page: Page) -> &mut Self {
        self.0.extend(page.0);
        self
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The page as it is written, each line ended.
    #[must_use]
    pub fn to_text(&self, look: Look) -> String {
        self.0.iter().map(|line| line.to_text(look) + "\n").collect()
    }
}

impl Line {
    #[must_use]
    pub fn of(text: impl Into<String>) -> Self {
        Self::default().plain(text)
    }

    #[must_use]
    pub fn span(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.0.push(Span { text: text.into(), tone });
        self
    }

    #[must_use]
    pub fn plain(self, text: impl Into<String>) -> Self {
        self.span(Tone::Plain, text)
    }

    /// Columns this takes on a terminal, escapes of control characters included.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.iter().flat_map(|span| escape(&span.text).chars().collect::<Vec<_>>()).map(columns).sum()
    }

    #[must_use]
    pub fn to_text(&self, look: Look) -> String {
        let overflows = look.width.is_some_and(|width| self.width() > width);
        let mut left = look.width.map_or(usize::MAX, |width| width.saturating_sub(usize::from(overflows)));
        let mut out = String::new();
        for span in &self.0 {
            let text = cut(&escape(&span.text), &mut left);
            let style = span.tone.style();
            if look.colour && span.tone != Tone::Plain && !text.is_empty() {
                let _ = write!(out, "{style}{text}{style:#}");
            } else {
                out.push_str(&text);
            }
        }
        if overflows {
            out.push('…');
        }
        out
    }
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Plain | Self::Column(_) => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Quiet => Style::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Busy => AnsiColor::Cyan.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// The text with everything that could steer a terminal or reorder a line written out: `\u{1b}` for an escape.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Control characters (C0, DEL, C1), line and paragraph separators, invisible marks and those that turn the direction of text.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Takes as much of the text as fits into the columns left.
fn cut(text: &str, left: &mut usize) -> String {
    let mut taken = String::new();
    for c in text.chars() {
        let wide = columns(c);
        if wide > *left {
            *left = 0;
            break;
        }
        *left -= wide;
        taken.push(c);
    }
    taken
}

fn columns(c: char) -> usize {
    c.width().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Line, Look, Page, Tone, escape};

    #[test]
    fn escape_sequences_of_an_application_are_shown_and_not_obeyed() {
        let hostile = "ok\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}31m\u{202e}gnp.\u{2028}";
        let shown = Line::of(hostile).to_text(Look { colour: true, width: None });
        assert_eq!(shown, r"ok\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{9b}31m\u{202e}gnp.\u{2028}");
        assert_eq!(escape("Zürich 서울 ✓ · …"), "Zürich 서울 ✓ · …");
    }

    #[test]
    fn a_line_wider_than_the_terminal_is_cut_so_that_it_never_wraps() {
        let look = Look { colour: false, width: Some(6) };
        assert_eq!(Line::of("abcdef").to_text(look), "abcdef");
        assert_eq!(Line::of("abcdefg").to_text(look), "abcde…");
        assert_eq!(Line::of("서울서울").to_text(look), "서울…", "wide characters take two columns");
        assert_eq!(Line::of("ab").plain("cdefg").to_text(look), "abcde…");
        assert_eq!(Line::of("a\u{1b}b").to_text(Look { colour: false, width: Some(4) }), "a\\u…");
    }

    #[test]
    fn without_colour_only_the_words_are_written() {
        let mut page = Page::new();
        page.line(Line::of("web1 ").span(Tone::Good, "serving"));
        assert_eq!(page.to_text(Look::default()), "web1 serving\n");
        assert!(page.to_text(Look { colour: true, width: None }).contains("\u{1b}[32mserving\u{1b}[0m"));
    }
}
