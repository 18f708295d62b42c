//! One authority takes the place of another, as files: whatever moment the power goes at, what is left says who signs.
//!
//! `rotation.pem` is the rotation: the new certificate, the old authority's word for it, and the new key, in one file that is
//! there whole or not at all. Renamed to `retired.pem` it is the end of the old authority; what is left to do then is done by
//! whoever opens the folder next. Until it is done, `authority.pem` is the certificate whose key lies beside it.

use super::authority::{Authority, CERTIFICATE, KEY, Validity, broken};
use crate::state::{read_text, sync_folder, unusable, write_whole};
use crate::store::WallTime;
use baton_core::problem::{Code, Problem};
use baton_proto::tls::Credentials;
use std::fs;
use std::path::Path;

const ROTATION: &str = "rotation.pem";
const RETIRED: &str = "retired.pem";

/// The authorities as of one moment.
#[derive(Debug)]
pub struct Authorities {
    /// Whose key signs what is issued from now on.
    pub signer: Authority,
    /// The one whose place it takes, while not everybody has moved.
    pub before: Option<Before>,
}

/// An authority that is believed and signs nothing any more.
#[derive(Debug)]
pub struct Before {
    pub authority: Authority,
    /// The signer's certificate, signed by this one.
    cross_pem: String,
}

impl Authorities {
    /// Reads the authorities of a folder; nothing in it is changed.
    ///
    /// # Errors
    /// B1002 when there are none yet, B1004 when they cannot be understood.
    pub fn load(folder: &Path) -> Result<Self, Problem> {
        if let Some(Successor { signer, .. }) = Successor::load(folder, RETIRED)? {
            return Ok(Self { signer, before: None });
        }
        let authority = Authority::load(folder)?;
        Ok(match Successor::load(folder, ROTATION)? {
            None => Self { signer: authority, before: None },
            Some(Successor { signer, cross_pem }) => Self { signer, before: Some(Before { authority, cross_pem }) },
        })
    }

    /// Makes the authority that comes next. Nothing is kept yet.
    ///
    /// # Errors
    /// B1032 where the signer was brought, B1033 while a rotation is under way, B1006 when signing fails.
    pub fn rotated(folder: &Path, now: WallTime) -> Result<Self, Problem> {
        let Self { signer: authority, before } = Self::load(folder)?;
        if !authority.facts()?.made_here {
            return Err(Problem::new(
                Code(1032),
                "this authority was brought, so whoever made it makes the one that follows",
            )
            .saw("authority", authority.facts()?.name)
            .help(
                "have it made, set a coordinator up with it in a state folder of its own (baton-coordinator init \
                     --authority-cert FILE --authority-key FILE), and let hosts and operators join that one",
            ));
        }
        if let Some(before) = before {
            return Err(Problem::new(Code(1033), "one authority is taking the place of another already")
                .saw("goes", before.authority.facts()?.name)
                .saw("comes", authority.facts()?.name)
                .help("baton authority status shows who has yet to move; baton authority retire ends it"));
        }
        let (signer, cross_pem) = authority.successor(now)?;
        Ok(Self { signer, before: Some(Before { authority, cross_pem }) })
    }

    /// Writes the rotation down: from here on it has happened.
    ///
    /// # Errors
    /// B1001 when the folder cannot be written; then it has not.
    pub fn begin(&self, folder: &Path) -> Result<(), Problem> {
        let Some(before) = &self.before else { return Ok(()) };
        let text = format!("{}{}{}", self.signer.certificate_pem(), before.cross_pem, self.signer.key_pem());
        let path = folder.join(ROTATION);
        write_whole(&path, text.as_bytes(), 0o600).map_err(|error| unusable(&path, &error))
    }

    /// The signer alone, as it is once the one before it has ended.
    ///
    /// # Errors
    /// B1033 where no rotation is under way.
    pub fn retired(folder: &Path) -> Result<Self, Problem> {
        let Some(Successor { signer, .. }) = Successor::load(folder, ROTATION)? else {
            return Err(Problem::new(Code(1033), "there is one authority only, and none that could be retired")
                .help("baton authority rotate makes the one that takes its place"));
        };
        Ok(Self { signer, before: None })
    }

