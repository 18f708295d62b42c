//! Values that look like secrets: refused, and never quoted back.

use crate::secret::Secret;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Parts of a name that promise a secret in its value.
const NAMES: [&str; 10] =
    ["password", "passwd", "passphrase", "secret", "token", "apikey", "api_key", "private_key", "access_key", "credential"];

/// Ends of a name whose value is about a secret and not one.
const HARMLESS: [&str; 10] =
    ["_file", "_path", "_dir", "_ttl", "_timeout", "_name", "_id", "_type", "_header", "_algorithm"];

/// How well-known tokens begin.
const PREFIXES: [&str; 9] = ["-----BEGIN ", "AKIA", "ghp_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "sk_live_", "npm_"];

/// Why a value looks like a secret, if it does. Paths do not: a secret belongs in a file.
pub(super) fn suspicion(name: &str, value: &str) -> Option<&'static str> {
    if named(name) && !value.is_empty() && !value.starts_with('/') && value.parse::<Secret>().is_err() {
        return Some("its name says that it is a secret");
    }
    shaped(value)
}

fn named(name: &str) -> bool {
    let name = name.to_lowercase();
    NAMES.iter().any(|part| name.contains(part)) && !HARMLESS.iter().any(|end| name.ends_with(end))
}

fn shaped(value: &str) -> Option<&'static str> {
    if PREFIXES.iter().any(|prefix| value.starts_with(prefix) && value.len() > prefix.len() + 8) {
        return Some("its value has the shape of a key or token");
    }
    if value.starts_with("eyJ") && value.split('.').count() == 3 {
        return Some("its value has the shape of a JSON web token");
    }
    let authority = value.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let (_, password) = authority.rsplit_once('@')?.0.split_once(':')?;
    (!password.is_empty()).then_some("its value is a URL with a password in it")
}

/// The ranges of everything in a file that looks like a secret, wherever it stands.
pub(super) fn ranges(table: &DeTable<'_>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (name, value) in table {
        collect(name.get_ref(), value, &mut found);
    }
    found
}

/// Under `secrets`, whatever is no reference: people put the value there by mistake.
fn literals(table: &DeTable<'_>) -> Vec<Range<usize>> {
    let literal =
        |value: &&Spanned<DeValue<'_>>| value.get_ref().as_str().is_none_or(|text| text.parse::<Secret>().is_err());
    table.iter().map(|(_, value)| value).filter(literal).map(Spanned::span).collect()
}

fn collect(name: &str, value: &Spanned<DeValue<'_>>, found: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) if name == "secrets" => found.extend(literals(table)),
        DeValue::Table(table) => table.iter().for_each(|(name, value)| collect(name.get_ref(), value, found)),
        DeValue::Array(items) => items.iter().for_each(|value| collect(name, value, found)),
        DeValue::String(text) if suspicion(name, text).is_none() => {}
        DeValue::String(_) => found.push(value.span()),
        _ if named(name) => found.push(value.span()),
        _ => {}
    }
}

/// The ranges to mask in a file that is not TOML: from the `=` behind a name that promises a secret to the line's end.
pub(super) fn ranges_in_text(text: &str) -> Vec<Range<usize>> {
    let mut begin = 0;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        let assigned = line.match_indices('=').find(|(at, _)| {
            let name = line[..*at].trim_end().rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next();
            name.is_some_and(named)
        });
        let suspicious = line.split(['"', '\'', ' ', '=']).any(|word| shaped(word).is_some());
        if let Some(at) = assigned.map(|(at, _)| at + 1).or_else(|| suspicious.then_some(0)) {
            found.push(begin + at..begin + line.trim_end().len());
        }
        begin += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::suspicion;

    #[test]
    fn secrets_are_known_by_name_or_by_shape() {
        for (name, value) in [
            ("DB_PASSWORD", "hunter2"),
            ("STRIPE_KEY", "sk_live_0123456789abcdef"),
            ("DATABASE_URL", "postgres://shop:hunter2@db/shop"),
            ("CERT", "-----BEGIN PRIVATE KEY-----\nMIIE"),
            ("SESSION", "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0"),
        ] {
            assert!(suspicion(name, value).is_some(), "{name}={value}");
        }
    }

    #[test]
    fn paths_names_and_plain_settings_are_no_secrets() {
        for (name, value) in [
            ("DB_PASSWORD_FILE", "/etc/shop/db"),
            ("DB_PASSWORD", "/run/secrets/db"),
            ("TOKEN_TTL", "1h"),
            ("RUST_LOG", "info"),
            ("DATABASE_URL", "postgres://shop@db/shop"),
            ("HOME_PAGE", "https://example.net/a:b@c"),
            ("API_KEY", ""),
        ] {
            assert_eq!(suspicion(name, value), None, "{name}={value}");
        }
    }
}
