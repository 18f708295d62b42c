//! Tables on a terminal that is too narrow for them: a row becomes a block, a line for each of its cells.

use super::page::{Line, Page, Span, Tone};

/// The page as it fits: of a table with a line wider than that, every row is a block.
#[must_use]
pub fn narrow(page: &Page, columns: usize) -> Page {
    let mut fitting = Page::new();
    for lines in page.0.chunk_by(|one, other| is_row(one) && is_row(other)) {
        if lines.iter().any(|line| is_row(line) && line.width() > columns) {
            lines.iter().filter(|line| !is_header(line)).for_each(|row| block(&mut fitting, row));
        } else {
            fitting.0.extend(lines.iter().cloned());
        }
    }
    fitting
}

/// A row's cells, each with the name of its column.
fn cells(line: &Line) -> Vec<(&'static str, Line)> {
    let mut cells: Vec<(&'static str, Line)> = Vec::new();
    for span in &line.0 {
        match (span.tone, cells.last_mut()) {
            (Tone::Column(name), _) => cells.push((name, Line::default())),
            (_, Some((_, cell))) => cell.0.push(span.clone()),
            (_, None) => {}
        }
    }
    for (_, cell) in &mut cells {
        // What only led to the next column.
        while cell.0.last().is_some_and(|span| span.text.trim().is_empty()) {
            cell.0.pop();
        }
    }
    cells
}

fn is_row(line: &Line) -> bool {
    line.0.iter().any(|span| matches!(span.tone, Tone::Column(_)))
}

fn is_header(line: &Line) -> bool {
    cells(line).iter().all(|(name, cell)| cell.0.iter().map(|span| span.text.as_str()).collect::<String>() == *name)
}

fn block(page: &mut Page, row: &Line) {
    let mut cells = cells(row).into_iter();
    page.0.extend(cells.next().map(|(_, first)| first));
    let cells: Vec<_> = cells.filter(|(_, cell)| cell.width() > 0).collect();
    let widest = cells.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, cell) in cells {
        let mut line = Line::default().span(Tone::Quiet, format!("  {name:<widest$}  "));
        line.0.extend::<Vec<Span>>(cell.0);
        page.line(line);
    }
}

#[cfg(test)]
mod tests {
    use super::narrow;
    use crate::render::page::{Line, Look, Page, Tone};
    use crate::render::table::Table;

    fn page() -> Page {
        let mut table = Table::new(&["SERVICE", "LIVE", "HOSTS"]);
        table.row(vec![Line::of("shop"), Line::default().span(Tone::Good, "2.0.4"), Line::of("2 of 3 serve, 1 silent")]);
        table.row(vec![Line::of("blog"), Line::of(""), Line::of("1 of 1 serve")]);
        let mut page = table.page();
        page.text("web4  its agent has been silent for 2 min 10 s");
        page
    }

    #[test]
    fn a_table_that_fits_stays_one_and_one_that_does_not_is_a_block_a_row() {
        assert_eq!(narrow(&page(), 80), page());
        assert_eq!(
            narrow(&page(), 30).to_text(Look::default()),
            "shop
  LIVE   2.0.4
  HOSTS  2 of 3 serve, 1 silent
blog
  HOSTS  1 of 1 serve
web4  its agent has been silent for 2 min 10 s
"
        );
    }
}