    /// Ends the authority before the signer: from here on it is not believed any more.
    ///
    /// # Errors
    /// B1001 when the folder cannot be written.
    pub fn end(folder: &Path) -> Result<(), Problem> {
        let path = folder.join(ROTATION);
        let renamed = fs::rename(&path, folder.join(RETIRED)).and_then(|()| sync_folder(folder));
        renamed.map_err(|error| unusable(&path, &error))
    }

    /// Does what is left to do of an end: the key of the old authority is gone after it. Repeating it changes nothing.
    ///
    /// # Errors
    /// B1001 when the folder cannot be written, B1004 when what is in it cannot be understood.
    pub fn finish(folder: &Path) -> Result<(), Problem> {
        let Some(Successor { signer, .. }) = Successor::load(folder, RETIRED)? else { return Ok(()) };
        let (certificate, key, retired) = (folder.join(CERTIFICATE), folder.join(KEY), folder.join(RETIRED));
        write_whole(&key, signer.key_pem().as_bytes(), 0o600).map_err(|error| unusable(&key, &error))?;
        write_whole(&certificate, signer.certificate_pem().as_bytes(), 0o644)
            .map_err(|error| unusable(&certificate, &error))?;
        let removed = fs::remove_file(&retired).and_then(|()| sync_folder(folder));
        removed.map_err(|error| unusable(&retired, &error))
    }

    /// Every authority that is believed, the signer first.
    pub fn believed(&self) -> impl Iterator<Item = &Authority> {
        std::iter::once(&self.signer).chain(self.before.as_ref().map(|before| &before.authority))
    }

    /// Their certificates as one text, the signer's first.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.believed().map(Authority::certificate_pem).collect()
    }

    /// Their pins, the signer's first.
    #[must_use]
    pub fn pins(&self) -> Vec<[u8; 32]> {
        self.believed().map(Authority::pin).collect()
    }

    /// What stands in `authority.pem`: the certificate whose key lies beside it.
    #[must_use]
    pub fn on_disk(&self) -> &str {
        self.before.as_ref().map_or(&self.signer, |before| &before.authority).certificate_pem()
    }

    /// What follows the coordinator's own certificate: the way from an authority before to the signer, and the signer.
    #[must_use]
    pub fn chain(&self) -> String {
        let cross = self.before.as_ref().map_or("", |before| &before.cross_pem);
        format!("{cross}{}", self.signer.certificate_pem())
    }

    /// Issues the coordinator's own certificate. Whoever believes any of the authorities believes it.
    ///
    /// # Errors
    /// B1006 when signing fails.
    pub fn issue_server(&self, name: &str, during: Validity) -> Result<Credentials, Problem> {
        let (leaf, key_pem) = self.signer.server(name, during)?;
        Ok(Credentials { certificate_pem: format!("{leaf}{}", self.chain()), key_pem, authority_pem: self.bundle() })
    }
}

/// What a rotation's file holds.
struct Successor {
    signer: Authority,
    cross_pem: String,
}

impl Successor {
    fn load(folder: &Path, file: &str) -> Result<Option<Self>, Problem> {
        const BEGIN: &str = "-----BEGIN ";
        let path = folder.join(file);
        if !path.exists() {
            return Ok(None);
        }
        let text = read_text(&path)?;
        let mut parts = text.split(BEGIN).skip(1).map(|part| format!("{BEGIN}{part}"));
        let (Some(certificate), Some(cross_pem), Some(key), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(broken(folder, &format!("{file} is not two certificates and a key")));
        };
        let signer = Authority::read(certificate, &key).map_err(|reason| broken(folder, &format!("{file}: {reason}")))?;
        Ok(Some(Self { signer, cross_pem }))
    }
}

#[cfg(test)]
mod tests;
