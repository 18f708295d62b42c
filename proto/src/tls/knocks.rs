//! How often one address may knock: whoever comes faster is sent away at the door, before anything is done for it, and then not
//! heard for a while.

use super::credit::{Credit, Terms};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::time::Instant;

/// A fleet behind one address that comes back at once is let in; thousands a second, for ever, would take a processor with
/// nothing but coming and going. More than handshakes a second are of no use to anybody.
const TERMS: Terms = Terms { burst: 2_000, rate: 100 };

/// Beyond so many addresses those are forgotten that have not come lately.
const ADDRESSES: usize = 1_024;

/// The accounts of all addresses.
#[derive(Debug, Default)]
pub(super) struct Knocks(BTreeMap<IpAddr, Credit>);

impl Knocks {
    /// Whether this source is heard now.
    pub(super) fn hears(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.0.len() >= ADDRESSES {
            self.0.retain(|_, credit| !credit.is_whole(now));
        }
        let credit = self.0.entry(source).or_insert_with(|| Credit::new(TERMS, now));
        // Who is sent away pays nothing: it is heard again as soon as there is credit.
        if credit.paid_at(now).is_some() {
            return false;
        }
        credit.spend(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_knocks_without_end_is_sent_away_and_heard_again_and_nobody_else_is_concerned() {
        let (mut knocks, now) = (Knocks::default(), Instant::now());
        let (flooder, honest) = ("192.0.2.9".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let heard = (0..10 * TERMS.burst).filter(|_| knocks.hears(flooder, now)).count() as u64;
        assert!((TERMS.burst..=TERMS.burst + 1).contains(&heard), "{heard}");
        assert!(knocks.hears(honest, now));
        let later = now + Duration::from_secs(1);
        let heard = (0..10 * TERMS.burst).filter(|_| knocks.hears(flooder, later)).count() as u64;
        assert!((TERMS.rate - 1..=TERMS.rate + 1).contains(&heard), "{heard}");
    }
}
