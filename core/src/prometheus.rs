//! What a Prometheus is asked about the releases of a service: two queries for counters, with a place for what tells one release from
//! another.

use crate::analysis::probes::Target;
use crate::name::{HostName, Version};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Longer ones are something else.
const LONGEST: usize = 4096;
/// Stands for the release's version.
const VERSION: &str = "{version}";
/// Stands for a pattern that fits the addresses of the release's instances.
const INSTANCES: &str = "{instances}";
/// Functions that make a rate or a difference of counters.
const RATES: [&str; 5] = ["rate", "irate", "increase", "delta", "idelta"];

/// Who is asked, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prometheus {
    /// Without its `/api/v1/query`.
    pub url: Target,
    /// For the counters of every request,
    pub requests: Query,
    /// and for those of the ones that failed.
    pub errors: Query,
}

/// A PromQL expression for counters of one release: `http_requests_total{version="{version}"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Query(String);

/// It is none: why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoQuery(String);

/// What fills the places of a query.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub version: &'a Version,
    /// Where its instances are, and on which hosts.
    pub instances: &'a [(HostName, SocketAddr)],
}

impl Query {
    /// The query for one release. None: it goes by instances, and there are none.
    #[must_use]
    pub fn of(&self, subject: Subject<'_>) -> Option<String> {
        let text = self.0.replace(VERSION, subject.version.as_str());
        if !text.contains(INSTANCES) {
            return Some(text);
        }
        // Prometheus knows a target by the address or by the name that its configuration gives it.
        let each = subject.instances.iter();
        let each = each.flat_map(|(host, at)| [literally(&at.to_string()), literally(&format!("{host}:{}", at.port()))]);
        let pattern = each.collect::<Vec<_>>().join("|");
        (!pattern.is_empty()).then(|| text.replace(INSTANCES, &pattern))
    }
}

/// As part of a pattern, in whichever quotation marks: a dot stands for itself, and so does a bracket.
fn literally(text: &str) -> String {
    let mut pattern = String::new();
    for character in text.chars() {
        match character {
            '.' | '[' | ']' | '+' => pattern.extend(['[', character, ']']),
            plain => pattern.push(plain),
        }
    }
    pattern
}

/// Whether a function is called in an expression.
fn calls(text: &str, function: &str) -> bool {
    let is_word = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | ':');
    text.match_indices(function).any(|(at, _)| {
        let (before, after) = (text.get(..at), text.get(at + function.len()..));
        !before.is_some_and(|before| before.ends_with(is_word))
            && after.is_some_and(|after| after.trim_start().starts_with('('))
    })
}

impl FromStr for Query {
    type Err = NoQuery;
    fn from_str(text: &str) -> Result<Self, NoQuery> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(NoQuery(format!("longer than {LONGEST} characters")));
        }
        if let Some(function) = RATES.iter().find(|function| calls(text, function)) {
            let why =
                format!("{function}() is a rate or a difference: ask for the counters, whose differences are taken here");
            return Err(NoQuery(why));
        }
        if !text.contains(VERSION) && !text.contains(INSTANCES) {
            return Err(NoQuery(format!(
                "nothing tells one release from another: put {VERSION} or {INSTANCES} into a matcher"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Query {
    type Error = NoQuery;
    fn try_from(text: String) -> Result<Self, NoQuery> {
        text.parse()
    }
}

impl From<Query> for String {
    fn from(query: Query) -> Self {
        query.0
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_places_of_a_query_are_filled_with_what_tells_a_release_from_others() {
        let version: Version = "2.1.0+a".parse().unwrap();
        let at = |host: &str, address: &str| (host.parse().unwrap(), address.parse().unwrap());
        let instances = [at("web1", "10.0.0.11:8101"), at("web2.example", "[fd00::7]:8102")];
        let of = |text: &str, instances| query(text).of(Subject { version: &version, instances });
        let by_version = r#"sum by (instance) (requests{version="{version}",job="shop"})"#;
        assert_eq!(of(by_version, &[]).unwrap(), r#"sum by (instance) (requests{version="2.1.0+a",job="shop"})"#);
        let by_instance = r#"requests{instance=~"{instances}"}"#;
        let pattern = "10[.]0[.]0[.]11:8101|web1:8101|[[]fd00::7[]]:8102|web2[.]example:8102";
        assert_eq!(of(by_instance, &instances).unwrap(), format!("requests{{instance=~\"{pattern}\"}}"));
        assert_eq!(of(by_instance, &[]), None, "what is nowhere is not asked for: it would be everything");
    }

    #[test]
    fn a_query_is_for_counters_of_one_release() {
        for good in [r#"rate_total{v="{version}"}"#, r#"a{v="{version}"} + b{i=~"{instances}"}"#] {
            assert_eq!(String::from(query(good)), good);
        }
        let long = format!("a{{version=\"{{version}}\"}}{}", " ".repeat(LONGEST) + "+ b");
        for (bad, why) in [
            ("requests_total", "nothing tells one release from another"),
            ("", "nothing tells one release from another"),
            (r#"rate(a{v="{version}"}[1m])"#, "rate() is a rate"),
            (r#"sum(increase (a{v="{version}"}[1m]))"#, "increase() is a rate"),
            (long.as_str(), "longer than"),
        ] {
            let said = bad.parse::<Query>().unwrap_err().to_string();
            assert!(said.starts_with(why), "{bad}: {said}");
        }
    }
}
