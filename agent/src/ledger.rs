//! The ledger: the last spec this host accepted. It rejects the past, and it outlives everything but the disk.
//!
//! The spec is on disk before it is echoed or acted on. A file that cannot be believed is never acted on either: the host
//! then keeps what runs, and the copy of the spec before still fences off an older coordinator.

use crate::durable;
use baton_core::fleet::spec::{HostSpec, Stamp};
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What this host was last told, and where that is kept.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    spec: Option<Arc<HostSpec>>,
    /// Nothing older than this is accepted, even when the spec itself was lost.
    fence: Stamp,
    damage: Option<Problem>,
}

/// What became of an offered spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    New,
    /// It was in the ledger already.
    Known,
}

/// Why an offered spec was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("epoch {}, generation {} is older than what this host has accepted ({}, {})",
        .offered.epoch, .offered.generation, .held.epoch, .held.generation)]
    Past { offered: Stamp, held: Stamp },
    #[error("epoch {}, generation {} was issued twice with different content", .stamp.epoch, .stamp.generation)]
    Twice { stamp: Stamp },
    #[error("the ledger could not be written: {0}")]
    Unwritten(#[from] io::Error),
}

/// A page about to be written: may be committed on another thread, for a disk may take its time.
#[derive(Debug)]
pub struct Writing {
    path: PathBuf,
    /// Where the page there is now goes.
    previous: Option<PathBuf>,
    bytes: Vec<u8>,
}

impl Writing {
    /// Writes, and returns once it is durable.
    ///
    /// # Errors
    /// Those of the disk; the page before is still there then.
    pub fn commit(&self) -> io::Result<()> {
        if let Some(previous) = &self.previous {
            durable::remove(previous)?;
            fs::hard_link(&self.path, previous)?;
        }
        durable::replace(&self.path, &self.bytes)
    }
}

#[derive(Serialize, Deserialize)]
struct Page {
    format: u32,
    /// Over the bytes of `spec` as they stand in the file.
    digest: Digest,
    spec: Box<RawValue>,
}

const FORMAT: u32 = 1;

impl Ledger {
    /// Reads the ledger of a state folder; a folder without one gives an empty ledger.
    ///
    /// # Errors
    /// Those of the file system. A damaged file is not an error: see [`Self::damage`].
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("ledger.json");
        let mut ledger = Self { spec: None, fence: Stamp::default(), damage: None, path };
        match read(&ledger.path)? {
            Read::Whole(spec) => {
                ledger.fence = spec.stamp();
                ledger.spec = Some(Arc::new(*spec));
            }
            Read::Absent => {}
            Read::Damaged(why) => ledger.damage = Some(damaged(&ledger.path, &why)),
        }
        if let (None, Read::Whole(previous)) = (&ledger.spec, read(&ledger.previous())?) {
            ledger.fence = previous.stamp();
            ledger.damage.get_or_insert_with(|| damaged(&ledger.path, "the file is missing"));
        }
        Ok(ledger)
    }

    /// The spec to follow. None: this host was told nothing, or what it was told is lost; either way it changes nothing.
    #[must_use]
    pub fn spec(&self) -> Option<&HostSpec> {
        self.spec.as_deref()
    }

    /// The same, for whoever keeps it.
    #[must_use]
    pub fn told(&self) -> Option<Arc<HostSpec>> {
        self.spec.clone()
    }

    /// The echo: the stamp of the spec this host follows.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.spec().map(HostSpec::stamp).unwrap_or_default()
    }

    /// What is wrong with the file, until a new spec has replaced it.
    #[must_use]
    pub fn damage(&self) -> Option<&Problem> {
        self.damage.as_ref()
    }

    /// Takes a spec, and returns once it is durable.
    ///
    /// # Errors
    /// [`Refused`]; the ledger is unchanged then, in memory and on disk.
    pub fn accept(&mut self, offered: HostSpec) -> Result<Accepted, Refused> {
        let Some(writing) = self.judge(&offered)? else { return Ok(Accepted::Known) };
        writing.commit()?;
        self.took(offered);
        Ok(Accepted::New)
    }

    /// What is to be written for an offered spec; nothing when it is in the ledger already.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge(&self, offered: &HostSpec) -> Result<Option<Writing>, Refused> {
        let stamp = offered.stamp();
        if stamp < self.fence {
            return Err(Refused::Past { offered: stamp, held: self.fence });
        }
        if let Some(held) = self.spec.as_ref().filter(|held| held.stamp() == stamp) {
            return if held.same_content(offered) { Ok(None) } else { Err(Refused::Twice { stamp }) };
        }
        let spec =
            RawValue::from_string(serde_json::to_string(offered).map_err(io::Error::from)?).map_err(io::Error::from)?;
        let page = Page { format: FORMAT, digest: Digest::of(spec.get().as_bytes()), spec };
        let bytes = serde_json::to_vec(&page).map_err(io::Error::from)?;
        let previous = self.spec.is_some().then(|| self.previous());
        Ok(Some(Writing { path: self.path.clone(), previous, bytes }))
    }

    /// Follows a spec whose [`Writing`] was committed.
    pub fn took(&mut self, spec: HostSpec) {
        self.fence = spec.stamp();
        self.spec = Some(Arc::new(spec));
        self.damage = None;
    }

    fn previous(&self) -> PathBuf {
        self.path.with_extension("previous.json")
    }
}

