//! Where a package is gathered: the fetch is the one that releases have, what it places is a file.

use super::record::Folder;
use crate::artifact::Placing;
use crate::durable;
use crate::runtime::Answer;
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

/// One package at a time.
#[derive(Debug)]
pub(super) struct Packages(pub(super) Folder);

impl Placing for Packages {
    fn held(&self) -> BTreeSet<Digest> {
        BTreeSet::new()
    }

    fn path(&self, _: &Digest) -> PathBuf {
        self.0.next()
    }

    fn gathering(&self, digest: &Digest) -> PathBuf {
        self.0.0.join(format!("{digest}.part"))
    }

    fn damage(&self, _: &Digest) -> Option<String> {
        None
    }

    fn place(&self, digest: Digest) -> Answer<'_, Result<(), Problem>> {
        Box::pin(async move {
            let placed = fs::rename(self.gathering(&digest), self.0.next());
            placed.and_then(|()| durable::sync_folder(&self.0.next())).map_err(|error| {
                Problem::new(Code(604), format!("the package cannot be kept: {}", crate::text::io_error(&error)))
            })
        })
    }

    fn discard(&self, digest: &Digest) {
        let _ = fs::remove_file(self.gathering(digest));
    }

    fn collect(&self, _: BTreeSet<Digest>) -> Answer<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
