//! The sign that an agent has a session: what an upgrade waits for, in a file that no reboot outlives.

use crate::durable;
use baton_core::name::PackageVersion;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where it is. The folder is made by whoever needs it first: an upgrade must not depend on a unit's settings.
const MARK: &str = "/run/baton-agent/session";

/// The file that names the package of the agent whose hello was accepted last.
#[derive(Debug, Clone)]
pub(super) struct Mark(pub(super) PathBuf);

impl Default for Mark {
    fn default() -> Self {
        Self(MARK.into())
    }
}

impl Mark {
    pub(super) fn set(&self, version: &PackageVersion) -> io::Result<()> {
        // As whoever lays secrets down there makes it: to be walked through, not to be looked around in.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(self.0.parent().unwrap_or(Path::new("/")))?;
        durable::replace_until_reboot(&self.0, version.as_str().as_bytes())
    }

    pub(super) fn forget(&self) -> io::Result<()> {
        durable::remove(&self.0)
    }

    pub(super) fn is_of(&self, version: &PackageVersion) -> bool {
        fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == version.as_str())
    }
}
