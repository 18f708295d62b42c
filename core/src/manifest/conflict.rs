//! What the fleet has against a value of the manifest, shown at the line of that value.

use super::Diagnostic;
use super::reader::{Finding, diagnostic};
use super::secret;
use super::source::Source;
use crate::problem::Problem;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys each of these problems can be about, the likeliest first.
const ABOUT: &[(u16, &[&str])] = &[
    (443, &["balancer.on"]),
    (445, &["balancer.pool", "balancer.on"]),
    (703, &["hosts", "balancer.on"]),
    (704, &["run.ports", "run.listen"]),
    // A pool that is not named has the service's name.
    (710, &["balancer.pool", "service"]),
];

/// The problem as a finding at its line; None: it is not about a value of the manifest.
#[must_use]
pub fn at_its_line(path: &str, text: &str, problem: &Problem) -> Option<Diagnostic> {
    let (_, keys) = ABOUT.iter().find(|(code, _)| *code == problem.code.0)?;
    let root = DeTable::parse(text).ok()?;
    let values: Vec<&Spanned<DeValue<'_>>> = keys.iter().filter_map(|key| value(root.get_ref(), key)).collect();
    let named = values.iter().find_map(|value| named(value, &problem.what));
    let span = named.or_else(|| values.first().map(|value| value.span()))?;
    let label: Vec<String> = problem.seen.iter().map(|(label, seen)| format!("{label}: {seen}")).collect();
    let mut finding = Finding::error(problem.code, span, &problem.what).label(label.join("; "));
    if let Some(help) = &problem.help {
        finding = finding.help(help);
    }
    let mut source = Source::new(path, text);
    source.masked = secret::ranges(root.get_ref());
    Some(diagnostic(&source, finding))
}

fn value<'t, 's>(root: &'t DeTable<'s>, path: &str) -> Option<&'t Spanned<DeValue<'s>>> {
    match path.split_once('.') {
        Some((table, key)) => root.get(table)?.get_ref().as_table()?.get(key),
        None => root.get(path),
    }
}

/// The place of a value, or of the item of a list, that the sentence names.
fn named(value: &Spanned<DeValue<'_>>, what: &str) -> Option<Range<usize>> {
    match value.get_ref() {
        DeValue::Array(items) => items.iter().find_map(|item| named(item, what)),
        DeValue::String(text) => says(what, text).then(|| value.span()),
        DeValue::Integer(number) => says(what, number.as_str()).then(|| value.span()),
        _ => None,
    }
}

/// Whether a sentence has this very word in it, or the port an address ends in.
fn says(what: &str, word: &str) -> bool {
    let port = word.rsplit_once(':').map(|(_, port)| port);
    let words = what.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '`'));
    words.into_iter().any(|said| !said.is_empty() && (said == word || Some(said) == port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    const TEXT: &str = r#"service = "shop"
hosts = ["web1", "web9"]

[run]
command = "bin/shop {port}"
ports = [8101, 8102]
listen = ["0.0.0.0:80"]

[balancer]
on = ["lb1", "lb2"]
"#;

    #[track_caller]
    fn check(code: u16, what: &str, expect: Option<(usize, &str)>) {
        let problem = Problem::new(Code(code), what).saw("joined", "web1").help("do this");
        let found = at_its_line("baton.toml", TEXT, &problem);
        let place = found.as_ref().map(|it| (it.line, &it.source_line[it.column - 1..it.column - 1 + it.length]));
        assert_eq!(place, expect, "{found:?}");
        if let Some(found) = found {
            assert_eq!((found.label.as_str(), found.help.as_deref()), ("joined: web1", Some("do this")));
        }
    }

    #[test]
    fn a_conflict_stands_at_the_value_it_is_about() {
        check(703, "web9 never joined", Some((2, "\"web9\"")));
        check(703, "lb2 was removed; lb7 never joined", Some((10, "\"lb2\"")));
        check(704, "port 8102 on web1, web9 belongs to blog", Some((6, "8102")));
        check(704, "port 80 on web1 belongs to blog", Some((7, "\"0.0.0.0:80\"")));
        check(710, "the pool shop belongs to blog", Some((1, "\"shop\"")));
        check(443, "[balancer] on names lb2, and its agent drives no balancer", Some((10, "\"lb2\"")));
        check(445, "the balancer on lb1 has no pool `shop`", Some((10, "\"lb1\"")));
        check(701, "rollout r-1 of shop is under way", None);
    }
}
