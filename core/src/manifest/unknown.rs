//! Keys and tables that Baton does not know, or does not know yet.

use super::codes;
use super::keys::{self, KEYS, Kind, LATER};
use super::nearest::{nearest, perhaps_later};
use super::reader::{Finding, Reader};
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Reports every key of the file that is not in the table of keys.
pub(super) fn check(reader: &mut Reader<'_, '_>) {
    let root = reader.root();
    table(reader, "", root);
}

fn table(reader: &mut Reader<'_, '_>, path: &str, keys: &DeTable<'_>) {
    for (name, value) in keys {
        let place = if path.is_empty() { name.get_ref().to_string() } else { format!("{path}.{}", name.get_ref()) };
        if keys::find(&place).is_some() {
            continue;
        }
        if LATER.contains(&place.as_str()) {
            reader.report(not_yet(name.span(), &place));
        } else if keys::is_table(&place) {
            match value.get_ref() {
                DeValue::Table(inner) => table(reader, &place, inner),
                other => {
                    reader.mean(place.clone());
                    let what = format!("`{place}` must be a table");
                    let finding = Finding::error(codes::WRONG_TYPE, value.span(), what);
                    let brackets = if other.is_array() { ", in single brackets" } else { "" };
                    reader.report(
                        finding
                            .label(format!("this is of type {}", other.type_str()))
                            .help(format!("write [{place}]{brackets}, with {}", list(&keys::within(&place)))),
                    );
                }
            }
        } else {
            unknown(reader, name.span(), path, name.get_ref());
        }
    }
}

fn not_yet(span: Range<usize>, place: &str) -> Finding {
    Finding::error(codes::NOT_YET, span, format!("`{place}` is not in this version of Baton yet"))
        .label("planned")
        .help("leave it out: Baton refuses what it cannot do, so that no file promises more than happens")
}

fn unknown(reader: &mut Reader<'_, '_>, span: Range<usize>, table: &str, name: &str) {
    let shown: String = name.chars().take(64).collect();
    let inside = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
    let finding = Finding::error(codes::UNKNOWN_KEY, span, format!("unknown key `{}`{inside}", shown.escape_debug()));
    let siblings = keys::within(table);
    let finding = if let Some(near) = nearest(name, siblings.iter().copied()) {
        reader.mean(if table.is_empty() { near.to_string() } else { format!("{table}.{near}") });
        finding.label(format!("did you mean `{near}`?"))
    } else if let Some((home, leaf)) = elsewhere(name) {
        reader.mean(format!("{home}.{leaf}"));
        finding.label(format!("`{leaf}` belongs in [{home}]"))
    } else {
        let known = if table.is_empty() { "a manifest".to_string() } else { format!("[{table}]") };
        finding.label("not a key of Baton's").help(format!("{known} knows {}; {}", list(&siblings), perhaps_later()))
    };
    reader.report(finding);
}

/// The table in which a key of this name would be known.
fn elsewhere(name: &str) -> Option<(&'static str, &'static str)> {
    let name = name.to_lowercase();
    KEYS.iter().filter_map(|key| key.path.rsplit_once('.')).find(|(_, leaf)| *leaf == name)
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A list of hosts written as one string: a host, or the selection by role that is still to come.
pub(super) fn single_host(reader: &mut Reader<'_, '_>, path: &'static str) -> bool {
    let Some(value) = reader.value(path) else { return false };
    let Some(text) = value.get_ref().as_str() else { return false };
    if text.contains('=') {
        let what = format!("`{path}` by selection is not in this version of Baton yet");
        let finding = Finding::error(codes::NOT_YET, value.span(), what).label("planned");
        reader.report(finding.help("name the hosts: [\"web1\", \"web2\"]"));
    } else {
        let what = format!("`{path}` must be {}", Kind::Hosts.expected());
        let finding = Finding::error(codes::WRONG_TYPE, value.span(), what).label("this is a string");
        reader.report(finding.help(format!("write [{}]", reader.raw(&value.span()))));
    }
    true
}
