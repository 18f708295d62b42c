//! How many connections one peer may have open: each takes some tens of kilobytes for as long as it lasts.

use super::handshakes::source;
use super::peer::Peer;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much of it there may be.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// With one certificate: an agent has one connection, a pipeline one for each of its jobs.
    certificate: usize,
    /// Of those without a certificate, from one address: a hundred machines behind one may join at once.
    address: usize,
    /// Of all those without a certificate.
    strangers: usize,
}

const LIMITS: Limits = Limits { certificate: 64, address: 128, strangers: 256 };

/// Whose connections are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Certificate(String),
    Address(IpAddr),
}

/// All open connections, by who has them.
#[derive(Debug)]
pub(super) struct Open {
    limits: Limits,
    counts: Mutex<BTreeMap<Holder, usize>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    open: Arc<Open>,
    holder: Holder,
}

impl Open {
    pub(super) fn new() -> Arc<Self> {
        Self::within(LIMITS)
    }

    fn within(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// One more of this peer. None: it has as many as it may.
    pub(super) fn one_more(self: &Arc<Self>, peer: &Peer) -> Option<Held> {
        let address = || peer.remote.map_or(Ipv4Addr::UNSPECIFIED.into(), |remote| source(remote.ip()));
        let holder = peer.serial.clone().map_or_else(|| Holder::Address(address()), Holder::Certificate);
        let mut counts = self.counts();
        let has = counts.get(&holder).copied().unwrap_or_default();
        let room = match &holder {
            Holder::Certificate(_) => has < self.limits.certificate,
            Holder::Address(_) => {
                let strangers = counts.iter().filter(|(holder, _)| matches!(holder, Holder::Address(_)));
                has < self.limits.address && strangers.map(|(_, count)| count).sum::<usize>() < self.limits.strangers
            }
        };
        if !room {
            return None;
        }
        counts.insert(holder.clone(), has + 1);
        drop(counts);
        Some(Held { open: Arc::clone(self), holder })
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Holder, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.open.counts();
        if let Some(count) = counts.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn peer(serial: Option<&str>, last: u8) -> Peer {
        let remote = (Ipv4Addr::new(192, 0, 2, last), 4000).into();
        Peer { serial: serial.map(str::to_owned), ..Peer::bare(Identity::Anonymous, Some(remote)) }
    }

    #[test]
    fn who_has_as_many_as_it_may_gets_no_more_until_one_ends_and_nobody_else_is_concerned() {
        let open = Open::within(Limits { certificate: 2, address: 2, strangers: 3 });
        for (mine, other) in [(peer(Some("01"), 1), peer(Some("02"), 1)), (peer(None, 1), peer(None, 2))] {
            let mut held = vec![open.one_more(&mine).unwrap(), open.one_more(&mine).unwrap()];
            assert!(open.one_more(&mine).is_none(), "{mine:?}");
            held.push(open.one_more(&other).unwrap());
            held.remove(0);
            assert!(open.one_more(&mine).is_some(), "{mine:?}");
        }
        assert!(open.counts().is_empty());
    }

    #[test]
    fn strangers_together_have_a_limit_that_concerns_nobody_with_a_certificate() {
        let open = Open::within(Limits { certificate: 2, address: 2, strangers: 3 });
        let _held: Vec<_> = (1..=3).map(|last| open.one_more(&peer(None, last)).unwrap()).collect();
        assert!(open.one_more(&peer(None, 4)).is_none());
        assert!(open.one_more(&peer(Some("01"), 4)).is_some());
    }
}
