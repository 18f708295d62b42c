//! How many handshakes one address may ask for: nothing a stranger can ask costs this side more.
//!
//! Who breaks off and comes again without end waits for itself, and takes no processor from the others.

use super::credit::{Credit, Terms};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// A fleet behind one address comes back at once after a restart, and a script that asks again and again is no flood: a
/// handshake takes about a thousandth of a second of a processor.
const TERMS: Terms = Terms { burst: 100, rate: 50 };

/// Whoever would have to wait longer is sent away: it would not wait so long itself.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Beyond so many addresses those are forgotten that have not come lately.
const ADDRESSES: usize = 1_024;

/// The accounts of all addresses.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    sources: Mutex<BTreeMap<IpAddr, Credit>>,
}

impl Handshakes {
    /// Returns when this address may have one more: true. False, at once: too many of it wait already.
    pub(super) async fn turn(&self, address: IpAddr) -> bool {
        let paid_at = self.spend(address, Instant::now());
        if let Some(paid_at) = paid_at {
            sleep_until(paid_at).await;
        }
        paid_at.is_some()
    }

    fn spend(&self, address: IpAddr, now: Instant) -> Option<Instant> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= ADDRESSES {
            sources.retain(|_, credit| !credit.is_whole(now));
        }
        let credit = sources.entry(source(address)).or_insert_with(|| Credit::new(TERMS, now));
        // What time gave is counted before it is spent, or a long rest would pay for nothing.
        let waits = credit.paid_at(now).is_some_and(|paid_at| paid_at.saturating_duration_since(now) > WAIT_MAX);
        if waits {
            return None;
        }
        credit.spend(1);
        Some(credit.paid_at(now).unwrap_or(now))
    }
}

/// One customer's network is one source: whoever has an address of version 6 has billions of them.
pub(super) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_again_without_end_waits_longer_and_longer_and_nobody_else_does() {
        let (handshakes, now) = (Handshakes::default(), Instant::now());
        let (flooder, honest) = ("2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        for _ in 0..TERMS.burst {
            assert_eq!(handshakes.spend(flooder, now), Some(now), "so many come at once after a restart");
        }
        let waits = |address: IpAddr| handshakes.spend(address, now).map(|at| at - now);
        assert!(waits(flooder).is_some_and(|wait| wait <= Duration::from_millis(20)));
        let neighbour = "2001:db8::2".parse().unwrap();
        let longer = (0..TERMS.rate).filter_map(|_| waits(neighbour)).max().unwrap();
        assert!((1_000..1_100).contains(&longer.as_millis()), "{longer:?}");
        while let Some(wait) = waits(flooder) {
            assert!(wait <= WAIT_MAX + Duration::from_millis(20), "{wait:?}");
        }
        assert_eq!(waits(honest), Some(Duration::ZERO));
        let soon = now + Duration::from_millis(20);
        assert!(handshakes.spend(flooder, soon).is_some(), "who was sent away made it no worse");
        let rested = now + Duration::from_secs(60);
        assert_eq!(handshakes.spend(flooder, rested), Some(rested), "time pays");
    }

    #[test]
    fn addresses_that_have_rested_are_forgotten() {
        let (handshakes, now) = (Handshakes::default(), Instant::now());
        for nth in 0..u32::try_from(ADDRESSES).unwrap() {
            handshakes.spend(IpAddr::from(nth.to_be_bytes()), now);
        }
        handshakes.spend("192.0.2.1".parse().unwrap(), now + Duration::from_secs(1));
        assert_eq!(handshakes.sources.lock().unwrap().len(), 1);
    }
}
