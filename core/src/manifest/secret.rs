//! Values that look like secrets: refused, and never quoted back.

use super::words::{self, Word};
use crate::secret::Secret;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Parts of a name that promise a secret in its value.
const NAMES: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "private_key",
    "access_key",
    "encryption_key",
    "signing_key",
    "credential",
];

/// Parts of a name that has one of those in it, and is about how many tokens there are, or how a password is kept.
const ABOUT: [&str; 3] = ["tokens", "tokeniz", "_hash"];

/// Ends of a name whose value is about a secret and not one.
const HARMLESS: [&str; 17] = [
    "_file",
    "_path",
    "_dir",
    "_ttl",
    "_timeout",
    "_name",
    "_id",
    "_type",
    "_header",
    "_algorithm",
    "_url",
    "_uri",
    "_endpoint",
    "_host",
    "_issuer",
    "_length",
    "_policy",
];

/// Other ends of the names that are given a secret among other things: an option of a command, a setting of a connection string.
const GIVEN: [&str; 3] = ["pwd", "secret_key", "_pass"];

/// How well-known tokens begin.
const PREFIXES: [&str; 22] = [
    "-----BEGIN ",
    "AKIA",
    "ASIA",
    "AIza",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxa-",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "sk_live_",
    "rk_live_",
    "whsec_",
    "sk-ant-",
    "sk-proj-",
    "npm_",
    "pypi-",
    "hvs.",
    "dop_v1_",
];

/// Why a value looks like a secret, if it does. Paths do not: a secret belongs in a file.
pub(super) fn suspicion(name: &str, value: &str) -> Option<&'static str> {
    if named(name) && !value.is_empty() && !is_setting(value) && !value.starts_with('/') && value.parse::<Secret>().is_err()
    {
        return Some("its name says that it is a secret");
    }
    shaped(value)
}

/// The word of a command that looks like a secret, and why.
pub(super) fn in_command(words: &[Word]) -> Option<(&Word, &'static str)> {
    let options = words.iter().zip(words.iter().skip(1));
    let told = |(option, value): (&Word, &Word)| {
        let user = ["-u", "--user"].contains(&option.text.as_str()) && has_user(&value.text);
        user || option.text.starts_with("--") && given(&option.text, &value.text)
    };
    words.iter().find_map(|word| Some((word, suspicion_of_word(&word.text)?))).or_else(|| {
        let (_, value) = options.into_iter().find(|&(option, value)| told((option, value)))?;
        Some((value, "the option before it says that it is a secret"))
    })
}

/// A word may be a command by itself, as it is behind `sh -c`.
fn suspicion_of_word(word: &str) -> Option<&'static str> {
    let inner = || words::split(word).ok().filter(|inner| inner.len() > 1);
    shaped(word).or_else(|| assigned(word)).or_else(|| in_command(&inner()?).map(|(_, why)| why))
}

fn named(name: &str) -> bool {
    let name = name.to_lowercase();
    let short =
        ["pass", "pwd"].iter().any(|end| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')));
    let promises = short || NAMES.iter().any(|part| name.contains(part));
    promises && !ABOUT.iter().any(|part| name.contains(part)) && !HARMLESS.iter().any(|end| name.ends_with(end))
}

/// What turns something on or off, or says how much: nobody's secret.
fn is_setting(value: &str) -> bool {
    ["true", "false", "yes", "no", "on", "off", "none"].contains(&value.to_lowercase().as_str())
        || (value.len() <= 6 && value.chars().all(|c| c.is_ascii_digit()))
}

/// Whether something of this name is given a value that stands here, and not in a file or a variable.
fn given(name: &str, value: &str) -> bool {
    let name = name.trim().to_lowercase().replace('-', "_");
    let elsewhere = value.len() < 4
        || is_setting(value)
        || value.starts_with(['/', '$', '{', '<', '@', '-'])
        || value.parse::<Secret>().is_ok();
    NAMES.iter().chain(&GIVEN).any(|end| name.ends_with(end)) && !elsewhere
}

/// `--password=…`, `PGPASSWORD=…`, `X-Api-Key: …`.
fn assigned(text: &str) -> Option<&'static str> {
    let header = || text.split_once(": ").filter(|(name, _)| !name.contains(char::is_whitespace));
    let (name, value) = text.split_once('=').or_else(header)?;
    given(name, value).then_some("its name says that it is a secret")
}

fn shaped(value: &str) -> Option<&'static str> {
    if PREFIXES.iter().any(|prefix| value.starts_with(prefix) && value.len() > prefix.len() + 8) {
        return Some("its value has the shape of a key or token");
    }
    if value.starts_with("eyJ") && value.split('.').count() == 3 {
        return Some("its value has the shape of a JSON web token");
    }
    if ["Bearer ", "Basic "].iter().any(|scheme| authorizes(value, scheme)) {
        return Some("its value is what an Authorization header says");
    }
    if has_password(value) {
        return Some("its value is an address with a password in it");
    }
    let mut settings = value.split([';', ' ', '&', '?']).filter(|setting| setting.len() < value.len());
    settings.any(|setting| assigned(setting).is_some()).then_some("its value has a password among its settings")
}

