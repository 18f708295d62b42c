//! Releases that the fleet has forgotten, for those who ask about them.

use super::Api;
use crate::driver::Picture;
use crate::store::{About, Dated, Which};
use baton_proto::problem::to_status;
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::Status;

impl Api {
    /// The fleet as it is, with releases in it as if they had never been forgotten. Nothing of the fleet itself changes.
    pub(super) async fn recall(&self, which: Which) -> Result<Arc<Picture>, Status> {
        let picture = self.access.picture();
        let past = self.store.forgotten(&which).await.map_err(|error| to_status(error.problem()))?;
        if past.is_empty() {
            return Ok(picture);
        }
        let mut whole = Picture::clone(&picture);
        past.into_iter().for_each(|forgotten| whole.fleet.bring_back(forgotten));
        Ok(Arc::new(whole))
    }

    /// Rollouts as they are remembered.
    pub(super) async fn past(&self, about: &About) -> Result<Vec<Dated>, Status> {
        self.store.history(about).await.map_err(|error| to_status(error.problem()))
    }

    /// The same, with the releases that rollouts of long ago went to and came from.
    pub(super) async fn recall_of(&self, rollouts: &[Dated]) -> Result<Arc<Picture>, Status> {
        let picture = self.access.picture();
        let named = rollouts.iter().flat_map(|Dated { rollout, .. }| rollout.from.into_iter().chain([rollout.to]));
        let unknown: BTreeSet<_> = named.filter(|id| !picture.fleet.releases.contains_key(id)).collect();
        self.recall(Which::Ids(unknown)).await
    }
}
