//! How nginx divides a pool's requests: one variable a pool, `$baton_POOL`, that says which of two upstreams a request goes to.
//!
//! `proxy_pass http://$baton_shop` in nginx.conf is all it takes; the maps behind the variable stand in Baton's own file, so a
//! split is there after a restart as the members are. Two things are nginx's own: a user's place comes from `split_clients`,
//! another hash than the other balancers', so a user who is on trial here may not be elsewhere; and its maps ignore case, so
//! a rule's value is a regular expression.

use baton_core::fleet::ability::Feature;
use baton_core::fleet::split::{Rule, RuleAt, Share, Side, TrafficSplit, UserKey};
use baton_core::name::PoolName;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Which sides have somebody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) stable: bool,
    pub(super) trial: bool,
}

/// What follows a pool's name in the upstream of its members on trial. No pool's name ends so.
const TRIAL: &str = "~trial";

/// Longer ones do not fit into nginx's table of variables as it is by default, and it would not start.
const WORD_MAX: usize = 32;

/// The upstream of a pool's members on trial.
pub(super) fn trial(pool: &PoolName) -> String {
    format!("{pool}{TRIAL}")
}

/// The pool and the side an upstream is for.
pub(super) fn of_upstream(name: &str) -> Option<(PoolName, Side)> {
    match name.strip_suffix(TRIAL) {
        Some(pool) => Some((pool.parse().ok()?, Side::Trial)),
        None => Some((name.parse().ok()?, Side::Stable)),
    }
}

/// The variable that requests of a pool are sent by, without its `$`; None where nginx cannot have one of that name.
pub(super) fn variable(pool: &PoolName) -> Option<String> {
    word(pool).map(|word| format!("baton_{word}"))
}

/// What nginx cannot see however it is prepared: by default it drops headers with `_` in their names, and it cannot tell
/// them from those with `-`.
pub(super) fn unseen(split: &TrafficSplit) -> BTreeSet<Feature> {
    let rules = split.rules.iter().filter(|rule| rule.at == RuleAt::Header && rule.name.contains('_'));
    let sticky = split.sticky.iter().filter(|key| matches!(key, UserKey::Header(name) if name.contains('_')));
    rules.map(|rule| Feature::rule(rule.at, &rule.name)).chain(sticky.map(Feature::sticky)).collect()
}

/// A split as nginx says it back, and as it stands in the file: `POOL SPLIT`, the split in its own words.
pub(super) fn of_answer(text: &str) -> Option<(PoolName, TrafficSplit)> {
    let (pool, split) = text.split_once(' ')?;
    Some((pool.parse().ok()?, split.parse().ok()?))
}

/// The maps of a pool. A side where nobody is in is served by the other.
pub(super) fn render(pool: &PoolName, split: Option<&TrafficSplit>, served: Served) -> String {
    let Some((name, variable)) = word(pool).zip(variable(pool)) else { return String::new() };
    let Some(split) = split.filter(|_| served.stable && served.trial) else {
        let only = if served.trial && !served.stable { trial(pool) } else { pool.to_string() };
        return format!("map \"\" ${variable} {{\n    default {only};\n}}\n");
    };
    let mut text = placed(split, &name);
    let mut rules = String::new();
    for (index, rule) in split.rules.iter().enumerate() {
        let (seen, pattern) = met(rule);
        let _ = write!(rules, "$batonrule{index}_{name}");
        let _ =
            writeln!(text, "map \"{seen}\" $batonrule{index}_{name} {{\n    default \"\";\n    \"~{pattern}\" ruled;\n}}");
    }
    let side = format!("$batonplaced_{name}");
    let _ = writeln!(text, "map \"{rules}{side}\" ${variable} {{\n    default {};\n    stable {pool};\n}}", trial(pool));
    text
}

/// `$batonplaced_POOL`: the side by share alone.
fn placed(split: &TrafficSplit, name: &str) -> String {
    let side = match split.share {
        Share::NONE => Some("stable"),
        Share::ALL => Some("trial"),
        _ => None,
    };
    if let Some(side) = side {
        return format!("map \"\" $batonplaced_{name} {{\n    default {side};\n}}\n");
    }
    let mut text = String::new();
    let user = match &split.sticky {
        None => "$request_id".to_owned(),
        Some(UserKey::Source) => "$binary_remote_addr".to_owned(),
        Some(UserKey::Header(header)) => header_variable(header),
        Some(UserKey::Cookie(cookie)) => {
            let user = format!("$batonuser_{name}");
            let pattern = format!("^(?:.*;)?\\s*{cookie}\\s*=\\s*(?<batonfound>[^;]*?)\\s*(?:;|$)");
            let _ = writeln!(text, "map $http_cookie {user} {{\n    default \"\";\n    \"~{pattern}\" $batonfound;\n}}");
            user
        }
    };
    let lot = format!("$batonlot_{name}");
    let _ = writeln!(text, "split_clients \"{user}\" {lot} {{\n    {} trial;\n    * stable;\n}}", split.share);
    // Nobody is stable until the share is everything.
    let _ = writeln!(text, "map \"{user}\" $batonplaced_{name} {{\n    default {lot};\n    \"\" stable;\n}}");
    text
}

