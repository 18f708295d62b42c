//! `baton explain CODE`.

use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::output::Output;
use crate::render::page::{Line, Page, Tone};
use baton_core::manifest::codes::{CODES, Explanation};
use baton_core::problem::{Code, Problem};
use clap::Args;
use serde_json::json;

#[path = "explain/known.rs"]
mod known;

/// `baton explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Such as B0210; without one, all that are known
    pub code: Option<String>,
}

/// Explains a code, or lists all.
///
/// # Errors
/// When nobody knows the code.
pub fn run(args: &ExplainArgs, output: &Output) -> Result<Exit, Failure> {
    let Some(text) = &args.code else {
        let mut page = Page::new();
        for explanation in all() {
            page.line(
                Line::default().span(Tone::Strong, explanation.code.to_string()).plain(format!("  {}", explanation.title)),
            );
        }
        output.answer(&page);
        let codes: Vec<_> = all().map(document).collect();
        output.json(&json!({ "codes": codes }));
        return Ok(Exit::Done);
    };
    let explanation = read(text).and_then(|code| all().find(|explanation| explanation.code == code)).ok_or_else(|| {
        Problem::new(code::UNKNOWN_NAME, format!("no code `{text}` is known")).help("baton explain lists all")
    })?;
    let mut page = Page::new();
    page.line(Line::default().span(Tone::Strong, format!("{}: {}", explanation.code, explanation.title)));
    page.text(explanation.text);
    output.answer(&page);
    output.json(&document(explanation));
    Ok(Exit::Done)
}

fn document(explanation: &Explanation) -> serde_json::Value {
    json!({ "code": explanation.code.to_string(), "title": explanation.title, "text": explanation.text })
}

/// Every code there is something to say about, in the order of the list.
pub fn all() -> impl Iterator<Item = &'static Explanation> {
    let (manifest, rest): (&[Explanation], &[Explanation]) = (CODES, known::KNOWN);
    manifest.iter().chain(rest)
}

/// `B0210`, `b210`, `210`.
fn read(text: &str) -> Option<Code> {
    let digits = text.strip_prefix(['B', 'b']).unwrap_or(text);
    digits.parse().ok().map(Code)
}

#[cfg(test)]
mod tests {
    use super::{all, read};
    use baton_core::problem::Code;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_read_as_people_write_them() {
        for text in ["B0210", "b210", "210", "0210"] {
            assert_eq!(read(text), Some(Code(210)), "{text}");
        }
        assert_eq!(read("B-1"), None);
        assert_eq!(read("B99999"), None);
    }

    #[test]
    fn no_code_is_explained_twice_and_every_one_says_something() {
        let codes: BTreeSet<Code> = all().map(|explanation| explanation.code).collect();
        assert_eq!(codes.len(), all().count());
        assert!(all().all(|explanation| !explanation.title.is_empty() && explanation.text.len() > 20));
    }
}
