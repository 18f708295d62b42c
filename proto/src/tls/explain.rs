//! TLS and connection errors as people read them: what was refused, what was seen, what helps.

use super::TlsError;
use super::verify::Refused;
use crate::identity::Subject;
use crate::problem::code;
use crate::unit;
use baton_core::name::Digest;
use baton_core::problem::Problem;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};
use std::error::Error;
use std::fmt::Display;
use std::io;
use std::time::Duration;
use x509_parser::time::ASN1Time;

const ALERT: &str = "tls alert";
const CLOCKS: &str = "the clock of one of the two machines may be off: compare `date -u` on both; else join or log in again";

/// The problem of a failed attempt to reach `endpoint` (`host:port` or a socket's path).
#[must_use]
pub fn connect_problem(endpoint: &str, error: &io::Error) -> Problem {
    let problem = match rustls_error(error) {
        Some(error) => client_view(error),
        None => transport(endpoint, error),
    };
    problem.saw("address", endpoint)
}

/// The problem with the certificate a peer showed, when that is why its handshake failed.
#[must_use]
pub fn certificate_problem(error: &io::Error) -> Option<Problem> {
    match rustls_error(error)? {
        rustls::Error::InvalidCertificate(error) => Some(certificate("the peer", error)),
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => Some(Problem::new(
            code::UNKNOWN_AUTHORITY,
            "the peer does not believe this coordinator: it joined another one, or this one's authority was replaced",
        )),
        _ => None,
    }
}