/// Where a rule looks, and what it has to find there. Of a cookie that stands more than once, the last counts.
fn met(rule: &Rule) -> (String, String) {
    let value = literal(&rule.value);
    match rule.at {
        RuleAt::Header => (header_variable(&rule.name), format!("^{value}$")),
        RuleAt::Cookie => {
            let name = &rule.name;
            let last = format!("(?:;(?!(?:.*;)?\\s*{name}\\s*=).*)?");
            ("$http_cookie".to_owned(), format!("^(?:.*;)?\\s*{name}\\s*=\\s*{value}\\s*{last}$"))
        }
    }
}

fn header_variable(name: &str) -> String {
    format!("$http_{}", name.to_ascii_lowercase().replace('-', "_"))
}

/// A pattern that only the text itself meets.
fn literal(text: &str) -> String {
    let mut pattern = String::new();
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// A pool's name as part of a variable's: two pools never have the same, though nginx knows no case, no `-` and no `.`.
fn word(pool: &PoolName) -> Option<String> {
    let mut word = String::new();
    for c in pool.as_str().chars() {
        match c {
            '-' => word.push_str("__"),
            '_' => word.push_str("_u"),
            '.' => word.push_str("_d"),
            c if c.is_ascii_uppercase() => word.extend(['_', 'c', c.to_ascii_lowercase()]),
            c => word.push(c),
        }
    }
    (word.len() <= WORD_MAX).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(share: &str) -> TrafficSplit {
        TrafficSplit { share: share.parse().unwrap(), ..TrafficSplit::default() }
    }

    #[test]
    fn a_split_is_read_as_it_is_said() {
        let whole = TrafficSplit {
            sticky: Some("header X-User".parse().unwrap()),
            rules: vec!["header X-Beta = 1".parse().unwrap(), "cookie cohort = staff".parse().unwrap()],
            ..split("0.01%")
        };
        for split in [whole, split("5%")] {
            assert_eq!(of_answer(&format!("shop {split}")), Some(("shop".parse().unwrap(), split)));
        }
        for text in ["shop", "shop 5", "shop 5%, path / = 1", "shop 5% of users by query uid"] {
            assert_eq!(of_answer(text), None, "{text}");
        }
    }

    #[test]
    fn a_side_without_members_is_the_other_one() {
        let pool: PoolName = "web-shop".parse().unwrap();
        let only = |split, stable, trial| render(&pool, split, Served { stable, trial });
        let to = |upstream: &str| format!("map \"\" $baton_web__shop {{\n    default {upstream};\n}}\n");
        let five = split("5%");
        assert_eq!(only(Some(&five), true, false), to("web-shop"));
        assert_eq!(only(Some(&five), false, true), to("web-shop~trial"));
        assert_eq!(only(None, true, true), to("web-shop"));
        assert_eq!(only(None, false, true), to("web-shop~trial"));
        assert!(
            only(Some(&five), true, true).contains("split_clients \"$request_id\" $batonlot_web__shop {\n    5% trial;")
        );
    }

    #[test]
    fn a_rule_is_met_by_its_value_alone() {
        let rule: Rule = "header X-Beta = a.b*".parse().unwrap();
        assert_eq!(met(&rule), ("$http_x_beta".to_owned(), "^a\\.b\\*$".to_owned()));
    }

    #[test]
    fn no_two_pools_have_one_variable() {
        let names = ["a-b", "a_b", "a.b", "A-b", "ca-b", "a--b", "a-u-b", "aub"];
        let variables: BTreeSet<_> = names.iter().map(|name| variable(&name.parse().unwrap()).unwrap()).collect();
        assert_eq!(variables.len(), names.len());
        let long: PoolName = "a".repeat(WORD_MAX + 1).parse().unwrap();
        assert_eq!((variable(&long), render(&long, None, Served { stable: true, trial: false })), (None, String::new()));
    }

    #[test]
    fn a_header_that_nginx_drops_is_one_it_lacks() {
        let rules = ["header X_Beta = 1", "header X-Beta = 1", "cookie a_b = 1"].map(|rule| rule.parse().unwrap());
        let split = TrafficSplit { rules: rules.into(), ..split("5%") };
        assert_eq!(unseen(&split), [Feature::rule(RuleAt::Header, "X_Beta")].into());
    }
}
