//! TLS towards clients: one certificate a pool, read again while the proxy runs.
//!
//! Whoever renews a certificate replaces two files, one after the other. Between the two they do not belong together, and are
//! wrong like any other pair that cannot be served: then the pair before is served on, the reason is told, and the files are
//! looked at again a moment later. Connections that are there keep the pair they began with.

use super::control::Certified;
use super::members::lock;
use crate::balancer::problem;
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, version};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// From one look at the files to the next.
const EVERY: Duration = Duration::from_secs(1);

/// A longer file is no certificate.
const FILE_MAX: u64 = 1 << 20;

/// What clients are offered, the best first (RFC 7301).
const H2: &[u8] = b"h2";
const H1: &[u8] = b"http/1.1";

/// The files of a pool's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate and those between it and its authority, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// What both files say.
#[derive(PartialEq, Eq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A pool's certificate: the files, and what is made of them.
pub(super) struct Tls {
    files: TlsFiles,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    /// None: there was no pair yet that could be served.
    config: Option<Arc<ServerConfig>>,
    /// What was tried last: the same is not tried again.
    tried: Option<Pair>,
    wrong: Option<String>,
}

impl Tls {
    /// Reads the files; a pair that cannot be served is told, and awaited.
    pub(super) fn new(files: TlsFiles) -> Self {
        let tls = Self { files, inside: Mutex::default() };
        tls.read_again();
        tls
    }

    /// What the next connection is served with.
    pub(super) fn config(&self) -> Option<Arc<ServerConfig>> {
        lock(&self.inside).config.clone()
    }

    pub(super) fn look(&self) -> Certified {
        let inside = lock(&self.inside);
        Certified { is_served: inside.config.is_some(), wrong: inside.wrong.clone() }
    }

    fn read_again(&self) {
        let pair = self.files.read();
        let mut inside = lock(&self.inside);
        match pair {
            Ok(pair) if inside.tried.as_ref() == Some(&pair) => {}
            Ok(pair) => {
                match server_config(&pair) {
                    Ok(config) => (inside.config, inside.wrong) = (Some(Arc::new(config)), None),
                    Err(error) => inside.wrong = Some(format!("{}: {error}", self.files.certificate.display())),
                }
                inside.tried = Some(pair);
            }
            Err(error) => (inside.wrong, inside.tried) = (Some(error), None),
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Pair, String> {
        let read = |path: &Path| bytes(path).map_err(|error| format!("{}: {error}", path.display()));
        Ok(Pair { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    /// Whether clients could be served with them now.
    ///
    /// # Errors
    /// B0447: what is wrong with them.
    pub(crate) fn check(&self, pool: &PoolName) -> Result<(), Problem> {
        Tls::new(self.clone()).look().wrong.map_or(Ok(()), |wrong| Err(problem::no_certificate(pool, &wrong)))
    }
}

/// Looks at the files of every certificate, again and again.
pub(super) async fn run(certificates: Vec<Arc<Tls>>) {
    while !certificates.is_empty() {
        tokio::time::sleep(EVERY).await;
        for tls in certificates.iter().map(Arc::clone) {
            // A disk that hangs must not hold up requests.
            let _ = tokio::task::spawn_blocking(move || tls.read_again()).await;
        }
    }
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn server_config(pair: &Pair) -> Result<ServerConfig, String> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&pair.certificate).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if chain.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|error| format!("its key: {error}"))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&version::TLS13, &version::TLS12]).map_err(|error| error.to_string())?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![H2.to_vec(), H1.to_vec()];
    Ok(config)
}

/// Whether a handshake ended in HTTP/2.
pub(super) fn is_h2(protocol: Option<&[u8]>) -> bool {
    protocol == Some(H2)
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_renewed_pair_is_served_and_one_that_does_not_fit_is_told_while_the_old_one_is_served_on() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles { certificate: folder.path().join("chain.pem"), key: folder.path().join("key.pem") };
        let tls = Tls::new(files.clone());
        let seen = tls.look();
        assert!(!seen.is_served && seen.wrong.unwrap().contains("chain.pem"));

        let put = |certificate: &str, key: &str| {
            fs::write(&files.certificate, certificate).unwrap();
            fs::write(&files.key, key).unwrap();
            tls.read_again();
            tls.look()
        };
        let [old, new] = [pair(), pair()];
        assert_eq!(put(&old.0, &old.1), Certified { is_served: true, wrong: None });
        let before = tls.config().unwrap();
        for (certificate, key) in [(&new.0, &old.1), (&String::new(), &old.1), (&new.0, &"-----BEGIN".to_owned())] {
            let seen = put(certificate, key);
            assert!(seen.is_served && seen.wrong.is_some(), "{seen:?}");
            assert!(Arc::ptr_eq(&before, &tls.config().unwrap()));
        }
        fs::remove_file(&files.key).unwrap();
        tls.read_again();
        assert!(tls.look().wrong.unwrap().contains("key.pem"));
        assert_eq!(put(&new.0, &new.1), Certified { is_served: true, wrong: None });
        let after = tls.config().unwrap();
        assert!(!Arc::ptr_eq(&before, &after));
        tls.read_again();
        assert!(Arc::ptr_eq(&after, &tls.config().unwrap()), "what is the same is not made anew");
        assert_eq!(files.check(&"shop".parse().unwrap()), Ok(()));
    }
}
