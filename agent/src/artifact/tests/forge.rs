//! Makes archives, also those no honest program makes.

use std::io::Write;
use tar::{EntryType, Header};

/// An archive under construction, block by block.
#[derive(Default)]
pub(super) struct Forge(Vec<u8>);

impl Forge {
    pub(super) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, 0o644, content)
    }

    pub(super) fn program(self, name: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, 0o755, content)
    }

    pub(super) fn folder(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, 0o755, b"")
    }

    pub(super) fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        self.with(kind, name, 0o777, b"", |header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    pub(super) fn entry(self, kind: EntryType, name: &str, mode: u32, content: &[u8]) -> Self {
        self.with(kind, name, mode, content, |_| {})
    }

    /// An entry whose header is changed before its sum is made.
    pub(super) fn with(
        mut self,
        kind: EntryType,
        name: &str,
        mode: u32,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.content(content)
    }

    /// An extended header for the entry after it.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let records: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.entry(EntryType::XHeader, "PaxHeader", 0o644, &records)
    }

    pub(super) fn global(self, key: &str, value: &str) -> Self {
        self.entry(EntryType::XGlobalHeader, "pax_global_header", 0o644, &record(key, value.as_bytes()))
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Ends the archive and compresses it.
    pub(super) fn done(self) -> Vec<u8> {
        compress(&self.ended())
    }

    /// Ends the archive.
    pub(super) fn ended(self) -> Vec<u8> {
        self.bytes(&[0; 1024]).0
    }

    /// The blocks as they are.
    pub(super) fn unended(self) -> Vec<u8> {
        compress(&self.0)
    }
}

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Compressed as `zstd FILE` does: how much it is goes first.
pub(super) fn compress_sized(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.set_pledged_src_size(Some(bytes.len() as u64)).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `LENGTH KEY=VALUE\n`, whose length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// Bytes that do not compress, the same each time.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}
