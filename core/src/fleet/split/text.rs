//! Shares, user keys and rules as people write them, and as they travel and are stored.

use super::{InvalidSplit, Rule, RuleAt, Share, TrafficSplit, UserKey};
use std::fmt;
use std::str::FromStr;

/// The longest name and the longest value of a rule: what every balancer's configuration and command line can carry.
const WORD_MAX: usize = 128;

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{whole}%"),
            rest if rest % 10 == 0 => write!(f, "{whole}.{}%", rest / 10),
            rest => write!(f, "{whole}.{rest:02}%"),
        }
    }
}

impl FromStr for Share {
    type Err = InvalidSplit;
    fn from_str(text: &str) -> Result<Self, InvalidSplit> {
        let invalid = || InvalidSplit { text: shortened(text), expected: "a share such as `5%` or `0.25%`" };
        let number = text.trim().strip_suffix('%').ok_or_else(invalid)?.trim_end();
        let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(rest) || rest.len() > 2 {
            return Err(invalid());
        }
        let whole: u16 = whole.parse().map_err(|_| invalid())?;
        let rest: u16 = format!("{rest:0<2}").parse().map_err(|_| invalid())?;
        let places = whole.checked_mul(100).and_then(|whole| whole.checked_add(rest));
        places.and_then(|places| Self::try_from(places).ok()).ok_or_else(invalid)
    }
}

impl fmt::Display for TrafficSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.share.fmt(f)?;
        self.sticky.iter().try_for_each(|key| write!(f, " of users by {key}"))?;
        self.rules.iter().try_for_each(|rule| write!(f, ", {rule}"))
    }
}

impl FromStr for TrafficSplit {
    type Err = InvalidSplit;

    /// Reads what [`Display`](fmt::Display) wrote.
    fn from_str(text: &str) -> Result<Self, InvalidSplit> {
        let mut parts = text.split(", ");
        let first = parts.next().unwrap_or_default();
        let (share, sticky) = match first.split_once(" of users by ") {
            Some((share, key)) => (share, Some(key.parse()?)),
            None => (first, None),
        };
        Ok(Self { share: share.parse()?, sticky, rules: parts.map(str::parse).collect::<Result<_, _>>()? })
    }
}

const KEY: &str = "`cookie NAME`, `header NAME` or `source`";
const RULE: &str = "`header NAME = VALUE` or `cookie NAME = VALUE`";

impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Header(name) => write!(f, "header {name}"),
            Self::Source => f.write_str("source"),
        }
    }
}

impl FromStr for UserKey {
    type Err = InvalidSplit;
    fn from_str(text: &str) -> Result<Self, InvalidSplit> {
        let invalid = || InvalidSplit { text: shortened(text), expected: KEY };
        let mut words = text.split_ascii_whitespace();
        let key = match (words.next(), words.next(), words.next()) {
            (Some("source"), None, None) => Self::Source,
            (Some("cookie"), Some(name), None) => Self::Cookie(token(name).ok_or_else(invalid)?),
            (Some("header"), Some(name), None) => Self::Header(token(name).ok_or_else(invalid)?),
            _ => return Err(invalid()),
        };
        Ok(key)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} = {}", self.at, self.name, self.value)
    }
}

impl fmt::Display for RuleAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Cookie => "cookie",
        })
    }
}

impl FromStr for Rule {
    type Err = InvalidSplit;
    fn from_str(text: &str) -> Result<Self, InvalidSplit> {
        let invalid = || InvalidSplit { text: shortened(text), expected: RULE };
        let (left, value) = text.split_once('=').ok_or_else(invalid)?;
        let mut words = left.split_ascii_whitespace();
        let (at, name) = match (words.next(), words.next(), words.next()) {
            (Some("header"), Some(name), None) => (RuleAt::Header, name),
            (Some("cookie"), Some(name), None) => (RuleAt::Cookie, name),
            _ => return Err(invalid()),
        };
        // Spaces, quotes and separators would mean something else in some balancer's configuration, or in a cookie.
        let value = value.trim();
        let plain = |c: char| c.is_ascii_graphic() && !"\"'\\;,#{}$".contains(c);
        if value.is_empty() || value.len() > WORD_MAX || !value.chars().all(plain) {
            return Err(invalid());
        }
        Ok(Self { at, name: token(name).ok_or_else(invalid)?, value: value.to_owned() })
    }
}

/// A name that can be a header's or a cookie's in every balancer's configuration.
fn token(name: &str) -> Option<String> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    (plain && !name.is_empty() && name.len() <= WORD_MAX).then(|| name.to_owned())
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

macro_rules! as_text {
    ($kind:ident) => {
        impl TryFrom<String> for $kind {
            type Error = InvalidSplit;
            fn try_from(text: String) -> Result<Self, InvalidSplit> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(value: $kind) -> String {
                value.to_string()
            }
        }
    };
}

as_text!(UserKey);
as_text!(Rule);
