//! What the proxy serves after a restart.

use super::control::{Splits, Wishes};
use super::slots;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The state file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) pools: Wishes,
    #[serde(default)]
    pub(super) splits: Splits,
}

/// The file as it is, or as it was before pools could divide their requests: the pools alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Whole(State),
    PoolsAlone(Wishes),
}

impl State {
    /// Reads the file; one that is not there says nothing.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let Some(bytes) = slots::read(path)? else { return Ok(Self::default()) };
        Ok(match serde_json::from_slice(&bytes)? {
            Written::Whole(state) => state,
            Written::PoolsAlone(pools) => Self { pools, splits: Splits::new() },
        })
    }

    /// Writes the file, on a thread that may wait for the disk.
    pub(super) async fn write(&self, path: &Path) -> io::Result<()> {
        let (path, text) = (path.to_owned(), serde_json::to_vec_pretty(self)?);
        tokio::task::spawn_blocking(move || slots::write(&path, &text)).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_from_before_splits_is_still_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("builtin.json");
        assert_eq!(State::read(&path).unwrap(), State::default());
        for pool in ["shop", "pools"] {
            fs::write(&path, format!(r#"{{"{pool}": {{"127.0.0.1:80": {{"state": "ready", "weight": 100}}}}}}"#)).unwrap();
            let state = State::read(&path).unwrap();
            assert_eq!((state.pools.len(), state.pools.keys().next().unwrap().as_str()), (1, pool));
        }
        fs::write(&path, "{").unwrap();
        assert!(State::read(&path).is_err());
    }
}
