//! Which series are meant: a metric's name with matchers for its labels, as in PromQL.

use super::exposition::{Sample, quoted};
use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longer ones are something else.
const LONGEST: usize = 1024;
/// Of a compiled pattern: far more than a status code or a path needs.
const PATTERN_MAX: usize = 64 * 1024;

/// `http_requests_total{code=~"5..",job!="probe"}`.
///
/// Equal if written alike.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    text: String,
    name: String,
    matchers: Vec<Matcher>,
}

/// It is none: why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoSelector(String);

#[derive(Debug, Clone)]
struct Matcher {
    label: String,
    /// Whether what is asked for must not be so.
    negated: bool,
    wants: Wants,
}

#[derive(Debug, Clone)]
enum Wants {
    Text(String),
    Pattern(Regex),
}

impl Selector {
    /// Those of the samples that are meant.
    pub(super) fn matching<'a, 't>(&'a self, samples: &'a [Sample<'t>]) -> impl Iterator<Item = &'a Sample<'t>> {
        let fits = |sample: &Sample<'_>| self.matchers.iter().all(|matcher| matcher.fits(sample.label(&matcher.label)));
        samples.iter().filter(move |sample| sample.name == self.name && fits(sample))
    }
}

impl Matcher {
    fn fits(&self, value: &str) -> bool {
        let is_so = match &self.wants {
            Wants::Text(text) => text == value,
            Wants::Pattern(pattern) => pattern.is_match(value),
        };
        is_so != self.negated
    }
}

impl FromStr for Selector {
    type Err = NoSelector;
    fn from_str(text: &str) -> Result<Self, NoSelector> {
        let refuse = |why: &str| NoSelector(why.to_owned());
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(NoSelector(format!("longer than {LONGEST} characters")));
        }
        let end = text.find('{').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let name = name.trim_end();
        let named = |name: &str, also: &[char]| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || also.contains(&c))
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || also.contains(&c))
        };
        if !named(name, &[':']) {
            return Err(refuse("a metric's name comes first: letters, digits, `_` and `:`"));
        }
        let mut matchers = Vec::new();
        let mut rest = match rest.strip_prefix('{') {
            Some(rest) => rest.trim_start(),
            None => "}",
        };
        while !rest.starts_with('}') {
            let end = rest.find(['=', '!']).ok_or_else(|| refuse("after a label comes `=`, `!=`, `=~` or `!~`"))?;
            let (label, after) = rest.split_at(end);
            let label = label.trim_end();
            if !named(label, &[]) {
                return Err(refuse("a label's name has letters, digits and `_`"));
            }
            let (negated, is_pattern, after) =
                operator(after).ok_or_else(|| refuse("after a label comes `=`, `!=`, `=~` or `!~`"))?;
            let value = after.trim_start().strip_prefix('"').and_then(quoted);
            let (value, after) = value.ok_or_else(|| refuse("a label's value stands in double quotation marks"))?;
            let wants = if is_pattern { Wants::Pattern(pattern(&value)?) } else { Wants::Text(value.into_owned()) };
            matchers.push(Matcher { label: label.to_owned(), negated, wants });
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if after.starts_with('}') => after,
                None => return Err(refuse("between two matchers stands a comma, and after the last one `}`")),
            };
        }
        if rest != "}" {
            return Err(refuse("a metric and its matchers are all: no functions, no ranges, no arithmetic"));
        }
        Ok(Self { text: text.to_owned(), name: name.to_owned(), matchers })
    }
}

/// Whether it is negated, and whether a pattern follows.
fn operator(text: &str) -> Option<(bool, bool, &str)> {
    [("=~", false, true), ("!~", true, true), ("!=", true, false), ("=", false, false)]
        .into_iter()
        .find_map(|(sign, negated, is_pattern)| Some((negated, is_pattern, text.strip_prefix(sign)?)))
}

/// A pattern fits the whole value, as in PromQL.
fn pattern(text: &str) -> Result<Regex, NoSelector> {
    let compile = |text: &str| RegexBuilder::new(text).dot_matches_new_line(true).size_limit(PATTERN_MAX).build();
    let refused = |error: regex_lite::Error| NoSelector(format!("not a pattern: {error}"));
    // By itself first: what closes the group it is put into is no pattern.
    compile(text).map_err(refused)?;
    compile(&format!("^(?:{text})$")).map_err(refused)
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl TryFrom<String> for Selector {
    type Error = NoSelector;
    fn try_from(text: String) -> Result<Self, NoSelector> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.text
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
