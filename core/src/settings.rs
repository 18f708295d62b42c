//! Settings of the programs, `agent.toml` and `coordinator.toml`: what is wrong in one is told as a manifest's mistakes are.

use crate::manifest::nearest::{nearest, perhaps_later};
use crate::manifest::reader::{Finding, diagnostic, quoted};
use crate::manifest::source::Source;
use crate::problem::{Code, Problem};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// The keys of one table, each with what its value must be: `("state", "a folder")`.
pub type Keys = &'static [(&'static str, &'static str)];

/// A file that was refused.
#[derive(Debug, Clone, Copy)]
pub struct File<'t> {
    pub code: Code,
    /// As it was named by whoever read it.
    pub path: &'t str,
    pub text: &'t str,
}

/// Everything that is wrong with a file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Problem>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "{}", each.join("; "))
    }
}

impl std::error::Error for Mistakes {}

impl From<Problem> for Mistakes {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// Stands where a required key is missing, so that what else is missing can be told: a path, and an address with a port.
const STANDS_IN: &str = "127.0.0.1:1";
/// Its place: none in any file.
const NOWHERE: Range<usize> = usize::MAX..usize::MAX;

impl File<'_> {
    /// Everything that deserialising one table refuses, each with where it stands. What was refused is left out, and the rest is
    /// read again.
    pub fn every<'t>(
        &self,
        name: &str,
        keys: Keys,
        mut table: Spanned<DeTable<'t>>,
        read: impl Fn(Spanned<DeValue<'t>>) -> Option<Error>,
    ) -> Vec<(usize, Problem)> {
        let mut found = Vec::new();
        // Keys that something was said of: that they are missing then is no second mistake.
        let (mut said, mut stood_in): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        while let Some(error) = read(Spanned::new(table.span(), DeValue::Table(table.get_ref().clone()))) {
            let at = error.span().map_or(self.text.len(), |span| span.start);
            if let Some(key) = between_ticks(error.message(), "missing field `").map(ToOwned::to_owned) {
                if stood_in.contains(&key) {
                    break;
                }
                if !said.contains(&key) {
                    found.push((at, self.refusal(name, keys, &error)));
                }
                let value = Spanned::new(NOWHERE, DeValue::String(Cow::Borrowed(STANDS_IN)));
                table.get_mut().insert(Spanned::new(NOWHERE, Cow::Owned(key.clone())), value);
                stood_in.push(key);
                continue;
            }
            // What stands in fits nothing but text and addresses.
            if at == NOWHERE.start {
                break;
            }
            found.push((at, self.refusal(name, keys, &error)));
            let Some(key) = entry(table.get_ref(), at).map(|(key, _)| key.to_owned()) else { break };
            let meant = nearest(&key, keys.iter().map(|(known, _)| *known)).map(ToOwned::to_owned);
            drop(table.get_mut().remove(key.as_str()));
            said.extend(meant);
            said.push(key);
        }
        found
    }

    /// What people read of an error that deserialising `table` ended with; the root is `""`.
    #[must_use]
    pub fn refusal(&self, table: &str, keys: Keys, error: &Error) -> Problem {
        let span = error.span().unwrap_or(self.text.len()..self.text.len());
        let inside = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
        let named = |key: &str| if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        let root = match DeTable::parse(self.text) {
            Ok(root) => root,
            Err(_) => return self.problem(span, "this is not valid TOML", &error.message().replace('\n', ", ")),
        };
        if let Some(key) = between_ticks(error.message(), "unknown field `") {
            let known = keys.iter().map(|(key, _)| *key);
            let near = nearest(key, known.clone()).map(|near| format!("did you mean `{near}`?"));
            let list = known.map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let help = guess_or_later(near, &format!("the keys{inside} are {list}"));
            return self.problem(span, &format!("unknown key {}{inside}", ticked(key)), &help);
        }
        let expected = |key: &str| keys.iter().find(|(known, _)| *known == key).map(|(_, expected)| *expected);
        if let Some(key) = between_ticks(error.message(), "missing field `") {
            let expected = expected(key).map(|expected| format!("it must be {expected}"));
            return self.problem(span, &format!("`{}` is required", named(key)), &expected.unwrap_or_default());
        }
        let wrong = within(root.get_ref(), table).and_then(|table| entry(table, span.start));
        match wrong.and_then(|(key, value)| Some((key, value, expected(key)?))) {
            Some((key, value, expected)) => {
                let what = format!("`{}` must be {expected}", named(key));
                let given = self.text.get(value.clone()).unwrap_or_default();
                self.problem(value, &what, "").saw("given", given.lines().next().unwrap_or_default().trim())
            }
            None => self.problem(span, &format!("this cannot be read{inside}"), error.message()),
        }
    }

    /// A word that is none of a closed list's.
    #[must_use]
    pub fn not_a_choice(&self, key: &str, given: &str, span: Range<usize>, choices: &[&str]) -> Problem {
        let near = nearest(given, choices.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
        let list = choices.iter().map(|choice| quoted(choice)).collect::<Vec<_>>().join(", ");
        let help = guess_or_later(near, &format!("it can be {list}"));
        self.problem(span, &format!("{} is no {key}", quoted(given)), &help)
    }

    /// Anything else that is wrong at a place.
    #[must_use]
    pub fn problem(&self, span: Range<usize>, what: &str, help: &str) -> Problem {
        let mut finding = Finding::error(self.code, span, what);
        if !help.is_empty() {
            finding = finding.help(help);
        }
        Problem::from(&diagnostic(&Source::new(self.path, self.text), finding))
    }
}

/// What helps with a word that is not in a list: the guess, or that a later version may know it.
fn guess_or_later(near: Option<String>, list: &str) -> String {
    match near {
        Some(near) => format!("{near} {list}"),
        None => format!("{list}; {}", perhaps_later()),
    }
}

/// The word after `prefix`, up to the next backtick.
fn between_ticks<'m>(message: &'m str, prefix: &str) -> Option<&'m str> {
    message.strip_prefix(prefix)?.split('`').next()
}

