//! How large an artifact may be, in every direction an archive can grow.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Limits of one artifact. Each has a test that reaches it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Bounds {
    /// Files, folders and links.
    pub entries: usize,
    /// Folders above an entry.
    pub depth: usize,
    /// Bytes of a whole path.
    pub path: usize,
    /// Bytes of all files together.
    pub total: u64,
    /// Unpacked bytes for each byte of the archive…
    pub ratio: u64,
    /// …once this many are unpacked: small archives may be very regular.
    pub ratio_from: u64,
    /// Bytes of one extended header: names and times need a few hundred.
    pub header: u64,
    /// Logarithm of the decompressor's window, which is its memory: what `zstd` itself unpacks without being asked.
    pub window_log: u32,
    /// For unpacking it all.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: 200_000,
            depth: 32,
            path: 1024,
            total: 8 << 30,
            ratio: 200,
            ratio_from: 64 << 20,
            header: 16 << 10,
            window_log: 27,
            time: Duration::from_secs(600),
        }
    }
}
