//! An authority that was there before Baton: its certificate and key, looked at closely before anything relies on them.

use super::authority::{Authority, Validity, der};
use crate::store::WallTime;
use baton_core::problem::{Code, Problem};
use baton_proto::tls::{Credentials, verify_coordinator};
use rcgen::{KeyPair, PublicKeyData};
use std::path::{Path, PathBuf};
use std::time::Duration;
use x509_parser::prelude::X509Certificate;

/// Where the certificate and the key of an authority are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityFiles {
    /// In PEM. Of a chain the first counts: the one whose key this is.
    pub certificate: PathBuf,
    /// In PEM, PKCS #8, not encrypted.
    pub key: PathBuf,
}

/// How long the certificate lives that is signed for the trial, in seconds.
const TRIAL: i64 = 60;

impl AuthorityFiles {
    /// Reads the authority and proves that it can sign what hosts and operators believe.
    ///
    /// # Errors
    /// B1030 for a certificate that cannot sign here, B1031 for a key that is not its own or cannot be used.
    pub fn read(&self, now: WallTime) -> Result<Authority, Problem> {
        let certificate_pem = self.certificate_pem()?;
        let unreadable = |reason: &dyn std::fmt::Display| {
            self.certificate("the authority's certificate cannot be read")
                .saw("reason", reason.to_string())
                .help("give a certificate in PEM: its file begins with -----BEGIN CERTIFICATE-----")
        };
        let der = der(&certificate_pem).ok_or_else(|| unreadable(&"not PEM"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|error| unreadable(&error))?;
        self.may_sign(&parsed)?;
        self.is_valid(&parsed, now)?;
        let key = self.key_pair()?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(self
                .key("the key is not the one of the authority's certificate")
                .saw("certificate", self.certificate.display().to_string())
                .help("give the key that the certificate was made for"));
        }
        let authority = Authority::of(certificate_pem, key)
            .map_err(|reason| self.certificate("this authority cannot sign certificates here").saw("reason", reason))?;
        self.proven(&authority, now)?;
        Ok(authority)
    }

    fn certificate_pem(&self) -> Result<String, Problem> {
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        const END: &str = "-----END CERTIFICATE-----";
        let text = std::fs::read_to_string(&self.certificate).map_err(|error| {
            self.certificate("the authority's certificate cannot be read")
                .saw("file system", error.to_string())
                .help("--authority-cert names a file with a certificate in PEM")
        })?;
        let first = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
        let (body, _) = first.ok_or_else(|| {
            self.certificate("the authority's file holds no certificate")
                .help("give a certificate in PEM: openssl x509 -in FILE -inform DER turns another form into it")
        })?;
        Ok(format!("{BEGIN}{body}{END}\n"))
    }

    fn may_sign(&self, parsed: &X509Certificate<'_>) -> Result<(), Problem> {
        let refused = |what: &str, seen: &str| {
            self.certificate(what)
                .saw("extension", seen)
                .help("give a root's or an intermediate's certificate: one made with CA:TRUE and keyCertSign")
        };
        // A length of the path below it, which is 0 or more, always leaves room for what is signed here: no authorities.
        match parsed.basic_constraints() {
            Ok(Some(constraints)) if constraints.value.ca => {}
            Ok(Some(_)) => return Err(refused("this certificate is no authority's", "basicConstraints says CA:FALSE")),
            Ok(None) => return Err(refused("this certificate is no authority's", "there are no basicConstraints")),
            Err(error) => return Err(refused("this certificate is no authority's", &error.to_string())),
        }
        match parsed.key_usage() {
            Ok(Some(usage)) if !usage.value.key_cert_sign() => {
                Err(refused("this certificate's key may not sign certificates", "keyUsage has no keyCertSign"))
            }
            Err(error) => Err(refused("this certificate's key usage cannot be read", &error.to_string())),
            Ok(_) => Ok(()),
        }
    }

    fn is_valid(&self, parsed: &X509Certificate<'_>, now: WallTime) -> Result<(), Problem> {
        let validity = parsed.validity();
        let refused = |what: &str| {
            self.certificate(what)
                .saw("valid", format!("from {} to {}", validity.not_before, validity.not_after))
                .saw("clock", format!("{} seconds since 1970", now.0))
        };
        if now.0 >= validity.not_after.timestamp() {
            return Err(refused("the authority's certificate has expired").help("have it renewed, or set the clock"));
        }
        if now.0 < validity.not_before.timestamp() {
            return Err(refused("the authority's certificate is not valid yet").help("wait until it is, or set the clock"));
        }
        Ok(())
    }

    fn key_pair(&self) -> Result<KeyPair, Problem> {
        let text = std::fs::read_to_string(&self.key).map_err(|error| {
            self.key("the authority's key cannot be read")
                .saw("file system", error.to_string())
                .help("--authority-key names a file with a key in PEM that its user can read")
        })?;
        if text.contains("ENCRYPTED") {
            return Err(self
                .key("the authority's key is encrypted")
                .help("nobody is there to type a password: openssl pkcs8 -in FILE -out KEY, and guard KEY"));
        }
        // What is kept is what was written anew, so that is what must be readable.
        let read = KeyPair::from_pem(&text).and_then(|key| KeyPair::from_pem(&key.serialize_pem()));
        read.map_err(|error| {
            self.key("the authority's key cannot be used")
                .saw("reason", error.to_string())
                .saw("supported", "ECDSA on P-256 or P-384, Ed25519, RSA from 2048 bits, as PKCS #8 in PEM")
                .help("another form of key becomes PKCS #8 by: openssl pkcs8 -topk8 -nocrypt -in FILE -out KEY")
        })
    }

    /// Signs a certificate and has it checked as hosts do it: no rule of this page knows what they would refuse.
    fn proven(&self, authority: &Authority, now: WallTime) -> Result<(), Problem> {
        let (certificate_pem, key_pem) = authority.server("trial", Validity { now, life: TRIAL })?;
        let trial = Credentials { certificate_pem, key_pem, authority_pem: authority.certificate_pem().to_owned() };
        let now = Duration::from_secs(u64::try_from(now.0).unwrap_or(0));
        verify_coordinator(&trial, now).map_err(|error| {
            self.certificate("hosts would not believe what this authority signs")
                .saw("reason", error.to_string())
                .help("have an intermediate made for Baton: without name constraints, with a plain subject")
        })
    }

    fn certificate(&self, what: &str) -> Problem {
        Problem::new(Code(1030), what).saw("file", self.certificate.display().to_string())
    }

    fn key(&self, what: &str) -> Problem {
        Problem::new(Code(1031), what).saw("file", self.key.display().to_string())
    }
}

/// Reads an authority that was brought and keeps it in a folder; false where it is kept there already.
///
/// # Errors
/// Those of [`AuthorityFiles::read`]; B1008 where the folder has another authority, B1001 when it cannot be written.
pub fn bring(files: &AuthorityFiles, folder: &Path, now: WallTime) -> Result<(Authority, bool), Problem> {
    let brought = files.read(now)?;
    match Authority::load(folder) {
        Ok(kept) if kept.pin() == brought.pin() => Ok((kept, false)),
        Err(problem) if problem.code != Code(1002) => Err(problem),
        // Refused by itself where there is another.
        _ => brought.keep(folder).map(|kept| (kept, true)),
    }
}

#[cfg(test)]
mod tests;
