//! `baton explain CODE`.

use crate::errors::{Failure, code};
use crate::exit::Exit;
use crate::output::Output;
use crate::render::page::{Line, Page, Tone};
use baton_core::manifest::codes::CODES;
use baton_core::problem::{Code, Problem};
use clap::Args;
use serde::Serialize;
use serde_json::json;

/// What there is to say about each code, beside those of the manifest, which say it themselves: a code and its title, then the
/// text, indented; a blank line between two.
const KNOWN: &str = include_str!("explain/known.txt");

/// One code, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// As people read it: `B0210`.
    pub code: String,
    pub title: String,
    pub text: String,
}

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
        for Entry { code, title, .. } in all() {
            page.line(Line::default().span(Tone::Strong, code).plain(format!("  {title}")));
        }
        output.answer(&page);
        output.json(&json!({ "codes": all().collect::<Vec<_>>() }));
        return Ok(Exit::Done);
    };
    let entry = read(text).and_then(|code| all().find(|entry| entry.code == code.to_string())).ok_or_else(|| {
        Problem::new(code::UNKNOWN_NAME, format!("no code `{text}` is known")).help("baton explain lists all")
    })?;
    let mut page = Page::new();
    page.line(Line::default().span(Tone::Strong, format!("{}: {}", entry.code, entry.title)));
    page.text(entry.text.as_str());
    output.answer(&page);
    output.json(&entry);
    Ok(Exit::Done)
}

/// Every code there is something to say about.
pub fn all() -> impl Iterator<Item = Entry> {
    let manifest = CODES.iter().map(|explanation| Entry {
        code: explanation.code.to_string(),
        title: explanation.title.to_owned(),
        text: explanation.text.to_owned(),
    });
    manifest.chain(KNOWN.split("\n\n").filter_map(entry))
}

fn entry(block: &str) -> Option<Entry> {
    let (head, text) = block.split_once('\n')?;
    let (code, title) = head.split_once(' ')?;
    let text: Vec<&str> = text.lines().map(str::trim).collect();
    Some(Entry { code: code.to_owned(), title: title.to_owned(), text: text.join(" ") })
}

/// `B0210`, `b210`, `210`.
fn read(text: &str) -> Option<Code> {
    let digits = text.strip_prefix(['B', 'b']).unwrap_or(text);
    digits.parse().ok().map(Code)
}

#[cfg(test)]
mod tests {
    use super::{CODES, KNOWN, all, read};
    use baton_core::problem::Code;
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    #[test]
    fn codes_are_read_as_people_write_them() {
        for text in ["B0210", "b210", "210", "0210"] {
            assert_eq!(read(text), Some(Code(210)), "{text}");
        }
        assert_eq!(read("B-1"), None);
        assert_eq!(read("B99999"), None);
    }

    #[test]
    fn every_entry_is_read_and_no_code_stands_twice() {
        let codes: BTreeSet<String> = all().map(|entry| entry.code).collect();
        assert_eq!(codes.len(), all().count());
        assert_eq!(KNOWN.lines().filter(|line| line.starts_with('B')).count() + CODES.len(), codes.len());
        for entry in all() {
            assert_eq!(read(&entry.code).map(|code| code.to_string()), Some(entry.code.clone()));
            assert!(!entry.title.is_empty() && entry.text.len() > 20 && !entry.text.contains('\n'), "{entry:?}");
        }
    }

    /// Codes are written as numbers in the crates that raise them: here they are found, so that none stays unexplained.
    #[test]
    fn every_code_that_the_programs_can_show_is_explained() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files: Vec<PathBuf> =
            ["core", "proto", "agent", "coordinator", "cli"].map(|room| root.join(room).join("src")).into();
        let mut missing = BTreeSet::new();
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let codes = program.split("Code(").skip(1).filter_map(|rest| rest.split_once(')')?.0.parse().ok()).map(Code);
                let unknown = codes.filter(|code| code.0 >= 100 && !all().any(|entry| entry.code == code.to_string()));
                missing.extend(unknown.map(|code| format!("{code} in {}", path.strip_prefix(root).unwrap().display())));
            }
        }
        assert!(missing.is_empty(), "add these to cli/src/verbs/explain/known.txt: {missing:#?}");
    }
}