enum Read {
    Absent,
    Damaged(String),
    Whole(Box<HostSpec>),
}

fn read(path: &Path) -> io::Result<Read> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Absent),
        Err(error) => return Err(error),
    };
    Ok(parse(&bytes).map_or_else(Read::Damaged, |spec| Read::Whole(Box::new(spec))))
}

fn parse(bytes: &[u8]) -> Result<HostSpec, String> {
    let page: Page = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if page.format != FORMAT {
        return Err(format!("it has format {}, this agent reads {FORMAT}", page.format));
    }
    if Digest::of(page.spec.get().as_bytes()) != page.digest {
        return Err("its digest does not match its content".to_owned());
    }
    serde_json::from_str(page.spec.get()).map_err(|error| error.to_string())
}

fn damaged(path: &Path, why: &str) -> Problem {
    Problem::new(
        Code(535),
        "this host's ledger cannot be believed: it keeps what runs and changes nothing until it is told anew",
    )
    .saw("file", path.display().to_string())
    .saw("seen", why)
    .help("the coordinator sends the spec again as soon as it is connected; check the disk")
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::name::{Epoch, Generation};

    fn spec(epoch: u64, generation: u64) -> HostSpec {
        HostSpec { epoch: Epoch(epoch), generation: Generation(generation), ..HostSpec::default() }
    }

    fn with_pool(mut spec: HostSpec) -> HostSpec {
        let pool = baton_core::fleet::spec::PoolSpec {
            service: "shop".parse().unwrap(),
            members: Default::default(),
            drain_deadline: std::time::Duration::from_secs(1),
            slow_start: std::time::Duration::ZERO,
            split: None,
            exchange: Default::default(),
        };
        spec.pools.insert("shop".parse().unwrap(), pool);
        spec
    }

    fn ledger_with(folder: &Path, specs: &[HostSpec]) -> Ledger {
        let mut ledger = Ledger::open(folder).unwrap();
        for spec in specs {
            ledger.accept(spec.clone()).unwrap();
        }
        ledger
    }

    #[test]
    fn what_was_accepted_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        ledger_with(folder.path(), &[with_pool(spec(1, 4))]);
        assert_eq!(Ledger::open(folder.path()).unwrap().spec(), Some(&with_pool(spec(1, 4))));
    }

    #[test]
    fn the_past_is_rejected_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        ledger_with(folder.path(), &[spec(2, 7)]);
        let mut ledger = Ledger::open(folder.path()).unwrap();
        for past in [spec(2, 6), spec(1, 99), spec(0, 0)] {
            assert!(matches!(ledger.accept(past), Err(Refused::Past { .. })));
        }
        assert_eq!(ledger.stamp(), spec(2, 7).stamp());
        assert!(matches!(ledger.accept(spec(3, 8)), Ok(Accepted::New)), "a newer epoch is taken");
    }

    #[test]
    fn the_same_spec_again_is_fine_and_a_twin_with_other_content_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = ledger_with(folder.path(), &[spec(1, 1)]);
        assert!(matches!(ledger.accept(spec(1, 1)), Ok(Accepted::Known)));
        assert!(matches!(ledger.accept(with_pool(spec(1, 1))), Err(Refused::Twice { .. })));
    }

    #[test]
    fn a_torn_file_is_noticed_and_still_fences_with_the_spec_before() {
        let folder = tempfile::tempdir().unwrap();
        ledger_with(folder.path(), &[spec(1, 4), spec(1, 5)]);
        let path = folder.path().join("ledger.json");
        let whole = fs::read(&path).unwrap();
        for torn in [whole[..whole.len() / 2].to_vec(), Vec::new(), flipped(&whole)] {
            fs::write(&path, torn).unwrap();
            let mut ledger = Ledger::open(folder.path()).unwrap();
            assert_eq!(ledger.spec(), None, "it is not acted on");
            assert!(ledger.damage().is_some());
            assert!(matches!(ledger.accept(spec(1, 3)), Err(Refused::Past { .. })));
        }
        let mut ledger = Ledger::open(folder.path()).unwrap();
        ledger.accept(spec(1, 5)).unwrap();
        assert!(ledger.damage().is_none(), "the spec sent again heals it");
        assert_eq!(Ledger::open(folder.path()).unwrap().stamp(), spec(1, 5).stamp());
    }

    fn flipped(bytes: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.replace("\"generation\":5", "\"generation\":6").into_bytes()
    }

    #[test]
    fn a_leftover_of_an_interrupted_write_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        ledger_with(folder.path(), &[spec(1, 4)]);
        fs::write(folder.path().join("ledger.json.new"), b"{\"form").unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.stamp(), spec(1, 4).stamp());
        ledger.accept(spec(1, 5)).unwrap();
    }

    #[test]
    fn a_spec_that_could_not_be_written_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = ledger_with(folder.path(), &[spec(1, 4)]);
        fs::create_dir(folder.path().join("ledger.json.new")).unwrap();
        assert!(matches!(ledger.accept(spec(1, 5)), Err(Refused::Unwritten(_))));
        assert_eq!(ledger.stamp(), spec(1, 4).stamp());
        assert_eq!(Ledger::open(folder.path()).unwrap().stamp(), spec(1, 4).stamp());
    }
}
