//! A coordinator from a backup, behind a fence: the hosts know what happened since, and it asks them before it decides.

use crate::audit::LOCAL;
use crate::audit::chain::{Entry, Head};
use crate::audit::loss::RESTORES;
use crate::backup::{ABOUT, About, FORMAT, IDENTITY, SETTINGS, STORE};
use crate::config::Config;
use crate::identity::rotation::Authorities;
use crate::identity::wall_time;
use crate::local;
use crate::state::{StateFolder, private_folder, sync_folder, unusable, write_whole};
use crate::store::certificate::Certificate;
use crate::store::sqlite::SqliteStore;
use crate::store::{Changes, Store, StoreError, WallTime};
use baton_core::fleet::fence::Fence;
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

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

/// What a restore did beside putting files in their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Hosts that have to be heard before it decides anything.
    pub awaited: Vec<String>,
    /// Join tokens that were good when the backup was made, and are worthless now: some of them may have been redeemed since.
    pub tokens: usize,
    /// Whose certificates were revoked since the backup, and stay so. None: nobody knows, what was there could not be read.
    pub revoked: Option<Vec<String>>,
    pub authority: Whose,
    /// Where what was there before is kept.
    pub aside: Option<PathBuf>,
}

/// Whose authority the restored coordinator has. Fingerprints are of the one that was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// The backup's; nothing else is known of.
    Backups,
    /// What was there took the place of the backup's since: hosts believe that one, so it stays.
    Later(String),
    /// The backup's, and what was there is another one, of which the backup knows nothing nor it of the backup.
    NotThere(String),
}

/// What the store that was there before knows better than the backup.
struct Before {
    head: Head,
    /// Its log goes on from where the backup's ends: it was the same coordinator.
    goes_on: bool,
    certificates: Vec<Certificate>,
}

/// Lives in no time: of tokens and certificates all, whatever the clock says.
const EVER: WallTime = WallTime(i64::MIN);

/// The folder where what is restored is made ready.
const READY: &str = "restoring";

impl Backup {
    /// When it was made.
    #[must_use]
    pub fn made(&self) -> String {
        match u64::try_from(self.about.made) {
            Ok(made) if made > 0 => humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(made)).to_string(),
            _ => "an unknown time".to_owned(),
        }
    }

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

    /// Puts everything in its place and the fence up, lets no token of the backup be redeemed, and says so in the audit log.
    ///
    /// # Errors
    /// B1003 while a coordinator runs there, B1024 when there is one and it is not to be replaced, B1001 and B1004 when
    /// something cannot be written or read. What was there is as it was then.
    pub async fn restore(&self, config: &Config, replace: bool) -> Result<Restored, Problem> {
        let state = StateFolder::open(&config.state)?;
        let (store, identity) = (state.store(), state.identity());
        let there = store.exists() || identity.exists();
        if there && !replace {
            return Err(Problem::new(Code(1024), "there is a coordinator in the state folder already")
                .saw("state folder", state.path().display().to_string())
                .help("with --replace it is kept aside in that folder, and the backup takes its place"));
        }
        let fresh = state.path().join(READY);
        let _ = fs::remove_dir_all(&fresh);
        let aside = aside(state.path());
        private_folder(&fresh)?;
        let before = Before::read(&store, &fresh, self.about.head).await;
        let mut restored = self.unfold(&fresh, before, &identity, there.then_some(aside.as_path())).await?;
        let moved = |error: io::Error| unusable(state.path(), &error);
        belongs_as(state.path(), &fresh).map_err(moved)?;
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
        restored.aside = Some(aside).filter(|aside| aside.exists());
        Ok(restored)
    }

    /// Writes the files to a folder, and into the store there what the world outside has learned since.
    async fn unfold(
        &self,
        folder: &Path,
        before: Option<Before>,
        there: &Path,
        aside: Option<&Path>,
    ) -> Result<Restored, Problem> {
        let identity = folder.join(IDENTITY);
        private_folder(&identity)?;
        for (name, bytes) in self.files.iter().filter(|(name, _)| *name != SETTINGS) {
            let path = folder.join(name);
            write_whole(&path, bytes, 0o600).map_err(|error| unusable(&path, &error))?;
        }
        let whose = whose(&identity, there, before.as_ref().is_some_and(|before| before.goes_on));
        if matches!(whose, Whose::Later(_)) {
            take_over(there, &identity).map_err(|error| unusable(there, &error))?;
        }
        let store = SqliteStore::open(&folder.join(STORE)).await.map_err(|error| error.problem())?;
        let fitted = self.fit(&store, before, whose, aside).await;
        store.close().await;
        fitted.map_err(|error| error.problem())
    }

    async fn fit(
        &self,
        store: &SqliteStore,
        before: Option<Before>,
        whose: Whose,
        aside: Option<&Path>,
    ) -> Result<Restored, StoreError> {
        let awaited = fence(store).await?;
        let tokens = worthless(store).await?;
        let head = before.as_ref().map(|before| before.head);
        let revoked = match before {
            Some(before) => {
                if before.goes_on {
                    know(store, &before.certificates).await?;
                }
                Some(revoke(store, &before.certificates).await?)
            }
            None => None,
        };
        let made = self.made();
        let entry = Entry {
            who: local::caller(),
            from: LOCAL.to_owned(),
            call: RESTORES.to_owned(),
            about: format!("the backup of {made}"),
            before: json!({ "head": head, "kept_in": aside }).to_string(),
            after: json!({
                "backup": { "made": made, "epoch": self.about.epoch, "head": self.about.head },
                "tokens_revoked": tokens,
                "certificates_revoked": revoked,
                "authority_kept": matches!(whose, Whose::Later(_)),
            })
            .to_string(),
            ..Entry::default()
        };
        store.append(wall_time(), &entry).await?;
        Ok(Restored { awaited, tokens, revoked, authority: whose, aside: None })
    }
}

