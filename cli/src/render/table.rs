//! Rows under a header, without boxes: as readable in a pipe as on a terminal.

use super::page::{Line, Page, Tone};

const GAP: usize = 3;

/// A table. A cell is a line of spans; columns are as wide as their widest cell.
#[derive(Debug, Clone, Default)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Line>>,
}

impl Table {
    #[must_use]
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells at its end are empty.
    pub fn row(&mut self, cells: Vec<Line>) -> &mut Self {
        self.rows.push(cells);
        self
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    #[must_use]
    pub fn page(self) -> Page {
        let header: Vec<Line> = self.header.iter().map(|name| Line::default().span(Tone::Quiet, *name)).collect();
        let rows: Vec<Vec<Line>> = std::iter::once(header).chain(self.rows).collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| rows.iter().filter_map(|row| row.get(column)).map(Line::width).max().unwrap_or(0))
            .collect();
        Page(rows.into_iter().map(|row| join(row, &widths, &self.header)).collect())
    }
}

/// Cells at their columns; nothing after the last one that says something.
fn join(row: Vec<Line>, widths: &[usize], names: &[&'static str]) -> Line {
    let last = row.iter().rposition(|cell| cell.width() > 0);
    let mut line = Line::default();
    for (index, (cell, width)) in row.into_iter().zip(widths).enumerate() {
        let pad = width - cell.width() + GAP;
        line = line.span(Tone::Column(names.get(index).copied().unwrap_or_default()), "");
        line.0.extend(cell.0);
        if last.is_none_or(|last| index >= last) {
            break;
        }
        line = line.plain(" ".repeat(pad));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::Table;
    use crate::render::page::{Line, Look, Tone};

    #[test]
    fn columns_line_up_whatever_they_hold_and_no_line_ends_in_spaces() {
        let mut table = Table::new(&["HOST", "STEP", "TIME"]);
        table.row(vec![Line::of("web1"), Line::default().span(Tone::Good, "✓ serving"), Line::of("42 s")]);
        table.row(vec![Line::of("서울-3"), Line::of("· waiting"), Line::default()]);
        table.row(vec![Line::of("w\u{1b}"), Line::of("?")]);
        let expected =
            [r"HOST      STEP        TIME", r"web1      ✓ serving   42 s", r"서울-3    · waiting", r"w\u{1b}   ?"];
        let text = table.page().to_text(Look::default());
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
