//! What somebody sees who asks through the load balancer all the time while a rollout goes on.
//!
//! The balancers' own counters know nothing of requests that never reached them. Here every request counts, and so does the
//! time from one good answer to the next.

use crate::time::{Moment, millis};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Who is asked, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prober {
    pub target: Target,
    #[serde(with = "millis")]
    pub every: Duration,
}

/// A URL that can be asked: `http://shop.example.net:8080/healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    authority: String,
    path: String,
}

/// It is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of the form http://HOST:PORT/PATH")]
pub struct NoTarget;

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Good,
    /// What was seen instead of a good answer.
    Failed(String),
    /// It could not be asked from here, and why: nobody knows what the answer would have been.
    Unasked(String),
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probes {
    pub asked: u64,
    pub failed: u64,
    pub unasked: u64,
    /// The longest time without a good answer, while it was asked.
    #[serde(with = "millis")]
    pub longest_gap: Duration,
    /// How often whoever asks began anew: nothing was asked in between.
    pub restarts: u32,
    pub last_failure: Option<String>,
    pub last_trouble: Option<String>,
    /// The last good answer, or since when it is asked.
    good: Option<Moment>,
}

impl Probes {
    /// Takes what came back at a moment.
    pub fn take(&mut self, at: Moment, answer: Answer) {
        let good = *self.good.get_or_insert(at);
        match answer {
            Answer::Good => self.asked = self.asked.saturating_add(1),
            Answer::Failed(seen) => {
                self.asked = self.asked.saturating_add(1);
                self.failed = self.failed.saturating_add(1);
                self.last_failure = Some(seen);
                self.longest_gap = self.longest_gap.max(at.since(good));
                return;
            }
            Answer::Unasked(why) => {
                self.unasked = self.unasked.saturating_add(1);
                self.last_trouble = Some(why);
                // Up to here it was asked, and what comes next is another time.
                self.good = None;
                return;
            }
        }
        self.longest_gap = self.longest_gap.max(at.since(good));
        self.good = Some(at);
    }

    /// The coordinator was away, and nothing was asked meanwhile.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        if self != Self::default() {
            self.restarts = self.restarts.saturating_add(1);
            self.good = None;
        }
        self
    }
}

impl Target {
    /// Host and port: what to connect to, and the `Host` of the request.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host alone, and the port.
    #[must_use]
    pub fn host_and_port(&self) -> (&str, u16) {
        let (host, port) = split(&self.authority);
        (host.trim_start_matches('[').trim_end_matches(']'), port.and_then(|port| port.parse().ok()).unwrap_or(80))
    }

    /// With its query, beginning with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// A colon within brackets belongs to an address.
fn split(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

impl FromStr for Target {
    type Err = NoTarget;
    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let rest = text.strip_prefix("http://").ok_or(NoTarget)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = split(authority);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let named = match literal {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.len() <= 253 && host.bytes().all(plain),
        };
        let numbered = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        // Neither a line break nor a fragment: what is written is what is asked.
        let visible = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !(named && numbered && visible && text.len() <= 2048) {
            return Err(NoTarget);
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { authority: authority.to_owned(), path })
    }
}

impl TryFrom<String> for Target {
    type Error = NoTarget;
    fn try_from(text: String) -> Result<Self, NoTarget> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(answers: &[(u64, Answer)]) -> Probes {
        let mut probes = Probes::default();
        answers.iter().for_each(|(at, answer)| probes.take(Moment(*at), answer.clone()));
        probes
    }

    #[test]
    fn the_longest_gap_is_between_good_answers_and_lasts_while_there_is_none() {
        let failed = || Answer::Failed("connection refused".into());
        let probes =
            taken(&[(0, Answer::Good), (1000, Answer::Good), (2000, failed()), (3000, failed()), (3500, Answer::Good)]);
        assert_eq!((probes.asked, probes.failed, probes.longest_gap), (5, 2, Duration::from_millis(2500)));
        let probes = taken(&[(500, failed()), (60_500, failed())]);
        assert_eq!((probes.asked, probes.failed, probes.longest_gap), (2, 2, Duration::from_secs(60)));
    }

    #[test]
    fn what_could_not_be_asked_is_neither_good_nor_bad_and_no_gap_spans_it() {
        let unasked = || Answer::Unasked("no such host".into());
        let probes =
            taken(&[(0, unasked()), (9000, unasked()), (10_000, Answer::Good), (20_000, unasked()), (90_000, Answer::Good)]);
        assert_eq!((probes.asked, probes.failed, probes.unasked, probes.longest_gap), (2, 0, 3, Duration::ZERO));
        let again = probes.resumed();
        assert_eq!((again.asked, again.restarts), (2, 1));
        assert_eq!(Probes::default().resumed(), Probes::default());
    }

    #[test]
    fn urls_are_plain_and_come_back_as_they_were() {
        for (good, host, port, path) in [
            ("http://shop.example.net/healthz", "shop.example.net", 80, "/healthz"),
            ("http://10.0.0.9:8080", "10.0.0.9", 8080, "/"),
            ("http://[::1]:81/a?b=c", "::1", 81, "/a?b=c"),
            ("http://[::1]?x", "::1", 80, "/?x"),
        ] {
            let target: Target = good.parse().unwrap();
            assert_eq!((target.host_and_port(), target.path()), ((host, port), path), "{good}");
            assert_eq!(target.to_string().parse(), Ok(target), "{good}");
        }
        for bad in [
            "",
            "http://",
            "https://shop/",
            "shop/",
            "http:///x",
            "http://a b/",
            "http://user@shop/",
            "http://shop:0/",
            "http://shop:99999/",
            "http://shop/\r\nX: 1",
            "http://shop/#part",
            "http://[::1/",
            "http://[x]/",
            "http://:80/",
        ] {
            assert_eq!(bad.parse::<Target>(), Err(NoTarget), "{bad}");
        }
    }
}