impl Before {
    /// Reads a copy, so that what is kept aside stays as it was found. What cannot be read says nothing.
    async fn read(store: &Path, scratch: &Path, end: Option<Head>) -> Option<Self> {
        let copy = scratch.join("before.sqlite");
        SqliteStore::copy(store, copy.to_str()?).await.ok()?;
        let copied = SqliteStore::open(&copy).await.ok()?;
        let (head, certificates) = (copied.audit_head().await, copied.certificates(EVER).await);
        let end = end.filter(|end| end.number > 0);
        let there = match end {
            Some(end) => copied.audit(end.number - 1, 1).await.ok().and_then(|mut found| found.pop()),
            None => None,
        };
        copied.close().await;
        let goes_on = end.zip(there).is_some_and(|(end, there)| (there.number, there.hash) == (end.number, end.hash));
        Some(Self { head: head.ok()?, goes_on, certificates: certificates.ok()? })
    }
}

/// Whose authority it is to be: the backup's, or the one that took its place since where it was the same coordinator.
fn whose(backups: &Path, there: &Path, goes_on: bool) -> Whose {
    let (Ok(backups), Ok(there)) = (Authorities::load(backups), Authorities::load(there)) else { return Whose::Backups };
    let fingerprint = there.signer.fingerprint();
    match there.pins() == backups.pins() {
        true => Whose::Backups,
        false if goes_on => Whose::Later(fingerprint),
        false => Whose::NotThere(fingerprint),
    }
}

/// Puts a copy of one identity in the place of another.
fn take_over(from: &Path, to: &Path) -> io::Result<()> {
    fs::remove_dir_all(to)?;
    private_folder(to).map_err(|problem| io::Error::other(problem.to_string()))?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            write_whole(&to.join(name), &fs::read(&path)?, 0o600)?;
        }
    }
    Ok(())
}

async fn fence(store: &SqliteStore) -> Result<Vec<String>, StoreError> {
    let snapshot = store.load().await?;
    let (held, moment, sequence) = (snapshot.epoch, snapshot.moment, snapshot.sequence);
    let fence = Fence::around(&snapshot.into_fleet());
    let awaited = fence.unheard.keys().map(ToString::to_string).collect();
    store.commit(&Changes { held, epoch: held, moment, sequence, fence: Some(fence), ..Changes::default() }).await?;
    Ok(awaited)
}

/// Revokes every token: which of them were redeemed since, the backup cannot know. Returns how many were good today.
async fn worthless(store: &SqliteStore) -> Result<usize, StoreError> {
    let good = store.tokens(wall_time()).await?.len();
    for token in store.tokens(EVER).await? {
        store.revoke_token(&token.id).await?;
    }
    Ok(good)
}

/// Knows what this very coordinator issued since, and was come with: whoever has it is no stranger.
async fn know(store: &SqliteStore, since: &[Certificate]) -> Result<(), StoreError> {
    for certificate in since.iter().filter(|it| it.used && !it.revoked) {
        store.note_use(certificate).await?;
    }
    Ok(())
}

/// Revokes what was revoked since, also certificates that the backup never knew. Returns whose they are, but for those that only renewed
/// theirs.
async fn revoke(store: &SqliteStore, since: &[Certificate]) -> Result<Vec<String>, StoreError> {
    let known = store.certificates(EVER).await?;
    let was = |it: &&Certificate| known.iter().any(|known| known.serial == it.serial && known.revoked);
    let renewed = |whose: &str| since.iter().any(|it| it.identity == whose && !it.revoked);
    let mut whose = BTreeSet::new();
    for certificate in since.iter().filter(|it| it.revoked && !was(it)) {
        store.note_use(certificate).await?;
        store.revoke(&certificate.serial).await?;
        whose.extend(Some(certificate.identity.clone()).filter(|whose| !renewed(whose)));
    }
    Ok(whose.into_iter().collect())
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
