//! A copy of everything a coordinator is, in one file: the authority, the store as of one moment, the settings.
//!
//! Archives of releases are not in it: they are large, hosts hold those they serve, and a deploy brings them again.

use crate::audit::LOCAL;
use crate::audit::chain::{Entry, Head};
use crate::config::Config;
use crate::identity::wall_time;
use crate::local;
use crate::state::{StateFolder, unusable};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use baton_proto::problem::from_status;
use baton_proto::tls::local_channel;
use baton_proto::v1::RecordBackupRequest;
use baton_proto::v1::control_client::ControlClient;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// The file of a backup that says what the others are. It comes first.
pub(crate) const ABOUT: &str = "backup.json";
pub(crate) const STORE: &str = "store.sqlite";
pub(crate) const SETTINGS: &str = "coordinator.toml";
/// The folder with the authority and the coordinator's own certificate.
pub(crate) const IDENTITY: &str = "identity";
pub(crate) const FORMAT: u32 = 1;

/// How often the identity folder is looked at until two looks see the same.
const LOOKS: usize = 100;

/// As the gate would call it.
const CALL: &str = "Control/RecordBackup";
/// How long a coordinator that runs may take to put a backup on the record.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub format: u32,
    /// Of the program that wrote it.
    pub version: String,
    /// Who drove then.
    pub epoch: u64,
    /// When it was made, in seconds since 1970. Older versions did not say.
    #[serde(default)]
    pub made: i64,
    /// Where its audit log ends.
    #[serde(default)]
    pub head: Option<Head>,
    /// Every file, with its digest.
    pub files: BTreeMap<String, Digest>,
}

/// Writes a backup to a file that must not exist yet, readable by its owner only. A coordinator may run meanwhile. Returns what
/// kept it off the record, where something did: whoever needs a backup needs it most when something is wrong.
///
/// # Errors
/// B1022 when there is such a file, B1002 without an authority, B1001 when something cannot be read or written.
pub async fn backup(config: &Config, settings: &Path, to: &Path) -> Result<Option<Problem>, Problem> {
    let identity = config.state.join(IDENTITY);
    if !identity.join("authority.pem").exists() {
        return Err(Problem::new(Code(1002), "there is nothing to back up: no authority was made here")
            .saw("state folder", config.state.display().to_string())
            .help("name the settings of the coordinator with --config"));
    }
    if to.exists() {
        return Err(Problem::new(Code(1022), "a backup never overwrites a file")
            .saw("there is", to.display().to_string())
            .help("name another file"));
    }
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(folder)
        .map_err(|error| unusable(folder, &error))?;
    // Before it is made, so that it is on its own record.
    let unrecorded = record(config, to).await.err();
    let copied = scratch.path().join(STORE);
    let name = copied.to_str().ok_or_else(|| unusable(&copied, &io::Error::other("its name is no UTF-8 text")))?;
    SqliteStore::copy(&config.state.join(STORE), name).await.map_err(|error| error.problem())?;
    let (epoch, head) = end(&copied).await?;

    let mut files = BTreeMap::from([(STORE.to_owned(), read(&copied)?)]);
    files.extend(at_rest(&identity)?);
    if settings.exists() {
        files.insert(SETTINGS.to_owned(), read(settings)?);
    }
    let digests = files.iter().map(|(name, bytes)| (name.clone(), Digest::of(bytes))).collect();
    let (version, made) = (env!("CARGO_PKG_VERSION").to_owned(), wall_time().0);
    let about = About { format: FORMAT, version, epoch, made, head: Some(head), files: digests };
    write(folder, to, &about, &files).map_err(|error| unusable(to, &error))?;
    Ok(unrecorded)
}

/// Puts a backup into the audit log. A store has one writer: the coordinator that runs from it, and only where none does, this.
async fn record(config: &Config, to: &Path) -> Result<(), Problem> {
    let file = std::path::absolute(to).unwrap_or_else(|_| to.to_owned()).display().to_string();
    match StateFolder::open(&config.state) {
        Ok(state) => {
            let (who, from, call) = (local::caller(), LOCAL.to_owned(), CALL.to_owned());
            let entry = Entry { who, from, call, about: file, ..Entry::default() };
            let appended = SqliteStore::append_alone(&state.store(), wall_time(), &entry).await;
            appended.map(drop).map_err(|error| error.problem())
        }
        Err(held) if held.code == Code(1003) => {
            let mut control = ControlClient::new(local_channel(&config.socket));
            match tokio::time::timeout(PATIENCE, control.record_backup(RecordBackupRequest { file })).await {
                Ok(answer) => answer.map(drop).map_err(|status| from_status(&status)),
                Err(_) => Err(held.saw("asked", format!("no answer at {}", config.socket.display()))),
            }
        }
        Err(problem) => Err(problem),
    }
}

/// The identity folder's files as they are together: a coordinator that runs may be putting one certificate or authority in
/// the place of another, and half of each is nothing that could be restored.
fn at_rest(identity: &Path) -> Result<BTreeMap<String, Vec<u8>>, Problem> {
    let mut seen = files_of(identity)?;
    for _ in 0..LOOKS {
        let again = files_of(identity)?;
        if again == seen {
            return Ok(seen);
        }
        seen = again;
    }
    Err(unusable(identity, &io::Error::other("it changes all the time")))
}

fn files_of(identity: &Path) -> Result<BTreeMap<String, Vec<u8>>, Problem> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(identity).map_err(|error| unusable(identity, &error))? {
        let path = entry.map_err(|error| unusable(identity, &error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file()) else { continue };
        match fs::read(&path) {
            Ok(bytes) => drop(files.insert(format!("{IDENTITY}/{name}"), bytes)),
            // Renamed meanwhile: the next look sees what became of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(&path, &error)),
        }
    }
    Ok(files)
}

/// Who drove last, and where the audit log ends.
async fn end(store: &Path) -> Result<(u64, Head), Problem> {
    let store = SqliteStore::open(store).await.map_err(|error| error.problem())?;
    let (snapshot, head) = (store.load().await, store.audit_head().await);
    store.close().await;
    let problem = |error: crate::store::StoreError| error.problem();
    Ok((snapshot.map_err(problem)?.epoch.0, head.map_err(problem)?))
}

/// The whole file or none, durable before it has its name.
fn write(folder: &Path, to: &Path, about: &About, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(folder)?;
    let mut archive = tar::Builder::new(zstd::Encoder::new(&mut file, 0)?);
    append(&mut archive, ABOUT, &serde_json::to_vec_pretty(about)?)?;
    for (name, bytes) in files {
        append(&mut archive, name, bytes)?;
    }
    archive.into_inner()?.finish()?.flush()?;
    file.as_file().sync_all()?;
    file.persist_noclobber(to)?;
    crate::state::sync_folder(folder)
}

fn append(archive: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    archive.append_data(&mut header, name, bytes)
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    fs::read(path).map_err(|error| unusable(path, &error))
}
