//! Whom each side believes, beyond what the chain of certificates proves.

use super::credentials::pin;
use super::{Credentials, Notice, TlsError, authority_pins, provider};
use crate::identity::{self, Identity, InvalidIdentity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Why a certificate was refused although its chain may be fine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// No certificate that was sent has the hash the token carries.
    #[error("none of the certificates it sent is the authority this join token belongs to")]
    Pin { expected: [u8; 32], sent: Vec<[u8; 32]> },
    /// A genuine certificate, of somebody who is no coordinator.
    #[error("its certificate belongs to {0}, not to a coordinator")]
    NotCoordinator(Identity),
    #[error(transparent)]
    Identity(InvalidIdentity),
}

/// Whom a client believes.
#[derive(Debug)]
pub(super) enum Trust {
    Authorities {
        roots: Arc<RootCertStore>,
        /// The hashes of their certificates.
        believed: Vec<[u8; 32]>,
        notice: Notice,
    },
    /// BLAKE3 of the authority's certificate.
    Pin([u8; 32]),
}

/// Believes coordinators, and nobody else the authority signed: an agent's stolen certificate serves nobody.
#[derive(Debug)]
pub(super) struct CoordinatorVerifier {
    pub(super) trust: Trust,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// Checks, as a client would at a time since 1970, that these credentials are a coordinator's of an authority they name.
///
/// # Errors
/// What a client would refuse them for.
pub fn verify_coordinator(credentials: &Credentials, now: Duration) -> Result<(), TlsError> {
    let believed = authority_pins(&credentials.authority_pem)?;
    let trust = Trust::Authorities { roots: credentials.roots()?, believed, notice: Notice::default() };
    let verifier = CoordinatorVerifier { trust, algorithms: provider().signature_verification_algorithms };
    let chain = credentials.chain()?;
    let (leaf, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    // Not verified; rustls wants one.
    let name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
    verifier.verify_server_cert(leaf, intermediates, &name, &[], UnixTime::since_unix_epoch(now))?;
    Ok(())
}

impl CoordinatorVerifier {
    fn roots(&self, sent: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, Error> {
        let expected = match &self.trust {
            Trust::Authorities { roots, .. } => return Ok(roots.clone()),
            Trust::Pin(expected) => expected,
        };
        let Some(authority) = sent.iter().find(|certificate| pin(certificate) == *expected) else {
            return Err(Refused::Pin { expected: *expected, sent: sent.iter().map(pin).collect() }.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        Ok(Arc::new(roots))
    }
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.roots(intermediates)?;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, self.algorithms.all)?;
        match identity::subject(end_entity) {
            Ok(subject) if subject.identity == Identity::Coordinator => {
                if let Trust::Authorities { believed, notice, .. } = &self.trust {
                    notice.compare(intermediates, believed);
                }
                Ok(ServerCertVerified::assertion())
            }
            Ok(subject) => Err(Refused::NotCoordinator(subject.identity).into()),
            Err(error) => Err(Refused::Identity(error).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Believes whom the authority signed, when the certificate names exactly one identity.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    pub(super) chains: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for PeerVerifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(end_entity, intermediates, now)?;
        identity::subject(end_entity).map_err(Refused::Identity)?;
        Ok(verified)
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        CertificateError::Other(OtherError(Arc::new(refused))).into()
    }
}
