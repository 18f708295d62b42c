//! `[rollout] match` and `sticky`: whose requests the new release gets first.

use super::codes;
use super::keys::Kind;
use super::reader::{Finding, Reader, quoted};
use crate::fleet::split::{InvalidSplit, Rule, UserKey};
use crate::strategy::{Users, Wave};

/// More rules than this are a table for the application, not for a balancer.
const RULES_MAX: usize = 16;

/// Whose requests; None: reported. Without a balancer there is nobody to divide them.
pub(super) fn users(reader: &mut Reader<'_, '_>) -> Option<Users> {
    let (rules, sticky) = (rules(reader), sticky(reader));
    let users = Users { sticky: sticky?, rules: rules? };
    if users != Users::default() && !reader.has_table("balancer") {
        let place = ["rollout.match", "rollout.sticky"].into_iter().find(|path| reader.value(path).is_some());
        let finding = Finding::error(codes::CONTRADICTION, reader.span(place?), "no balancer divides the requests");
        reader.report(finding.label("needs [balancer]").help("add [balancer] with `on`, or leave this out"));
        return None;
    }
    Some(users)
}

/// Whether the waves leave anything for these words to say. Reported, where they do not.
pub(super) fn fit(reader: &mut Reader<'_, '_>, users: &Users, waves: &[Wave], hosts: usize) -> bool {
    let takes_all = waves.first().is_some_and(|wave| wave.share.is_none() && wave.hosts.of(hosts) >= hosts);
    let shares = waves.iter().any(|wave| wave.share.is_some());
    let (place, what, label, help) = match () {
        () if !users.rules.is_empty() && takes_all => (
            "rollout.match",
            "in the first wave these requests alone go to the new release, and the first wave is every host",
            "nobody would be left for the others",
            "give rollout.waves, or the steps of a canary, a first one that leaves hosts; or leave match out",
        ),
        () if users.sticky.is_some() && users.rules.is_empty() && !shares => (
            "rollout.sticky",
            "nothing divides requests between the releases, so no user is kept on a side",
            "neither shares of traffic nor match",
            "use strategy = \"canary\" with steps such as \"5% for 5m\", or rollout.match; or leave sticky out",
        ),
        () => return true,
    };
    reader.report(Finding::error(codes::CONTRADICTION, reader.span(place), what).label(label).help(help));
    false
}

/// What makes a user; inner None: nothing does.
fn sticky(reader: &mut Reader<'_, '_>) -> Option<Option<UserKey>> {
    const PLACE: &str = "rollout.sticky";
    if reader.value(PLACE).is_none() {
        return Some(None);
    }
    let text = reader.text(PLACE)?;
    match text.get_ref().parse() {
        Ok(key) => Some(Some(key)),
        Err(InvalidSplit { expected, .. }) => {
            let what = format!("{} makes no user", quoted(text.get_ref()));
            reader.report(Finding::error(codes::BAD_RULE, text.span(), what).label(format!("not {expected}")));
            None
        }
    }
}

fn rules(reader: &mut Reader<'_, '_>) -> Option<Vec<Rule>> {
    const PLACE: &str = "rollout.match";
    if reader.value(PLACE).is_none() {
        return Some(Vec::new());
    }
    let list = reader.list(PLACE)?;
    let mut rules = Vec::new();
    for item in list.get_ref() {
        let Some(text) = item.get_ref().as_str() else {
            reader.wrong_type(PLACE, Kind::Rules, item);
            return None;
        };
        let rule: Rule = match text.parse() {
            Ok(rule) => rule,
            Err(InvalidSplit { expected, .. }) => {
                let what = format!("{} is no rule", quoted(text));
                let finding = Finding::error(codes::BAD_RULE, item.span(), what).label(format!("not {expected}"));
                reader.report(finding.help("values are visible ASCII without spaces, quotes, commas and semicolons"));
                return None;
            }
        };
        if rules.contains(&rule) {
            let what = format!("{} stands twice", quoted(text));
            reader.report(Finding::error(codes::DUPLICATE, item.span(), what).label("again"));
            return None;
        }
        rules.push(rule);
    }
    if rules.is_empty() || rules.len() > RULES_MAX {
        let what = format!("{} rules", rules.len());
        let finding = Finding::error(codes::BAD_RULE, list.span(), what).label(format!("1 to {RULES_MAX} of them"));
        reader.report(finding);
        return None;
    }
    let words: Vec<String> = rules.iter().map(|rule| quoted(&rule.to_string())).collect();
    reader.note(PLACE, format!("[{}]", words.join(", ")), Some(list.span()));
    Some(rules)
}
