//! The one connection to the file: how it is opened, and when it may be used again.

use super::StoreError;
use sqlx::any::AnyPoolOptions;
use sqlx::{AnyConnection, AnyPool, Connection, Executor};
use std::path::Path;
use std::time::Duration;

/// How long a method waits for the connection while others use it.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Synced on every commit; another process (a backup) may hold the file for a moment. SQLite keeps 256 KiB of the file and not
/// its own 2 MiB: everything is read once, at the start, and what is kept beyond that only makes the coordinator grow with its
/// history.
const PRAGMAS: &str =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; PRAGMA cache_size = -256;";

/// A pool of the one connection, made when it is first used.
pub(super) async fn pool(path: &Path) -> Result<AnyPool, StoreError> {
    sqlx::any::install_default_drivers();
    let options = AnyPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(is_clean(connection)))
        .after_connect(|connection, _| Box::pin(async move { connection.execute(PRAGMAS).await.map(|_| ()) }));
    Ok(options.connect(&url(path)).await?)
}

/// Whether the connection is in no transaction, by its own word and by SQLite's; else another one is opened.
///
/// Where the disk was full, SQLite may have ended a transaction by itself, or not ended one that was given up. What is written
/// inside one that nobody ends is never there for anybody else.
async fn is_clean(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    let is_alone = connection.execute("BEGIN; ROLLBACK").await.is_ok();
    Ok(is_alone && !connection.is_in_transaction())
}

/// The file as sqlx wants to hear of it: every byte that could mean something else in a URL is escaped.
fn url(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => url.push(char::from(*byte)),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url.push_str("?mode=rwc");
    url
}
