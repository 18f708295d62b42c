//! Which certificates were used: whoever calls with one has it on disk, and needs none of those before.

use crate::store::{Store, StoreError};
use baton_proto::tls::Peer;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Serial numbers remembered, so that a certificate costs one write and no more; then they are written once again.
const REMEMBERED: usize = 65_536;

/// Notes the first use of every certificate.
#[derive(Clone)]
pub struct Used {
    store: Arc<dyn Store>,
    noted: Arc<Mutex<BTreeSet<String>>>,
}

impl Used {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, noted: BTreeSet<String>) -> Self {
        Self { store, noted: Arc::new(Mutex::new(noted)) }
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
        self.store.note_use(serial).await?;
        let mut noted = noted();
        if noted.len() >= REMEMBERED {
            noted.clear();
        }
        noted.insert(serial.clone());
        Ok(())
    }
}

impl std::fmt::Debug for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Used").finish_non_exhaustive()
    }
}