/// Whether a text ends with the credentials of a scheme, at its begin or behind a header's name.
fn authorizes(text: &str, scheme: &str) -> bool {
    let Some((before, credentials)) = text.split_once(scheme) else { return false };
    let begins = before.is_empty() || before.trim_end().ends_with(':');
    let one = credentials.len() >= 8 && !credentials.contains(char::is_whitespace) && !credentials.starts_with(['$', '{']);
    begins && one && credentials.contains(|c: char| c.is_ascii_digit() || c == '=')
}

/// `user:password`, and not the numbers of a user and a group.
fn has_user(text: &str) -> bool {
    let password = text.split_once(':').map_or("", |(_, password)| password);
    password.len() >= 4 && !is_setting(password) && !password.starts_with(['$', '{', '<', '/'])
}

/// `scheme://user:password@host`, and the `user:password@tcp(host)` of Go's drivers.
fn has_password(text: &str) -> bool {
    let user = |text: &str| text.split_once(':').is_some_and(|(_, it)| !it.is_empty() && !it.starts_with(['$', '{', '<']));
    let url = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next()?.rsplit_once('@'));
    let driver = ["@tcp(", "@tcp6(", "@unix("].iter().find_map(|network| text.split_once(network));
    [url, driver].into_iter().flatten().any(|(before, _)| user(before))
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
        DeValue::String(text) if suspicion(name, text).or_else(|| suspicion_of_word(text)).is_none() => {}
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
    use super::*;

    #[test]
    fn secrets_are_known_by_name_or_by_shape() {
        for (name, value) in [
            ("DB_PASSWORD", "hunter2"),
            ("STRIPE_KEY", "sk_live_0123456789abcdef"),
            ("DATABASE_URL", "postgres://shop:hunter2@db/shop"),
            ("CERT", "-----BEGIN PRIVATE KEY-----\nMIIE"),
            ("SESSION", "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0"),
            ("UPSTREAM", "Bearer 0123456789"),
            ("UPSTREAM", "Authorization: Basic c2hvcDpodW50ZXIy"),
            ("DSN", "shop:hunter2@tcp(db:3306)/shop"),
            ("DSN", "Server=db;User Id=shop;Password=hunter2"),
            ("DSN", "host=db user=shop password=hunter2"),
            ("UPSTREAM", "https://example.net/?api_key=hunter2"),
            ("REDIS_PASS", "hunter2"),
            ("MYSQL_PWD", "hunter2"),
            ("ENCRYPTION_KEY", "hunter2"),
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
            ("TOKEN_URL", "https://example.net/token"),
            ("REALM", "Basic authentication"),
            ("DSN", "host=db user=shop passfile=/etc/shop/pgpass"),
            ("DSN", "shop@tcp(db:3306)/shop"),
            ("DSN", "shop:@tcp(db:3306)/shop"),
            ("TOKENIZERS_PARALLELISM", "false"),
            ("MAX_TOKENS", "4096"),
            ("PASSWORD_HASHER", "argon2"),
            ("REQUIRE_PASSWORD", "true"),
            ("BYPASS", "hunter2"),
            ("DATABASE_URL", "postgres://shop:$PW@db/shop"),
        ] {
            assert_eq!(suspicion(name, value), None, "{name}={value}");
        }
    }

    #[test]
    fn a_command_is_given_no_secret() {
        for (command, word) in [
            ("shop --password=hunter2 --port {port}", "--password=hunter2"),
            ("shop --db-password hunter2", "hunter2"),
            ("shop --upstream https://shop:hunter2@example.net/", "https://shop:hunter2@example.net/"),
            ("shop ghp_0123456789abcdef", "ghp_0123456789abcdef"),
            ("env PGPASSWORD=hunter2 psql", "PGPASSWORD=hunter2"),
            ("curl -H 'Authorization: Bearer 0123456789' http://x/", "Authorization: Bearer 0123456789"),
            ("sh -c 'exec shop --token hunter2'", "exec shop --token hunter2"),
            ("shop --pass hunter2", "hunter2"),
            ("curl -u admin:hunter2 http://x/", "admin:hunter2"),
            ("curl -H 'X-Api-Key: hunter2' http://x/", "X-Api-Key: hunter2"),
        ] {
            let words = words::split(command).unwrap();
            assert_eq!(in_command(&words).map(|(word, _)| word.text.as_str()), Some(word), "{command}");
        }
        for command in [
            "shop --password-file=/etc/shop/db --token-ttl 1h",
            "shop --password /run/secrets/db --secret-store vault --token={version}",
            "sh -c 'exec shop --password=$(cat $DB_FILE) --token \"$TOKEN\"'",
            "shop --token --verbose",
            "sh -c 'exec shop --url postgres://u:$PW@db/x'",
            "run -u 1000:1000 --user shop",
            "curl http://x/?token=x",
            "shop --url https://example.net/?page=2&sort=asc",
        ] {
            assert_eq!(in_command(&words::split(command).unwrap()), None, "{command}");
        }
    }
}
