//! A certificate, its key and the authority: as text, and as files.

use crate::identity::{self, InvalidIdentity, Subject};
use baton_core::name::Digest;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
const AUTHORITY: &str = "authority.pem";

/// More than a certificate, its key and two authorities take.
const TRIAL: usize = 16 * 1024;

/// What a peer shows, what proves that it may, and whom it believes.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The chain, leaf first.
    pub certificate_pem: String,
    pub key_pem: String,
    /// The authorities to believe: one, or two while one replaces the other.
    pub authority_pem: String,
}

/// Credentials that cannot be read, kept, or used for TLS.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: Arc<io::Error> },
    #[error("{what} holds no readable PEM: {error}")]
    Pem { what: &'static str, error: String },
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    #[error("these credentials cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// The hash of an authority that join tokens carry: BLAKE3 of its certificate in DER.
///
/// # Errors
/// When the text holds no certificate. Of several, the first counts: the one that signs.
pub fn authority_pin(authority_pem: &str) -> Result<[u8; 32], TlsError> {
    let first = authority_pins(authority_pem)?.into_iter().next();
    first.ok_or_else(|| TlsError::Pem { what: "the authority", error: "no certificate".to_owned() })
}

/// The same of every authority in a text, in its order.
///
/// # Errors
/// When the text holds no certificate.
pub fn authority_pins(authority_pem: &str) -> Result<Vec<[u8; 32]>, TlsError> {
    Ok(certificates("the authority", authority_pem)?.iter().map(pin).collect())
}

impl Credentials {
    /// Reads the files [`Credentials::save`] wrote, also when it was cut short. Waits while one is under way.
    ///
    /// # Errors
    /// When a file is missing or unreadable, or the key is not the certificate's.
    pub fn load(folder: &Path) -> Result<Self, TlsError> {
        // A folder that is not there cannot be locked: what is missing is the file that is named then.
        let _reading = fs::File::open(folder).and_then(|folder| folder.lock_shared().map(|()| folder)).ok();
        let kept = Self::read(folder, CERTIFICATE)?;
        let Err(error) = kept.certified() else { return Ok(kept) };
        Self::cut_short(folder).ok_or(error)
    }

    /// What a save that was cut short between its last two renames left.
    ///
    /// The certificate is renamed last: a new key beside the old certificate means that the new one still waits.
    fn cut_short(folder: &Path) -> Option<Self> {
        Self::read(folder, &staged(CERTIFICATE)).ok().filter(|waiting| waiting.certified().is_ok())
    }

    /// Writes `certificate.pem`, `key.pem` (mode 0600) and `authority.pem`, whole or not at all.
    ///
    /// All three are staged and synced before the first is renamed, so that a power loss at any point leaves a pair that
    /// [`Credentials::load`] can use. What an earlier save left waiting is put in place first: it may be all that fits the key.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, folder: &Path) -> Result<(), TlsError> {
        let create = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        create.map_err(|error| file(folder, error))?;
        let saving = fs::File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
        let saving = saving.map_err(|error| file(folder, error))?;
        if Self::cut_short(folder).is_some() {
            place(folder, CERTIFICATE)?;
        }
        stage(folder, AUTHORITY, &self.authority_pem, 0o644)?;
        stage(folder, KEY, &self.key_pem, 0o600)?;
        stage(folder, CERTIFICATE, &self.certificate_pem, 0o644)?;
        let sync = || saving.sync_all().map_err(|error| file(folder, error));
        sync()?;
        place(folder, AUTHORITY)?;
        place(folder, KEY)?;
        place(folder, CERTIFICATE)?;
        sync()
    }

    /// Tries whether [`Credentials::save`] could write to a folder, which is made where it is missing: before something is spent
    /// that cannot be had again.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn can_be_kept(folder: &Path) -> Result<(), TlsError> {
        let create = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        create.map_err(|error| file(folder, error))?;
        // What is no file where one of these should be cannot be replaced by one.
        for name in [AUTHORITY, KEY, CERTIFICATE] {
            let path = folder.join(name);
            if path.is_dir() {
                return Err(file(&path, io::ErrorKind::IsADirectory.into()));
            }
        }
        let trial = " ".repeat(TRIAL);
        let staged = stage(folder, "trial", &trial, 0o600);
        let removed = fs::remove_file(folder.join(self::staged("trial")));
        staged.and_then(|()| removed.map_err(|error| file(folder, error)))
    }

    /// Who these credentials say their bearer is, and until when.
    ///
    /// # Errors
    /// When the certificate cannot be read or names no identity.
    pub fn subject(&self) -> Result<Subject, TlsError> {
        let chain = self.chain()?;
        Ok(identity::subject(chain.first().map_or(&[][..], |leaf| leaf.as_ref()))?)
    }

    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(CERTIFICATE, &self.certificate_pem)
    }

    /// The chain with the authorities at its end.
    ///
    /// A root is not needed to verify a chain, but whoever joins knows nothing but its hash.
    pub(super) fn chain_to_authority(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let mut chain = self.chain()?;
        for authority in certificates(AUTHORITY, &self.authority_pem)? {
            if !chain.contains(&authority) {
                chain.push(authority);
            }
        }
        Ok(chain)
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| TlsError::Pem { what: KEY, error: error.to_string() })
    }

    pub(super) fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(AUTHORITY, &self.authority_pem)? {
            roots.add(authority)?;
        }
        Ok(Arc::new(roots))
    }

    fn certified(&self) -> Result<CertifiedKey, TlsError> {
        Ok(CertifiedKey::from_der(self.chain()?, self.key()?, &super::provider())?)
    }

    fn read(folder: &Path, certificate: &str) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|error| file(&path, error))
        };
        Ok(Self { certificate_pem: read(certificate)?, key_pem: read(KEY)?, authority_pem: read(AUTHORITY)? })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("subject", &self.subject().ok()).finish_non_exhaustive()
    }
}

pub(super) fn pin(certificate: &CertificateDer<'_>) -> [u8; 32] {
    *Digest::of(certificate).as_bytes()
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(TlsError::Pem { what, error: "no certificate".to_owned() }),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(TlsError::Pem { what, error: error.to_string() }),
    }
}

fn staged(name: &str) -> String {
    format!("{name}.next")
}

fn stage(folder: &Path, name: &str, text: &str, mode: u32) -> Result<(), TlsError> {
    let path = folder.join(staged(name));
    let write = || {
        // A leftover may have another mode: `mode` counts only for a file that is new.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| file(&path, error))
}

fn place(folder: &Path, name: &str) -> Result<(), TlsError> {
    let path = folder.join(name);
    fs::rename(folder.join(staged(name)), &path).map_err(|error| file(&path, error))
}

fn file(path: &Path, error: io::Error) -> TlsError {
    TlsError::File { path: path.to_owned(), error: Arc::new(error) }
}
