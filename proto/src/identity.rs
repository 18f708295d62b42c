//! Who a peer is, as its certificate says: the one place that reads it.

use baton_core::name::{HostName, OperatorName, ServiceName};
use std::fmt;
use std::str::FromStr;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const SCHEME: &str = "baton://";
/// Of the URIs beside it that name the services an operator may command.
const SERVICE: &str = "baton-service://";

/// Who a peer is.
///
/// In a certificate it is the URI in the subject's alternative names: `baton://host/web1`, `baton://admin/ana`,
/// `baton://coordinator/main`. The common name means nothing: libraries disagree about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// Showed no certificate.
    Anonymous,
    Coordinator,
    Host(HostName),
    Operator {
        role: Role,
        name: OperatorName,
    },
}

/// What an operator may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Admin,
    Deployer,
    Viewer,
    Ci,
}

/// A certificate's subject: who, and which of their certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub identity: Identity,
    /// The services an operator may command; empty: all.
    pub services: Vec<ServiceName>,
    /// The name of who signed it, in DER.
    pub issuer: Vec<u8>,
    /// See [`serial_text`].
    pub serial: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
}

impl Subject {
    /// When the certificate should be renewed, in seconds since 1970: after two thirds of its life, so that a coordinator may
    /// be away for the last third without anybody losing a certificate.
    #[must_use]
    pub const fn renew_at(&self) -> i64 {
        let life = self.not_after.saturating_sub(self.not_before);
        self.not_before.saturating_add(life - life / 3)
    }
}

/// An identity or certificate that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    #[error("`{0}` is not an identity such as `host/web1` or `admin/ana`")]
    Text(String),
    #[error("the certificate is not X.509: {0}")]
    Certificate(String),
    #[error("the certificate names no Baton identity (a `baton://` URI among its alternative names)")]
    Missing,
    #[error("the certificate names more than one Baton identity")]
    Ambiguous,
}

/// Reads the subject of a certificate.
///
/// Says nothing about whether the certificate can be believed: only certificates that passed the handshake should come here.
///
/// # Errors
/// [`InvalidIdentity`], also for a certificate with two identities: a peer is one.
pub fn subject(certificate_der: &[u8]) -> Result<Subject, InvalidIdentity> {
    let invalid = |error: &dyn fmt::Display| InvalidIdentity::Certificate(error.to_string());
    let (_, certificate) = X509Certificate::from_der(certificate_der).map_err(|error| invalid(&error))?;
    let names = certificate.subject_alternative_name().map_err(|error| invalid(&error))?;
    let every = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let services = every.clone().filter_map(|uri| uri.strip_prefix(SERVICE));
    let services = services.map(|name| name.parse().map_err(|_| InvalidIdentity::Text(name.chars().take(80).collect())));
    let mut uris = every.filter(|uri| uri.starts_with(SCHEME));
    let uri = uris.next().ok_or(InvalidIdentity::Missing)?;
    if uris.next().is_some() {
        return Err(InvalidIdentity::Ambiguous);
    }
    Ok(Subject {
        identity: Identity::from_uri(uri)?,
        services: services.collect::<Result<_, _>>()?,
        issuer: certificate.issuer().as_raw().to_vec(),
        serial: serial_text(certificate.raw_serial()),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

/// Writes a serial number as lower-case hexadecimal digits.
///
/// Zero bytes in front are left out: DER adds one to keep a number positive, and who issued it may not have counted it.
#[must_use]
pub fn serial_text(serial: &[u8]) -> String {
    let significant = serial.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &serial[first..]);
    data_encoding::HEXLOWER.encode(significant)
}

/// The URI that stands in a certificate beside the identity, for a service it may command.
#[must_use]
pub fn service_uri(service: &ServiceName) -> String {
    format!("{SERVICE}{service}")
}

impl Identity {
    /// The URI that stands in a certificate.
    ///
    /// An anonymous peer has none: its `baton://anonymous` is not read back by [`Identity::from_uri`].
    #[must_use]
    pub fn to_uri(&self) -> String {
        match self {
            Self::Coordinator => format!("{SCHEME}coordinator/main"),
            _ => format!("{SCHEME}{self}"),
        }
    }

    /// Reads the URI of a certificate.
    ///
    /// # Errors
    /// When it is not one of Baton's, or its name breaks the rules for names.
    pub fn from_uri(uri: &str) -> Result<Self, InvalidIdentity> {
        let invalid = || InvalidIdentity::Text(uri.chars().take(80).collect());
        let (kind, name) = uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(invalid)?;
        if kind == "host" {
            return name.parse().map(Self::Host).map_err(|_| invalid());
        }
        let operator: OperatorName = name.parse().map_err(|_| invalid())?;
        match kind {
            "coordinator" => Ok(Self::Coordinator),
            _ => Ok(Self::Operator { role: kind.parse().map_err(|_| invalid())?, name: operator }),
        }
    }
}

/// As people read it: `host/web1`, `admin/ana`, `coordinator`, `anonymous`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Coordinator => f.write_str("coordinator"),
            Self::Host(name) => write!(f, "host/{name}"),
            Self::Operator { role, name } => write!(f, "{role}/{name}"),
        }
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;
    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        match text {
            "anonymous" => Ok(Self::Anonymous),
            "coordinator" => Ok(Self::Coordinator),
            _ => Self::from_uri(&format!("{SCHEME}{text}")),
        }
    }
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Deployer, Self::Viewer, Self::Ci];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Deployer => "deployer",
            Self::Viewer => "viewer",
            Self::Ci => "ci",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = InvalidIdentity;
    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| InvalidIdentity::Text(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_from_its_uri_and_its_text() {
        for text in ["host/web1.example.net", "admin/ana", "deployer/d", "viewer/v@x", "ci/pipeline_1", "coordinator"] {
            let identity: Identity = text.parse().unwrap();
            assert_eq!(identity.to_string(), text);
            assert_eq!(Identity::from_uri(&identity.to_uri()).unwrap(), identity);
        }
    }

    #[test]
    fn what_is_not_exactly_an_identity_is_refused() {
        for uri in [
            "",
            "baton://",
            "baton://host",
            "baton://host/",
            "baton://host/web1/",
            "baton://host/web1/extra",
            "baton://host/../web1",
            "baton://host/web1?x",
            "baton://host/we b1",
            "baton://Host/web1",
            "baton://root/ana",
            "baton://anonymous",
            "baton://anonymous/x",
            "baton://coordinator",
            "spiffe://host/web1",
            "BATON://host/web1",
            "https://host/web1",
        ] {
            assert!(Identity::from_uri(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn an_anonymous_peer_has_no_uri_that_could_stand_in_a_certificate() {
        assert!(Identity::from_uri(&Identity::Anonymous.to_uri()).is_err());
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let identity = "host/web1".parse().unwrap();
        let subject = Subject {
            identity,
            services: Vec::new(),
            issuer: Vec::new(),
            serial: String::new(),
            not_before: 1_000,
            not_after: 1_090,
        };
        assert_eq!(subject.renew_at(), 1_060);
    }

    #[test]
    fn a_serial_reads_the_same_with_and_without_the_zero_in_front() {
        assert_eq!(serial_text(&[0, 0x9f, 1]), "9f01");
        assert_eq!(serial_text(&[0x9f, 1]), "9f01");
        assert_eq!(serial_text(&[]), "");
    }
}
