//! What an instance really executed, one line each, whole lines only.

use anyhow::Context as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An append-only log: `MILLISECONDS VERSION PID post ID`, `… end PATH TOOK`, and a life's marks `… start`, `listen`, `term`, `exit`.
#[derive(Debug)]
pub(super) struct Journal {
    file: Option<File>,
    version: String,
}

impl Journal {
    pub(super) fn open(path: Option<&Path>, version: &str) -> anyhow::Result<Self> {
        let file = path
            .map(|path| {
                let file = OpenOptions::new().create(true).append(true).open(path);
                file.with_context(|| format!("cannot write {}", path.display()))
            })
            .transpose()?;
        Ok(Self { file, version: version.to_owned() })
    }

    /// An order with this id was executed.
    pub(super) fn post(&self, id: &str) {
        self.line("post", id);
    }

    /// A turn in the instance's life.
    pub(super) fn mark(&self, turn: &str) {
        self.line(turn, "-");
    }

    /// A request of this path is over, so long after it came.
    pub(super) fn end(&self, path: &str, took: Duration) {
        self.line("end", &format!("{path} {}", took.as_millis()));
    }

    /// One write for the whole line: the file is open for appending, so lines of two processes never mix.
    fn line(&self, word: &str, detail: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let line = format!("{now} {} {} {word} {detail}\n", self.version, std::process::id());
        // A full disk must not stop the service; the join with the client's record will show the missing line.
        let _ = file.write_all(line.as_bytes());
    }
}