/// The problem somewhere in an error's chain of causes.
#[must_use]
pub fn find_problem(error: &(dyn Error + 'static)) -> Option<Problem> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref::<Problem>().cloned())
}

impl From<TlsError> for Problem {
    fn from(error: TlsError) -> Self {
        Self::new(code::CREDENTIALS, error.to_string())
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn transport(endpoint: &str, error: &io::Error) -> Problem {
    if let Some(problem) = error.get_ref().and_then(|inner| inner.downcast_ref::<Problem>()) {
        return problem.clone();
    }
    let local = unit::command("status", "baton-coordinator");
    let local = format!("is baton-coordinator running on this machine? {local}");
    let (code, what, help) = match error.kind() {
        io::ErrorKind::TimedOut => (
            code::NO_ANSWER,
            format!("no answer from {endpoint}"),
            "is the address right, and does a firewall between the two machines let it through?",
        ),
        io::ErrorKind::UnexpectedEof => (
            code::TLS_FAILED,
            format!("{endpoint} closed the connection while it was being set up"),
            "is it really a Baton coordinator? Its log says why it refused",
        ),
        io::ErrorKind::PermissionDenied => (
            code::UNREACHABLE,
            format!("{endpoint} may not be opened by this user"),
            "be root or in the group `baton`, or use `baton login`",
        ),
        _ if endpoint.starts_with('/') => (code::UNREACHABLE, format!("{endpoint} cannot be reached"), local.as_str()),
        _ => (
            code::UNREACHABLE,
            format!("{endpoint} cannot be reached"),
            "is baton-coordinator running there, and is the address right?",
        ),
    };
    Problem::new(code, what).saw("connect", error.to_string()).help(help)
}

fn client_view(error: &rustls::Error) -> Problem {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate("the coordinator", error),
        rustls::Error::AlertReceived(alert) => alert_received(*alert),
        _ => Problem::new(code::TLS_FAILED, "no TLS 1.3 connection with the other side")
            .saw("tls", error.to_string())
            .help("is it the port of a Baton coordinator?"),
    }
}

fn certificate(whose: &str, error: &CertificateError) -> Problem {
    match error {
        CertificateError::Expired | CertificateError::NotValidYet => {
            Problem::new(code::CERTIFICATE_TIME, format!("the certificate of {whose} is not valid at this time"))
                .help(CLOCKS)
        }
        CertificateError::ExpiredContext { time, not_after } => {
            Problem::new(code::CERTIFICATE_TIME, format!("the certificate of {whose} has expired, or the clock here is off"))
                .saw("valid until", moment(*not_after))
                .saw("clock here", moment(*time))
                .help(CLOCKS)
        }
        CertificateError::NotValidYetContext { time, not_before } => Problem::new(
            code::CERTIFICATE_TIME,
            format!("the certificate of {whose} is not valid yet, or the clock here is off"),
        )
        .saw("valid from", moment(*not_before))
        .saw("clock here", moment(*time))
        .help(CLOCKS),
        // Another authority of the same name: its signature does not fit ours.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Problem::new(code::UNKNOWN_AUTHORITY, format!("the certificate of {whose} is signed by another authority"))
                .saw("tls", error.to_string())
                .help("it belongs to another Baton fleet, or the authority was made anew: join or log in again")
        }
        CertificateError::Other(other) => match other.0.downcast_ref() {
            Some(refused) => refusal(whose, refused),
            None => unusable(whose, error),
        },
        _ => unusable(whose, error),
    }
}

fn refusal(whose: &str, refused: &Refused) -> Problem {
    match refused {
        Refused::Pin { expected, sent } => {
            // Whole: two that begin alike are still two.
            let sent: Vec<String> = sent.iter().map(|pin| Digest::from_bytes(*pin).to_string()).collect();
            Problem::new(
                code::WRONG_PIN,
                "this join token belongs to another coordinator: the pinned authority is not the one seen",
            )
            .saw("token pins", Digest::from_bytes(*expected).to_string())
            .saw("seen", if sent.is_empty() { "no authority".to_owned() } else { sent.join(", ") })
            .help(
                "check the address, and that the token was copied as it was shown. One from before the authority was rotated is good for \
                 nothing once the old one is retired: make a new one. Else somebody may be listening in between, or the authority was made anew",
            )
        }
        Refused::NotCoordinator(identity) => Problem::new(code::NOT_A_COORDINATOR, "the other side is not a coordinator")
            .saw("its certificate", identity.to_string())
            .help("check the address; a host that answers as a coordinator has been tampered with"),
        Refused::Identity(error) => unusable(whose, error),
    }
}

fn unusable(whose: &str, error: &dyn Display) -> Problem {
    Problem::new(code::TLS_FAILED, format!("the certificate of {whose} cannot be used")).saw("tls", error.to_string())
}

fn alert_received(alert: AlertDescription) -> Problem {
    let refused = |what: &str| {
        Problem::new(code::REFUSED, what).help("join again with a token made for its name, or log in again with a new one")
    };
    let problem = match alert {
        AlertDescription::CertificateExpired => Problem::new(
            code::CERTIFICATE_TIME,
            "the coordinator refused this machine's certificate: by its clock it has expired or is not valid yet",
        )
        .help(CLOCKS),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            refused("the coordinator refused this machine's certificate: another authority signed it")
        }
        AlertDescription::CertificateRevoked => {
            refused("the coordinator refused this machine's certificate: it was revoked")
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRequired
        | AlertDescription::AccessDenied => refused("the coordinator refused this machine's certificate"),
        _ => Problem::new(code::TLS_FAILED, "the other side ended the TLS handshake"),
    };
    problem.saw(ALERT, format!("{alert:?}"))
}

/// Whether the other side does not accept who this side is. Nothing but people changes that.
#[must_use]
pub fn refuses_identity(problem: &Problem) -> bool {
    match problem.code {
        code::REFUSED | code::WHO_ARE_YOU | code::NOT_ALLOWED => true,
        code::CERTIFICATE_TIME => problem.seen.iter().any(|(label, _)| label == ALERT),
        _ => false,
    }
}

/// The same problem; where it is that this side's own certificate is outside its dates, with both of them and the clock's
/// reading, since 1970.
#[must_use]
pub fn with_dates(problem: Problem, own: &Subject, now: Duration) -> Problem {
    // Only the other side's alert is about ours.
    if problem.code != code::CERTIFICATE_TIME || !problem.seen.iter().any(|(label, _)| label == ALERT) {
        return problem;
    }
    problem
        .saw("valid from", date(own.not_before))
        .saw("valid until", date(own.not_after))
        .saw("clock here", moment(UnixTime::since_unix_epoch(now)))
}

/// A certificate's date as people read it, from seconds since 1970.
#[must_use]
pub fn date(seconds: i64) -> String {
    let date = ASN1Time::from_timestamp(seconds).ok();
    date.map_or_else(|| format!("{seconds} s after 1970"), |date| date.to_string())
}

fn moment(time: UnixTime) -> String {
    date(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
