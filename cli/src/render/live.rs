//! A frame that is redrawn in place.

use super::narrow::narrow;
use super::page::{Line, Look, Page, Tone};
use crate::output::Stream;
use rustix::termios::tcgetwinsize;
use std::fmt::Write;

/// The lines of a terminal that a frame occupies now.
///
/// The last frame stays when this is dropped.
#[derive(Debug, Default)]
pub struct Live {
    drawn: usize,
}

/// Columns and rows when a terminal does not say.
const FALLBACK: (usize, usize) = (80, 24);

impl Live {
    /// Draws over the frame before. Never more lines than the terminal has: the cursor could not come back over them.
    pub fn draw(&mut self, stream: &Stream, page: &Page) {
        let (columns, rows) = size();
        let look = Look { colour: stream.has_colour(), width: Some(columns) };
        stream.write(&self.frame(&fit(page, rows.saturating_sub(1)), look));
    }

    /// Draws the last frame whole, however long it is; a row that is too wide for the terminal is a block.
    pub fn finish(&mut self, stream: &Stream, page: &Page) {
        stream.write(&self.last(page, columns(), stream.has_colour()));
        self.drawn = 0;
    }

    fn last(&mut self, page: &Page, columns: usize, colour: bool) -> String {
        self.frame(&narrow(page, columns), Look { colour, width: None })
    }

    /// Removes the frame, so that other lines can be written; the next one is drawn below them.
    pub fn clear(&mut self, stream: &Stream) {
        stream.write(&self.frame(&Page::new(), Look::default()));
    }

    fn frame(&mut self, page: &Page, look: Look) -> String {
        let mut out = String::new();
        if self.drawn > 0 {
            let _ = write!(out, "\u{1b}[{}A\r", self.drawn);
        }
        for line in &page.0 {
            // Overwritten, not erased first: an erased line flickers.
            let _ = writeln!(out, "{}\u{1b}[K", line.to_text(look));
        }
        if page.0.len() < self.drawn {
            out.push_str("\u{1b}[J");
        }
        self.drawn = page.0.len();
        out
    }
}

fn fit(page: &Page, rows: usize) -> Page {
    if page.0.len() <= rows {
        return page.clone();
    }
    let mut fitting = Page(page.0.iter().take(rows.saturating_sub(1)).cloned().collect());
    let hidden = page.0.len() - fitting.0.len();
    fitting.line(Line::default().span(Tone::Quiet, format!("… {hidden} more lines")));
    fitting
}

/// How wide the terminal is.
pub(crate) fn columns() -> usize {
    size().0
}

fn size() -> (usize, usize) {
    let said = tcgetwinsize(std::io::stderr()).or_else(|_| tcgetwinsize(std::io::stdout()));
    match said {
        Ok(size) if size.ws_col > 0 && size.ws_row > 1 => (size.ws_col.into(), size.ws_row.into()),
        _ => FALLBACK,
    }
}

#[cfg(test)]
mod tests {
    use super::{Live, fit};
    use crate::render::page::{Line, Look, Page};
    use crate::render::table::Table;

    fn page(lines: &[&str]) -> Page {
        Page(lines.iter().map(|&line| Line::of(line)).collect())
    }

    #[test]
    fn a_frame_is_drawn_over_the_one_before_and_a_shorter_one_erases_the_rest() {
        let mut live = Live::default();
        let look = Look::default();
        assert_eq!(live.frame(&page(&["a", "b"]), look), "a\u{1b}[K\nb\u{1b}[K\n");
        assert_eq!(live.frame(&page(&["c"]), look), "\u{1b}[2A\rc\u{1b}[K\n\u{1b}[J");
        assert_eq!(live.frame(&page(&["d"]), look), "\u{1b}[1A\rd\u{1b}[K\n");
        assert_eq!(live.frame(&Page::new(), look), "\u{1b}[1A\r\u{1b}[J");
        assert_eq!(live.frame(&page(&["e"]), look), "e\u{1b}[K\n");
    }

    #[test]
    fn the_last_frame_is_made_narrow_where_the_terminal_is() {
        let mut table = Table::new(&["HOST", "RELEASE", "STEP"]);
        table.row(vec![Line::of("web2"), Line::of("2.1.0"), Line::of("serving, and the words are long")]);
        let page = table.page();
        let mut live = Live::default();
        let wide = live.last(&page, 80, false);
        assert!(wide.starts_with("HOST  RELEASE  STEP") && wide.lines().count() == 2, "{wide}");
        assert_eq!(
            live.last(&page, 40, false),
            "\u{1b}[2A\rweb2\u{1b}[K\n  RELEASE  2.1.0\u{1b}[K\n  STEP     serving, and the words are long\u{1b}[K\n"
        );
    }

    #[test]
    fn a_frame_never_has_more_lines_than_the_terminal() {
        let long = page(&["a", "b", "c", "d"]);
        assert_eq!(fit(&long, 3).to_text(Look::default()), "a\nb\n… 2 more lines\n");
        assert_eq!(fit(&long, 4), long);
        assert_eq!(fit(&long, 0).0.len(), 1);
    }
}
