//! One key of the manifest, or those of a table, in words: what the reference says, from the parser's own table.

use crate::errors::code;
use crate::render::page::{Line, Page, Tone};
use baton_core::manifest::keys::{Fallback, KEYS, Key, Kind};
use baton_core::problem::Problem;
use serde_json::{Value, json};

/// The key of this name, else every key in the table of this name.
pub(super) fn found(name: &str) -> Result<Vec<&'static Key>, Problem> {
    let inside = |key: &&Key| key.path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let keys: Vec<&Key> = KEYS.iter().filter(inside).collect();
    if !keys.is_empty() {
        return Ok(keys);
    }
    // Whoever knows the last word only means the key that ends with it.
    let ends: Vec<&str> = KEYS.iter().map(|key| key.path).filter(|path| path.rsplit('.').next() == Some(name)).collect();
    let help = match ends.as_slice() {
        [] => "docs/manifest.md has them all; baton config show lists what a manifest says".to_owned(),
        ends => format!("did you mean {}?", ends.join(" or ")),
    };
    Err(Problem::new(code::UNKNOWN_NAME, format!("a manifest has no key {name}")).help(help))
}

pub(super) fn page(keys: &[&Key]) -> Page {
    let mut page = Page::new();
    for key in keys {
        page.line(Line::default().span(Tone::Strong, key.path));
        page.text(format!("  {}", key.doc));
        page.text(format!("  value    {}", expected(key.kind)));
        page.text(format!("  default  {}", fallback(key.fallback)));
    }
    page
}

pub(super) fn document(key: &Key) -> Value {
    let (value, default) = (expected(key.kind), fallback(key.fallback));
    json!({ "key": key.path, "doc": key.doc, "value": value, "default": default })
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::OneOf(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "),
        kind => kind.expected().to_owned(),
    }
}

fn fallback(fallback: Fallback) -> &'static str {
    match fallback {
        Fallback::Required => "none: it is required",
        Fallback::Absent => "nothing",
        Fallback::Value(value) | Fallback::Derived(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::{found, page};
    use crate::render::page::Look;

    #[test]
    fn a_key_is_explained_by_the_parsers_own_table_and_a_table_key_by_key() {
        let text = page(&found("run.stop.timeout").unwrap()).to_text(Look::default());
        assert_eq!(
            text,
            "run.stop.timeout\n  How long it may take to finish before it is killed.\n  value    a duration in a string, such as \
             \"30s\"\n  default  30s\n"
        );
        assert_eq!(
            found("run.stop").unwrap().iter().map(|key| key.path).collect::<Vec<_>>(),
            ["run.stop.signal", "run.stop.timeout"]
        );
        assert!(page(&found("rollout.strategy").unwrap()).to_text(Look::default()).contains("\"rolling\", \"blue-green\""));
        let problem = found("drain").unwrap_err();
        assert_eq!(problem.help.as_deref(), Some("did you mean rollout.drain?"));
        assert!(found("").is_err() && found("ru").is_err());
    }
}
