//! Releases of the demo's service, good and bad.

use anyhow::Context as _;
use std::time::Duration;

/// How a version behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    pub start_delay: Duration,
    pub fault: Fault,
}

/// What is wrong with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    NeverListens,
    ListensElsewhere(u16),
    Answers(u16),
    /// Ready, and so many of a hundred requests fail.
    Fails(u8),
    /// Ready, and every answer takes so many milliseconds.
    Takes(u16),
    Exits(u8),
}

impl Behaviour {
    #[must_use]
    pub const fn good(start_delay: Duration) -> Self {
        Self { start_delay, fault: Fault::Nothing }
    }

    #[must_use]
    pub const fn bad(fault: Fault) -> Self {
        Self { start_delay: Duration::from_millis(50), fault }
    }

    fn words(&self) -> String {
        let fault = match self.fault {
            Fault::Nothing => String::new(),
            Fault::NeverListens => " --never-listen".to_owned(),
            Fault::ListensElsewhere(port) => format!(" --listen-elsewhere {port}"),
            Fault::Answers(status) => format!(" --status {status}"),
            Fault::Fails(percent) => format!(" --fail-percent {percent}"),
            Fault::Takes(millis) => format!(" --takes {millis}ms"),
            Fault::Exits(code) => format!(" --exit {code}"),
        };
        format!("--start-delay {}ms{fault}", self.start_delay.as_millis())
    }
}

/// A version's archive: one script that becomes the demo's service, behaving as the version does.
///
/// A script and not the program itself: the executable is tens of megabytes, and what is deployed here is the behaviour.
///
/// # Errors
/// When it cannot be packed.
pub fn archive(part: &[String], version: &str, behaviour: &Behaviour) -> anyhow::Result<Vec<u8>> {
    let part = part.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    let script = format!("#!/bin/sh\nexec {part} app --version-text {} {} \"$@\"\n", quoted(version), behaviour.words());
    pack(&[("bin/shop", 0o755, script.as_bytes()), ("VERSION", 0o644, version.as_bytes())])
}

/// A zstd-compressed tar of these files.
///
/// # Errors
/// When it cannot be packed.
pub fn pack(files: &[(&str, u32, &[u8])]) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.mode(tar::HeaderMode::Deterministic);
    for (path, mode, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(bytes.len() as u64);
        header.set_mtime(1);
        tar.append_data(&mut header, path, *bytes).with_context(|| format!("cannot pack {path}"))?;
    }
    let tar = tar.into_inner().context("cannot pack")?;
    zstd::encode_all(tar.as_slice(), 3).context("cannot compress")
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
