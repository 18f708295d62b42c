//! Durations, shares and lists of hosts.

use super::codes;
use super::keys::{self, Fallback, Kind};
use super::reader::{Finding, Reader, quoted};
use super::unknown;
use crate::name::HostName;
use crate::strategy::Amount;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeInteger, DeValue};

/// No wait in a rollout is longer: what takes a week is not a deployment, and every sum of waits stays far from overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl<'t, 's> Reader<'t, 's> {
    /// A duration of at least `least`, or the key's default. None: reported.
    pub(super) fn duration(&mut self, path: &'static str, least: Duration) -> Option<Duration> {
        let key = keys::find(path)?;
        let Some(value) = self.value(path) else {
            let Fallback::Value(default) = key.fallback else { return None };
            self.note(path, quoted(default), None);
            return humantime::parse_duration(default).ok();
        };
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(path, Kind::Duration, value);
            return None;
        };
        let bad = |label: String| {
            Finding::error(codes::BAD_DURATION, value.span(), format!("`{path}` cannot be {}", quoted(text))).label(label)
        };
        match humantime::parse_duration(text.trim()) {
            Err(_) => {
                self.report(bad("not a duration".into()).help("write a number and a unit: \"500ms\", \"30s\", \"5m\""));
            }
            Ok(duration) if duration > LONGEST => {
                self.report(bad("longer than 7 days".into()).help("at most \"7d\""));
            }
            Ok(duration) if duration < least => {
                let least = humantime::format_duration(least);
                self.report(bad(format!("shorter than {least}")).help(format!("at least \"{least}\"")));
            }
            Ok(duration) => {
                self.note(path, format!("{:?}", humantime::format_duration(duration).to_string()), Some(value.span()));
                return Some(duration);
            }
        }
        None
    }

    /// A duration, or what holds where the file has none. None: reported.
    pub(super) fn duration_or(&mut self, path: &'static str, absent: Duration) -> Option<Duration> {
        if self.value(path).is_some() {
            return self.duration(path, Duration::ZERO);
        }
        self.note(path, quoted(&humantime::format_duration(absent).to_string()), None);
        Some(absent)
    }

    /// A number or share of hosts. None: reported.
    pub(super) fn parse_amount(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Amount> {
        let amount = match value.get_ref() {
            DeValue::Integer(number) => integer(number).and_then(|number| u32::try_from(number).ok()).map(Amount::Hosts),
            DeValue::String(text) => parse_amount(text),
            _ => {
                self.wrong_type(path, Kind::Amount, value);
                return None;
            }
        };
        if amount.is_none() {
            let what = format!("{} is no number or share of hosts", self.raw(&value.span()));
            let finding = Finding::error(codes::BAD_AMOUNT, value.span(), what).label(format!("in `{path}`"));
            self.report(finding.help("write a number of hosts (1) or a share from \"0%\" to \"100%\""));
        }
        amount
    }

    /// The names in a list of hosts, in their order, with their places. None: absent, or reported.
    pub(super) fn hosts(&mut self, path: &'static str) -> Option<Vec<HostName>> {
        if unknown::single_host(self, path) {
            return None;
        }
        let list = self.list(path)?;
        if list.get_ref().is_empty() {
            let finding = Finding::error(codes::NO_HOSTS, list.span(), format!("`{path}` names no host"));
            self.report(finding.label("empty").help("name at least one: [\"web1\"]"));
            return None;
        }
        let mut names = Vec::new();
        let mut seen = BTreeSet::new();
        for item in list.get_ref() {
            let Some(text) = item.get_ref().as_str() else {
                let finding = Finding::error(codes::WRONG_TYPE, item.span(), format!("each host in `{path}` is a string"));
                self.report(finding.label(format!("this is of type {}", item.get_ref().type_str())));
                continue;
            };
            if !seen.insert(text) {
                self.duplicate(path, &quoted(text), item.span());
            } else if let Some(name) = self.parse_name::<HostName>(text, item.span()) {
                names.push(name);
            }
        }
        let words: Vec<String> = names.iter().map(|name| quoted(name.as_str())).collect();
        self.note(path, format!("[{}]", words.join(", ")), Some(list.span()));
        (names.len() == list.get_ref().len()).then_some(names)
    }

    pub(super) fn duplicate(&mut self, path: &str, shown: &str, span: Range<usize>) {
        let finding = Finding::error(codes::DUPLICATE, span, format!("{shown} stands twice in `{path}`"));
        self.report(finding.label("the second time"));
    }
}

/// An amount in the words of the manifest.
pub(super) fn shown(amount: Amount) -> String {
    match amount {
        Amount::Hosts(_) => amount.to_string(),
        Amount::Percent(_) => format!("\"{amount}\""),
    }
}

/// An integer, whatever base it was written in.
pub(super) fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn parse_amount(text: &str) -> Option<Amount> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
    match text.strip_suffix('%') {
        Some(share) => digits(share).and_then(|share| u8::try_from(share).ok()).filter(|s| *s <= 100).map(Amount::Percent),
        None => digits(text).map(Amount::Hosts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_in_the_table_of_keys_can_be_read() {
        for key in keys::KEYS {
            match (key.kind, key.fallback) {
                (Kind::Duration, Fallback::Value(default)) => assert!(humantime::parse_duration(default).is_ok(), "{key:?}"),
                (Kind::Amount | Kind::Waves, Fallback::Value(default)) => {
                    assert!(parse_amount(default).is_some(), "{key:?}");
                }
                (Kind::OneOf(choices), Fallback::Value(default)) => assert!(choices.contains(&default), "{key:?}"),
                (Kind::Flag, Fallback::Value(default)) => assert!(default.parse::<bool>().is_ok(), "{key:?}"),
                // Read by the smallest manifest.
                (Kind::Confidence | Kind::Tolerance | Kind::Regression, Fallback::Value(_)) => {}
                (_, Fallback::Value(_)) => panic!("nobody reads the default of {key:?}"),
                _ => {}
            }
        }
    }

    #[test]
    fn amounts_are_whole_numbers_or_shares_up_to_all() {
        assert_eq!(parse_amount("3"), Some(Amount::Hosts(3)));
        assert_eq!(parse_amount("25%"), Some(Amount::Percent(25)));
        for bad in ["", "%", "101%", "-1", "+1", "1.5", "2 %", "4294967296", "256%"] {
            assert_eq!(parse_amount(bad), None, "{bad}");
        }
    }
}
