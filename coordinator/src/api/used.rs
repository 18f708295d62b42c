//! Which certificates were used: whoever calls with one has it on disk, and needs none of those before.

use crate::identity::authority::Authority;
use crate::identity::rotation::Authorities;
use crate::store::certificate::Certificate;
use crate::store::{Store, StoreError, WallTime};
use baton_proto::tls::Peer;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Serial numbers remembered, so that a certificate costs one write and no more; then they are written once again.
const REMEMBERED: usize = 65_536;

/// Notes the first use of every certificate.
#[derive(Clone)]
pub struct Used {
    store: Arc<dyn Store>,
    authorities: watch::Receiver<Arc<Authorities>>,
    noted: Arc<Mutex<BTreeSet<String>>>,
}

impl Used {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, authorities: watch::Receiver<Arc<Authorities>>, noted: BTreeSet<String>) -> Self {
        Self { store, authorities, noted: Arc::new(Mutex::new(noted)) }
    }

    /// Notes that a peer came with its certificate.
    ///
    /// # Errors
    /// Those of the store; the next call tries again.
    pub async fn note(&self, peer: &Peer) -> Result<(), StoreError> {
        let Some(serial) = &peer.serial else { return Ok(()) };
        let noted = || self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted().contains(serial) {
            return Ok(());
        }
        self.store.note_use(&self.shown(peer, serial)).await?;
        let mut noted = noted();
        if noted.len() >= REMEMBERED {
            noted.clear();
        }
        noted.insert(serial.clone());
        Ok(())
    }

    /// A peer's certificate, as the store would know it.
    fn shown(&self, peer: &Peer, serial: &str) -> Certificate {
        let signed = |it: &&Authority| it.facts().is_ok_and(|facts| facts.name_der == peer.issuer);
        let authority = self.authorities.borrow().believed().find(signed).map(Authority::fingerprint);
        Certificate {
            serial: serial.to_owned(),
            identity: peer.identity.to_string(),
            authority: authority.unwrap_or_default(),
            issued: WallTime(peer.valid.0),
            expires: WallTime(peer.valid.1),
            revoked: false,
            used: true,
        }
    }
}

impl std::fmt::Debug for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Used").finish_non_exhaustive()
    }
}