fn ticked(key: &str) -> String {
    format!("`{}`", key.chars().take(64).collect::<String>().escape_debug())
}

fn within<'t, 's>(root: &'t DeTable<'s>, table: &str) -> Option<&'t DeTable<'s>> {
    if table.is_empty() {
        return Some(root);
    }
    root.get(table).and_then(|value| match value.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    })
}

/// The key with its value's place that a byte of the file belongs to.
fn entry<'t>(table: &'t DeTable<'_>, at: usize) -> Option<(&'t str, Range<usize>)> {
    let found = table.iter().find(|(key, value)| key.span().contains(&at) || value.span().contains(&at));
    found.map(|(key, value)| (key.get_ref().as_ref(), value.span()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only whether it can be read is looked at")]
    struct Settings {
        state: String,
        #[serde(default)]
        keep: u32,
    }

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let keys: Keys = &[("state", "a folder"), ("keep", "a whole number")];
        let error = toml::from_str::<Settings>(text).unwrap_err();
        let problem = File { code: Code(530), path: "agent.toml", text }.refusal("", keys, &error);
        let seen: Vec<String> = problem.seen.iter().map(|(label, what)| format!("{label} {what}")).collect();
        let said = format!("{} | {} | {}", problem.what, seen.join(" | "), problem.help.as_deref().unwrap_or("-"));
        assert_eq!(said, expect);
    }

    #[test]
    fn all_mistakes_are_told_at_once_and_each_once() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "only whether it can be read is looked at")]
        struct Three {
            state: String,
            listen: std::net::SocketAddr,
            #[serde(default)]
            keep: u32,
        }
        let keys: Keys = &[("state", "a folder"), ("listen", "an address"), ("keep", "a whole number")];
        let said = |text: &str| {
            let file = File { code: Code(530), path: "agent.toml", text };
            let read = |table| Three::deserialize(toml::de::ValueDeserializer::from(table)).err();
            let mut found = file.every("", keys, DeTable::parse(text).unwrap(), read);
            found.sort_by_key(|(at, _)| *at);
            found.into_iter().map(|(_, problem)| format!("{} {}", problem.what, problem.seen[0].1)).collect::<Vec<_>>()
        };
        assert_eq!(
            said("colour = 1\nkeep = \"ten\"\nlisten = 7\nstate = 3\n"),
            [
                "unknown key `colour` agent.toml:1:1",
                "`keep` must be a whole number agent.toml:2:8",
                "`listen` must be an address agent.toml:3:10",
                "`state` must be a folder agent.toml:4:9",
            ]
        );
        assert_eq!(said("keep = 1\n"), ["`state` is required agent.toml:1:1", "`listen` is required agent.toml:1:1"]);
        assert_eq!(said("staet = \"/x\"\n"), ["unknown key `staet` agent.toml:1:1", "`listen` is required agent.toml:1:1"]);
        assert_eq!(said("state = 7\n"), ["`listen` is required agent.toml:1:1", "`state` must be a folder agent.toml:1:9"]);
        assert_eq!(said("state = \"/x\"\nlisten = \"127.0.0.1:80\"\n"), [""; 0]);
    }

    #[test]
    fn what_a_later_version_may_know_is_said_with_the_version_that_read_it_unless_there_is_a_guess() {
        let file = File { code: Code(530), path: "agent.toml", text: "driver = \"x\"" };
        let help = |given: &str| file.not_a_choice("driver", given, 9..12, &["haproxy", "nginx"]).help.clone().unwrap();
        let later = help("caddy");
        assert!(later.starts_with("it can be \"haproxy\", \"nginx\"; "), "{later}");
        assert!(later.contains(concat!("Baton ", env!("CARGO_PKG_VERSION"))) && later.contains("later version"), "{later}");
        assert_eq!(help("nginy"), "did you mean \"nginx\"? it can be \"haproxy\", \"nginx\"");
    }

    #[test]
    fn every_mistake_has_its_place_and_what_is_allowed() {
        check(
            "state = \"/x\"\nstaet = \"y\"\n",
            "unknown key `staet` | place agent.toml:2:1 | line staet = \"y\" | did you mean `state`? the keys are `state`, `keep`",
        );
        check(
            "state = \"/x\"\nca_days = \"x\"\n",
            &format!(
                "unknown key `ca_days` | place agent.toml:2:1 | line ca_days = \"x\" | the keys are `state`, `keep`; {}",
                perhaps_later()
            ),
        );
        check(
            "state = \"/x\"\nkeep = \"ten\"\n",
            "`keep` must be a whole number | place agent.toml:2:8 | line keep = \"ten\" | given \"ten\" | -",
        );
        check("keep = 1\n", "`state` is required | place agent.toml:1:1 | line keep = 1 | it must be a folder");
        check(
            "state = \n",
            "this is not valid TOML | place agent.toml:1:9 | line state = | string values must be quoted, expected literal string",
        );
    }
}
