//! A coordinator from a backup, behind a fence: the hosts know what happened since, and it asks them before it decides.

use crate::backup::{ABOUT, About, FORMAT, IDENTITY, SETTINGS, STORE};
use crate::config::Config;
use crate::state::{StateFolder, private_folder, sync_folder, unusable, write_whole};
use crate::store::sqlite::SqliteStore;
use crate::store::{Changes, Store};
use baton_core::fleet::fence::Fence;
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

/// The largest file of a backup: a store of years.
const FILE_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Files of a backup, at most.
const FILES_MAX: usize = 64;

/// A backup that was read whole, and is what it says.
#[derive(Debug)]
pub struct Backup {
    pub about: About,
    files: BTreeMap<String, Vec<u8>>,
}

impl Backup {
    /// Reads a backup; nothing is written.
    ///
    /// # Errors
    /// B1023 when it is none, is damaged, or a newer version wrote it.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let mut files = unpack(path).map_err(|error| unfit(path, &error.to_string()))?;
        let about = files.remove(ABOUT).ok_or_else(|| unfit(path, "it does not say what it is"))?;
        let about: About = serde_json::from_slice(&about).map_err(|error| unfit(path, &error.to_string()))?;
        if about.format != FORMAT {
            return Err(unfit(path, &format!("it has format {}, this version reads {FORMAT}", about.format)));
        }
        let found: BTreeMap<String, Digest> = files.iter().map(|(name, bytes)| (name.clone(), Digest::of(bytes))).collect();
        if found != about.files || !files.contains_key(STORE) {
            return Err(unfit(path, "its files are not those it was written with"));
        }
        Ok(Self { about, files })
    }

    /// Writes the backup's settings where there are none.
    ///
    /// # Errors
    /// B1001 when they cannot be written.
    pub fn keep_settings(&self, at: &Path) -> Result<(), Problem> {
        match self.files.get(SETTINGS) {
            Some(text) if !at.exists() => write_whole(at, text, 0o644).map_err(|error| unusable(at, &error)),
            _ => Ok(()),
        }
    }

    /// Puts everything in its place and the fence up. Returns the hosts that have to be heard.
    ///
    /// # Errors
    /// B1003 while a coordinator runs there, B1024 when there is one and it is not to be replaced, B1001 and B1004 when
    /// something cannot be written or read. What was there is as it was then.
    pub async fn restore(&self, config: &Config, replace: bool) -> Result<Vec<String>, Problem> {
        let state = StateFolder::open(&config.state)?;
        let (store, identity) = (state.store(), state.identity());
        if (store.exists() || identity.exists()) && !replace {
            return Err(Problem::new(Code(1024), "there is a coordinator in the state folder already")
                .saw("state folder", state.path().display().to_string())
                .help("with --replace it is kept aside in that folder, and the backup takes its place"));
        }
        let fresh = state.path().join("restoring");
        let _ = fs::remove_dir_all(&fresh);
        let awaited = self.unfold(&fresh).await?;
        let moved = |error: io::Error| unusable(state.path(), &error);
        belongs_as(state.path(), &fresh).map_err(moved)?;
        let aside = aside(state.path());
        // The authority's certificate goes first and comes last: the service starts when it sees that.
        let log = |end: &str| PathBuf::from(format!("{}{end}", store.display()));
        for there in [&identity, &store, &log("-wal"), &log("-shm")] {
            if let Some(name) = there.file_name().filter(|_| there.exists()) {
                private_folder(&aside)?;
                fs::rename(there, aside.join(name)).map_err(moved)?;
            }
        }
        fs::rename(fresh.join(STORE), &store).map_err(moved)?;
        fs::rename(fresh.join(IDENTITY), &identity).map_err(moved)?;
        fs::remove_dir_all(&fresh).and_then(|()| sync_folder(state.path())).map_err(moved)?;
        Ok(awaited)
    }

    /// Writes the files to a folder and raises the fence in the store there.
    async fn unfold(&self, folder: &Path) -> Result<Vec<String>, Problem> {
        private_folder(&folder.join(IDENTITY))?;
        for (name, bytes) in self.files.iter().filter(|(name, _)| *name != SETTINGS) {
            let path = folder.join(name);
            write_whole(&path, bytes, 0o600).map_err(|error| unusable(&path, &error))?;
        }
        let store = SqliteStore::open(&folder.join(STORE)).await.map_err(|error| error.problem())?;
        let fenced = fence(&store).await;
        store.close().await;
        fenced.map_err(|error| error.problem())
    }
}

async fn fence(store: &SqliteStore) -> Result<Vec<String>, crate::store::StoreError> {
    let snapshot = store.load().await?;
    let (held, moment, sequence) = (snapshot.epoch, snapshot.moment, snapshot.sequence);
    let fence = Fence::around(&snapshot.into_fleet());
    let awaited = fence.unheard.keys().map(ToString::to_string).collect();
    store.commit(&Changes { held, epoch: held, moment, sequence, fence: Some(fence), ..Changes::default() }).await?;
    Ok(awaited)
}

/// Every file by its name. Names are checked against what a backup has, so none leads anywhere else.
fn unpack(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(fs::File::open(path)?)?);
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let own = name
            .strip_prefix("identity/")
            .is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '\0']) && rest != "..");
        if !(own || [ABOUT, STORE, SETTINGS].contains(&name.as_str())) || !entry.header().entry_type().is_file() {
            return Err(io::Error::other(format!("it holds {name:?}, which no backup has")));
        }
        if entry.size() > FILE_MAX || files.len() >= FILES_MAX {
            return Err(io::Error::other("it is larger than a backup"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(name, bytes);
    }
    Ok(files)
}

/// A folder for what was there before, that is not there yet.
fn aside(state: &Path) -> PathBuf {
    let names = (1u32..).map(|number| state.join(format!("before-restore-{number}")));
    names.into_iter().find(|path| !path.exists()).unwrap_or_else(|| state.join("before-restore"))
}

/// Root restores for the service's user: what is written belongs to whoever owns the state folder.
fn belongs_as(state: &Path, tree: &Path) -> io::Result<()> {
    let owner = fs::metadata(state)?;
    chown(tree, Some(owner.uid()), Some(owner.gid()))?;
    if tree.is_dir() {
        for entry in fs::read_dir(tree)? {
            belongs_as(state, &entry?.path())?;
        }
    }
    Ok(())
}

fn unfit(path: &Path, seen: &str) -> Problem {
    Problem::new(Code(1023), format!("{} is no backup that can be restored", path.display()))
        .saw("seen", seen)
        .help("take another backup; one of a newer version needs that version of baton-coordinator")
}
