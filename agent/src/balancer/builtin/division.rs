//! How a pool divides its requests: which side is next, and what came of it.

use super::control::Divided;
use baton_core::fleet::split::{Asking, PLACES, Side, TrafficSplit, Verdict, side_of};
use http::header::{self, HeaderMap};
use std::net::{IpAddr, SocketAddr};

/// A split in effect and its counters.
#[derive(Debug)]
pub(super) struct Division {
    divided: Divided,
    /// The places the trial side is owed: who counts instead of drawing lots is exact after every request.
    owed: u16,
}

/// Where a request belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sending {
    pub(super) side: Side,
    ruled: bool,
}

/// A request, as a split looks at it.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) client: SocketAddr,
}

impl Division {
    pub(super) const fn new(split: TrafficSplit) -> Self {
        Self { divided: Divided { split, stable: 0, trial: 0, ruled: 0 }, owed: PLACES / 2 }
    }

    pub(super) const fn split(&self) -> &TrafficSplit {
        &self.divided.split
    }

    pub(super) fn look(&self) -> Divided {
        self.divided.clone()
    }

    /// Says where a request belongs.
    pub(super) fn send(&mut self, request: &impl Asking) -> Sending {
        match side_of(&self.divided.split, request) {
            Verdict::Ruled => Sending { side: Side::Trial, ruled: true },
            Verdict::Placed(side) => Sending { side, ruled: false },
            Verdict::Counted => {
                let owed = self.owed + self.divided.split.share.places();
                let side = if owed >= PLACES { Side::Trial } else { Side::Stable };
                self.owed = owed % PLACES;
                Sending { side, ruled: false }
            }
        }
    }

    /// Counts a request where it went: that may be the other side, when nobody is in on its own.
    pub(super) fn count(&mut self, sending: Sending, went: Side) {
        match went {
            Side::Stable => self.divided.stable += 1,
            Side::Trial => {
                self.divided.trial += 1;
                self.divided.ruled += u64::from(sending.ruled);
            }
        }
    }
}

impl Asking for Head<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get_all(name).iter().next_back().map(|value| value.as_bytes().trim_ascii())
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        let pairs = self.headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        let value = |pair: &'_ [u8]| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            (pair.get(..at)?.trim_ascii() == name.as_bytes()).then_some(at + 1)
        };
        pairs.filter_map(|pair| pair.get(value(pair)?..)).map(<[u8]>::trim_ascii).next_back()
    }

    fn source(&self) -> IpAddr {
        self.client.ip().to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::fleet::split::Share;

    fn head(headers: &HeaderMap) -> Head<'_> {
        Head { headers, client: "127.0.0.1:9".parse().unwrap() }
    }

    #[test]
    fn a_share_is_exact_to_the_request() {
        let nothing = HeaderMap::new();
        for places in [0, 1, 33, 500, 2_500, 9_999, PLACES] {
            let mut division = Division::new(TrafficSplit { share: Share::of_places(places), ..TrafficSplit::default() });
            for _ in 0..20_000 {
                let sending = division.send(&head(&nothing));
                division.count(sending, sending.side);
            }
            assert_eq!((division.look().trial, division.look().ruled), (2 * u64::from(places), 0));
        }
    }

    #[test]
    fn the_last_cookie_of_its_name_counts() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", "uid=1; uidx=2;uid = 3".parse().unwrap());
        headers.append("cookie", "other=uid; uid=4; x".parse().unwrap());
        assert_eq!(head(&headers).cookie("uid"), Some(&b"4"[..]));
        assert_eq!(head(&headers).cookie("uidx"), Some(&b"2"[..]));
        assert_eq!(head(&headers).cookie("x"), None);
    }

    #[test]
    fn a_rule_is_counted_apart_from_the_share() {
        let mut headers = HeaderMap::new();
        headers.append("x-beta", "1".parse().unwrap());
        let rules = vec!["header X-Beta = 1".parse().unwrap()];
        let mut division = Division::new(TrafficSplit { rules, ..TrafficSplit::default() });
        let sending = division.send(&head(&headers));
        assert_eq!(sending.side, Side::Trial);
        division.count(sending, Side::Trial);
        division.count(sending, Side::Stable);
        let divided = division.look();
        assert_eq!((divided.stable, divided.trial, divided.ruled), (1, 1, 1));
    }
}
